/** What is known about the first tokens of a session: how likely each was, and which were the likeliest there. */
import type { NativeStepResult } from '../native/native.js'

/** For each of the first `known` tokens, `top` likeliest ones. */
export type Known = Readonly<Pick<KnownScores, 'known' | 'top'>>

export class KnownScores {
  /** likeliest tokens for each position */
  readonly top: number
  readonly logprobs: Float32Array
  /** (tokens, top) */
  readonly topIds: Int32Array
  readonly topLogprobs: Float32Array
  /** of so many tokens, the first included, of which there is nothing to know */
  known = 1

  constructor(tokens: number, top: number) {
    this.top = top
    this.logprobs = new Float32Array(tokens).fill(Number.NaN)
    this.topIds = new Int32Array(tokens * top).fill(-1)
    this.topLogprobs = new Float32Array(tokens * top).fill(Number.NaN)
  }

  get bytes(): number {
    return this.logprobs.byteLength + this.topIds.byteLength + this.topLogprobs.byteLength
  }

  /** Those of the first `tokens` tokens from another text that begins alike and has at least as many likeliest ones. */
  copy(from: KnownScores, tokens: number): void {
    this.logprobs.set(from.logprobs.subarray(0, tokens))
    this.known = Math.max(1, tokens)
    if (this.top === from.top) {
      this.topIds.set(from.topIds.subarray(0, tokens * this.top))
      this.topLogprobs.set(from.topLogprobs.subarray(0, tokens * this.top))
      return
    }
    for (let row = 1; row < tokens; row++) {
      const [begin, end] = [row * from.top, row * from.top + this.top]
      this.topIds.set(from.topIds.subarray(begin, end), row * this.top)
      this.topLogprobs.set(from.topLogprobs.subarray(begin, end), row * this.top)
    }
  }

  /** Rows of a step; the first is about token number `from`. */
  add(scores: NonNullable<NativeStepResult['scores']>, from: number): void {
    this.logprobs.set(scores.logprobs, from)
    this.topIds.set(scores.top_ids, from * this.top)
    this.topLogprobs.set(scores.top_logprobs, from * this.top)
    this.known = from + scores.logprobs.length
  }

  /** Of the first `tokens` tokens only, in arrays of that size. */
  cut(tokens: number): KnownScores {
    const cut = new KnownScores(tokens, this.top)
    cut.copy(this, Math.min(tokens, this.known))
    return cut
  }
}
