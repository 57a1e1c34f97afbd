/** Tools in a chat: the model asks for calls, they are run, and it goes on with what they gave. */
import { answerFormat, answerStart, requireTools } from '../answer/format.js'
import type { AnswerParser, AnswerPart, Tool, ToolChoice } from '../answer/parts.js'
import { templateTool } from '../answer/template-tool.js'
import { WholeAnswer } from '../answer/whole-answer.js'
import { badOption } from '../errors.js'
import { booleanOption, integerOption } from '../options.js'
import type { ChatMessage } from '../text/chat-template.js'
import { isRecord } from '../text/tokenizer-json.js'
import type { GenerateOptions } from './generate-options.js'
import type { Model } from './model.js'
import type { Piece } from './session.js'

/** A function that the model may call. */
export interface ChatTool extends Tool {
  /**
   * Does it. What it returns goes to the model, as text or as JSON; so does what it throws. Without it the answer ends with
   * the call, and `chat.sendToolResults` goes on.
   */
  run?(args: Record<string, unknown>, call: { id: string; signal: AbortSignal | undefined }): unknown
}

export interface ToolOptions {
  /** functions that the model may call; its chat template has to know of tools */
  tools?: readonly ChatTool[]
  /** default auto: the model decides */
  toolChoice?: ToolChoice
  /** several calls in one answer; default true */
  parallelCalls?: boolean
  /** answers of the model to one message, those with calls included; default 8 */
  maxRounds?: number
}

export interface SendOptions extends GenerateOptions, ToolOptions {}

/** With tools `text` is what is meant for the reader; all of it is in `parts`. */
export interface ChatPiece extends Piece {
  parts?: AnswerPart[]
}

export interface ToolCall {
  id: string
  name: string
  /** the JSON text of an object */
  arguments: string
}

export interface ToolResult {
  /** of the call */
  id: string
  content: string
}

/** What of a turn is other than usual. */
export interface TurnForm {
  /** for the template */
  variables?: Record<string, unknown>
  /** what joins the conversation when the answer has ended */
  message: () => ChatMessage
}

/** One turn: what is said, and how its answer is taken. */
export type TakeTurn = (question: ChatMessage[], options: GenerateOptions, form: TurnForm) => AsyncGenerator<Piece>

export const TOOL_OPTIONS = ['tools', 'toolChoice', 'parallelCalls', 'maxRounds'] as const
const MOST_ROUNDS = 8

/** @throws OnebitError ERR_BAD_OPTION */
export function splitSendOptions(options: SendOptions): {
  tools: Required<ToolOptions> | undefined
  rest: GenerateOptions
} {
  // What is no object is refused with the options of generations.
  if (typeof options !== 'object' || options === null) return { tools: undefined, rest: options }
  const { tools, toolChoice, parallelCalls, maxRounds, ...rest } = options
  const fields: Record<string, unknown> = { tools, toolChoice, parallelCalls, maxRounds }
  if (tools === undefined) {
    const needless = TOOL_OPTIONS.find((name) => fields[name] !== undefined)
    if (needless) throw badOption(needless, 'has no meaning without tools')
    return { tools: undefined, rest }
  }
  return {
    rest,
    tools: {
      tools: checkTools(tools),
      toolChoice: checkChoice(toolChoice, tools),
      parallelCalls: booleanOption(fields, 'parallelCalls') ?? true,
      maxRounds: integerOption(fields, 'maxRounds', 1, 1000) ?? MOST_ROUNDS,
    },
  }
}

function checkTools(tools: unknown): readonly ChatTool[] {
  if (!Array.isArray(tools) || tools.length === 0) throw badOption('tools', 'must be a list of tools')
  for (const [i, tool] of (tools as unknown[]).entries()) {
    if (!isRecord(tool) || typeof tool.name !== 'string') throw badOption(`tools[${i}]`, 'must have a name')
    if (tool.run !== undefined && typeof tool.run !== 'function')
      throw badOption(`tools[${i}].run`, 'must be a function')
    if (tool.parameters !== undefined && !isRecord(tool.parameters)) {
      throw badOption(`tools[${i}].parameters`, 'must be a JSON Schema: an object')
    }
  }
  return tools as ChatTool[]
}

function checkChoice(choice: unknown = 'auto', tools: readonly ChatTool[]): ToolChoice {
  if (choice === 'auto' || choice === 'none' || choice === 'required') return choice
  const name = isRecord(choice) ? choice.name : undefined
  if (tools.some((tool) => tool.name === name)) return { name: name as string }
  throw badOption('toolChoice', 'must be auto, none, required, or { name } of one of the tools')
}

