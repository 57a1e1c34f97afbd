/**
 * What is measured together in one process. Each job has a process of its own, so that its peak memory is its own, no
 * other model's pages are in its way, and the system ending it for lack of memory ends nothing else.
 */

import type { Peaks, ProbeName } from '../native/native.js'
import type { Activations } from '../run/model.js'
import type { BenchRow } from './rows.js'
import type { ServingRow } from './serving-rows.js'
import type { BenchTest } from './test-matrix.js'

/** A file, or a shape with random weights of a type. */
export type ModelSource = { file: string } | { shape: string; type: string }

/** What a model is measured with. */
export interface ModelJob {
  source: ModelSource
  threads: number
  /** '' : the best there is */
  isa: string
  activations: Activations
  repetitions: number
  peaks?: Peaks
  /**
   * Seconds that all tests may take together, once the model is there: prompts and generations are halved until they
   * fit, and what does not fit even then is skipped. Absent: no limit.
   */
  seconds?: number
}

export interface BenchJob extends ModelJob {
  kind: 'bench'
  tests: BenchTest[]
  warmup: boolean
  /** measure times to the first token, `repetitions` times each */
  firstToken: boolean
}

/** Requests that are computed together, as a server's are. */
export interface ServingJob extends ModelJob {
  kind: 'serving'
  /** numbers of them */
  sessions: number[]
  /** tokens of each one's prompt and answer */
  n_prompt: number
  n_gen: number
}

export interface PeaksJob {
  kind: 'peaks'
  threads: number
  isa: string
  what: ProbeName[]
  /** how much memory is read: less than 1 GiB is quicker, and may be wrong where caches are large */
  dramBytes: number
}

export type Job = BenchJob | ServingJob | PeaksJob

/** From the child to its parent, in order; `done` or `error` is the last. */
export type Message =
  | { kind: 'row'; row: BenchRow }
  | { kind: 'serving'; row: ServingRow }
  | { kind: 'skip'; what: string; why: string }
  | { kind: 'progress'; text: string }
  | { kind: 'peaks'; peaks: Peaks }
  | { kind: 'done' }
  | { kind: 'error'; code: string; message: string; hint?: string }

export function sourceName(source: ModelSource): string {
  return 'file' in source ? source.file : `${source.shape} ${source.type}`
}
