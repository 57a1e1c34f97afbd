/**
 * A generation: native code computes and chooses tokens, here they become text and are handed out. The next token is
 * computed meanwhile.
 */

import { OnebitError } from '../errors.js'
import type { Constraint } from '../grammar/constraint.js'
import { addon } from '../native/addon.js'
import type { NativeCancel, NativeGenerated, NativeSampler } from '../native/native.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { Draft } from './draft.js'
import type { CheckedGenerateOptions } from './generate-options.js'
import { type Chosen, type FinishReason, type Piece, Pieces } from './pieces.js'
import { nativeSampling } from './sampler.js'
import type { Timeline } from './timeline.js'

export type { FinishReason, Piece, TokenLogprob } from './pieces.js'

/** What a generation cost, in tokens. */
export interface Usage {
  /** tokens before the answer, those that were in the cache included */
  promptTokens: number
  /** of these, already in the cache */
  cachedTokens: number
  /** tokens handed out; a stop token is not counted */
  newTokens: number
}

/** What it took, in milliseconds. */
export interface Timings {
  /** until the first token was known */
  prefillMs: number
  /** what the native thread took for all other tokens */
  decodeMs: number
  /** decoded tokens a second, 0 when there was none */
  tokensPerSecond: number
}

/** How a generation ended and what it cost. */
export interface GenerationSummary {
  /** why no more came */
  finishReason: FinishReason
  /** tokens */
  usage: Usage
  /** milliseconds */
  timings: Timings
}

/** A token, and what the native thread took for it. */
interface TimedChoice extends Chosen {
  ms: number
}

export class Generation {
  readonly #timeline: Timeline
  readonly #options: CheckedGenerateOptions
  readonly #sampler: NativeSampler | undefined
  readonly #pieces: Pieces
  readonly #cancel: NativeCancel
  readonly #constraint: Constraint | undefined
  readonly #usage: Usage
  #finish: FinishReason | undefined
  #prefillMs = 0
  #decodeMs = 0
  #decoded = 0

  /** chosen and not handed out yet, oldest first */
  readonly #chosen: TimedChoice[] = []
  /** how many were told, those that are gone from #chosen included, and the last of them */
  #told = 0
  #lastTold = 0
  /** the native call under way; it never rejects */
  #running: Promise<void> | undefined
  /** the last native call ended because nobody took its tokens: there is more to come */
  #behind = false
  #failure: { error: unknown } | undefined
  #started = 0
  #wake = () => {}

  /**
   * The prompt is on the timeline already. `cached`: how many of its tokens were computed before. With a constraint tokens
   * come one by one, because each says which may follow it; without one a draft may guess them.
   */
  constructor(
    timeline: Timeline,
    tokenizer: Tokenizer | undefined,
    options: CheckedGenerateOptions,
    cancel: NativeCancel,
    cached: number,
    { constraint, draft }: { constraint?: Constraint; draft?: Draft } = {},
  ) {
    this.#timeline = timeline
    this.#constraint = constraint
    this.#options = options
    this.#cancel = cancel
    if (options.maxTokens > 0) {
      const speculate = constraint ? 'off' : options.speculate
      this.#sampler = new (addon().Sampler)(
        nativeSampling(options.sampling, timeline.slice(), { speculate, draft: draft?.native }),
      )
    }
    this.#pieces = new Pieces(tokenizer, options, timeline.slice())
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

  /** Little runs ahead of the consumer: see NativeAddon.generate. */
  async *run(): AsyncGenerator<Piece, void, undefined> {
    this.#started = performance.now()
    try {
      this.#compute(this.#timeline.pending())
      while (this.#finish === undefined) {
        const chosen = await this.#next()
        const piece = chosen && this.#handOut(chosen)
        if (chosen && this.#constraint && this.#finish === undefined) {
          this.#constraint.accept(chosen.id)
          await this.#running // it has told its only token, and is about to end
          this.#compute(Int32Array.of(chosen.id))
        }
        if (piece) yield piece
      }
    } finally {
      this.#finish ??= 'abort'
      this.#cancel.cancel()
      await this.#running
      this.#timeline.settle(this.#told === 0)
    }
  }

