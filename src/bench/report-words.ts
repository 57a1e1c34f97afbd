/** Sentences and tables that the HTML and the Markdown page share. */

import { comparisonRow } from './bar-charts.js'
import { formatMebibytes, formatParameters } from './formats.js'
import { type Experiment, type Report, type ReportRow, rowsOf, shapeOf, typeName, typeOf } from './report-data.js'
import { median } from './statistics.js'
import { short, times } from './svg.js'
import { fullTestName } from './test-matrix.js'

export interface Table {
  /** a column of numbers is set to the right */
  columns: { name: string; right?: true }[]
  rows: string[][]
}

const percent = (value: number | null) => (value === null ? '' : `${value.toFixed(1)} %`)
const number = (value: number | null | undefined) => (value === null || value === undefined ? '' : short(value))

/** The most important findings, one sentence each. */
export function findings(report: Report): string[] {
  const sentences: string[] = []
  for (const row of rowsOf(report, 'types', 'decode').filter((row) => typeOf(row) === 'onebit')) {
    const others = rowsOf(report, 'types', 'decode').filter((other) => shapeOf(other) === shapeOf(row))
    const base = comparisonRow(others)
    const against =
      base && base !== row ? `, ${times(row.median_ts / base.median_ts)} its ${typeName(typeOf(base))} form` : ''
    const share = row.dram_pct === null ? '' : `, ${row.dram_pct.toFixed(0)} % of what reading memory allows`
    sentences.push(`${shapeOf(row)} in 1 bit decodes ${short(row.median_ts)} tokens per second${against}${share}.`)
  }
  const gain = servingGain(report)
  return gain === undefined ? sentences : [...sentences, gain]
}

/** What the most requests at once get, against one. */
function servingGain({ serving }: Report): string | undefined {
  const one = serving.find(({ n_sessions }) => n_sessions === 1)
  const most = serving.filter((row) => row.model_filename === one?.model_filename).at(-1)
  if (!one || !most || most === one) return undefined
  const gain = times(most.median_ts / one.median_ts)
  return `${most.n_sessions} requests at once get ${short(most.median_ts)} tokens per second together, ${gain} those of one.`
}

/** Limits that change more than this while a report is made leave its shares of them worth little. */
const STEADY = 0.1
/** As much deviation between repetitions is more than a quiet machine has. */
const QUIET = 0.1

/** What speaks against trusting the figures: other work on the machine, as the report itself can see it. */
export function doubts(report: Report): string[] {
  const end = report.peaks.find(({ when }) => when === 'end')
  const start = report.peaks.find(
    ({ when, isa, threads }) => when === 'start' && isa === end?.isa && threads === end.threads,
  )
  const doubts: string[] = []
  const changed = (['dram_gbps', 'int8_peak_gmacs', 'lookup_peak_gws'] as const)
    .map((key) => Math.abs((end?.[key] ?? 0) / (start?.[key] || 1) - 1))
    .filter((change) => end && change > STEADY)
  if (changed.length > 0)
    doubts.push(`this machine's limits changed by ${(100 * Math.max(...changed)).toFixed(0)} % between start and end`)
  const spreads = report.rows.filter(({ samples_ts }) => samples_ts.length > 1).map((row) => row.stddev_ts / row.avg_ts)
  if (spreads.length > 0 && median(spreads) > QUIET)
    doubts.push(`repetitions typically differ by ${(100 * median(spreads)).toFixed(0)} % (standard deviation)`)
  return doubts
}

/** A sentence on top of the page, or nothing. */
export function warning(report: Report): string {
  const found = doubts(report)
  return found.length === 0
    ? ''
    : `Other work seems to have run meanwhile, so do not trust these figures: ${found.join('; ')}.`
}

export function machineFacts(report: Report): [string, string][] {
  const { machine, created, version, seconds } = report
  return [
    ['Processor', `${machine.cpu}, ${machine.logical_cpus} logical CPUs`],
    ['Memory', formatMebibytes(machine.memory_bytes)],
    ['Path', `${machine.isa}; usable: ${machine.usable_isas.join(', ')}`],
    ['Threads', `${machine.threads} by default`],
    ['Software', `onebit-run ${version}, Node ${machine.node}, ${machine.platform}, built with ${machine.compiler}`],
    ['Measured', `${created.replace('T', ' ').slice(0, 16)} UTC, in ${(seconds / 60).toFixed(1)} minutes`],
  ]
}

export function limitsTable(report: Report): Table {
  return {
    columns: [
      { name: 'path' },
      { name: 'threads', right: true },
      { name: 'measured' },
      { name: 'memory read, GB/s', right: true },
      { name: 'int8, Gmac/s', right: true },
      { name: 'lookups, Gw/s', right: true },
      { name: 'f32, Gmac/s', right: true },
    ],
    rows: report.peaks.map((peaks) => [
      peaks.isa,
      String(peaks.threads),
      peaks.when === 'start' ? 'at the start' : 'at the end',
      number(peaks.dram_gbps),
      number(peaks.int8_peak_gmacs),
      number(peaks.lookup_peak_gws),
      number(peaks.f32_peak_gmacs),
    ]),
  }
}

