/** Horizontal bars in groups, and the spread of repetitions as dots. */
import { marker, picture, short } from './chart.js'
import { type Report, type ReportRow, rowsOf, shapeOf, typeName, typeOf, typeSeries, unique } from './report-data.js'
import { lineAt, linearScale, linearTicks, px, type Scale, textAt, textWidth, tickText, times } from './svg.js'
import { testName } from './test-matrix.js'

export interface Bar {
  name: string
  value: number
  /** at its end */
  text: string
  className: string
}

export interface BarChart {
  title: string
  xTitle: string
  groups: { name: string; bars: Bar[] }[]
  /** where a line is drawn: 1 for ratios, 100 for shares */
  reference?: number
}

const WIDTH = 760
const BAR = 24
const HEADING = 28

export function barChartSvg(chart: BarChart): string {
  const bars = chart.groups.flatMap((group) => group.bars)
  const left = 24 + Math.max(...bars.map(({ name }) => textWidth(name)))
  const most = Math.max(chart.reference ?? 0, ...bars.map(({ value }) => value))
  const right = WIDTH - 18 - Math.max(...bars.map(({ text }) => textWidth(text)))
  const x = linearScale({ from: 0, to: most, start: left, end: right })
  const height = chart.groups.reduce((sum, group) => sum + HEADING + BAR * group.bars.length, 8) + 46
  const bottom = height - 46
  const parts: string[] = []
  let y = 4
  for (const group of chart.groups) {
    parts.push(barGroup(group, x, left, y, chart.reference))
    y += HEADING + BAR * group.bars.length
  }
  for (const value of x.ticks) parts.push(textAt('tick', x(value), bottom + 16, 'middle', tickText(value)))
  parts.push(textAt('title', (left + right) / 2, height - 8, 'middle', chart.xTitle))
  return picture({ width: WIDTH, height }, chart.title, parts.join(''))
}

/** A heading, and below it the group's own piece of the axis, so that no line runs through a heading. */
function barGroup(
  { name, bars }: BarChart['groups'][number],
  x: Scale,
  left: number,
  top: number,
  reference?: number,
): string {
  const from = top + HEADING
  const to = from + BAR * bars.length
  const vertical = (className: string, at: number) => lineAt(className, at, from, at, to)
  const parts = [textAt('group', 0, top + 20, 'start', name), ...x.ticks.map((value) => vertical('grid', x(value)))]
  for (const [i, { value, className }] of bars.entries()) {
    const [y, width] = [from + i * BAR + 4, Math.max(1.5, x(value) - left)]
    const place = `x="${px(left)}" y="${px(y)}" width="${px(width)}" height="${BAR - 8}"`
    parts.push(`<rect class="bar ${className}" ${place}/>`)
  }
  parts.push(vertical('axis', left))
  if (reference !== undefined) parts.push(vertical('reference', x(reference)))
  for (const [i, bar] of bars.entries()) {
    const y = from + i * BAR + 16
    parts.push(
      textAt('label', left - 8, y, 'end', bar.name),
      textAt('label', Math.max(left + 1.5, x(bar.value)) + 6, y, 'start', bar.text),
    )
  }
  return parts.join('')
}

/** What each shape's types are compared with: f16 if it was measured, else int8. */
export function comparisonRow(rows: readonly ReportRow[]): ReportRow | undefined {
  return rows.find((row) => typeOf(row) === 'f16') ?? rows.find((row) => typeOf(row) === 'q8')
}

/** How many times as fast as f16 (or int8) of the same shape on this machine; shapes with one type are left out. */
export function speedUps(report: Report, work: 'decode' | 'prefill'): BarChart | undefined {
  const rows = rowsOf(report, 'types', work)
  const groups = unique(rows.map(shapeOf)).flatMap((shape) => {
    const own = rows.filter((row) => shapeOf(row) === shape)
    const base = comparisonRow(own)
    if (!base || unique(own.map(typeOf)).length < 2) return []
    const bars = own
      .map((row): Bar => {
        const value = row.median_ts / base.median_ts
        const text = `${times(value)} · ${short(row.median_ts)} tokens/s`
        return { name: typeName(typeOf(row)), value, text, className: `s${typeSeries(typeOf(row))}` }
      })
      .sort((a, b) => b.value - a.value)
    return [{ name: `${shape}, ${typeName(typeOf(base))} = 1`, bars }]
  })
  if (groups.length === 0) return undefined
  const title = work === 'decode' ? 'Decode: how many times as fast' : 'Prefill: how many times as fast'
  return { title, xTitle: `${work} speed, times that of the comparison`, groups, reference: 1 }
}

