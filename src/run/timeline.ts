/**
 * The tokens of one session in order, and the native cache that has computed the first of them. The tokens after
 * those are pending: they are computed together with whatever comes next.
 */

import { OnebitError } from '../errors.js'
import { addon } from '../native/addon.js'
import { CONTEXT_OPTION } from '../native/hints.js'
import type {
  NativeCancel,
  NativeGenerated,
  NativeGeneration,
  NativeModel,
  NativeSession,
  NativeStepItem,
  NativeStepResult,
  OnToken,
} from '../native/native.js'
import type { KvType } from './kv.js'

export interface ComputeOptions extends Partial<Pick<NativeStepItem, 'logits' | 'hidden'>> {
  /** scores of what follows each token from this position on; `next` follows the last (-1: unknown) */
  score?: { from: number; top: number; next: number }
  cancel?: NativeCancel | undefined
  /** tokens a chunk; 0 (default): chosen by time */
  chunk?: number | undefined
  /** when the step is cancelled or fails, the tokens from here on that were not computed are dropped */
  keep?: number
}

export class Timeline {
  readonly #model: NativeModel
  readonly #native: NativeSession
  readonly #ids: Int32Array
  #length = 0
  /** tokens that were computed once and are pending again, because the cache could go back only farther than that */
  #owed = 0
  readonly capacity: number
  readonly kv: KvType

  constructor(model: NativeModel, native: NativeSession, kv: KvType, ids: Int32Array = new Int32Array(0)) {
    this.#model = model
    this.#native = native
    this.kv = kv
    this.capacity = native.capacity
    this.#ids = new Int32Array(this.capacity)
    this.push(ids)
  }

  /** tokens, computed and pending */
  get length(): number {
    return this.#length
  }

  /** tokens in the cache */
  get computed(): number {
    return this.#native.length
  }

  get bytes(): number {
    return this.#native.bytes
  }

  get usedBytes(): number {
    return this.#native.usedBytes
  }

  /** of 256 positions; 0 when disposed */
  get chunkBytes(): number {
    return this.#native.chunkBytes
  }

  /** of the layers that have one, together; 0 when there are none */
  get stateBytes(): number {
    return this.#native.stateBytes
  }

  get disposed(): boolean {
    return this.#native.disposed
  }

  /** ids[from..to), a view that the next push may change */
  slice(from = 0, to = this.#length): Int32Array {
    return this.#ids.subarray(from, to)
  }

  /** @throws OnebitError ERR_CONTEXT_FULL, with nothing changed */
  checkRoom(from: number, count: number): void {
    if (from + count <= this.capacity) return
    const cached = from > 0 ? ` after the ${from} that stay` : ''
    throw new OnebitError(
      'ERR_CONTEXT_FULL',
      `The prompt has ${count} tokens${cached}; the session's context is ${this.capacity}.`,
      { hint: `Use a larger context ${CONTEXT_OPTION}, at most what the model allows, or a shorter prompt.` },
    )
  }

