/** POST /v1/chat/completions. */
import { randomUUID } from 'node:crypto'
import { opensThinking } from '../answer/format.js'
import type { AnswerParser, AnswerPart } from '../answer/parts.js'
import type { Constraint } from '../grammar/constraint.js'
import type { GenerateOptions } from '../run/generate-options.js'
import type { GenerationSummary, Piece, TokenLogprob } from '../run/generation.js'
import { booleanOption, likeliestOption } from '../run/options.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { isRecord } from '../text/tokenizer-json.js'
import { finishOf, now } from './completions.js'
import { badField, HttpError } from './errors.js'
import { type Exchange, eachPiece, timingsOf, usageOf } from './exchange.js'
import { generateFields, streamFields } from './fields.js'
import { messagesOf, type ToolFields, toolsOf } from './messages.js'
import { type Served, tokenText } from './served.js'
import { afterThinking, constrain, shapeOf } from './shapes.js'

/** A chat that is ready to be answered. */
export interface ChatCall {
  served: Served
  ids: Int32Array
  options: GenerateOptions
  parser: AnswerParser
  constraint: Constraint | undefined
  withLogprobs: boolean
}

/** What one token brought. */
export interface ChatStep {
  parts: AnswerPart[]
  logprobs: TokenEntry[]
}

export interface ChatEnd {
  finish: 'stop' | 'length' | 'tool_calls'
  summary: GenerationSummary
  reasoningTokens: number
}

interface TokenEntry {
  token: string
  logprob: number
  bytes: number[]
  top_logprobs: Omit<TokenEntry, 'top_logprobs'>[]
}

export async function chatCompletions(exchange: Exchange): Promise<void> {
  const { stream, includeUsage } = streamFields(exchange.fields)
  const call = await prepareChat(exchange)
  const head = { id: `chatcmpl-${randomUUID()}`, created: now(), model: call.served.name }
  if (stream) await streamed(exchange, call, { ...head, object: 'chat.completion.chunk' }, includeUsage)
  else await whole(exchange, call, { ...head, object: 'chat.completion' })
}

/** @throws HttpError, OnebitError */
export async function prepareChat(exchange: Exchange): Promise<ChatCall> {
  const { fields, models, signal } = exchange
  const served = models.of(fields)
  const { model, format } = served
  const messages = messagesOf(fields)
  const tools = toolsOf(fields)
  const options = {
    showSpecial: format.markers,
    ...generateFields(fields, model.config.vocab_size, fields.max_completion_tokens ?? fields.max_tokens),
  }
  const withLogprobs = booleanOption(fields, 'logprobs') ?? false
  const top = likeliestOption(fields, 'top_logprobs', model.config.vocab_size)
  if (withLogprobs) Object.assign(options, { logprobs: true, topLogprobs: top })
  const active = tools.choice === 'none' ? [] : tools.tools
  if (active.length > 0 && format.toolFormat === undefined) {
    throw new HttpError(400, "tools: this model's chat template has no tools.", { param: 'tools', code: 'no_tools' })
  }
  const ids = await model.encodeChat(messages, { variables: templateVariables(exchange, tools), signal })
  const end = model.requireTokenizer().decode(ids.subarray(-8))
  const start = { opened: format.thinks && opensThinking(end) }
  const constraint = await constraintOf(exchange, served, tools, start)
  return { served, ids, options, parser: format.parser(active, start), constraint, withLogprobs }
}

function templateVariables({ fields }: Exchange, { given, choice }: ToolFields): Record<string, unknown> {
  const more = fields.chat_template_kwargs ?? {}
  if (!isRecord(more)) throw badField('chat_template_kwargs', 'must be an object')
  return { ...more, ...(given.length > 0 && choice !== 'none' ? { tools: given } : {}) }
}

async function constraintOf(
  exchange: Exchange,
  served: Served,
  { tools, choice, parallel }: ToolFields,
  start: { opened: boolean },
): Promise<Constraint | undefined> {
  const wanted = shapeOf(exchange.fields)
  const calls = choice === 'none' ? undefined : served.format.shape(tools, choice, parallel, start)
  if (wanted && calls) throw badField('response_format', 'cannot be combined with tools; ask for one of them')
  const shape = wanted && start.opened ? afterThinking(wanted) : (wanted ?? calls)
  return shape && constrain(exchange, served, shape)
}