/** Decode in per cent of the memory's read speed. */
export function memoryShares(report: Report): BarChart | undefined {
  const rows = rowsOf(report, 'types', 'decode').filter(({ dram_pct }) => dram_pct !== null)
  if (rows.length === 0) return undefined
  const groups = unique(rows.map(shapeOf)).map((name) => ({
    name,
    bars: rows
      .filter((row) => shapeOf(row) === name)
      .sort((a, b) => b.dram_pct! - a.dram_pct!)
      .map((row) => ({
        name: typeName(typeOf(row)),
        value: row.dram_pct!,
        text: `${row.dram_pct!.toFixed(0)} % · ${short(row.gbps!)} GB/s`,
        className: `s${typeSeries(typeOf(row))}`,
      })),
  }))
  return {
    title: 'Decode: share of memory speed',
    xTitle: 'weights read, % of memory read speed',
    groups,
    reference: 100,
  }
}

/** Decode and prefill of one model on each instruction set, or with each way to multiply. */
export function alternatives(
  report: Report,
  experiment: 'paths' | 'activations',
  work: 'decode' | 'prefill',
): BarChart | undefined {
  const rows = rowsOf(report, experiment, work)
  if (rows.length < 2) return undefined
  const fastest = Math.max(...rows.map(({ median_ts }) => median_ts))
  const bars = rows.map((row) => ({
    name: experiment === 'paths' ? row.isa : `${row.activations} activations`,
    value: row.median_ts,
    text: `${short(row.median_ts)} · ${((100 * row.median_ts) / fastest).toFixed(0)} %`,
    className: 's0',
  }))
  const { model_filename, n_prompt } = rows[0]!
  const name = `${model_filename}, ${work === 'decode' ? 'decode' : `prefill of ${n_prompt}`}`
  const title = experiment === 'paths' ? `Instruction sets: ${work}` : `Ways to multiply: ${work}`
  return { title, xTitle: 'tokens per second', groups: [{ name, bars }] }
}

/** Every repetition of the main measurements against their median. */
export function spreadSvg(report: Report): string {
  const rows = rowsOf(report, 'types')
  const offsets = rows.map((row) => row.samples_ts.map((value) => (100 * value) / row.median_ts - 100))
  const names = rows.map((row) => `${row.model_filename}, ${testName(row)}`)
  const left = 16 + Math.max(...names.map((name) => textWidth(name)))
  const most = Math.max(2, ...offsets.flat().map(Math.abs)) * 1.08
  const x = linearScale({ from: -most, to: most, start: left, end: WIDTH - 60, ticks: linearTicks(-most, most) })
  const rowHeight = 20
  const height = 10 + rowHeight * rows.length + 44
  const bottom = height - 44
  const signed = (value: number) => (value > 0 ? `+${tickText(value)}` : tickText(value).replace('-', '−'))
  const parts = x.ticks.flatMap((value) => [
    lineAt('grid', x(value), 4, x(value), bottom),
    textAt('tick', x(value), bottom + 16, 'middle', signed(value)),
  ])
  parts.push(lineAt('axis', x(0), 4, x(0), bottom))
  for (const [i, row] of rows.entries()) {
    const y = 10 + rowHeight * (i + 0.5)
    const className = `s${typeSeries(typeOf(row))} dot`
    const deviation = `± ${((100 * row.stddev_ts) / row.avg_ts).toFixed(1)} %`
    parts.push(
      textAt('label', left - 10, y + 4, 'end', names[i]!),
      ...offsets[i]!.map((offset, k) =>
        marker('circle', x(offset), y, className, `${short(row.samples_ts[k]!)} tokens/s`),
      ),
      textAt('label', WIDTH - 4, y + 4, 'end', deviation),
    )
  }
  const title = 'each repetition, % off the median (right: standard deviation)'
  parts.push(textAt('title', (left + WIDTH - 60) / 2, height - 8, 'middle', title))
  return picture({ width: WIDTH, height }, 'Spread of the repetitions', parts.join(''))
}
