/** What an answer with tools may look like, as a structural tag: free text in which every call is valid by its schema. */
import type { AnswerShape } from '../grammar/constraint.js'
import type { Tool, ToolChoice } from './parts.js'
import { THINK, type ThinkingMarks } from './thinking.js'

/**
 * - hermes: <tool_call>, a JSON object with name and arguments, </tool_call> (Hermes, Qwen2.5, Qwen3)
 * - llama3: the whole answer is a JSON object with name and parameters
 * - xml: <tool_call>, <function=…> with <parameter=…> in it, </tool_call> (Qwen3.5)
 */
export type ToolFormat = 'hermes' | 'llama3' | 'xml'

export interface CallShapeOptions {
  tools: readonly Tool[]
  choice: ToolChoice
  parallel: boolean
  marks: ThinkingMarks | undefined
  opened: boolean
}

type Format = Readonly<Record<string, unknown>>

const NO_ARGUMENTS = { type: 'object', properties: {}, additionalProperties: false }
/** Models put empty lines between their thinking and the answer. */
const GAP: Format = { type: 'regex', pattern: '\\n{0,2}' }

/** Undefined: anything may come. */
export function callShape(format: ToolFormat, options: CallShapeOptions): AnswerShape | undefined {
  const { choice, marks, opened } = options
  const name = typeof choice === 'object' ? choice.name : undefined
  const tools = options.tools.filter((tool) => name === undefined || tool.name === name)
  if (choice === 'none' || tools.length === 0) return undefined
  const isNeeded = choice !== 'auto'
  const one = name !== undefined || !options.parallel
  const calls = format === 'llama3' ? llamaCalls(tools, isNeeded, one) : taggedCalls(format, tools, isNeeded, one)
  if (opened) return { tag: { type: 'sequence', elements: [thinking('', marks), GAP, calls] } }
  if (!marks || !isNeeded) return { tag: calls }
  const thoughtful = { type: 'sequence', elements: [thinking(marks[0], marks), GAP, calls] }
  return { tag: { type: 'or', elements: [thoughtful, calls] } }
}

function thinking(begin: string, [, close]: ThinkingMarks = THINK): Format {
  return { type: 'tag', begin, content: { type: 'any_text' }, end: close }
}

function taggedCalls(format: ToolFormat, tools: readonly Tool[], isNeeded: boolean, one: boolean): Format {
  const tags = tools.map(({ name, parameters = NO_ARGUMENTS }) =>
    format === 'xml'
      ? {
          type: 'tag',
          begin: `<tool_call>\n<function=${name}>\n`,
          content: { type: 'qwen_xml_parameter', json_schema: parameters },
          end: '</function>\n</tool_call>',
        }
      : {
          type: 'tag',
          begin: `<tool_call>\n{"name": ${JSON.stringify(name)}, "arguments": `,
          content: { type: 'json_schema', json_schema: parameters },
          end: '}\n</tool_call>',
        },
  )
  return {
    type: 'triggered_tags',
    triggers: ['<tool_call>'],
    tags,
    at_least_one: isNeeded,
    stop_after_first: one,
  }
}

/**
 * There is no marker: an answer that begins with a brace is a call, any other is text. The library has no form for that; ours
 * is written out where the schemas are (src/grammar/shape-grammar.ts).
 */
function llamaCalls(tools: readonly Tool[], isNeeded: boolean, one: boolean): Format {
  const tags = tools.map(({ name, parameters = NO_ARGUMENTS }) => ({
    begin: `{"name": ${JSON.stringify(name)}, "parameters": `,
    json_schema: parameters,
    end: '}',
  }))
  return { type: 'json_calls', tags, separator: '; ', many: !one, or_text: !isNeeded }
}