  /** Computes tokens that follow what the cache holds, and what is chosen after them. */
  #compute(tokens: Int32Array): void {
    const { maxTokens, topLogprobs, chunk } = this.#options
    const sampling = this.#sampler && {
      sampler: this.#sampler,
      most: this.#constraint ? 1 : maxTokens - this.#told,
      stop_tokens: Int32Array.from(this.#pieces.stopIds),
      top: topLogprobs,
    }
    const generate = (tokens: Int32Array) =>
      this.#timeline.generate({ tokens, ...sampling }, { chunk, cancel: this.#cancel, onToken: this.#onToken })
    this.#behind = false
    this.#running = (this.#constraint && sampling ? this.#allowed(generate, tokens) : generate(tokens))
      .then(
        ({ behind }) => {
          this.#behind = behind
        },
        (error: unknown) => {
          this.#failure ??= { error }
        },
      )
      .then(() => {
        this.#running = undefined
        this.#goOn()
        this.#wake()
      })
  }

  /** Which tokens may come is found out while those before are computed; a mask that takes long is waited for here. */
  async #allowed(
    generate: (tokens: Int32Array) => Promise<NativeGenerated>,
    tokens: Int32Array,
  ): Promise<NativeGenerated> {
    this.#sampler!.hold()
    const allowed = this.#constraint!.next().then(
      (mask) => this.#sampler!.allow(mask),
      (error: unknown) => {
        this.#failure = { error }
        this.#cancel.cancel()
      },
    )
    try {
      return await generate(tokens)
    } catch (error) {
      const isHeld = (error as OnebitError).code === 'ERR_HELD'
      if (!isHeld || this.#cancel.cancelled) throw error
      await allowed
      if (this.#cancel.cancelled || this.#timeline.disposed) throw error
      return await generate(this.#timeline.pending())
    }
  }

  readonly #onToken = (
    id: number,
    logprob: number,
    ms: number,
    topIds: Int32Array | undefined,
    topLogprobs: Float32Array | undefined,
  ): void => {
    if (this.#told++ === 0) this.#prefillMs = performance.now() - this.#started
    this.#lastTold = id
    this.#chosen.push({ id, logprob, ms, topIds, topLogprobs })
    this.#wake()
  }

  /** Native code stopped because the consumer was behind, and now it is not. */
  #goOn(): void {
    if (!this.#behind || this.#running || this.#finish !== undefined || this.#chosen.length > 1) return
    this.#compute(Int32Array.of(this.#lastTold))
  }

  /** The next token; undefined when only the prompt was to be computed. */
  async #next(): Promise<TimedChoice | undefined> {
    for (;;) {
      this.#checkAlive()
      const chosen = this.#chosen.shift()
      if (chosen) {
        this.#sampler!.took()
        this.#goOn()
        return chosen
      }
      if (this.#failure) throw this.#failure.error
      if (!this.#running) {
        this.#prefillMs = performance.now() - this.#started
        this.#finish = 'length' // maxTokens is 0
        return undefined
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  #checkAlive(): void {
    this.#options.signal?.throwIfAborted()
    if (this.#timeline.disposed) {
      throw new OnebitError('ERR_DISPOSED', 'The session was disposed while it was generating.')
    }
  }

  /** Puts the chosen token on the timeline; sets #finish when it is the last. */
  #handOut(chosen: TimedChoice): Piece | undefined {
    if (this.#usage.newTokens > 0) {
      this.#decodeMs += chosen.ms
      this.#decoded++
    }
    const stored = this.#timeline.length < this.#timeline.capacity
    if (stored) this.#timeline.pushOne(chosen.id)
    const piece = this.#pieces.push(chosen, !stored)
    this.#usage.newTokens = this.#pieces.count
    this.#finish = this.#pieces.finish
    return piece
  }
}
