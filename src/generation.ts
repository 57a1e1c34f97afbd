/** The loop of a generation: compute, choose a token, turn it into text, hand it out. */
import { OnebitError } from './errors.js'
import type { CheckedGenerateOptions } from './generate-options.js'
import type { NativeCancel, NativeStepResult } from './native.js'
import { Sampler } from './sampler.js'
import { StopStrings } from './text/stop-strings.js'
import type { Tokenizer } from './text/tokenizer.js'
import type { Utf8Stream } from './text/utf8-stream.js'
import type { ComputeOptions, Timeline } from './timeline.js'

/** One of the likeliest tokens at a position. */
export interface TokenLogprob {
  id: number
  /** natural logarithm of the model's own probability, before temperature, penalties and bias */
  logprob: number
}

/** What one token adds. */
export interface Piece {
  /** whole characters only; empty while a character or a possible stop string is incomplete */
  text: string
  /** the token */
  id: number
  /** the text was held back until a stop token came, which is `id`: no token of the answer */
  released?: true
  /** with `logprobs` or `topLogprobs` */
  logprob?: number
  /** with `topLogprobs`: the likeliest tokens here, descending */
  topLogprobs?: TokenLogprob[]
}

/**
 * - stop: a stop token or a stop string
 * - length: maxTokens
 * - context: the session's context is full
 * - abort: aborted, disposed, failed, or left by its consumer
 */
export type FinishReason = 'stop' | 'length' | 'context' | 'abort'

export interface Usage {
  /** tokens before the answer, those that were in the cache included */
  promptTokens: number
  /** of these, already in the cache */
  cachedTokens: number
  /** tokens handed out; a stop token is not counted */
  newTokens: number
}

export interface Timings {
  /** until the first token was known */
  prefillMs: number
  /** for all other tokens, without what the consumer took */
  decodeMs: number
  /** decoded tokens a second, 0 when there was none */
  tokensPerSecond: number
}

export interface GenerationSummary {
  finishReason: FinishReason
  usage: Usage
  timings: Timings
}

const ignore = () => {}

export class Generation {
  readonly #timeline: Timeline
  readonly #options: CheckedGenerateOptions
  readonly #sampler: Sampler
  readonly #stopIds: ReadonlySet<number>
  readonly #text: Utf8Stream | undefined
  readonly #stops: StopStrings | undefined
  readonly #cancel: NativeCancel
  readonly #usage: Usage
  #finish: FinishReason | undefined
  #prefillMs = 0
  #decodeMs = 0
  #decoded = 0

  /** The prompt is on the timeline already. `cached`: how many of its tokens were computed before. */
  constructor(
    timeline: Timeline,
    tokenizer: Tokenizer | undefined,
    options: CheckedGenerateOptions,
    cancel: NativeCancel,
    cached: number,
  ) {
    this.#timeline = timeline
    this.#options = options
    this.#cancel = cancel
    this.#sampler = new Sampler(options.sampling)
    this.#stopIds = new Set([...options.stopTokens, ...(options.ignoreEos ? [] : (tokenizer?.eosIds ?? []))])
    // After nothing but BOS a text begins, and SentencePiece's first space is no part of it.
    const begins = timeline.length === 1 && timeline.slice()[0] === tokenizer?.bosId
    this.#text = tokenizer?.stream({ continuation: !begins })
    this.#stops = options.stop.length > 0 ? new StopStrings(options.stop) : undefined
    this.#usage = { promptTokens: timeline.length, cachedTokens: cached, newTokens: 0 }
  }

  summary(): GenerationSummary {
    return {
      finishReason: this.#finish ?? 'abort',
      usage: this.#usage,
      timings: {
        prefillMs: this.#prefillMs,
        decodeMs: this.#decodeMs,
        tokensPerSecond: this.#decodeMs > 0 ? (1000 * this.#decoded) / this.#decodeMs : 0,
      },
    }
  }

