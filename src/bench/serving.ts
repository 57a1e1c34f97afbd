/** What several requests at once get: through `Batch`, as a server's clients have it, without HTTP. */
import { performance } from 'node:perf_hooks'
import { Batch } from '../batch/batch.js'
import type { Model } from '../run/model.js'
import type { ServingJob } from './jobs.js'
import { A_STEP_EACH } from './lanes.js'
import type { ServingSamples, ServingTest } from './serving-rows.js'

const FEWEST_TOKENS = 4
/** Tokens that are handed out in one go are no further apart than this, and no step is so quick. */
const TOGETHER_MS = 0.05

/** Texts that have nothing in common, so that no session finds another one's work. */
function promptIds(count: number, session: number, vocabSize: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => ((i + 1) * 7919 + (session + 1) * 104_729) % vocabSize)
}

/** When each token of a session came. */
async function tokenTimes(batch: Batch, { n_prompt, n_gen }: ServingTest, session: number): Promise<number[]> {
  const ids = promptIds(n_prompt, session, batch.model.config.vocab_size)
  const times: number[] = []
  for await (const _ of batch.generate(ids, { ...A_STEP_EACH, maxTokens: n_gen, temperature: 0 })) {
    times.push(performance.now())
  }
  return times
}

/** Between the moments at which tokens came; an answer that is alone gets those that are made within 8 ms together. */
function gapsOf(times: readonly number[]): number[] {
  const gaps = times.slice(1).map((time, i) => time - times[i]!)
  const apart = gaps.filter((gap) => gap > TOGETHER_MS)
  return apart.length > 0 ? apart : gaps
}

/** Of all sessions together: from when each has its first token until the first of them ends. */
function speedOf(sessions: readonly number[][]): number {
  const from = Math.max(...sessions.map((times) => times[0]!))
  const to = Math.min(...sessions.map((times) => times.at(-1)!))
  const within = sessions.flat().filter((time) => time > from && time <= to).length
  if (within > 0) return (1000 * within) / (to - from)
  // So short that they hardly overlapped.
  const all = sessions.flat()
  return (1000 * (all.length - sessions.length)) / Math.max(1e-3, Math.max(...all) - Math.min(...all))
}

async function once(model: Model, test: ServingTest) {
  const batch = new Batch(model, {
    parallel: test.n_sessions,
    cacheMiB: 0,
    context: test.n_prompt + test.n_gen,
  })
  try {
    const sessions = await Promise.all(
      Array.from({ length: test.n_sessions }, (_, session) => tokenTimes(batch, test, session)),
    )
    return { speed: speedOf(sessions), gaps: sessions.flatMap(gapsOf) }
  } finally {
    await batch.close({ graceMs: 0 })
  }
}

/** Runs the tests of a job, each in a size that fits what is left of its time. */
export class ServingMeasurement {
  readonly #model: Model
  readonly #job: ServingJob
  readonly #begun = performance.now()
  /** seconds of a step with one session, and of a token of a prompt; known after the first look */
  #pace: { step: number; prompt: number } | undefined

  constructor(model: Model, job: ServingJob) {
    this.#model = model
    this.#job = job
  }

  /** The test for so many sessions, or why there is none. `testsLeft`: this one and those that follow. */
  async fitted(n_sessions: number, testsLeft: number): Promise<ServingTest | string> {
    const { n_prompt, n_gen, seconds } = this.#job
    if (seconds === undefined) return { n_sessions, n_prompt, n_gen }
    this.#pace ??= await this.#look()
    const { step, prompt } = this.#pace
    const left = (seconds - (performance.now() - this.#begun) / 1000) / testsLeft
    // A step of many sessions takes no longer than those of each alone.
    const expected = (tokens: number) => (this.#job.repetitions + 1) * n_sessions * (prompt * n_prompt + step * tokens)
    for (let tokens = n_gen; ; tokens = Math.ceil(tokens / 2)) {
      if (expected(tokens) <= left) return { n_sessions, n_prompt, n_gen: tokens }
      if (tokens <= FEWEST_TOKENS) {
        const [needed, had] = [expected(tokens).toFixed(0), Math.max(0, left).toFixed(0)]
        return `it would take about ${needed} s, and ${had} s were left for it`
      }
    }
  }

  async run(test: ServingTest): Promise<ServingSamples> {
    await once(this.#model, { ...test, n_gen: Math.min(test.n_gen, FEWEST_TOKENS) })
    const samples: ServingSamples = { speeds: [], gaps: [] }
    for (let i = 0; i < this.#job.repetitions; i++) {
      const { speed, gaps } = await once(this.#model, test)
      samples.speeds.push(speed)
      samples.gaps.push(...gaps)
    }
    return samples
  }

  async #look() {
    const { n_prompt } = this.#job
    const begun = performance.now()
    const { speed } = await once(this.#model, { n_sessions: 1, n_prompt, n_gen: FEWEST_TOKENS })
    const step = 1 / speed
    const whole = (performance.now() - begun) / 1000
    return { step, prompt: Math.max(0, whole - step * FEWEST_TOKENS) / n_prompt }
  }
}
