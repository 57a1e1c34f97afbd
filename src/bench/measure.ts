/** The clock: repetitions of one test. */
import { performance } from 'node:perf_hooks'
import type { Model } from '../run/model.js'
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
      await lanes.rewind(test.n_depth)
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

  /** Seconds for each token of a prompt and of a generation, and for reaching the depth from where the session is. */
  async estimate(test: BenchTest): Promise<{ prompt: number; gen: number; depth: number }> {
    const lanes = this.#sessions(test)
    const start = Math.min(lanes.length, test.n_depth)
    await lanes.rewind(start)
    const timed = async (count: number, work: (count: number) => Promise<void>) => {
      const begun = performance.now()
      await work(count)
      return (performance.now() - begun) / 1000 / count
    }
    const few = Math.min(32, Math.max(1, test.n_prompt, test.n_depth - start))
    const prefill = (count: number) => lanes.prefill(count)
    await prefill(few) // the first pass also brings the weights into the caches
    await lanes.rewind(start)
    const prompt = await timed(few, prefill)
    let gen = 0
    if (test.n_gen > 0) {
      await lanes.decode(1)
      gen = await timed(2, (count) => lanes.decode(count))
    }
    await lanes.rewind(start)
    return { prompt, gen, depth: prompt * (test.n_depth - start) }
  }

  dispose(): void {
    this.#lanes?.dispose()
    this.#lanes = undefined
  }

  /** Sessions with test.n_depth tokens in them. */
  async #at(test: BenchTest): Promise<Lanes> {
    const lanes = this.#sessions(test)
    if (lanes.length > test.n_depth) await lanes.rewind(test.n_depth)
    if (lanes.length < test.n_depth) await lanes.prefill(test.n_depth - lanes.length)
    return lanes
  }

  /** The sessions of the test before if they will do, else new ones with room for all tests like this. */
  #sessions(test: BenchTest): Lanes {
    if (this.#lanes && this.#made && sameSessions(this.#made, test)) return this.#lanes
    this.dispose()
    const alike = this.#tests.filter((other) => sameSessions(other, test))
    const wanted = 4 + Math.max(...[test, ...alike].map(positions)) // estimate() decodes a few more
    const capacity = Math.max(positions(test), Math.min(wanted, this.#model.config.context_length))
    this.#lanes = createLanes(this.#model, test, capacity)
    this.#made = test
    return this.#lanes
  }
}
