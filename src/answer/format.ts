/** How a model writes tool calls and its thinking, as its chat template shows. */
import { OnebitError } from '../errors.js'
import type { AnswerShape } from '../grammar/constraint.js'
import { callShape, type ToolFormat } from './call-shape.js'
import { FormatParser } from './format-parser.js'
import type { AnswerParser, Tool, ToolChoice } from './parts.js'
import { opensThinking, THINK, type ThinkingMarks, thinkingMarks } from './thinking.js'

export type { ToolFormat } from './call-shape.js'

/** What of an answer is known before it comes. */
export interface AnswerStart {
  /** the prompt ended inside the model's thinking (see `opensThinking`) */
  opened?: boolean
}

export interface AnswerFormat {
  /** undefined: the template shows no form of tool calls that is known here */
  readonly toolFormat: ToolFormat | undefined
  /** whether the model may think before it answers */
  readonly thinks: boolean
  /** between which it thinks */
  readonly marks: ThinkingMarks | undefined
  /** markers of calls and thinking: where they are special tokens, their text has to be shown to the parser */
  readonly markers: readonly string[]
  /** Only calls of these tools are calls; without tools everything but the thinking is text. */
  parser(tools?: readonly Tool[], start?: AnswerStart): AnswerParser
  /**
   * What an answer has to look like, so that its calls are valid by the tools' schemas; undefined: anything may come.
   * `parallel` false: at most one call.
   */
  shape(tools: readonly Tool[], choice?: ToolChoice, parallel?: boolean, start?: AnswerStart): AnswerShape | undefined
}

/** The format of answers to prompts that this template has rendered; without a template: text. */
export function answerFormat(template: string | undefined): AnswerFormat {
  const source = template ?? ''
  const toolFormat = toolFormatOf(source)
  const marks = thinkingMarks(source)
  const thinks = marks !== undefined
  const markers = [...(marks ?? []), ...(toolFormat ? MARKERS[toolFormat] : [])]
  return {
    toolFormat,
    thinks,
    marks,
    markers,
    parser: (tools = [], { opened = false } = {}) =>
      new FormatParser({
        toolFormat: tools.length > 0 ? toolFormat : undefined,
        marks: thinks || opened ? (marks ?? THINK) : undefined,
        opened,
        tools,
      }),
    shape: (tools, choice = 'auto', parallel = true, { opened = false } = {}) =>
      toolFormat && callShape(toolFormat, { tools, choice, parallel, marks, opened }),
  }
}

const MARKERS: Readonly<Record<ToolFormat, readonly string[]>> = {
  hermes: ['<tool_call>', '</tool_call>'],
  xml: ['<tool_call>', '</tool_call>'],
  llama3: ['<|python_tag|>'],
}

function toolFormatOf(source: string): ToolFormat | undefined {
  if (!source.includes('tools')) return undefined
  if (source.includes('<function=') && source.includes('<parameter=')) return 'xml'
  if (source.includes('<tool_call>') && source.includes('arguments')) return 'hermes'
  const isLlama = source.includes('python_tag') || source.includes('ipython')
  return isLlama && source.includes('parameters') && source.includes('tool_call') ? 'llama3' : undefined
}

/** @throws OnebitError ERR_NO_TOOLS when the template shows no form of calls that is known here */
export function requireTools({ toolFormat }: AnswerFormat): void {
  if (toolFormat !== undefined) return
  throw new OnebitError('ERR_NO_TOOLS', "This model's chat template knows of no tools.", {
    hint: 'Use a model that was made for them, such as Qwen3, or ask for an answer of a given form (schema).',
  })
}

/** What the ids of a prompt say of its answer; `decode` is the tokenizer's. */
export function answerStart(
  { marks }: AnswerFormat,
  prompt: Int32Array,
  decode: (ids: Int32Array) => string,
): Required<AnswerStart> {
  return { opened: marks !== undefined && opensThinking(decode(prompt.subarray(-8)), marks) }
}
