/** How speed grows: lines over context, sessions, tokens a pass, threads and model size. */
import {
  axes,
  type LegendEntry,
  legend,
  markBox,
  marker,
  markerShape,
  picture,
  plotOf,
  polyline,
  short,
  whisker,
} from './chart.js'
import {
  peaksFor,
  type Report,
  type ReportRow,
  rowsOf,
  shapeOf,
  typeName,
  typeOf,
  typeSeries,
  unique,
} from './report-data.js'
import {
  type Box,
  boxesAlong,
  type LabelRequest,
  linearScale,
  linearTicks,
  logScale,
  logTicks,
  placeLabels,
  px,
  type Scale,
  times,
} from './svg.js'
import { usesLookups } from './work.js'

export interface LinePoint {
  x: number
  y: number
  low: number
  high: number
  label: string
}

export interface Line {
  name: string
  className: string
  shape: ReturnType<typeof markerShape>
  points: LinePoint[]
}

/** A limit that lines are held against: drawn dashed, named in the legend. */
export interface Limit {
  name: string
  className: string
  points: [number, number][]
}

export interface LineChart {
  title: string
  xTitle: string
  yTitle: string
  lines: Line[]
  limits: Limit[]
  x: 'linear' | 'log' | 'doubling'
  y: 'linear' | 'log'
}

function scales(chart: LineChart, area: Box): [Scale, Scale] {
  const xs = chart.lines.flatMap(({ points }) => points.map(({ x }) => x))
  const ys = chart.lines.flatMap(({ points }) => points.flatMap(({ y, high }) => [y, high]))
  const tops = chart.limits.flatMap(({ points }) => points.map(([, y]) => y))
  const [start, end] = [area.x + 14, area.x + area.width - 14]
  const [bottom, top] = [area.y + area.height, area.y]
  const [least, most] = [Math.min(...xs), Math.max(...xs)]
  let x: Scale
  if (chart.x === 'linear')
    x = linearScale({ from: Math.min(0, least), to: most > least ? most : least + 1, start, end })
  else {
    const widen = most > least ? 1 : 2
    const ticks = chart.x === 'doubling' ? unique(xs).sort((a, b) => a - b) : logTicks(least / 1.6, most * 1.6)
    const slack = chart.x === 'log' ? 1.6 : widen
    x = logScale({ from: least / slack, to: most * slack, start, end, ticks })
  }
  const highest = Math.max(...ys, ...tops)
  if (chart.y === 'log') {
    const lowest = Math.min(...ys, ...tops.filter((value) => value > Math.min(...ys) / 4))
    return [
      x,
      logScale({ from: lowest / 1.5, to: Math.min(highest * 1.5, 3 * Math.max(...ys)), start: bottom, end: top }),
    ]
  }
  // A limit far above all points would press them flat: it then leaves the picture at the top.
  const to = 1.12 * Math.min(highest, 2.2 * Math.max(...ys))
  const ticks = linearTicks(0, to)
  return [x, linearScale({ from: 0, to: Math.max(to, ticks.at(-1)!), start: bottom, end: top, ticks })]
}

