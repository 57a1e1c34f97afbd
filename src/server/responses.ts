/** POST /v1/responses: OpenAI's newer shape of a chat. It is translated; nothing is stored. */
import { randomUUID } from 'node:crypto'
import type { AnswerPart } from '../answer/parts.js'
import { WholeAnswer } from '../answer/whole-answer.js'
import { answerChat, type ChatEnd } from '../batch-chat/answer-chat.js'
import { eachOf } from '../flow/each-of.js'
import { isRecord } from '../text/tokenizer-json.js'
import { type Fields, withoutNulls } from './body.js'
import { askedChat } from './chat.js'
import { now } from './completions.js'
import { badField } from './errors.js'
import type { EventStream } from './events.js'
import type { Exchange } from './exchange.js'
import { streamFields } from './fields.js'

type Item = Record<string, unknown>

export async function responses(exchange: Exchange): Promise<void> {
  const { stream } = streamFields(exchange.fields)
  const { served, chat } = await askedChat({ ...exchange, fields: chatFields(exchange.fields) })
  const head = {
    id: `resp_${randomUUID()}`,
    object: 'response',
    created_at: now(),
    model: served.name,
    error: null,
  }
  const told = stream ? new ToldItems(exchange.events(), head) : undefined
  const items = new Items()
  const end = await eachOf(answerChat(chat, exchange.signal), async ({ parts }) => {
    for (const part of parts) {
      items.add(part)
      await told?.part(part, items)
    }
  })
  items.end(end.finish === 'length')
  const response = { ...head, ...ending(end), output: items.all(), usage: usage(end) }
  if (told) await told.end(items, response)
  else exchange.reply(response)
}

// ---- the request -----------------------------------------------------------------------------------------------------
/** The same request in the shape of /v1/chat/completions. */
function chatFields(fields: Fields): Fields {
  if (fields.previous_response_id !== undefined || fields.conversation !== undefined) {
    throw badField('previous_response_id', 'nothing is stored here: send the whole conversation in input')
  }
  const { input, instructions, text, tools, max_output_tokens: maxTokens, tool_choice: choice, ...same } = fields
  if (instructions !== undefined && typeof instructions !== 'string') throw badField('instructions', 'must be a string')
  const opening = instructions === undefined ? [] : [{ role: 'system', content: instructions }]
  const format = isRecord(text) && isRecord(text.format) ? text.format : undefined
  return {
    ...same,
    messages: [...opening, ...inputMessages(input)],
    ...(maxTokens === undefined ? {} : { max_tokens: maxTokens }),
    ...(format
      ? { response_format: format.type === 'json_schema' ? { type: format.type, json_schema: format } : format }
      : {}),
    ...(tools === undefined ? {} : { tools: nestedTools(tools) }),
    ...(choice === undefined
      ? {}
      : { tool_choice: isRecord(choice) ? { type: 'function', function: choice } : choice }),
  }
}

function inputMessages(input: unknown): Item[] {
  if (typeof input === 'string') return [{ role: 'user', content: input }]
  if (!Array.isArray(input)) throw badField('input', 'must be a string or an array of items')
  const messages: Item[] = []
  for (const [i, item] of (input as unknown[]).entries()) {
    if (!isRecord(item)) throw badField(`input[${i}]`, 'must be an object')
    const { type = 'message', call_id: id, name, arguments: args, output } = withoutNulls(item)
    if (type === 'message') messages.push({ role: item.role, content: item.content })
    else if (type === 'function_call_output') messages.push({ role: 'tool', tool_call_id: id, content: output })
    else if (type === 'function_call') {
      const call = { id, type: 'function', function: { name, arguments: args } }
      const last = messages.at(-1)
      if (Array.isArray(last?.tool_calls)) last.tool_calls.push(call)
      else messages.push({ role: 'assistant', tool_calls: [call] })
    } else if (type !== 'reasoning') {
      throw badField(`input[${i}].type`, 'must be message, function_call, function_call_output or reasoning')
    }
  }
  return messages
}

function nestedTools(tools: unknown): unknown {
  if (!Array.isArray(tools)) return tools
  return tools.map((tool: unknown) => {
    if (!isRecord(tool) || isRecord(tool.function)) return tool
    const { type, ...rest } = tool
    return { type, function: rest }
  })
}

// ---- the answer ------------------------------------------------------------------------------------------------------
function ending({ finish }: ChatEnd) {
  const cut = finish === 'length'
  return { status: cut ? 'incomplete' : 'completed', incomplete_details: cut ? { reason: 'max_output_tokens' } : null }
}

function usage({ summary, reasoningTokens }: ChatEnd) {
  const { promptTokens, cachedTokens, newTokens } = summary.usage
  return {
    input_tokens: promptTokens,
    input_tokens_details: { cached_tokens: cachedTokens },
    output_tokens: newTokens,
    output_tokens_details: { reasoning_tokens: reasoningTokens },
    total_tokens: promptTokens + newTokens,
  }
}

/** What is told of a call; it is whole when it has ended. */
interface ToldCall {
  id: string
  name: string
  arguments: string
  isWhole: boolean
}

/** The items of an output, in the order in which they began. */
class Items {
  readonly #whole = new WholeAnswer()
  readonly #calls = new Map<number, ToldCall>()
  readonly order: { kind: 'reasoning' | 'message' | 'call'; id: string; call?: number }[] = []
  /** of the item that the answer was cut in */
  #cut = -1

