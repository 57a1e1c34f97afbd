/** One measured line about several requests at once. A kind of its own: llama-bench has nothing to join it with. */
import type { Activations } from '../run/model.js'
import type { RowContext } from './rows.js'
import { median, quantile } from './statistics.js'
import { type WeightName, weightName } from './work.js'

export interface ServingTest {
  n_sessions: number
  n_prompt: number
  n_gen: number
}

export interface ServingSamples {
  /** tokens a second of all sessions together, of each repetition */
  speeds: number[]
  /** milliseconds between the moments at which a session's tokens came, of all sessions and repetitions */
  gaps: number[]
}

export interface ServingRow extends ServingTest {
  cpu_info: string
  model_filename: string
  model_type: string
  weight_type: WeightName
  isa: string
  activations: Activations
  n_threads: number
  /** ISO 8601, when the line was begun */
  test_time: string
  /** tokens a second of all sessions together, of each repetition */
  samples_ts: number[]
  median_ts: number
  /** tokens a second that one session has of it */
  session_ts: number
  /** milliseconds between the moments at which a session's tokens came */
  gap_p50_ms: number
  gap_p99_ms: number
}

export function makeServingRow(
  context: RowContext,
  test: ServingTest,
  { speeds, gaps }: ServingSamples,
  begun: Date,
): ServingRow {
  const { cpu, filename, modelType, config, isa, activations, threads } = context
  return {
    cpu_info: cpu,
    model_filename: filename,
    model_type: modelType,
    weight_type: weightName(config),
    isa,
    activations,
    n_threads: threads,
    test_time: begun.toISOString(),
    ...test,
    samples_ts: speeds,
    median_ts: median(speeds),
    session_ts: median(speeds) / test.n_sessions,
    gap_p50_ms: median(gaps),
    gap_p99_ms: quantile(gaps, 0.99),
  }
}