export function lineChartSvg(chart: LineChart): string {
  const width = 520
  const entries: LegendEntry[] = [
    ...(chart.lines.length > 1 || chart.limits.length > 0
      ? chart.lines.map(({ name, className, shape }) => ({ text: name, className, shape }))
      : []),
    ...chart.limits.map(({ name, className }) => ({ text: name, className, dashed: true })),
  ]
  const key = legend(entries, 66, 12, width - 84)
  const extra = entries.length > 0 ? key.height : 0
  const plot = plotOf(width, 300 + extra, { left: 66, top: 14 + extra })
  const { area } = plot
  const [x, y] = scales(chart, area)
  const parts: string[] = []
  const taken: Box[] = []
  for (const { points, className } of chart.limits) {
    const line = points.map(([at, value]) => [x(at), y(value)] as const)
    parts.push(polyline(line, `dashed ${className}`))
    for (let i = 1; i < line.length; i++) taken.push(...boxesAlong(...line[i - 1]!, ...line[i]!))
  }
  const requests: LabelRequest[] = []
  const several = chart.lines.length > 1 // labels then have the colours of their lines
  for (const { points, className, shape } of chart.lines) {
    const line = points.map((one) => [x(one.x), y(one.y)] as const)
    parts.push(polyline(line, className))
    for (let i = 1; i < line.length; i++) taken.push(...boxesAlong(...line[i - 1]!, ...line[i]!))
    for (const [i, one] of points.entries()) {
      const [cx, cy] = line[i]!
      parts.push(whisker(cx, y(one.low), y(one.high), className), marker(shape, cx, cy, className, one.label))
      taken.push(markBox(cx, cy), ...boxesAlong(cx, y(one.low), cx, y(one.high)))
      if (one.label !== '') requests.push({ x: cx, y: cy, text: one.label, ...(several ? { className } : {}) })
    }
  }
  const clip = `clip-${chart.title.replace(/\W+/g, '-')}`
  const rectangle = `x="${px(area.x)}" y="${px(area.y)}" width="${px(area.width)}" height="${px(area.height)}"`
  const inside = `<clipPath id="${clip}"><rect ${rectangle}/></clipPath>`
  parts.push(placeLabels(requests, taken, area))
  const frame = axes(plot, { scale: x, title: chart.xTitle }, { scale: y, title: chart.yTitle })
  const limits = `<g clip-path="url(#${clip})">${parts.slice(0, chart.limits.length).join('')}</g>`
  return picture(plot, chart.title, inside + frame + key.svg + limits + parts.slice(chart.limits.length).join(''))
}

// ---- the charts of a report ----

function linePoint(row: ReportRow, x: number): LinePoint {
  const { median_ts, samples_ts } = row
  return { x, y: median_ts, low: Math.min(...samples_ts), high: Math.max(...samples_ts), label: short(median_ts) }
}

function linesBy(
  rows: readonly ReportRow[],
  xOf: (row: ReportRow) => number,
  nameOf = (row: ReportRow) => row.model_filename,
): Line[] {
  return unique(rows.map(nameOf)).map((name, i) => {
    const own = rows.filter((row) => nameOf(row) === name)
    const points = own.map((row) => linePoint(row, xOf(row))).sort((a, b) => a.x - b.x)
    return { name, className: `m${i}`, shape: markerShape(i), points }
  })
}

/** A chart needs at least two points on a line to show growth. */
const grows = (chart: LineChart) => chart.lines.some(({ points }) => points.length > 1)

function context(report: Report): LineChart {
  const rows = rowsOf(report, 'context')
  const lines = linesBy(
    rows,
    (row) => row.n_depth,
    (row) => `${row.model_filename}, ${row.type_k} cache`,
  )
  const [xTitle, yTitle] = ['tokens in the cache', 'decode, tokens per second']
  return { title: 'Context', xTitle, yTitle, lines, limits: [], x: 'linear', y: 'linear' }
}

/** What memory and lookups allow: one pass reads all weights once, each session's token multiplies them once. */
function batchLimits(rows: readonly ReportRow[], xOf: (row: ReportRow) => number): Limit[] {
  const names = unique(rows.map(({ model_filename }) => model_filename))
  if (names.length !== 1) return []
  const row = rows[0]!
  const xs = rows.map(xOf).sort((a, b) => a - b)
  const perToken = (row.gws * 1e9) / row.median_ts
  const limits: Limit[] = []
  if (row.dram_gbps !== null) {
    const points = xs.map((x): [number, number] => [x, (x * row.dram_gbps! * 1e9) / row.weight_bytes])
    limits.push({ name: 'memory', className: 'roof-dram', points })
  }
  const flat = row.lookup_pct === null ? row.int8_peak_gmacs : row.lookup_peak_gws
  if (flat !== null && (row.lookup_pct !== null || row.int8_pct !== null)) {
    const name = row.lookup_pct === null ? 'int8 multiply-adds' : 'table lookups'
    const points = [xs[0]!, xs.at(-1)!].map((x): [number, number] => [x, (flat * 1e9) / perToken])
    limits.push({ name, className: row.lookup_pct === null ? 'roof-int8' : 'roof-lookup', points })
  }
  return limits
}

