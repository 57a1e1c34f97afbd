/** What the text of an answer is made of: thinking, text and tool calls, told while it comes. */

export type AnswerPart =
  | { type: 'text'; text: string }
  | { type: 'reasoning'; text: string }
  /** a tool call begins; `index` counts them from 0 */
  | { type: 'call-start'; index: number; id: string; name: string }
  /** more of the JSON text of its arguments */
  | { type: 'call-arguments'; index: number; text: string }
  /** it is complete; `arguments` is the JSON text of an object */
  | { type: 'call-end'; index: number; id: string; name: string; arguments: string }

/** Takes an answer's text piece by piece. Text that looked like a tool call and is none comes as text: nothing is lost. */
export interface AnswerParser {
  push(text: string): AnswerPart[]
  /** the answer has ended */
  flush(): AnswerPart[]
}

/** A function that the model may ask for. */
export interface Tool {
  name: string
  description?: string
  /** JSON Schema of its arguments, an object; default: no arguments */
  parameters?: Readonly<Record<string, unknown>>
}

/** auto: the model decides; none: no tool; required: at least one; or this one */
export type ToolChoice = 'auto' | 'none' | 'required' | { name: string }
