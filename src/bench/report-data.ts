/** Everything that a report says, as plain data: what report.json holds and what every page is drawn from. */
import { cpus, totalmem } from 'node:os'
import { OnebitError } from '../errors.js'
import { addon } from '../native/addon.js'
import type { Peaks } from '../native/native.js'
import { packageVersion } from '../package-version.js'
import type { BenchRow } from './rows.js'
import type { ServingRow } from './serving-rows.js'

/**
 * What a row was measured for.
 * - types: each model and type, prefill and decode
 * - context, sessions, chunk, threads: how speed grows with them
 * - paths, activations: instruction sets and ways to multiply
 */
export type Experiment = 'types' | 'context' | 'sessions' | 'chunk' | 'threads' | 'paths' | 'activations'

export type ReportRow = BenchRow & { experiment: Experiment }

export interface Machine {
  cpu: string
  logical_cpus: number
  memory_bytes: number
  platform: string
  node: string
  compiler: string
  /** chosen by default, and what else this machine has */
  isa: string
  usable_isas: string[]
  /** that compute by default */
  threads: number
}

export interface ReportPeaks extends Peaks {
  /** limits are measured before everything else and again at the end: a machine may change meanwhile */
  when: 'start' | 'end'
}

export interface Report {
  format: 1
  version: string
  /** ISO 8601, when measuring began */
  created: string
  seconds: number
  budget_minutes: number
  repetitions: number
  /** memory that was read to find its speed */
  dram_bytes: number
  /** the command that made it */
  command: string
  machine: Machine
  peaks: ReportPeaks[]
  rows: ReportRow[]
  /** requests at once, as a server has them */
  serving: ServingRow[]
  skips: { what: string; why: string }[]
}

/** @throws OnebitError ERR_ISA when ONEBIT_ISA names no path of this machine */
export function thisMachine(): Machine {
  const { isas, chosen, why, default_threads, compiler } = addon().info(process.env.ONEBIT_ISA ?? '')
  if (chosen === null) throw new OnebitError('ERR_ISA', why ?? 'no path can be used')
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    logical_cpus: cpus().length,
    memory_bytes: totalmem(),
    platform: `${process.platform}-${process.arch}`,
    node: process.version,
    compiler,
    isa: chosen,
    usable_isas: isas.filter(({ state }) => state === 'usable').map(({ name }) => name),
    threads: default_threads,
  }
}

export function emptyReport(
  options: Pick<Report, 'budget_minutes' | 'repetitions' | 'command' | 'dram_bytes'>,
): Report {
  return {
    format: 1,
    version: packageVersion(),
    created: new Date().toISOString(),
    seconds: 0,
    ...options,
    machine: thisMachine(),
    peaks: [],
    rows: [],
    serving: [],
    skips: [],
  }
}

// ---- questions that pages ask ----

/** Rows of an experiment; `only` keeps prefill (no generation) or decode (no prompt). */
export function rowsOf(report: Report, experiment: Experiment, only?: 'prefill' | 'decode'): ReportRow[] {
  return report.rows.filter(
    (row) => row.experiment === experiment && (only === undefined || (only === 'decode') === (row.n_prompt === 0)),
  )
}

/** "smollm2-135m" of "smollm2-135m onebit"; a file's own name. */
export function shapeOf(row: BenchRow): string {
  return row.model_type === row.model_filename ? row.model_filename.replace(/ \S+$/, '') : row.model_filename
}

/** "onebit", "chain:1": as asked for, or what a file holds. */
export function typeOf(row: BenchRow): string {
  return row.model_type === row.model_filename ? row.model_filename.replace(/^.* /, '') : row.weight_type
}

const TYPE_NAMES: Record<string, string> = {
  onebit: '1 bit',
  column: '1 bit and a column',
  q1_0: 'Q1_0',
  ternary: 'ternary',
  q8: 'int8',
  f16: 'f16',
  f32: 'f32',
  bf16: 'bf16',
}

/** For people: "1 bit", "chain of 1.0 bits", "int8". */
export function typeName(type: string): string {
  const bits = /^chain:(.+)$/.exec(type)?.[1]
  return bits === undefined ? (TYPE_NAMES[type] ?? type) : `chain, ${Number(bits).toFixed(1)} bits`
}

/** The series, and so the colour and marker, of a type: the same in every chart. */
export function typeSeries(type: string): number {
  const order = ['onebit', 'q8', 'f16', 'q1_0', 'chain', 'ternary', 'column']
  const index = order.indexOf(type.startsWith('chain') ? 'chain' : type)
  return index < 0 ? 2 : index
}

export function unique<T>(values: readonly T[]): T[] {
  return [...new Set(values)]
}

/** The limits that a row was held against, the f32 one included. */
export function peaksFor(report: Report, row: BenchRow): ReportPeaks | undefined {
  return report.peaks.find(({ isa, threads, when }) => when === 'start' && isa === row.isa && threads === row.n_threads)
}