  add(part: AnswerPart): void {
    this.#whole.add(part)
    if (part.type === 'text') this.at('message')
    else if (part.type === 'reasoning') this.at('reasoning')
    else {
      this.at('call', part.index)
      this.#addToCall(part)
    }
  }

  #addToCall(part: Exclude<AnswerPart, { type: 'text' | 'reasoning' }>): void {
    const call = this.#calls.get(part.index)
    if (part.type === 'call-start') {
      this.#calls.set(part.index, { id: part.id, name: part.name, arguments: '', isWhole: false })
    } else if (part.type === 'call-arguments') call!.arguments += part.text
    else call!.isWhole = true
  }

  /** Nothing more comes. isCut: since there was no room for it */
  end(isCut: boolean): void {
    if (isCut) this.#cut = this.order.length - 1
  }

  /** Where the item stands that this belongs to; it begins here when there is none. */
  at(kind: 'reasoning' | 'message' | 'call', call?: number): number {
    const found = this.order.findIndex((one) => one.kind === kind && one.call === call)
    if (found >= 0) return found
    return this.order.push({ kind, id: `${PREFIX[kind]}_${randomUUID()}`, ...(call === undefined ? {} : { call }) }) - 1
  }

  get text(): string {
    return this.#whole.text
  }

  /** done: as it is at the end, without: as it begins */
  one(index: number, done: boolean): Item {
    const { kind, id, call } = this.order[index]!
    const told = call === undefined ? undefined : this.#calls.get(call)!
    const isWhole = index !== this.#cut && (told?.isWhole ?? true)
    const status = done ? (isWhole ? 'completed' : 'incomplete') : 'in_progress'
    if (kind === 'reasoning') {
      const content = done ? [{ type: 'reasoning_text', text: this.#whole.reasoning }] : []
      return { type: 'reasoning', id, summary: [], content, status }
    }
    if (kind === 'message')
      return { type: 'message', id, role: 'assistant', status, content: done ? [textPart(this.text)] : [] }
    const args = done ? told!.arguments : ''
    return { type: 'function_call', id, call_id: told!.id, name: told!.name, arguments: args, status }
  }

  all(): Item[] {
    return this.order.map((_, index) => this.one(index, true))
  }
}

const PREFIX = { reasoning: 'rs', message: 'msg', call: 'fc' } as const

function textPart(text: string) {
  return { type: 'output_text', text, annotations: [] }
}

/** The events of a streamed response. */
class ToldItems {
  readonly #events: EventStream
  readonly #head: object
  #sequence = 0
  /** items that were said to have begun */
  #begun = 0
  #created = false

  constructor(events: EventStream, head: object) {
    this.#events = events
    this.#head = head
  }

  /** Not before there is an answer: what is wrong with a request, or a full queue, has a status of its own. */
  async #begin(): Promise<void> {
    if (this.#created) return
    this.#created = true
    const response = { ...this.#head, status: 'in_progress', output: [] }
    await this.#tell('response.created', { response })
    await this.#tell('response.in_progress', { response })
  }

  async part(part: AnswerPart, items: Items): Promise<void> {
    await this.#begin()
    for (; this.#begun < items.order.length; this.#begun++) await this.#itemBegins(this.#begun, items)
    if (part.type === 'text') await this.#delta('response.output_text.delta', items.at('message'), items, part.text)
    else if (part.type === 'reasoning') {
      await this.#delta('response.reasoning_text.delta', items.at('reasoning'), items, part.text)
    } else if (part.type === 'call-arguments') {
      await this.#delta('response.function_call_arguments.delta', items.at('call', part.index), items, part.text)
    }
  }

  async #itemBegins(index: number, items: Items): Promise<void> {
    const item = items.one(index, false)
    await this.#tell('response.output_item.added', { output_index: index, item })
    if (item.type !== 'message') return
    const at = { item_id: item.id, output_index: index, content_index: 0 }
    await this.#tell('response.content_part.added', { ...at, part: textPart('') })
  }

  #delta(type: string, index: number, items: Items, delta: string): Promise<void> {
    const item_id = items.order[index]!.id
    const content = type.includes('text') ? { content_index: 0, logprobs: [] } : {}
    return this.#tell(type, { item_id, output_index: index, ...content, delta })
  }

  async end(items: Items, response: { status: string }): Promise<void> {
    await this.#begin()
    for (const [index] of items.order.entries()) {
      const item = items.one(index, true)
      const at = { item_id: item.id, output_index: index }
      if (item.type === 'message') {
        const { text } = items
        await this.#tell('response.output_text.done', { ...at, content_index: 0, text, logprobs: [] })
        await this.#tell('response.content_part.done', { ...at, content_index: 0, part: textPart(text) })
      } else if (item.type === 'function_call') {
        const { name, arguments: args } = item
        await this.#tell('response.function_call_arguments.done', { ...at, name, arguments: args })
      }
      await this.#tell('response.output_item.done', { output_index: index, item })
    }
    await this.#tell(response.status === 'completed' ? 'response.completed' : 'response.incomplete', { response })
    this.#events.end()
  }

  #tell(type: string, rest: object): Promise<void> {
    return this.#events.send({ type, sequence_number: this.#sequence++, ...rest }, type)
  }
}
