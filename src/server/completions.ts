/** POST /v1/completions: raw prompts go on, or are scored (`echo` with `logprobs`), as lm-evaluation-harness needs. */
import { randomUUID } from 'node:crypto'
import { finishOf } from '../batch-chat/answer-chat.js'
import { eachOf } from '../flow/each-of.js'
import { someAtATime } from '../flow/some-at-a-time.js'
import type { AnswerShape } from '../grammar/constraint.js'
import { booleanOption, likeliestOption } from '../options.js'
import type { GenerateOptions } from '../run/generate-options.js'
import type { GenerationSummary } from '../run/generation.js'
import { badField } from './errors.js'
import { type Exchange, timingsOf, usageOf } from './exchange.js'
import { generateFields, streamFields } from './fields.js'
import { type RawPrompt, rawPrompts } from './prompts.js'
import type { Served } from './served.js'
import { shapeOf } from './shapes.js'
import { type CompletionLogprobs, TokenTable, topOf } from './token-table.js'

interface Wanted {
  options: GenerateOptions
  echo: boolean
  /** undefined: no log-probabilities */
  top: number | undefined
  /** the form that answers must have; undefined: any */
  shape: AnswerShape | undefined
}

/** A part of one answer; the last one has `finish`. */
interface Part {
  text: string
  logprobs?: CompletionLogprobs
  finish?: 'stop' | 'length'
}

interface Cost {
  promptTokens: number
  cachedTokens: number
  newTokens: number
  summary?: GenerationSummary
}

export async function completions(exchange: Exchange): Promise<void> {
  const { fields, models } = exchange
  const served = models.of(fields)
  const wanted = wantedOf(exchange, served)
  const { stream, includeUsage } = streamFields(fields)
  const prompts = await rawPrompts(exchange, served, 'prompt')
  if (prompts.some(({ ids }) => ids.length === 0)) throw badField('prompt', 'is empty: there is no token to start from')
  const head = { id: `cmpl-${randomUUID()}`, object: 'text_completion', created: now(), model: served.name }
  const together = Math.min(prompts.length, models.parallel)
  if (!stream) {
    const texts: Part[][] = prompts.map(() => [])
    const ask = (prompt: RawPrompt, index: number, signal: AbortSignal) =>
      answer(served, wanted, prompt, signal, (part) => void texts[index]!.push(part))
    const costs = await someAtATime(prompts, together, ask, exchange.signal)
    const choices = texts.map((parts, index) => choice(index, joined(parts)))
    exchange.reply({ ...head, choices, usage: sum(costs), ...timings(costs) })
    return
  }
  const events = exchange.events()
  const ask = (prompt: RawPrompt, index: number, signal: AbortSignal) =>
    answer(served, wanted, prompt, signal, (part) => events.send({ ...head, choices: [choice(index, part)] }))
  const costs = await someAtATime(prompts, together, ask, exchange.signal)
  if (includeUsage) await events.send({ ...head, choices: [], usage: sum(costs), ...timings(costs) })
  await events.send('[DONE]')
  events.end()
}

function wantedOf({ fields }: Exchange, { model }: Served): Wanted {
  if (fields.suffix !== undefined && fields.suffix !== '') throw badField('suffix', 'is not supported')
  const vocabSize = model.config.vocab_size
  const top = fields.logprobs === undefined ? undefined : likeliestOption(fields, 'logprobs', vocabSize)
  const options = generateFields(fields, vocabSize, fields.max_tokens)
  const echo = booleanOption(fields, 'echo') ?? false
  if (top !== undefined) model.requireTokenizer()
  const shape = shapeOf(fields)
  return { options: top === undefined ? options : { ...options, logprobs: true, topLogprobs: top }, echo, top, shape }
}

