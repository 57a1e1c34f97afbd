/** A program of its own, started by run-job.ts: takes one job over the channel to its parent and answers with rows. */
import { cpus } from 'node:os'
import { basename } from 'node:path'
import { modelSize } from '../config/model-size.js'
import { OnebitError } from '../errors.js'
import { addon } from '../native/addon.js'
import type { Peaks } from '../native/native.js'
import { packageVersion } from '../package-version.js'
import type { Model } from '../run/model.js'
import { coldFirstToken, warmFirstToken } from './first-token-times.js'
import {
  type BenchJob,
  type Job,
  type Message,
  type ModelJob,
  type ModelSource,
  type PeaksJob,
  type ServingJob,
  sourceName,
} from './jobs.js'
import { Measurement } from './measure.js'
import { makeRow, type RowContext } from './rows.js'
import { ServingMeasurement } from './serving.js'
import { makeServingRow } from './serving-rows.js'
import { openModel } from './sources.js'
import { type BenchTest, fullTestName } from './test-matrix.js'
import { weightName } from './work.js'

function send(message: Message): Promise<void> {
  return new Promise((resolve) => process.send!(message, () => resolve()))
}

/** "llama 135M onebit" for a file; a shape's name says as much by itself. */
function modelType(source: ModelSource, { config }: Model): string {
  if ('shape' in source) return sourceName(source)
  const { parameters } = modelSize(config, { tokenizer: 0, chat_template: 0 }, 0)
  const size = parameters < 1e9 ? `${(parameters / 1e6).toPrecision(3)}M` : `${(parameters / 1e9).toPrecision(2)}B`
  return `${config.architecture} ${size} ${weightName(config)}`
}

async function rowContext(job: ModelJob, model: Model, firstToken: boolean): Promise<RowContext> {
  const { source, threads, activations, isa } = job
  const cold = firstToken && 'file' in source
  return {
    version: packageVersion(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    filename: 'file' in source ? basename(source.file) : sourceName(source),
    modelType: modelType(source, model),
    config: model.config,
    threads: model.threads,
    isa: model.isa,
    activations: model.activations,
    peaks: job.peaks,
    ttftColdMs: cold ? await coldFirstToken({ path: source.file, threads, activations, isa }, job.repetitions) : null,
    ttftMs: firstToken ? await warmFirstToken(model, job.repetitions, job.seconds) : null,
  }
}

/** The test in a size that takes at most `limit` seconds, or why there is none. */
async function fitted(
  measurement: Measurement,
  job: BenchJob,
  test: BenchTest,
  limit: number,
): Promise<BenchTest | string> {
  if (limit === Number.POSITIVE_INFINITY) return test
  const { prompt, gen, depth } = await measurement.estimate(test)
  const runs = job.repetitions + (job.warmup ? 1 : 0)
  for (let share = 1; ; share /= 2) {
    const n_prompt = Math.ceil(test.n_prompt * share)
    const n_gen = Math.ceil(test.n_gen * share)
    const expected = depth + runs * (prompt * n_prompt + gen * n_gen)
    if (expected <= limit) return { ...test, n_prompt, n_gen }
    // A prompt shorter than a pass would measure another pass than the one that was asked for.
    const fewest = Math.max(32, 2 * test.n_ubatch - 1)
    if (n_prompt <= Math.min(fewest, test.n_prompt) && n_gen <= Math.min(4, test.n_gen))
      return `it would take about ${expected.toFixed(0)} s, and ${Math.max(0, limit).toFixed(0)} s were left for it`
  }
}

async function bench(job: BenchJob): Promise<void> {
  const name = sourceName(job.source)
  await send({ kind: 'progress', text: `loading ${name}` })
  const model = await openModel(job.source, job)
  const measurement = new Measurement(model, job.tests)
  try {
    if (job.firstToken) await send({ kind: 'progress', text: `${name}: first tokens` })
    const context = await rowContext(job, model, job.firstToken)
    const begun = performance.now()
    for (const [i, asked] of job.tests.entries()) {
      const left = (job.seconds ?? Number.POSITIVE_INFINITY) - (performance.now() - begun) / 1000
      const test = await fitted(measurement, job, asked, left / (job.tests.length - i))
      if (typeof test === 'string') {
        await send({ kind: 'skip', what: `${name}: ${fullTestName(asked)}`, why: test })
        continue
      }
      await send({ kind: 'progress', text: `${name}: ${fullTestName(test)}, ${context.threads} threads` })
      const date = new Date()
      const samples = await measurement.run(test, job)
      const rss = process.resourceUsage().maxRSS * 1024
      await send({ kind: 'row', row: makeRow(context, test, samples, date, rss) })
    }
  } finally {
    measurement.dispose()
    await model.dispose()
  }
}

async function serving(job: ServingJob): Promise<void> {
  const name = sourceName(job.source)
  await send({ kind: 'progress', text: `loading ${name}` })
  const model = await openModel(job.source, job)
  try {
    const context = await rowContext(job, model, false)
    const measurement = new ServingMeasurement(model, job)
    for (const [i, count] of job.sessions.entries()) {
      const what = `${name}: requests at once: ${count}`
      const test = await measurement.fitted(count, job.sessions.length - i)
      if (typeof test === 'string') {
        await send({ kind: 'skip', what, why: test })
        continue
      }
      await send({ kind: 'progress', text: `${what}, ${context.threads} threads` })
      const date = new Date()
      await send({ kind: 'serving', row: makeServingRow(context, test, await measurement.run(test), date) })
    }
  } finally {
    await model.dispose()
  }
}

function peaks({ threads, isa, what, dramBytes }: PeaksJob): Promise<Peaks> {
  return addon().measurePeaks({ threads, isa, what, dram_bytes: dramBytes })
}

async function answer(job: Job): Promise<void> {
  try {
    if (job.kind === 'bench') await bench(job)
    else if (job.kind === 'serving') await serving(job)
    else await send({ kind: 'peaks', peaks: await peaks(job) })
    await send({ kind: 'done' })
  } catch (error) {
    const known = error instanceof OnebitError ? error : undefined
    const message = error instanceof Error ? error.message : String(error)
    const hint = known?.hint
    await send({ kind: 'error', code: known?.code ?? 'ERR_INTERNAL', message, ...(hint === undefined ? {} : { hint }) })
  }
  process.disconnect()
}

process.once('message', (job: Job) => void answer(job))
// Nobody is left to answer: leave in the middle of whatever it is.
process.once('disconnect', () => process.exit())
