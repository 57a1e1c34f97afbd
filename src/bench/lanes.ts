/**
 * What a measurement drives: one session through the public API, as a program would, or several sessions that go
 * through each native step together. Both prefill, decode greedily and go back.
 */

import { OnebitError } from '../errors.js'
import { addon } from '../native/addon.js'
import type { NativeModel, NativeSampler, NativeSession, NativeStepItem } from '../native/native.js'
import { internals, type Model } from '../run/model.js'
import { checkSampling, nativeSampling } from '../run/sampler.js'
import { KV_TYPES, type Session } from '../run/session.js'
import type { BenchTest } from './test-matrix.js'

export interface Lanes {
  /** tokens in the cache of each session */
  readonly length: number
  /** puts `count` arbitrary tokens into each session and computes the logits of the last */
  prefill(count: number): Promise<void>
  /** `count` steps, each of one token a session, the likeliest after the one before */
  decode(count: number): Promise<void>
  /** what of that has to be computed again is, so that a clock which starts then does not measure it */
  rewind(length: number): Promise<void>
  dispose(): void
}

/** Arbitrary but always the same ids, spread over the vocabulary. */
export function arbitraryIds(count: number, vocabulary: number, from = 0): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => (Math.imul(i + from + 1, 0x9e3779b1) >>> 0) % vocabulary)
}

export function createLanes(model: Model, test: BenchTest, capacity: number): Lanes {
  return test.n_parallel === 1 ? new ApiLane(model, test, capacity) : new BatchLanes(model, test, capacity)
}

/**
 * For answers that are measured: as many tokens as were asked for, each in a step of its own. Random weights soon say the same
 * again, and with guesses a row showed up to 1.7 times what steps give.
 */
export const A_STEP_EACH = { ignoreEos: true, speculate: 'off' } as const

class ApiLane implements Lanes {
  readonly #model: Model
  readonly #session: Session
  readonly #test: BenchTest

  constructor(model: Model, test: BenchTest, capacity: number) {
    this.#model = model
    this.#test = test
    this.#session = model.createSession({ context: capacity, kv: test.kv })
  }

  get length(): number {
    return this.#session.position
  }

  async prefill(count: number): Promise<void> {
    const { n_batch, n_ubatch } = this.#test
    const ids = arbitraryIds(count, this.#model.config.vocab_size, this.length)
    for (let from = 0; from < count; from += n_batch)
      await this.#session.logits(ids.subarray(from, from + n_batch), { chunk: n_ubatch })
  }

  async decode(count: number): Promise<void> {
    const ids = arbitraryIds(1, this.#model.config.vocab_size, this.length)
    let made = 0
    const options = { ...A_STEP_EACH, maxTokens: count, temperature: 0 }
    for await (const _piece of this.#session.generate(ids, options)) made++
    if (made !== count) throw new OnebitError('ERR_BENCH', `The model made ${made} tokens instead of ${count}`)
  }

  async rewind(length: number): Promise<void> {
    this.#session.rewind(length)
    await this.#session.append([])
  }

  dispose(): void {
    this.#session.dispose()
  }
}

/** Takes the likeliest token and does nothing else. */
export function greedySampler(vocabSize: number): NativeSampler {
  return new (addon().Sampler)(nativeSampling(checkSampling({ temperature: 0 }, vocabSize), new Int32Array(0)))
}

class BatchLanes implements Lanes {
  readonly #model: Model
  readonly #native: NativeModel
  readonly #test: BenchTest
  readonly #sessions: NativeSession[] = []
  readonly #samplers: NativeSampler[] = []

  constructor(model: Model, test: BenchTest, capacity: number) {
    this.#model = model
    this.#native = internals.native(model)
    this.#test = test
    try {
      for (let i = 0; i < test.n_parallel; i++)
        this.#sessions.push(this.#native.createSession(capacity, KV_TYPES.indexOf(test.kv) as 0 | 1 | 2))
      for (let i = 0; i < test.n_parallel; i++) this.#samplers.push(greedySampler(model.config.vocab_size))
    } catch (error) {
      this.dispose()
      throw error
    }
  }

  get length(): number {
    return this.#sessions[0]!.length
  }

  async #step(tokensOf: (lane: number) => Int32Array): Promise<Int32Array> {
    const items = this.#sessions.map(
      (session, i): NativeStepItem => ({ session, tokens: tokensOf(i), logits: 0, sampler: this.#samplers[i]! }),
    )
    const results = await addon().step(this.#native, items, { chunk: this.#test.n_ubatch })
    return Int32Array.from(results, ({ id }) => id!)
  }

  async prefill(count: number): Promise<void> {
    const { vocab_size } = this.#model.config
    const share = Math.max(1, Math.floor(this.#test.n_batch / this.#sessions.length))
    const start = this.length
    for (let from = 0; from < count; from += share) {
      const size = Math.min(share, count - from)
      await this.#step((lane) => arbitraryIds(size, vocab_size, start + from + lane * 7919))
    }
  }

  async decode(count: number): Promise<void> {
    let next = arbitraryIds(this.#sessions.length, this.#model.config.vocab_size, this.length)
    for (let i = 0; i < count; i++) next = await this.#step((lane) => next.subarray(lane, lane + 1))
  }

  async rewind(length: number): Promise<void> {
    for (const session of this.#sessions) if (length < session.length) session.rewind(length)
    // The tokens are arbitrary, so others do as well; all sessions went back equally far.
    if (this.length < length) await this.prefill(length - this.length)
  }

  dispose(): void {
    for (const session of this.#sessions) session.dispose()
  }
}
