/** Rows as Markdown, JSON, JSON lines or CSV, written as they come. */
import type { BenchRow } from './rows.js'
import { testName } from './test-matrix.js'

export const FORMATS = ['md', 'json', 'jsonl', 'csv'] as const
export type Format = (typeof FORMATS)[number]

/** Turns rows into text; `begin`, each row and `end` together are the whole document. */
export interface RowFormat {
  begin(): string
  row(row: BenchRow): string
  end(): string
}

/** @param varied what differs between the rows beyond the usual columns: the Markdown table then shows it */
export function rowFormat(format: Format, varied: readonly Varied[] = []): RowFormat {
  switch (format) {
    case 'md':
      return markdown(varied)
    case 'json':
      return json()
    case 'jsonl':
      return { begin: () => '', row: (row) => `${JSON.stringify(row)}\n`, end: () => '' }
    case 'csv':
      return csv()
  }
}

function json(): RowFormat {
  let count = 0
  return {
    begin: () => '[\n',
    row: (row) => `${count++ > 0 ? ',\n' : ''}  ${JSON.stringify(row)}`,
    end: () => (count > 0 ? '\n]\n' : ']\n'),
  }
}

/** Every field in quotes and lists left out, as llama-bench does it. */
function csv(): RowFormat {
  const quoted = (value: unknown) => `"${String(value ?? '').replaceAll('"', '""')}"`
  let headed = false
  return {
    begin: () => '',
    row(row) {
      const fields = Object.entries(row).filter(([, value]) => !Array.isArray(value))
      const head = headed ? '' : `${fields.map(([key]) => key).join(',')}\n`
      headed = true
      return `${head}${fields.map(([, value]) => quoted(value)).join(',')}\n`
    },
    end: () => '',
  }
}

export function formatMebibytes(bytes: number): string {
  return bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(2)} MiB` : `${(bytes / 2 ** 30).toFixed(2)} GiB`
}

export function formatParameters(count: number): string {
  return count < 1e9 ? `${(count / 1e6).toFixed(2)} M` : `${(count / 1e9).toFixed(2)} B`
}

/** Shown only where they are not the same in all rows, as llama-bench does. */
export type Varied = 'n_batch' | 'n_ubatch' | 'type_k'

interface Column {
  name: string
  width: number
  left?: true
  of(row: BenchRow): string
}

const fixed = (value: number | null, digits: number) => (value === null ? '' : value.toFixed(digits))

/** llama-bench's columns, then ours. */
const COLUMNS: Column[] = [
  { name: 'model', width: 24, left: true, of: (row) => row.model_type },
  { name: 'size', width: 10, of: (row) => formatMebibytes(row.model_size) },
  { name: 'params', width: 9, of: (row) => formatParameters(row.model_n_params) },
  { name: 'backend', width: 7, left: true, of: (row) => row.backends },
  { name: 'threads', width: 7, of: (row) => String(row.n_threads) },
  { name: 'test', width: 14, of: testName },
  { name: 't/s', width: 17, of: (row) => `${row.avg_ts.toFixed(2)} ± ${row.stddev_ts.toFixed(2)}` },
  {
    name: 'isa',
    width: 10,
    left: true,
    of: (row) => row.isa + (row.activations === 'int8' ? '' : ` ${row.activations}`),
  },
  { name: 'weights', width: 10, of: (row) => formatMebibytes(row.weight_bytes) },
  { name: 'GB/s', width: 6, of: (row) => fixed(row.gbps, 2) },
  { name: '% DRAM', width: 6, of: (row) => fixed(row.dram_pct, 1) },
  { name: 'Gw/s', width: 7, of: (row) => fixed(row.gws, 1) },
  { name: '% int8', width: 6, of: (row) => fixed(row.int8_pct, 1) },
  { name: '% lookup', width: 8, of: (row) => fixed(row.lookup_pct, 1) },
]

function columnsWith(varied: readonly Varied[]): Column[] {
  const more = varied.map((key): Column => ({ name: key, width: 8, of: (row) => String(row[key]) }))
  return [...COLUMNS.slice(0, 5), ...more, ...COLUMNS.slice(5)]
}

function tableLine(columns: readonly Column[], cells: readonly string[]): string {
  const padded = columns.map(({ width, left }, i) => (left ? cells[i]!.padEnd(width) : cells[i]!.padStart(width)))
  return `| ${padded.join(' | ')} |\n`
}

/** The table that people read; what does not belong into every line follows it. */
function markdown(varied: readonly Varied[]): RowFormat {
  const rows: BenchRow[] = []
  const columns = columnsWith(varied)
  return {
    begin() {
      const rule = columns.map(({ width, left }) => (left ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`))
      const names = columns.map(({ name }) => name)
      return tableLine(columns, names) + tableLine(columns, rule)
    },
    row(row) {
      rows.push(row)
      const cells = columns.map((column) => column.of(row))
      return tableLine(columns, cells)
    },
    end: () => ['', ...limitLines(rows), ...modelLines(rows)].join('\n') + (rows.length > 0 ? '\n' : ''),
  }
}

/** One line for each path and number of threads: what the machine can do. */
export function limitLines(rows: readonly BenchRow[]): string[] {
  const lines = rows.map(({ isa, n_threads, dram_gbps, int8_peak_gmacs, lookup_peak_gws }) => {
    if (dram_gbps === null) return ''
    const limits = [
      `memory read ${dram_gbps.toFixed(1)} GB/s`,
      `int8 ${fixed(int8_peak_gmacs, 0)} Gmac/s`,
      `lookups ${fixed(lookup_peak_gws, 0)} Gw/s`,
    ]
    return `This machine's limits, ${isa}, ${n_threads} thread${n_threads > 1 ? 's' : ''}: ${limits.join(', ')}.`
  })
  return [...new Set(lines)].filter((line) => line !== '')
}

/** One line for each model and way of running it: first tokens and peak memory. */
export function modelLines(rows: readonly BenchRow[]): string[] {
  const groups = new Map<string, BenchRow[]>()
  for (const row of rows) {
    const key = [row.model_type, row.model_filename, row.isa, row.activations, row.n_threads].join('\0')
    groups.set(key, [...(groups.get(key) ?? []), row])
  }
  return [...groups.values()].map((group) => {
    const { model_filename, isa, n_threads, ttft_cold_ms, ttft_ms } = group[0]!
    const parts = [
      ...(ttft_cold_ms === null ? [] : [`first token ${ttft_cold_ms.toFixed(0)} ms after the process starts`]),
      ...(ttft_ms === null
        ? []
        : [`${ttft_cold_ms === null ? 'first token ' : ''}${ttft_ms.toFixed(1)} ms after the prompt`]),
      `peak memory ${Math.max(...group.map(({ rss_mb }) => rss_mb)).toFixed(0)} MB`,
    ]
    return `${model_filename}, ${isa}, ${n_threads} thread${n_threads > 1 ? 's' : ''}: ${parts.join(', ')}.`
  })
}