function batches(report: Report, experiment: 'sessions' | 'chunk'): LineChart[] {
  const sessions = experiment === 'sessions'
  const xOf = (row: ReportRow) => (sessions ? row.n_parallel : row.n_ubatch)
  const rows = rowsOf(report, experiment)
  return unique(rows.map(shapeOf)).map((shape) => {
    const own = rows.filter((row) => shapeOf(row) === shape)
    return {
      title: sessions ? `Sessions in one step: ${shape}` : `Tokens in one pass: ${shape}`,
      xTitle: sessions ? 'sessions that decode together' : 'prompt tokens computed in one pass over the weights',
      yTitle: sessions ? 'all sessions, tokens per second' : 'prefill, tokens per second',
      lines: linesBy(own, xOf),
      limits: batchLimits(own, xOf),
      x: 'doubling',
      y: 'log',
    }
  })
}

/** Against one thread, so that models and kinds of work share an axis. */
function threads(report: Report): LineChart {
  const lines: Line[] = []
  for (const shape of unique(rowsOf(report, 'threads').map(shapeOf))) {
    for (const work of ['decode', 'prefill'] as const) {
      const rows = rowsOf(report, 'threads', work).filter((row) => shapeOf(row) === shape)
      const one = rows.find(({ n_threads }) => n_threads === 1)
      if (!one) continue
      const points = rows.map((row) => {
        const { x, y, low, high } = linePoint(row, row.n_threads)
        const ratio = (value: number) => value / one.median_ts
        const label = row === one ? '' : times(ratio(y))
        return { x, y: ratio(y), low: ratio(low), high: ratio(high), label }
      })
      lines.push({ name: `${shape}, ${work}`, className: `m${lines.length}`, shape: markerShape(lines.length), points })
    }
  }
  const most = Math.max(1, ...lines.flatMap(({ points }) => points.map(({ x }) => x)))
  const limits: Limit[] = [
    {
      name: 'as many times as threads',
      className: 'roof-dram',
      points: [
        [1, 1],
        [most, most],
      ],
    },
  ]
  const [xTitle, yTitle] = ['threads', 'speed, times that of one thread']
  return { title: 'Threads', xTitle, yTitle, lines, limits, x: 'doubling', y: 'linear' }
}

/** Bytes per token against tokens per second: on the dashed line memory is all that counts. */
function modelSize(report: Report): LineChart {
  const all = rowsOf(report, 'types', 'decode')
  // Other 1-bit types have nearly the same sizes and would cover each other.
  const rows = all.filter((row) => row.weight_type === 'onebit' || !usesLookups(row.weight_type))
  const lines = unique(rows.map(typeOf)).map((type): Line => {
    const series = typeSeries(type)
    const own = rows.filter((row) => typeOf(row) === type).sort((a, b) => a.weight_bytes - b.weight_bytes)
    const points = own.map((row) => {
      const one = linePoint(row, row.weight_bytes / 1e6)
      return { ...one, label: `${shapeOf(row).replace(/^.*-/, '')}: ${one.label}` }
    })
    return { name: typeName(type), className: `s${series}`, shape: markerShape(series), points }
  })
  const sizes = rows.map(({ weight_bytes }) => weight_bytes / 1e6)
  const dram = rows[0] && peaksFor(report, rows[0])?.dram_gbps
  const limits: Limit[] = []
  if (dram) {
    const points = [Math.min(...sizes), Math.max(...sizes)].map((mb): [number, number] => [mb, (dram * 1000) / mb])
    limits.push({ name: 'memory read speed', className: 'roof-dram', points })
  }
  const [xTitle, yTitle] = ['weights read per token, MB', 'decode, tokens per second']
  return { title: 'Model size', xTitle, yTitle, lines, limits, x: 'log', y: 'log' }
}

export function growthCharts(report: Report): LineChart[] {
  const charts = [context(report), ...batches(report, 'sessions'), ...batches(report, 'chunk'), threads(report)]
  const size = modelSize(report)
  return [...(size.lines.flatMap(({ points }) => points).length > 1 ? [size] : []), ...charts.filter(grows)]
}
