/** Tools in a chat: the model asks for calls, they are run, and it goes on with what they gave. */
import { answerFormat, answerStart, requireTools } from '../answer/format.js'
import type { AnswerPart, Tool, ToolChoice } from '../answer/parts.js'
import { templateTool } from '../answer/template-tool.js'
import { badOption } from '../errors.js'
import { booleanOption, integerOption } from '../options.js'
import type { ChatMessage } from '../text/chat-template.js'
import { isRecord } from '../text/tokenizer-json.js'
import { checkGenerateOptions, type GenerateOptions, SHAPES } from './generate-options.js'
import type { Model } from './model.js'
import { formOfAnswer, PartedAnswer } from './parted-answer.js'
import type { Piece } from './session.js'

/** A function that the model may call. */
export interface ChatTool extends Tool {
  /**
   * Does it. What it returns goes to the model, as text or as JSON; so does the message of what it throws. Without it the
   * answer ends with the call, and `chat.sendToolResults` goes on.
   * @param args as the model wrote them, valid by `parameters`
   * @param call its id, and the signal of the `send` that it belongs to
   */
  run?(args: Record<string, unknown>, call: { id: string; signal: AbortSignal | undefined }): unknown
}

/** What `chat.send` is told of tools. */
export interface ToolOptions {
  /** functions that the model may call; its chat template has to know of tools */
  tools?: readonly ChatTool[]
  /** default auto: the model decides */
  toolChoice?: ToolChoice
  /** several calls in one answer; default true */
  parallelCalls?: boolean
  /** answers of the model to one message, those with calls included, 1 to 1000; default 8 */
  maxRounds?: number
}

/** What `chat.send` is told. Tools cannot be combined with a form of the whole answer (`schema`, `json`, `regex`, `grammar`). */
export interface SendOptions extends GenerateOptions, ToolOptions {
  /** whether the model thinks first, where its chat template has a switch for that; default: as the template has it */
  think?: boolean
}

/** More of an answer: `text` is what is meant for the reader, `reasoning` what the model thought before. */
export interface ChatPiece extends Piece {
  /** with tools: everything, calls too */
  parts?: AnswerPart[]
}

/** A call that the model asks for. */
export interface ToolCall {
  /** what its result refers to */
  id: string
  /** of the tool */
  name: string
  /** the JSON text of an object */
  arguments: string
}

/** What a call gave. */
export interface ToolResult {
  /** of the call */
  id: string
  /** for the model to read: text, or JSON as text */
  content: string
}

/** What of a turn is other than usual. */
export interface TurnForm {
  /** for the template */
  variables?: Record<string, unknown>
  /** what joins the conversation when the answer has ended; absent: its text */
  message?: () => ChatMessage
}

/** One turn: what is said, and how its answer is taken. */
export type TakeTurn = (question: ChatMessage[], options: GenerateOptions, form: TurnForm) => AsyncGenerator<Piece>

export const TOOL_OPTIONS = ['tools', 'toolChoice', 'parallelCalls', 'maxRounds'] as const
const MOST_ROUNDS = 8
/** What templates call the switch for thinking. */
const SWITCHES = ['enable_thinking', 'thinking']

/** @throws OnebitError ERR_BAD_OPTION */
export function splitSendOptions(options: SendOptions): {
  tools: Required<ToolOptions> | undefined
  /** for the template */
  variables: Record<string, unknown>
  rest: GenerateOptions
} {
  // What is no object is refused with the options of generations.
  if (typeof options !== 'object' || options === null) return { tools: undefined, variables: {}, rest: options }
  const { tools, toolChoice, parallelCalls, maxRounds, think, ...rest } = options
  const isOn = booleanOption({ think }, 'think')
  const variables = isOn === undefined ? {} : Object.fromEntries(SWITCHES.map((name) => [name, isOn]))
  const fields: Record<string, unknown> = { tools, toolChoice, parallelCalls, maxRounds }
  if (tools === undefined) {
    const needless = TOOL_OPTIONS.find((name) => fields[name] !== undefined)
    if (needless) throw badOption(needless, 'has no meaning without tools')
    return { tools: undefined, variables, rest }
  }
  return {
    rest,
    variables,
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
  switches: Record<string, unknown>,
  options: GenerateOptions,
): AsyncGenerator<ChatPiece, void, undefined> {
  const format = answerFormat(model.chatTemplate?.source)
  requireTools(format)
  const given = toolChoice === 'none' ? [] : tools
  const variables = { ...switches, ...(given.length > 0 ? { tools: given.map(templateTool) } : {}) }
  const thinking = format.marks && { thinking: format.marks }
  let said = question
  for (let round = 1; ; round++) {
    const prompt = await model.encodeChat([...before(), ...said], { variables })
    const start = answerStart(format, prompt, (end) => model.requireTokenizer().decode(end))
    // A model that must call would call for ever: later rounds leave it to it.
    const shape = format.shape(given, round === 1 ? toolChoice : 'auto', parallelCalls, start)
    const answer = new PartedAnswer(format.parser(given, start))
    const form = { variables, message: () => answer.message() }
    const pieces = take(said, { ...options, ...thinking, ...tagOption(shape), showSpecial: format.markers }, form)
    for await (const piece of pieces) yield answer.piece(piece)
    yield* answer.rest()
    const { calls } = answer
    const known = calls.map(({ name }) => given.find((tool) => tool.name === name)?.run)
    if (calls.length === 0 || known.some((run) => run === undefined) || round >= maxRounds) return
    said = await Promise.all(calls.map((call, i) => runCall(call, known[i]!, options.signal)))
  }
}

/** A message and its answer, with the thinking told apart where the model thinks. */
export async function* turnWithThinking(
  model: Model,
  take: TakeTurn,
  before: () => readonly ChatMessage[],
  question: ChatMessage[],
  variables: Record<string, unknown>,
  options: GenerateOptions,
): AsyncGenerator<Piece, void, undefined> {
  const { source } = model.chatTemplate!
  if (answerFormat(source).marks === undefined) {
    yield* take(question, options, { variables })
    return
  }
  const { shape } = checkGenerateOptions(options, model.config.vocab_size)
  const { signal } = options
  const prompt = await model.encodeChat([...before(), ...question], { variables, ...(signal ? { signal } : {}) })
  const form = formOfAnswer(source, model.requireTokenizer(), prompt, shape)
  const answer = new PartedAnswer(form.parser!)
  const unshaped = Object.fromEntries(Object.entries(options).filter(([name]) => !SHAPE_NAMES.has(name)))
  const showSpecial = [...(options.showSpecial ?? []), ...form.options.showSpecial!]
  const pieces = take(
    question,
    { ...unshaped, ...form.shape, ...form.options, showSpecial },
    { variables, message: () => answer.message() },
  )
  const plain = ({ parts: _, ...piece }: ChatPiece): Piece => piece
  for await (const piece of pieces) yield plain(answer.piece(piece))
  for (const piece of answer.rest()) yield plain(piece)
}

const SHAPE_NAMES: ReadonlySet<string> = new Set(SHAPES)

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
