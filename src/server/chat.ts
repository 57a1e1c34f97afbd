/** POST /v1/chat/completions. */
import { randomUUID } from 'node:crypto'
import type { AnswerPart } from '../answer/parts.js'
import { WholeAnswer } from '../answer/whole-answer.js'
import { answerChat, type ChatEnd } from '../batch-chat/answer-chat.js'
import { type PreparedAnswer, prepareChat } from '../batch-chat/prepare-chat.js'
import { eachOf } from '../flow/each-of.js'
import { booleanOption, likeliestOption } from '../options.js'
import type { Piece, TokenLogprob } from '../run/generation.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { now } from './completions.js'
import { type Exchange, timingsOf, usageOf } from './exchange.js'
import { generateFields, streamFields } from './fields.js'
import { messagesOf, toolsOf, variablesOf } from './messages.js'
import { type Served, tokenText } from './served.js'
import { shapeOf } from './shapes.js'

/** A chat as a request asks for it. */
export interface AskedChat {
  served: Served
  chat: PreparedAnswer
  withLogprobs: boolean
}

interface TokenEntry {
  token: string
  logprob: number
  bytes: number[]
  top_logprobs: Omit<TokenEntry, 'top_logprobs'>[]
}

export async function chatCompletions(exchange: Exchange): Promise<void> {
  const { stream, includeUsage } = streamFields(exchange.fields)
  const call = await askedChat(exchange)
  const head = { id: `chatcmpl-${randomUUID()}`, created: now(), model: call.served.name }
  if (stream) await streamed(exchange, call, { ...head, object: 'chat.completion.chunk' }, includeUsage)
  else await whole(exchange, call, { ...head, object: 'chat.completion' })
}

/** @throws HttpError, OnebitError */
export async function askedChat(exchange: Exchange): Promise<AskedChat> {
  const { fields, models, signal } = exchange
  const served = models.of(fields)
  const messages = messagesOf(fields)
  const { tools, given, choice, parallel } = toolsOf(fields)
  const { vocab_size: vocabSize } = served.model.config
  const options = generateFields(fields, vocabSize, fields.max_completion_tokens ?? fields.max_tokens)
  const withLogprobs = booleanOption(fields, 'logprobs') ?? false
  const top = likeliestOption(fields, 'top_logprobs', vocabSize)
  if (withLogprobs) Object.assign(options, { logprobs: true, topLogprobs: top })
  const shape = shapeOf(fields)
  const variables = variablesOf(fields)
  const request = { messages, tools, templateTools: given, choice, parallel, variables, options, shape, signal }
  return { served, chat: await prepareChat(served, request), withLogprobs }
}

/** What a token's own entry says, where it is asked for. */
function entriesOf({ served, withLogprobs }: AskedChat, piece: Piece | undefined): TokenEntry[] {
  if (!piece || !withLogprobs || piece.released) return []
  return [tokenEntry(served.model.requireTokenizer(), piece)]
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

async function streamed(exchange: Exchange, call: AskedChat, head: Head, includeUsage: boolean): Promise<void> {
  const events = exchange.events()
  const send = (delta: object, logprobs: TokenEntry[] = [], finish: string | null = null) => {
    const told = logprobs.length > 0 ? { content: logprobs } : null
    return events.send({ ...head, choices: [{ index: 0, delta, logprobs: told, finish_reason: finish }] })
  }
  let begun = false
  const end = await eachOf(answerChat(call.chat, exchange.signal), async ({ parts, piece }) => {
    const logprobs = entriesOf(call, piece)
    if (parts.length === 0 && logprobs.length === 0) return
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

async function whole(exchange: Exchange, call: AskedChat, head: Head): Promise<void> {
  const collected = new WholeAnswer()
  const logprobs: TokenEntry[] = []
  const end = await eachOf(answerChat(call.chat, exchange.signal), ({ parts, piece }) => {
    for (const part of parts) collected.add(part)
    logprobs.push(...entriesOf(call, piece))
  })
  const choice = {
    index: 0,
    message: collected.message(),
    logprobs: call.withLogprobs ? { content: logprobs } : null,
    finish_reason: end.finish,
  }
  exchange.reply({ ...head, choices: [choice], usage: chatUsage(end), timings: timingsOf(end.summary) })
}
