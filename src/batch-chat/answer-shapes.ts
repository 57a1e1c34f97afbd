/** Forms of whole answers, made of the forms of their parts. */
import type { AnswerShape } from '../grammar/constraint.js'

/** The same when the model ends its thinking first, which began in the prompt. */
export function afterThinking(shape: AnswerShape): AnswerShape {
  const thinking = { type: 'tag', begin: '', content: { type: 'any_text' }, end: '</think>' }
  return { tag: { type: 'sequence', elements: [thinking, { type: 'regex', pattern: '\\n{0,2}' }, inTag(shape)] } }
}

/** The answer has either form. */
export function withCalls(text: AnswerShape, calls: AnswerShape): AnswerShape {
  return { tag: { type: 'or', elements: [inTag(text), inTag(calls)] } }
}

function inTag(shape: AnswerShape): Record<string, unknown> {
  if ('tag' in shape) return shape.tag
  if ('regex' in shape) return { type: 'regex', pattern: shape.regex }
  if ('grammar' in shape) return { type: 'grammar', grammar: shape.grammar }
  return { type: 'json_schema', json_schema: 'schema' in shape ? shape.schema : { type: 'object' } }
}