  /** At most one step runs ahead of the consumer. */
  async *run(): AsyncGenerator<Piece, void, undefined> {
    let step = this.#compute(0)
    try {
      for (;;) {
        const result = await step
        this.#checkAlive()
        const from = performance.now()
        const chosen = this.#choose(result)
        if (chosen < 0) {
          step = this.#compute(this.#timeline.length, true)
          continue
        }
        const piece = this.#next(result, chosen)
        if (this.#finish === undefined) {
          step = this.#compute(this.#timeline.length)
          // Its error is met at the next round; until then nobody may be waiting for it.
          step.catch(ignore)
        }
        this.#decodeMs += performance.now() - from
        if (piece) yield piece
        if (this.#finish !== undefined) return
      }
    } finally {
      await step.catch(ignore)
    }
  }

  /**
   * The step that computes what is pending; tokens before `keep` stay on the timeline whatever happens. `all`: every
   * token is a candidate.
   */
  async #compute(keep: number, all = false): Promise<NativeStepResult> {
    const { maxTokens, topLogprobs, chunk } = this.#options
    const request: ComputeOptions = { cancel: this.#cancel, keep, chunk }
    if (maxTokens > 0) {
      request.shortlist = this.#sampler.shortlist(this.#timeline.slice(), all)
      if (topLogprobs > 0) request.top = topLogprobs
    }
    const from = performance.now()
    try {
      return await this.#timeline.compute(request)
    } finally {
      const ms = performance.now() - from
      if (keep === 0) {
        this.#prefillMs = ms
      } else {
        this.#decodeMs += ms
        this.#decoded++
      }
    }
  }

  #checkAlive(): void {
    this.#options.signal?.throwIfAborted()
    if (this.#timeline.disposed) {
      throw new OnebitError('ERR_DISPOSED', 'The session was disposed while it was generating.')
    }
  }

  /** The index of the next token among the candidates; negative when more of them are needed. */
  #choose({ candidates }: NativeStepResult): number {
    return candidates ? this.#sampler.sample(candidates) : 0
  }

  /** Puts the chosen token on the timeline; sets #finish when it is the last. */
  #next({ candidates, scores }: NativeStepResult, chosen: number): Piece | undefined {
    if (!candidates) {
      this.#finish = 'length' // none were asked for: maxTokens is 0
      return undefined
    }
    const id = candidates.ids[chosen]!
    const stored = this.#timeline.length < this.#timeline.capacity
    if (stored) this.#timeline.pushOne(id)
    if (this.#stopIds.has(id)) {
      this.#finish = 'stop'
      const text = this.#flush('')
      return text === '' ? undefined : { text, id, released: true }
    }
    const piece: Piece = { text: this.#textOf(id), id }
    if (++this.#usage.newTokens >= this.#options.maxTokens) this.#finish ??= 'length'
    if (!stored) this.#finish ??= 'context'
    if (this.#finish === 'length' || this.#finish === 'context') piece.text = this.#flush(piece.text)
    if (this.#options.logprobs) piece.logprob = Math.fround(candidates.rawLogits[chosen]! - candidates.rawLogSumExp)
    if (scores && this.#options.topLogprobs > 0) {
      piece.topLogprobs = Array.from(scores.top_ids, (id, i) => ({ id, logprob: scores.top_logprobs[i]! }))
    }
    return piece
  }

  #textOf(id: number): string {
    const text = this.#text?.push(id) ?? ''
    if (!this.#stops || text === '') return text
    const { text: released, stopped } = this.#stops.push(text)
    if (stopped) this.#finish = 'stop'
    return released
  }

  /** `text` and everything that was held back, when no token follows. */
  #flush(text: string): string {
    const rest = this.#text?.flush() ?? ''
    if (!this.#stops) return text + rest
    const last = this.#stops.push(rest)
    return text + last.text + (last.stopped ? '' : this.#stops.flush())
  }
}
