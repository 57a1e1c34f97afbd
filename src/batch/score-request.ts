/** How likely each token of a text is. */
import type { NativeStepItem, NativeStepResult } from '../native/native.js'
import { type Known, KnownScores } from './known-scores.js'
import type { Demand } from './plan.js'
import { BatchRequest } from './request.js'
import type { BatchScores } from './requests.js'

export interface CheckedScoreOptions {
  top: number
  next: boolean
  signal: AbortSignal | undefined
}

export class ScoreRequest extends BatchRequest {
  readonly result: Promise<BatchScores>
  readonly #options: CheckedScoreOptions
  /** tokens to compute: what follows the last is of interest with `next` only */
  readonly #wanted: number
  #cached = 0
  #resolve!: (scores: BatchScores) => void
  #reject!: (error: unknown) => void

  constructor(ids: Int32Array, options: CheckedScoreOptions) {
    super(ids, options.signal)
    this.#options = options
    this.#wanted = options.next ? ids.length : ids.length - 1
    this.scores = new KnownScores(this.#wanted + 1, options.top)
    this.result = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.result.catch(() => {}) // whoever asked has it too
    this.listen()
  }

  get demand(): Demand {
    return { answering: false, pending: this.#wanted - this.native!.length, chunk: 0 }
  }

  override start(): void {
    if (this.#wanted === 0) this.#finish()
  }

  override found(tokens: number, scores: KnownScores | undefined): void {
    this.#cached = tokens
    if (scores && tokens > 0) this.scores!.copy(scores, tokens + 1)
  }

  /** What follows the last token that is used was computed for another text, maybe: it is computed again. */
  override usable(common: number, scores: Known | undefined): number {
    if (!scores || scores.top < this.#options.top) return 0
    return Math.max(0, Math.min(common - 1, scores.known - 1, this.#wanted - 1))
  }

  override serves(other: BatchRequest): boolean {
    return !(other instanceof ScoreRequest) || this.#options.top >= other.#options.top
  }

  override item(count: number): NativeStepItem {
    const from = this.native!.length
    const next = this.prompt[from + count] ?? -1
    const score = { from: 0, top: this.#options.top, next }
    return { session: this.native!, tokens: this.prompt.subarray(from, from + count), logits: 0, score }
  }

  override took(result: NativeStepResult, before: number, count: number): void {
    this.scores!.add(result.scores!, before + 1)
    if (before + count === this.#wanted) this.#finish()
  }

  #finish(): void {
    this.settle()
    const { logprobs, topIds, topLogprobs } = this.scores!
    this.#resolve({
      logprobs: logprobs.slice(0, this.prompt.length),
      topIds: topIds.slice(),
      topLogprobs: topLogprobs.slice(),
      cachedTokens: this.#cached,
    })
  }

  protected override failed(error: unknown): void {
    this.#reject(error)
  }
}