const EXPERIMENT_NAMES: Record<Experiment, string> = {
  types: 'Models and types',
  context: 'Context',
  sessions: 'Sessions in one step',
  chunk: 'Tokens in one pass',
  threads: 'Threads',
  paths: 'Instruction sets',
  activations: 'Ways to multiply',
}

const testOf = (row: ReportRow) => fullTestName({ ...row, kv: row.type_k })

const right = (name: string) => ({ name, right: true as const })

const MEASURED_COLUMNS = [
  { name: 'model' },
  { name: 'test' },
  { name: 'path' },
  right('threads'),
  right('t/s ± sd'),
  right('median'),
  right('weights'),
  right('GB/s'),
  right('of memory'),
  right('Gw/s'),
  right('of int8'),
  right('of lookups'),
]

/** Every row, in one table for each experiment. */
export function measurementTables(report: Report): { name: string; table: Table }[] {
  return (Object.keys(EXPERIMENT_NAMES) as Experiment[]).flatMap((experiment) => {
    const rows = rowsOf(report, experiment).map((row) => [
      row.model_type,
      testOf(row),
      row.activations === 'int8' ? row.isa : `${row.isa}, ${row.activations}`,
      String(row.n_threads),
      `${short(row.avg_ts)} ± ${short(row.stddev_ts)}`,
      short(row.median_ts),
      formatMebibytes(row.weight_bytes),
      number(row.gbps),
      percent(row.dram_pct),
      number(row.gws),
      percent(row.int8_pct),
      percent(row.lookup_pct),
    ])
    return rows.length > 0 ? [{ name: EXPERIMENT_NAMES[experiment], table: { columns: MEASURED_COLUMNS, rows } }] : []
  })
}

export function modelsTable(report: Report): Table {
  const seen = new Set<string>()
  const rows = rowsOf(report, 'types').filter((row) => !seen.has(row.model_filename) && seen.add(row.model_filename))
  const peakOf = (name: string) =>
    Math.max(...rowsOf(report, 'types').flatMap((row) => (row.model_filename === name ? [row.rss_mb] : [])))
  return {
    columns: [
      { name: 'model' },
      right('parameters'),
      right('all weights'),
      right('read per token'),
      right('first token, cold'),
      right('first token, warm'),
      right('peak memory'),
    ],
    rows: rows.map((row) => [
      row.model_type,
      formatParameters(row.model_n_params),
      formatMebibytes(row.model_size),
      formatMebibytes(row.weight_bytes),
      row.ttft_cold_ms === null ? '–' : `${row.ttft_cold_ms.toFixed(0)} ms`,
      row.ttft_ms === null ? '–' : `${row.ttft_ms.toFixed(row.ttft_ms < 100 ? 1 : 0)} ms`,
      formatMebibytes(peakOf(row.model_filename) * 1e6),
    ]),
  }
}

/** Every number of requests at once. */
export function servingTable({ serving }: Report): Table {
  return {
    columns: [
      { name: 'model' },
      { name: 'path' },
      right('threads'),
      right('requests'),
      right('prompt + answer'),
      right('t/s together'),
      right('x one'),
      right('t/s each'),
      right('gap, median'),
      right('gap, 99 %'),
      right('99 % / median'),
    ],
    rows: serving.map((row) => {
      const one = serving.find((other) => other.model_filename === row.model_filename && other.n_sessions === 1)
      return [
        row.model_type,
        row.isa,
        String(row.n_threads),
        String(row.n_sessions),
        `${row.n_prompt} + ${row.n_gen}`,
        short(row.median_ts),
        one ? (row.median_ts / one.median_ts).toFixed(2) : '',
        short(row.session_ts),
        `${short(row.gap_p50_ms)} ms`,
        `${short(row.gap_p99_ms)} ms`,
        (row.gap_p99_ms / row.gap_p50_ms).toFixed(2),
      ]
    }),
  }
}

/** What the page's words mean. */
export function definitions(report: Report): [string, string][] {
  return [
    ['tg, decode', 'one token after the other, each the likeliest, through the TypeScript API.'],
    ['pp, prefill', 'a prompt at once, logits of its last token.'],
    [
      'Gw/s',
      '10⁹ weights × tokens per second: one token multiplies every weight of the linears once, and those of the head where logits are wanted.',
    ],
    [
      'GB/s',
      '10⁹ bytes of weights per second: linears, their scales and the head as stored, without the padding of any layout. Keys and values in the cache are not counted.',
    ],
    [
      'memory read',
      `the best of several ways to read ${formatMebibytes(report.dram_bytes)} with the same threads: plain and prefetched, small and large pages.`,
    ],
    ['int8', 'multiply-adds of 8-bit integers with nothing to load: the limit of engines that multiply.'],
    [
      'lookups',
      "the path's table lookups with everything in the first-level cache: the limit of this engine's sign matrices. A path that multiplies instead of looking up has it too.",
    ],
    ['median, sd', 'of the repetitions after one warm-up run. Shares of limits come from the median.'],
    [
      'requests at once',
      'of one model, through the class that the server is built on; from when each has its first token until the first ends.',
    ],
    [
      'gap',
      'the time between two moments at which tokens of a request come; 99 %: of a hundred gaps, 99 are no longer.',
    ],
    [
      'first token',
      'a prompt of 16 tokens: cold from the start of a process with the file in the page cache, warm with the model loaded.',
    ],
  ]
}
