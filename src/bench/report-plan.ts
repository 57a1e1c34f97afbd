/** Which jobs a report is made of, and what part of the time each may take. */

import { ACTIVATIONS } from '../run/model-options.js'
import type { KvType } from '../run/session.js'
import type { BenchJob, ModelJob, ModelSource, ServingJob } from './jobs.js'
import type { Experiment, Machine } from './report-data.js'
import { SHAPE_NAMES, type ShapeName } from './shapes.js'
import type { BenchTest } from './test-matrix.js'

export type PlannedJob = PlannedBench | PlannedServing

interface Planned {
  /** of the time, in proportion to the other jobs */
  share: number
}

interface PlannedBench extends Planned {
  experiment: Experiment
  job: BenchJob
}

interface PlannedServing extends Planned {
  experiment: 'serving'
  job: ServingJob
}

const TEST: BenchTest = { n_prompt: 0, n_gen: 0, n_depth: 0, n_batch: 2048, n_ubatch: 0, n_parallel: 1, kv: 'f16' }
const prefill = (n_prompt: number, more: Partial<BenchTest> = {}): BenchTest => ({ ...TEST, n_prompt, ...more })
const decode = (n_gen: number, more: Partial<BenchTest> = {}): BenchTest => ({ ...TEST, n_gen, ...more })

const DEFAULT_SHAPES: readonly ShapeName[] = ['smollm2-135m', 'tinyllama-1.1b', 'llama-7b']
/** In the order of their importance: what is late may find no time left. */
const DEFAULT_TYPES = ['onebit', 'q8', 'f16', 'q1_0', 'ternary', 'chain:1']

/** Small to large within a type, so that a short budget still gives every comparison for the smallest shape. */
export function defaultSources(): ModelSource[] {
  return DEFAULT_TYPES.flatMap((type) => DEFAULT_SHAPES.map((shape) => ({ shape, type })))
}

/** Longest contexts first would leave nothing for the others; a cache is filled once and grows from test to test. */
function contextTests(longest: number, kv: KvType): BenchTest[] {
  const depths = [0, 512, 1024, 2048, 4096, 8192].filter((depth) => depth + 33 <= longest)
  return depths.map((n_depth) => decode(32, { n_depth, kv }))
}

const POWERS = [1, 2, 4, 8, 16, 32, 64, 128, 256]

function threadCounts(machine: Machine): number[] {
  const counts = POWERS.filter((count) => count < machine.threads)
  return [...counts, machine.threads]
}

/** The models that growth is shown on: the smallest, one in the middle, the largest; often the same. */
export interface GrowthModels {
  small: ModelSource
  main: ModelSource
  large: ModelSource
}

const isOneBit = (source: ModelSource) => 'file' in source || source.type === 'onebit'

/** Of the 1-bit models if there are any: shapes come small to large. */
export function growthModels(sources: readonly ModelSource[]): GrowthModels {
  const oneBit = sources.filter(isOneBit)
  const usable = oneBit.length > 0 ? oneBit : sources
  const main = usable[Math.min(1, usable.length - 1)]!
  return { small: usable[0]!, main, large: usable.at(-1)! }
}

export interface PlanOptions {
  sources: readonly ModelSource[]
  machine: Machine
  repetitions: number
  /** positions that a model allows */
  contextOf(source: ModelSource): number
}

export function reportPlan({ sources, machine, repetitions, contextOf }: PlanOptions): PlannedJob[] {
  const isa = machine.isa
  const { small, main, large } = growthModels(sources)
  const modelJob = (source: ModelSource): ModelJob => ({
    source,
    threads: machine.threads,
    isa,
    activations: 'int8',
    repetitions,
  })
  const job = (source: ModelSource, tests: BenchTest[], more: Partial<BenchJob> = {}): BenchJob => ({
    kind: 'bench',
    ...modelJob(source),
    tests: tests.filter((test) => test.n_prompt + test.n_gen + test.n_depth <= contextOf(source)),
    warmup: true,
    firstToken: false,
    ...more,
  })
  const most = (source: ModelSource, tokens: number) => Math.min(tokens, contextOf(source))
  const both = (source: ModelSource, tokens: number) => [decode(most(source, 64)), prefill(most(source, tokens))]
  const plan: PlannedJob[] = []
  const add = (experiment: Experiment, share: number, planned: BenchJob) =>
    plan.push({ experiment, share, job: planned })

  const first = sources.filter(isOneBit)
  const rest = sources.filter((source) => !isOneBit(source))
  const size = (source: ModelSource) => ('file' in source ? 2 : 1 + SHAPE_NAMES.indexOf(source.shape as never))
  for (const source of first) add('types', 2 * size(source), job(source, both(source, 512), { firstToken: true }))

  const roofline = (source: ModelSource, sessions: number[], chunks: number[]) => {
    const steps = sessions.map((n_parallel) => decode(16, { n_parallel }))
    const passes = chunks.map((n_ubatch) => prefill(most(source, Math.max(64, n_ubatch)), { n_ubatch }))
    add('sessions', sessions.length, job(source, steps))
    add('chunk', chunks.length, job(source, passes))
  }
  roofline(main, [1, 2, 4, 8, 16], [2, 8, 32, 128, 256])
  const room = Math.min(96, contextOf(main))
  if (room > 8) {
    const n_prompt = Math.ceil(room / 3)
    const sizes = { sessions: [1, 2, 4, 8, 16], n_prompt, n_gen: room - n_prompt }
    plan.push({ experiment: 'serving', share: 8, job: { kind: 'serving', ...modelJob(main), ...sizes } })
  }
  add('context', 8, job(main, contextTests(contextOf(main), 'f16')))
  for (const source of rest) add('types', 2 * size(source), job(source, both(source, 512), { firstToken: true }))
  add('context', 8, job(main, contextTests(contextOf(main), 'int8')))
  if (large !== main) roofline(large, [1, 4, 8], [16, 64, 256])
  for (const source of main === small ? [small] : [small, main]) {
    for (const threads of threadCounts(machine)) {
      add('threads', 2, job(source, [decode(32), prefill(most(source, 256))], { threads }))
    }
  }
  for (const path of machine.usable_isas) {
    add('paths', 1, job(small, [decode(32), prefill(most(small, 128))], { isa: path }))
  }
  for (const activations of ACTIVATIONS) {
    add('activations', 1, job(small, [decode(32), prefill(most(small, 128))], { activations }))
  }
  return plan
}
