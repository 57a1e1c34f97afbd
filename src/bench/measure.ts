/** The clock: repetitions of one test. */
import { performance } from 'node:perf_hooks'
import type { Model } from '../model.js'
import { createLanes, type Lanes } from './lanes.js'
import type { BenchTest } from './test-matrix.js'

export interface Repetitions {
  repetitions: number
  warmup: boolean
}

/** Tests that can use the same sessions, one after the other, without computing a common depth again. */
function sameSessions(a: BenchTest, b: BenchTest): boolean {
  return a.kv === b.kv && a.n_parallel === b.n_parallel && a.n_ubatch === b.n_ubatch && a.n_batch === b.n_batch
}

const positions = (test: BenchTest) => test.n_depth + test.n_prompt + test.n_gen

/** Runs tests on one model, keeping sessions between tests that agree on them. */
export class Measurement {
  readonly #model: Model
  readonly #tests: readonly BenchTest[]
  #lanes: Lanes | undefined
  #made: BenchTest | undefined

  constructor(model: Model, tests: readonly BenchTest[]) {
    this.#model = model
    this.#tests = tests
  }

  /**
   * @returns nanoseconds of each repetition: n_prompt tokens at once, then n_gen one by one, both after n_depth tokens
   *   that are not timed
   * @throws OnebitError ERR_BAD_OPTION when the model's context is too short, ERR_OUT_OF_MEMORY
   */
  async run(test: BenchTest, { repetitions, warmup }: Repetitions): Promise<number[]> {
    const lanes = await this.#at(test)
    const once = async (prompt: number, gen: number) => {
      lanes.rewind(test.n_depth)
      const start = performance.now()
      if (prompt > 0) await lanes.prefill(prompt)
      if (gen > 0) await lanes.decode(gen)
      return Math.round((performance.now() - start) * 1e6)
    }
    // As llama-bench warms up: the whole prompt, but only one new token.
    if (warmup) await once(test.n_prompt, Math.min(1, test.n_gen))
    const samples: number[] = []
    for (let i = 0; i < repetitions; i++) samples.push(await once(test.n_prompt, test.n_gen))
    return samples
  }

  /** Seconds that one repetition of `test` would take, from as little of it as tells: at most 32 + 2 tokens. */
  async estimate(test: BenchTest): Promise<{ prompt: number; gen: number; depth: number }> {
    const lanes = await this.#at({ ...test, n_depth: 0 })
    const timed = async (work: () => Promise<void>) => {
      const start = performance.now()
      await work()
      return (performance.now() - start) / 1000
    }
    const few = Math.min(32, Math.max(1, test.n_prompt, test.n_depth))
    await lanes.prefill(few) // the first pass also brings the weights into the caches
    lanes.rewind(0)
    const prefill = (await timed(() => lanes.prefill(few))) / few
    await lanes.decode(1)
    const gen = (await timed(() => lanes.decode(2))) / 2
    return { prompt: prefill * test.n_prompt, gen: gen * test.n_gen, depth: prefill * test.n_depth }
  }

  dispose(): void {
    this.#lanes?.dispose()
    this.#lanes = undefined
  }

  /** Sessions with test.n_depth tokens in them, and room for all tests that will use them. */
  async #at(test: BenchTest): Promise<Lanes> {
    if (!this.#lanes || !this.#made || !sameSessions(this.#made, test)) {
      this.dispose()
      const alike = this.#tests.filter((other) => sameSessions(other, test))
      const wanted = 4 + Math.max(...[test, ...alike].map(positions)) // estimate() decodes a few more
      const capacity = Math.max(positions(test), Math.min(wanted, this.#model.config.context_length))
      this.#lanes = createLanes(this.#model, test, capacity)
      this.#made = test
    }
    const lanes = this.#lanes
    if (lanes.length > test.n_depth) lanes.rewind(test.n_depth)
    if (lanes.length < test.n_depth) await lanes.prefill(test.n_depth - lanes.length)
    return lanes
  }
}