/** Generates and takes apart; `tell` gets what each token brought, as far as it brought anything. */
export async function answerChat(
  { served, ids, options, parser, constraint, withLogprobs }: ChatCall,
  signal: AbortSignal,
  tell: (step: ChatStep) => Promise<void> | void,
): Promise<ChatEnd> {
  const tokenizer = served.model.requireTokenizer()
  let reasoningTokens = 0
  let calls = 0
  const pieces = served.batch.generate(ids, { ...options, signal, ...(constraint ? { constraint } : {}) })
  const take = async (parts: AnswerPart[], piece?: Piece) => {
    calls += parts.filter(({ type }) => type === 'call-end').length
    if (piece && parts.some(({ type }) => type === 'reasoning')) reasoningTokens++
    const logprobs = piece && withLogprobs && !piece.released ? [tokenEntry(tokenizer, piece)] : []
    if (parts.length > 0 || logprobs.length > 0) await tell({ parts, logprobs })
  }
  const summary = await eachPiece(pieces, (piece) => take(parser.push(piece.text), piece))
  await take(parser.flush())
  return { finish: calls > 0 ? 'tool_calls' : finishOf(summary.finishReason), summary, reasoningTokens }
}

function tokenEntry(tokenizer: Tokenizer, { id, logprob, topLogprobs = [] }: Piece): TokenEntry {
  const named = ({ id, logprob }: TokenLogprob) => ({
    token: tokenText(tokenizer, id),
    logprob,
    bytes: [...tokenizer.tokenBytes(id)],
  })
  return { ...named({ id, logprob: logprob! }), top_logprobs: topLogprobs.map(named) }
}

export function chatUsage({ summary, reasoningTokens }: ChatEnd) {
  const { promptTokens, cachedTokens, newTokens } = summary.usage
  return {
    ...usageOf(promptTokens, cachedTokens, newTokens),
    completion_tokens_details: { reasoning_tokens: reasoningTokens },
  }
}

interface Head {
  id: string
  object: string
  created: number
  model: string
}

async function streamed(exchange: Exchange, call: ChatCall, head: Head, includeUsage: boolean): Promise<void> {
  const events = exchange.events()
  const send = (delta: object, logprobs: TokenEntry[] = [], finish: string | null = null) => {
    const told = logprobs.length > 0 ? { content: logprobs } : null
    return events.send({ ...head, choices: [{ index: 0, delta, logprobs: told, finish_reason: finish }] })
  }
  let begun = false
  const end = await answerChat(call, exchange.signal, async ({ parts, logprobs }) => {
    if (!begun) await send({ role: 'assistant', content: '' })
    begun = true
    const deltas = parts.flatMap((part) => deltaOf(part) ?? [])
    for (const [i, delta] of deltas.entries()) await send(delta, i === 0 ? logprobs : [])
    if (deltas.length === 0 && logprobs.length > 0) await send({}, logprobs)
  })
  if (!begun) await send({ role: 'assistant', content: '' })
  await send({}, [], end.finish)
  if (includeUsage) {
    await events.send({ ...head, choices: [], usage: chatUsage(end), timings: timingsOf(end.summary) })
  }
  await events.send('[DONE]')
  events.end()
}

function deltaOf(part: AnswerPart): object | undefined {
  switch (part.type) {
    case 'text':
      return { content: part.text }
    case 'reasoning':
      return { reasoning_content: part.text }
    case 'call-start': {
      const { index, id, name } = part
      return { tool_calls: [{ index, id, type: 'function', function: { name, arguments: '' } }] }
    }
    case 'call-arguments':
      return { tool_calls: [{ index: part.index, function: { arguments: part.text } }] }
    case 'call-end':
      return undefined
  }
}

async function whole(exchange: Exchange, call: ChatCall, head: Head): Promise<void> {
  const collected = new WholeAnswer()
  const logprobs: TokenEntry[] = []
  const end = await answerChat(call, exchange.signal, (step) => {
    for (const part of step.parts) collected.add(part)
    logprobs.push(...step.logprobs)
  })
  const choice = {
    index: 0,
    message: collected.message(),
    logprobs: call.withLogprobs ? { content: logprobs } : null,
    finish_reason: end.finish,
  }
  exchange.reply({ ...head, choices: [choice], usage: chatUsage(end), timings: timingsOf(end.summary) })
}

/** The parts of an answer put together. */
export class WholeAnswer {
  text = ''
  reasoning = ''
  readonly calls: { id: string; name: string; arguments: string }[] = []

  add(part: AnswerPart): void {
    if (part.type === 'text') this.text += part.text
    else if (part.type === 'reasoning') this.reasoning += part.text
    else if (part.type === 'call-end') this.calls.push({ id: part.id, name: part.name, arguments: part.arguments })
  }

  message() {
    const calls = this.calls.map(({ id, name, arguments: args }) => ({
      id,
      type: 'function',
      function: { name, arguments: args },
    }))
    return {
      role: 'assistant',
      content: this.text === '' && calls.length > 0 ? null : this.text,
      ...(this.reasoning === '' ? {} : { reasoning_content: this.reasoning }),
      ...(calls.length > 0 ? { tool_calls: calls } : {}),
    }
  }
}