/** A message and its answers (`before`: the conversation so far), until one has no calls or a call that nothing here can run. */
export async function* turnsWithTools(
  model: Model,
  take: TakeTurn,
  before: () => readonly ChatMessage[],
  question: ChatMessage[],
  { tools, toolChoice, parallelCalls, maxRounds }: Required<ToolOptions>,
  options: GenerateOptions,
): AsyncGenerator<ChatPiece, void, undefined> {
  const format = answerFormat(model.chatTemplate?.source)
  requireTools(format)
  const given = toolChoice === 'none' ? [] : tools
  const variables = given.length > 0 ? { tools: given.map(templateTool) } : {}
  let said = question
  for (let round = 1; ; round++) {
    const prompt = await model.encodeChat([...before(), ...said], { variables })
    const start = answerStart(format, prompt, (end) => model.requireTokenizer().decode(end))
    // A model that must call would call for ever: later rounds leave it to it.
    const shape = format.shape(given, round === 1 ? toolChoice : 'auto', parallelCalls, start)
    const answer = new PartedAnswer(format.parser(given, start))
    const form = { variables, message: () => answer.message() }
    const pieces = take(said, { ...options, ...tagOption(shape), showSpecial: format.markers }, form)
    for await (const piece of pieces) yield answer.piece(piece)
    yield* answer.rest()
    const { calls } = answer
    const known = calls.map(({ name }) => given.find((tool) => tool.name === name)?.run)
    if (calls.length === 0 || known.some((run) => run === undefined) || round >= maxRounds) return
    said = await Promise.all(calls.map((call, i) => runCall(call, known[i]!, options.signal)))
  }
}

function tagOption(shape: ReturnType<ReturnType<typeof answerFormat>['shape']>): GenerateOptions {
  return shape && 'tag' in shape ? { tag: shape.tag } : {}
}

async function runCall(
  { id, name, arguments: text }: ToolCall,
  run: NonNullable<ChatTool['run']>,
  signal: AbortSignal | undefined,
): Promise<ChatMessage> {
  let content: string
  try {
    const result = await run(JSON.parse(text) as Record<string, unknown>, { id, signal })
    content = typeof result === 'string' ? result : (JSON.stringify(result) ?? '')
  } catch (error) {
    signal?.throwIfAborted()
    content = `Error: ${error instanceof Error ? error.message : String(error)}`
  }
  return toolMessage(name, { id, content })
}

export function toolMessage(name: string, { id, content }: ToolResult): ChatMessage {
  return { role: 'tool', name, tool_call_id: id, content }
}

/** The calls of a message that nothing has answered yet. */
export function callsOf(message: ChatMessage | undefined): ToolCall[] {
  const calls = message?.tool_calls
  if (!Array.isArray(calls)) return []
  return calls.map(({ id, function: { name, arguments: args } }) => ({ id, name, arguments: JSON.stringify(args) }))
}

/** An answer with calls, taken apart while it comes. */
class PartedAnswer {
  readonly #parser: AnswerParser
  readonly #whole = new WholeAnswer()
  #lastId = -1
  /** what the parser held back until the answer had ended */
  #rest: AnswerPart[] | undefined

  constructor(parser: AnswerParser) {
    this.#parser = parser
  }

  get calls(): readonly ToolCall[] {
    return this.#whole.calls
  }

  piece(piece: Piece): ChatPiece {
    this.#lastId = piece.id
    const parts = this.#parser.push(piece.text)
    return { ...piece, text: this.#add(parts), parts }
  }

  *rest(): Generator<ChatPiece> {
    this.message()
    const parts = this.#rest!
    if (parts.length > 0) yield { text: textOf(parts), id: this.#lastId, released: true, parts }
  }

  message(): ChatMessage {
    if (!this.#rest) {
      this.#rest = this.#parser.flush()
      this.#add(this.#rest)
    }
    const { text: content, reasoning, calls } = this.#whole
    const made = calls.map(({ id, name, arguments: args }) => ({
      id,
      type: 'function',
      function: { name, arguments: JSON.parse(args) as unknown },
    }))
    return {
      role: 'assistant',
      content,
      ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
      ...(made.length > 0 ? { tool_calls: made } : {}),
    }
  }

  /** Returns what of it is text. */
  #add(parts: readonly AnswerPart[]): string {
    for (const part of parts) this.#whole.add(part)
    return textOf(parts)
  }
}

function textOf(parts: readonly AnswerPart[]): string {
  return parts.map((part) => (part.type === 'text' ? part.text : '')).join('')
}
