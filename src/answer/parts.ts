/** What the text of an answer is made of: thinking, text and tool calls, told while it comes. */

/**
 * Something that an answer goes on with: more of its text, more of the thinking before it, or a call of a tool, which begins
 * (`call-start`), comes with its arguments (`call-arguments`) and is complete (`call-end`).
 */
export type AnswerPart = TextPart | ReasoningPart | CallStart | CallArguments | CallEnd

/** More of what is meant for the reader. */
export interface TextPart {
  /** what tells the parts of an answer apart */
  type: 'text'
  /** whole characters */
  text: string
}

/** More of the model's thinking before its answer. */
export interface ReasoningPart {
  /** what tells the parts of an answer apart */
  type: 'reasoning'
  /** whole characters */
  text: string
}

/** A tool call begins. */
export interface CallStart {
  /** what tells the parts of an answer apart */
  type: 'call-start'
  /** which call of the answer, from 0 on */
  index: number
  /** what its result refers to */
  id: string
  /** of the tool */
  name: string
}

/** More of the arguments of a call that has begun. */
export interface CallArguments {
  /** what tells the parts of an answer apart */
  type: 'call-arguments'
  /** which call of the answer, from 0 on */
  index: number
  /** more of their JSON text: not JSON by itself */
  text: string
}

/** A tool call is complete. */
export interface CallEnd {
  /** what tells the parts of an answer apart */
  type: 'call-end'
  /** which call of the answer, from 0 on */
  index: number
  /** what its result refers to */
  id: string
  /** of the tool */
  name: string
  /** all of them: the JSON text of an object */
  arguments: string
}

/** Takes an answer's text piece by piece. Text that looked like a tool call and is none comes as text: nothing is lost. */
export interface AnswerParser {
  push(text: string): AnswerPart[]
  /** the answer has ended */
  flush(): AnswerPart[]
}

/** A function that the model may ask for. */
export interface Tool {
  /** what the model calls it by */
  name: string
  /** what it does, for the model to read */
  description?: string
  /** JSON Schema of its arguments, an object; default: no arguments */
  parameters?: Readonly<Record<string, unknown>>
}

/** `auto`: the model decides; `none`: no tool; `required`: at least one; or the one of this name */
export type ToolChoice = 'auto' | 'none' | 'required' | ToolName

/** The tool that has to be called. */
export interface ToolName {
  /** of one of the tools */
  name: string
}
