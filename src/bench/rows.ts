/**
 * One measured line. The keys up to samples_ts are llama-bench's, in its order and with its meanings, so that rows of
 * both join; the others come after them. A figure that makes no sense for a line is null, never 0.
 */

import type { ModelConfig } from '../config/config.js'
import { modelSize } from '../config/model-size.js'
import type { Peaks } from '../native/native.js'
import type { Activations } from '../run/model.js'
import type { KvType } from '../run/session.js'
import { mean, median, standardDeviation } from './statistics.js'
import { type BenchTest, MOST_UBATCH } from './test-matrix.js'
import { usesLookups, type WeightName, weightName, weightWork } from './work.js'

export interface BenchRow {
  build_commit: string
  build_number: number
  cpu_info: string
  gpu_info: string
  backends: string
  model_filename: string
  model_type: string
  /** bytes of all tensors */
  model_size: number
  model_n_params: number
  n_batch: number
  n_ubatch: number
  n_threads: number
  type_k: KvType
  type_v: KvType
  n_prompt: number
  n_gen: number
  n_depth: number
  /** ISO 8601, when the line was begun */
  test_time: string
  avg_ns: number
  stddev_ns: number
  /** tokens a second, of all sessions together */
  avg_ts: number
  stddev_ts: number
  samples_ns: number[]
  samples_ts: number[]

  /** the instruction set that computed */
  isa: string
  /** bytes of weights that one pass reads: linears, their scales and the head, unpadded */
  weight_bytes: number
  /** 1e9 bytes of weights a second, by the median; null where the number of passes is the engine's choice */
  gbps: number | null
  /** this machine's memory read speed with the same threads, measured in the same run */
  dram_gbps: number | null
  dram_pct: number | null
  /** 1e9 int8 multiply-adds a second that this path can do */
  int8_peak_gmacs: number | null
  int8_pct: number | null
  /** 1e9 weights times tokens a second that this path's table lookups can do */
  lookup_peak_gws: number | null
  lookup_pct: number | null
  /** process start to first token, 16-token prompt, warm page cache; null without a file */
  ttft_cold_ms: number | null
  /** prompt given to first token, 16-token prompt, model loaded */
  ttft_ms: number | null
  /** the most memory the process had until this line was measured, in 1e6 bytes */
  rss_mb: number

  median_ns: number
  median_ts: number
  /** 1e9 weights times tokens a second, by the median */
  gws: number
  activations: Activations
  n_parallel: number
  /** kind of the linears: onebit, chain, q1_0, q8, f16 … */
  weight_type: WeightName
}

export interface RowContext {
  version: string
  cpu: string
  /** of the model: a file's name, or a shape and type */
  filename: string
  modelType: string
  config: ModelConfig
  threads: number
  isa: string
  activations: Activations
  peaks: Peaks | undefined
  ttftColdMs: number | null
  ttftMs: number | null
}

/** Passes over the weights in one repetition; null where the engine chooses how many tokens share one. */
export function passesOf(test: BenchTest): number | null {
  const { n_prompt, n_gen, n_ubatch, n_batch, n_parallel } = test
  if (n_prompt === 0) return n_gen * Math.ceil(n_parallel / (n_ubatch || MOST_UBATCH))
  if (n_ubatch === 0) return null
  let prefill = 0
  for (let left = n_prompt * n_parallel; left > 0; left -= n_batch)
    prefill += Math.ceil(Math.min(left, n_batch) / n_ubatch)
  return prefill + n_gen
}

const percent = (value: number | null, of: number | null | undefined) =>
  value === null || !of ? null : (100 * value) / of

/** @param samples nanoseconds of each repetition */
export function makeRow(
  context: RowContext,
  test: BenchTest,
  samples: number[],
  begun: Date,
  rssBytes: number,
): BenchRow {
  const { config, peaks, activations } = context
  const work = weightWork(config)
  const type = weightName(config)
  const tokens = (test.n_prompt + test.n_gen) * test.n_parallel
  const seconds = median(samples) * 1e-9
  const logits = (test.n_gen + (test.n_prompt > 0 ? Math.ceil(test.n_prompt / test.n_batch) : 0)) * test.n_parallel
  const gws = ((work.linearWeights * tokens + work.headWeights * logits) / seconds) * 1e-9
  const passes = passesOf(test)
  const gbps = passes === null ? null : ((passes * work.weightBytes) / seconds) * 1e-9
  const integers = activations === 'int8' && (usesLookups(type) || type === 'q8')
  const samples_ts = samples.map((ns) => (tokens * 1e9) / ns)
  const size = modelSize(config, { tokenizer: 0, chat_template: 0 }, 0)
  return {
    build_commit: context.version,
    build_number: 0,
    cpu_info: context.cpu,
    gpu_info: '',
    backends: 'CPU',
    model_filename: context.filename,
    model_type: context.modelType,
    model_size: Object.values(size.bytes).reduce((sum, bytes) => sum + bytes, 0),
    model_n_params: size.parameters,
    n_batch: test.n_batch,
    n_ubatch: test.n_ubatch,
    n_threads: context.threads,
    type_k: test.kv,
    type_v: test.kv,
    n_prompt: test.n_prompt,
    n_gen: test.n_gen,
    n_depth: test.n_depth,
    test_time: begun.toISOString(),
    avg_ns: Math.round(mean(samples)),
    stddev_ns: Math.round(standardDeviation(samples)),
    avg_ts: mean(samples_ts),
    stddev_ts: standardDeviation(samples_ts),
    samples_ns: samples,
    samples_ts,
    isa: context.isa,
    weight_bytes: work.weightBytes,
    gbps,
    dram_gbps: peaks?.dram_gbps ?? null,
    dram_pct: percent(gbps, peaks?.dram_gbps),
    int8_peak_gmacs: peaks?.int8_peak_gmacs ?? null,
    int8_pct: integers ? percent(gws, peaks?.int8_peak_gmacs) : null,
    lookup_peak_gws: peaks?.lookup_peak_gws ?? null,
    lookup_pct: integers && usesLookups(type) ? percent(gws, peaks?.lookup_peak_gws) : null,
    ttft_cold_ms: context.ttftColdMs,
    ttft_ms: context.ttftMs,
    rss_mb: rssBytes / 1e6,
    median_ns: Math.round(median(samples)),
    median_ts: (tokens * 1e9) / median(samples),
    gws,
    activations,
    n_parallel: test.n_parallel,
    weight_type: type,
  }
}
