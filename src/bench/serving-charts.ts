/** What several requests at once get: all together, each one, and how long it waits between two tokens. */
import { markerShape } from './chart.js'
import type { Line, LineChart, LinePoint } from './growth-charts.js'
import { type Report, unique } from './report-data.js'
import type { ServingRow } from './serving-rows.js'
import { short } from './svg.js'

interface Series {
  name: string
  y(row: ServingRow): number
  /** of the repetitions, where they are known */
  samples?(row: ServingRow): number[]
}

function line(rows: readonly ServingRow[], { name, y, samples }: Series, index: number): Line {
  const points = rows.map((row): LinePoint => {
    const value = y(row)
    const all = samples?.(row) ?? [value]
    return { x: row.n_sessions, y: value, low: Math.min(...all), high: Math.max(...all), label: short(value) }
  })
  return { name, className: `m${index}`, shape: markerShape(index), points: points.sort((a, b) => a.x - b.x) }
}

const SPEEDS: readonly Series[] = [
  { name: 'all together', y: ({ median_ts }) => median_ts, samples: ({ samples_ts }) => samples_ts },
  { name: 'each one', y: ({ session_ts }) => session_ts },
]
const GAPS: readonly Series[] = [
  { name: 'median', y: ({ gap_p50_ms }) => gap_p50_ms },
  { name: '99th percentile', y: ({ gap_p99_ms }) => gap_p99_ms },
]

/** Two for each model that was measured with several numbers of sessions. */
export function servingCharts({ serving }: Report): LineChart[] {
  return unique(serving.map(({ model_filename }) => model_filename)).flatMap((name) => {
    const rows = serving.filter(({ model_filename }) => model_filename === name)
    if (rows.length < 2) return []
    const chart = (title: string, yTitle: string, series: readonly Series[]): LineChart => ({
      title: `${title}: ${name}`,
      xTitle: 'requests at once',
      yTitle,
      lines: series.map((one, i) => line(rows, one, i)),
      limits: [],
      x: 'doubling',
      y: 'log',
    })
    return [
      chart('Requests at once', 'tokens per second', SPEEDS),
      chart('Between tokens of a request', 'milliseconds', GAPS),
    ]
  })
}
