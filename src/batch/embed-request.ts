/** One vector for a text. */
import type { NativeStepItem, NativeStepResult } from '../native/native.js'
import { pooled } from '../run/embedding.js'
import type { Demand } from './plan.js'
import { BatchRequest } from './request.js'

export interface CheckedEmbedOptions {
  pooling: 'mean' | 'last'
  normalize: boolean
  signal: AbortSignal | undefined
}

export interface Embedding {
  embedding: Float32Array
  tokens: number
}

export class EmbedRequest extends BatchRequest {
  readonly result: Promise<Embedding>
  readonly #options: CheckedEmbedOptions
  /** in double, so that what is lost by adding in pieces is lost again when the result becomes f32 */
  #sum: Float64Array | undefined
  /** of so many tokens */
  #summed = 0
  #resolve!: (embedding: Embedding) => void
  #reject!: (error: unknown) => void

  constructor(ids: Int32Array, options: CheckedEmbedOptions) {
    super(ids, options.signal)
    this.#options = options
    this.result = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.result.catch(() => {}) // whoever asked has it too
    this.listen()
  }

  get demand(): Demand {
    return { answering: false, pending: this.prompt.length - this.native!.length, chunk: 0 }
  }

  /** The mean needs the hidden states of all tokens, and those are not kept. */
  override usable(): number {
    return 0
  }

  override found(): void {}

  /** Its session is gone when it has all its tokens. */
  override serves(): boolean {
    return false
  }

  override get keeps(): boolean {
    return false
  }

  override item(count: number): NativeStepItem {
    const from = this.native!.length
    const last = from + count === this.prompt.length
    const hidden = this.#options.pooling === 'mean' ? 2 : last ? 1 : 0
    return { session: this.native!, tokens: this.prompt.subarray(from, from + count), logits: 0, hidden }
  }

  override took(result: NativeStepResult, before: number, count: number): void {
    const { hidden } = result
    const sum = this.#sum
    if (hidden) this.#sum = sum ? sum.map((x, i) => x + hidden[i]!) : hidden
    this.#summed = before + count
    const tokens = this.prompt.length
    if (before + count < tokens) return
    this.settle()
    const { pooling, normalize } = this.#options
    this.#resolve({ embedding: pooled(this.#sum!, pooling === 'mean' ? tokens : 1, normalize), tokens })
  }

  override again(): void {
    if (this.native!.length === this.#summed) return
    this.native!.rewind(0)
    this.#sum = undefined
    this.#summed = 0
  }

  protected override failed(error: unknown): void {
    this.#reject(error)
  }
}
