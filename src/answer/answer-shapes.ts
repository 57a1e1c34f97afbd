/** Forms of whole answers, made of the forms of their parts. */
import type { AnswerShape } from '../grammar/constraint.js'
import type { ThinkingMarks } from './thinking.js'

/** A part of a structural tag. */
type Format = Readonly<Record<string, unknown>>

/** The same when the model ends its thinking first, which began in the prompt. */
export function afterThinking(shape: AnswerShape, [, close]: ThinkingMarks): AnswerShape {
  const thinking = { type: 'tag', begin: '', content: { type: 'any_text' }, end: close }
  return { tag: { type: 'sequence', elements: [thinking, { type: 'regex', pattern: '\\n{0,2}' }, inTag(shape)] } }
}

/** The answer is a text of this form, or a call and nothing else. */
export function withCalls(text: AnswerShape, calls: AnswerShape): AnswerShape {
  return { tag: { type: 'or', elements: [inTag(text), oneCall(inTag(calls))] } }
}

/** The library takes no choice between what ends by itself and calls that more may follow. */
function oneCall(format: Format): Format {
  if (format.type === 'triggered_tags') return { type: 'or', elements: format.tags }
  return Array.isArray(format.elements) ? { ...format, elements: format.elements.map(oneCall) } : format
}

function inTag(shape: AnswerShape): Format {
  if ('tag' in shape) return shape.tag
  if ('regex' in shape) return { type: 'regex', pattern: shape.regex }
  if ('grammar' in shape) return { type: 'grammar', grammar: shape.grammar }
  return { type: 'json_schema', json_schema: 'schema' in shape ? shape.schema : { type: 'object' } }
}