  push(ids: ArrayLike<number>): void {
    this.checkRoom(this.#length, ids.length)
    this.#ids.set(ids, this.#length)
    this.#length += ids.length
  }

  pushOne(id: number): void {
    this.#ids[this.#length++] = id
  }

  rewind(length: number): void {
    this.rewindCache(length)
    this.#length = length
    this.#owed = Math.min(this.#owed, length)
  }

  /** Makes the tokens from here on pending again, and those before that the cache cannot go back to. */
  rewindCache(length: number): void {
    if (length >= this.#native.length) return
    this.#native.rewind(length)
    if (this.#native.length < length) this.#owed = Math.max(this.#owed, length)
  }

  /** What is done with the timeline next is another thing than what was done before. */
  mark(): void {
    if (this.#native.stateBytes > 0) this.#native.mark()
  }

  /** Forgets the tokens that were not computed, but not the first `keep`. */
  #dropPending(keep: number): void {
    const kept = Math.min(Math.max(keep, this.#owed), this.#length)
    this.#length = Math.max(this.#native.length, kept)
  }

  /** How many of the first tokens are the same as in `ids`. */
  commonPrefix(ids: ArrayLike<number>): number {
    const end = Math.min(this.#length, ids.length)
    let n = 0
    while (n < end && this.#ids[n] === ids[n]) n++
    return n
  }

  /**
   * Computes what is pending; at least the last token, again if need be, because logits are not kept. On a step that
   * was cancelled the result's `processed` is smaller than the number of tokens.
   */
  async compute(options: ComputeOptions): Promise<NativeStepResult> {
    const tokens = this.pending()
    const item: NativeStepItem = { session: this.#native, tokens, logits: options.logits ?? 0 }
    if (options.hidden) item.hidden = options.hidden
    item.ends = !options.score && item.logits !== 2
    if (options.score) item.score = { ...options.score, from: options.score.from - this.#native.length }
    const settings: { chunk: number; cancel?: NativeCancel } = { chunk: options.chunk ?? 0 }
    if (options.cancel) settings.cancel = options.cancel
    try {
      const [result] = await addon().step(this.#model, [item], settings)
      return result!
    } finally {
      if (!this.#native.disposed) this.#dropPending(options.keep ?? 0)
    }
  }

  /** What a generation starts with: the tokens that are pending, at least the last. */
  pending(): Int32Array {
    this.rewindCache(this.#length - 1)
    return this.slice(this.#native.length)
  }

  /** Computes tokens that continue the cache and goes on; what it chooses is only told. See NativeAddon.generate. */
  async generate(
    request: Omit<NativeGeneration, 'session'>,
    options: { chunk: number; cancel: NativeCancel; onToken: OnToken },
  ): Promise<NativeGenerated> {
    return addon().generate(this.#model, { ...request, session: this.#native }, options)
  }

  /** After a generation: forgets what was computed ahead of the timeline, and with `drop` what was not computed of it. */
  settle(drop: boolean): void {
    if (this.#native.disposed) return
    this.rewindCache(this.#length)
    if (drop) this.#dropPending(0)
    // What was chosen behind a token says that it was computed, though a guess after it may have taken it back.
    else this.#owed = Math.max(this.#owed, this.#length - 1)
  }

  /** @throws OnebitError ERR_BUSY, ERR_DISPOSED, ERR_OUT_OF_MEMORY, ERR_MEMORY_LIMIT */
  async fork(length: number): Promise<Timeline> {
    const native = await this.#native.fork(Math.min(length, this.#native.length))
    const fork = new Timeline(this.#model, native, this.kv, this.slice(0, length).slice())
    fork.#owed = Math.min(length, this.#native.length)
    return fork
  }

  /** Chunk `index` of the cache, zeros behind what is computed. */
  readChunk(index: number): Promise<Uint8Array> {
    return this.#native.readChunk(index)
  }

  /** The same back, in order, into an empty timeline; then restored(). */
  writeChunk(index: number, bytes: Uint8Array): Promise<void> {
    return this.#native.writeChunk(index, bytes)
  }

  /** Positions of the states that can be read now: the newest that are kept, at most so many, and that of what is computed. */
  holdStates(most: number): number[] {
    return this.#native.stateBytes > 0 ? [...this.#native.holdStates(most)] : []
  }

  /** By its place in that list. */
  readState(index: number): Promise<Uint8Array> {
    return this.#native.readState(index)
  }

  /** The same back, in order, after the chunks. */
  writeState(position: number, bytes: Uint8Array): Promise<void> {
    return this.#native.writeState(position, bytes)
  }

  /** The chunks that were written are those of the first `computed` of these tokens. */
  restored(computed: number, ids: Int32Array): void {
    this.checkRoom(0, ids.length)
    this.#native.restored(computed)
    this.push(ids)
  }

  dispose(): void {
    this.#native.dispose()
  }
}