async function answer(
  served: Served,
  wanted: Wanted,
  prompt: RawPrompt,
  signal: AbortSignal,
  tell: (part: Part) => Promise<void> | void,
): Promise<Cost> {
  const { top, echo, options, shape } = wanted
  const tokenizer = served.model.tokenizer
  const table = top === undefined ? undefined : new TokenTable(tokenizer!, !echo)
  let cached: number | undefined
  let echoed: Part | undefined
  /** The prompt goes before the first of the answer, and not alone: a full queue has a status of its own. */
  const tellAfterEcho = async (part: Part) => {
    const first = echoed
    echoed = undefined
    if (first) await tell(first)
    await tell(part)
  }
  if (echo) {
    const text = prompt.text ?? tokenizer?.decode(prompt.ids) ?? ''
    const isScored = table !== undefined
    const next = isScored && isLikeliestOnly(wanted)
    if (isScored) {
      // One at least, for what follows.
      const asked = next ? Math.max(1, top!) : top!
      const scores = await served.batch.score(prompt.ids, { top: asked, next, signal })
      cached = scores.cachedTokens
      const rows = { ...scores, ...firstOf(scores, asked, top!) }
      table.addPrompt(prompt, rows, top!)
      if (next) {
        const [best] = topOf(scores, prompt.ids.length, asked)
        table.addToken(best!.id, best!.logprob, topOf(scores, prompt.ids.length, asked).slice(0, top))
        const isEnd = tokenizer!.eosIds.includes(best!.id)
        const more = isEnd ? '' : tokenizer!.decode([best!.id], { continuation: true, special: false })
        await tell({ text: text + more, logprobs: table.take(), finish: isEnd ? 'stop' : 'length' })
        return { promptTokens: prompt.ids.length, cachedTokens: scores.cachedTokens, newTokens: isEnd ? 0 : 1 }
      }
    }
    echoed = { text, ...(table ? { logprobs: table.take() } : {}) }
    if (options.maxTokens === 0) {
      await tell({ ...echoed, finish: 'length' })
      return { promptTokens: prompt.ids.length, cachedTokens: cached ?? 0, newTokens: 0 }
    }
  }
  const constraint = shape && (await served.model.constrain(shape, { signal }))
  const pieces = served.batch.generate(prompt.ids, { ...options, signal, ...(constraint ? { constraint } : {}) })
  const summary = await eachOf(pieces, (piece) => {
    if (!piece.released) table?.addPiece(piece)
    if (piece.text === '' && !table) return
    return tellAfterEcho({ text: piece.text, ...(table ? { logprobs: table.take() } : {}) })
  })
  await tellAfterEcho({ text: '', finish: finishOf(summary.finishReason) })
  const { promptTokens, cachedTokens, newTokens } = summary.usage
  return { promptTokens, cachedTokens: cached ?? cachedTokens, newTokens, summary }
}

/** One token, the likeliest, whatever it is and ends: scoring the prompt knows it already. */
function isLikeliestOnly({ options, shape }: Wanted): boolean {
  const { maxTokens, temperature, logitBias, stop = [], ignoreEos = false, ...rest } = options
  const changed = rest.presencePenalty || rest.frequencyPenalty || (rest.repeatPenalty ?? 1) !== 1
  const isAny = logitBias === undefined && stop.length === 0 && !ignoreEos && shape === undefined && !changed
  return maxTokens === 1 && temperature === 0 && isAny
}

/** The first `top` of each row of `asked`. */
function firstOf(
  { topIds, topLogprobs }: { topIds: Int32Array; topLogprobs: Float32Array },
  asked: number,
  top: number,
) {
  if (asked === top) return { topIds, topLogprobs }
  return {
    topIds: topIds.filter((_, i) => i % asked < top),
    topLogprobs: topLogprobs.filter((_, i) => i % asked < top),
  }
}

function joined(parts: readonly Part[]): Part {
  const logprobs = parts.flatMap((part) => part.logprobs ?? [])
  const list = <K extends keyof CompletionLogprobs>(key: K) => logprobs.flatMap((rows) => rows[key] as unknown[])
  return {
    text: parts.map(({ text }) => text).join(''),
    ...(logprobs.length > 0
      ? {
          logprobs: {
            tokens: list('tokens'),
            token_logprobs: list('token_logprobs'),
            top_logprobs: list('top_logprobs'),
            text_offset: list('text_offset'),
          } as CompletionLogprobs,
        }
      : {}),
    finish: parts.at(-1)!.finish!,
  }
}

function choice(index: number, { text, logprobs, finish }: Part) {
  return { index, text, logprobs: logprobs ?? null, finish_reason: finish ?? null }
}

function sum(costs: readonly Cost[]) {
  const all = (pick: (cost: Cost) => number) => costs.reduce((total, cost) => total + pick(cost), 0)
  return usageOf(
    all((cost) => cost.promptTokens),
    all((cost) => cost.cachedTokens),
    all((cost) => cost.newTokens),
  )
}

/** Of one answer; those of several at a time would say little. */
function timings(costs: readonly Cost[]) {
  const summary = costs.length === 1 ? costs[0]!.summary : undefined
  return summary ? { timings: timingsOf(summary) } : {}
}

export function now(): number {
  return Math.floor(Date.now() / 1000)
}
