/** The table of `onebit bench`: every combination of models and ways of running them, one process after the other. */

import { readModelHeader } from '../convert/foreign-model.js'
import { OnebitError } from '../errors.js'
import { addon } from '../native/addon.js'
import type { Activations } from '../run/model.js'
import { type BenchJob, type ModelSource, sourceName } from './jobs.js'
import type { BenchRow } from './rows.js'
import { MachineLimits, runJob } from './run-job.js'
import { parseWeightType, type ShapeName, shapeConfig } from './shapes.js'
import type { BenchTest } from './test-matrix.js'

export interface TablePlan {
  sources: ModelSource[]
  threads: number[]
  isas: string[]
  activations: Activations[]
  tests: BenchTest[]
  repetitions: number
  warmup: boolean
  firstToken: boolean
  /** measure the machine's limits too */
  peaks: boolean
}

export interface TableListener {
  row(row: BenchRow): void
  skip(what: string, why: string): void
  progress(text: string): void
}

/** What a model, a type or this machine cannot do, as opposed to what went wrong. */
const UNFIT = ['ERR_SHAPE', 'ERR_OUT_OF_MEMORY', 'ERR_MEMORY_LIMIT']

export function isUnfit(error: unknown): error is OnebitError {
  return error instanceof OnebitError && UNFIT.includes(error.code)
}

/** Finds out in a moment what would otherwise fail after minutes. */
export async function checkSource(source: ModelSource): Promise<void> {
  if ('file' in source) await readModelHeader(source.file)
  else shapeConfig(source.shape as ShapeName, parseWeightType(source.type))
}

export function defaultThreads(): number {
  return addon().info().default_threads
}

/**
 * A single model that does not fit is an error; one of several is skipped by name.
 * @throws OnebitError
 */
export async function runTable(plan: TablePlan, listener: TableListener): Promise<void> {
  const several = plan.sources.length > 1
  const skipUnfit = (source: ModelSource, error: unknown) => {
    if (!several || !isUnfit(error)) throw error
    listener.skip(sourceName(source), error.message)
  }
  const fitting: ModelSource[] = []
  for (const source of plan.sources) {
    await checkSource(source).then(
      () => fitting.push(source),
      (error) => skipUnfit(source, error),
    )
  }
  const peaks = new MachineLimits()
  const { tests, repetitions, warmup, firstToken } = plan
  for (const source of fitting) {
    for (const [threads, isa, activations] of combinations(plan)) {
      const job: BenchJob = { kind: 'bench', source, threads, isa, activations, tests, repetitions, warmup, firstToken }
      if (plan.peaks) {
        listener.progress(`this machine's limits, ${threads} threads`)
        job.peaks = await peaks.get(threads, isa)
      }
      await runJob(job, listener).catch((error) => skipUnfit(source, error))
    }
  }
}

function combinations(plan: TablePlan): [number, string, Activations][] {
  const { threads, isas, activations } = plan
  return isas.flatMap((isa) =>
    activations.flatMap((way) => threads.map((count): [number, string, Activations] => [count, isa, way])),
  )
}
