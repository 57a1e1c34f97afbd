/**
 * The roofline: how fast weights are multiplied against how often each byte of them is used. Under the sloping roof the
 * memory sets the pace, under the flat ones arithmetic does; the distance to the roof is what a better program could
 * still gain.
 */
import {
  axes,
  type LegendEntry,
  legend,
  type MarkerShape,
  markBox,
  marker,
  picture,
  plotOf,
  polyline,
  short,
} from './chart.js'
import { type Report, type ReportRow, rowsOf, shapeOf, typeName, typeOf, typeSeries } from './report-data.js'
import {
  type Box,
  boxesAlong,
  escapeXml,
  type LabelRequest,
  logScale,
  placeLabels,
  px,
  textAt,
  textWidth,
} from './svg.js'
import { usesLookups } from './work.js'

export interface RooflinePoint {
  row: ReportRow
  /** weights times tokens per byte of weights read */
  intensity: number
  gws: number
  /** of the lowest roof above it */
  share: number
  label: string
  shape: MarkerShape
  className: string
}

export interface Roofs {
  dram_gbps: number
  int8_peak_gmacs: number | null
  lookup_peak_gws: number | null
}

export interface RooflineData {
  shape: string
  roofs: Roofs
  points: RooflinePoint[]
}

/** The flat roof that a row is under: lookups for signs, int8 multiply-adds for int8, unknown for floats. */
function flatRoof(row: ReportRow): number {
  if (row.lookup_pct !== null) return row.lookup_peak_gws ?? Number.POSITIVE_INFINITY
  return row.int8_pct === null ? Number.POSITIVE_INFINITY : (row.int8_peak_gmacs ?? Number.POSITIVE_INFINITY)
}

function point(row: ReportRow, label: string, shape: MarkerShape): RooflinePoint {
  const intensity = row.gws / row.gbps!
  const roof = Math.min(row.dram_gbps! * intensity, flatRoof(row))
  const className = `s${typeSeries(typeOf(row))}`
  return { row, intensity, gws: row.gws, share: row.gws / roof, label, shape, className }
}

/** One chart for each shape whose sessions or passes were varied; its other types show where 1 bit moved it from. */
export function rooflines(report: Report): RooflineData[] {
  const varied = [...rowsOf(report, 'sessions'), ...rowsOf(report, 'chunk')].filter((row) => row.gbps && row.dram_gbps)
  return [...new Set(varied.map(shapeOf))].map((shape) => {
    const here = varied.filter((row) => shapeOf(row) === shape)
    const { dram_gbps, int8_peak_gmacs, lookup_peak_gws } = here[0]!
    const others = rowsOf(report, 'types', 'decode').filter(
      (row) => shapeOf(row) === shape && row.gbps && row.dram_gbps && !usesLookups(row.weight_type),
    )
    const points = [
      ...others.map((row) => point(row, `${typeName(typeOf(row))}, decode`, 'circle')),
      ...here.map((row) => {
        if (row.n_prompt > 0) return point(row, `${row.n_ubatch}`, 'square')
        if (row.n_parallel > 1) return point(row, `×${row.n_parallel}`, 'triangle')
        return point(row, `${typeName(typeOf(row))}, decode`, 'circle')
      }),
    ]
    return { shape, roofs: { dram_gbps: dram_gbps!, int8_peak_gmacs, lookup_peak_gws }, points }
  })
}

function limits(values: number[], below: number, above: number): [number, number] {
  return [Math.min(...values) / below, Math.max(...values) * above]
}

const describe = ({ row, gws, intensity, share }: RooflinePoint) =>
  `${row.model_filename}: ${short(gws)} Gw/s at ${short(intensity)} weights per byte, ` +
  `${(100 * share).toFixed(0)} % of the roof above it; ${short(row.median_ts)} tokens/s`

export function rooflineSvg(data: RooflineData): string {
  const { roofs, points } = data
  const plot = plotOf(760, 470, { left: 64, top: 46 })
  const { area } = plot
  const flats = [
    { value: roofs.lookup_peak_gws, text: 'table lookups', className: 'roof-lookup' },
    { value: roofs.int8_peak_gmacs, text: 'int8 multiply-adds', className: 'roof-int8' },
  ].filter((roof): roof is { value: number; text: string; className: string } => roof.value !== null)
  const highest = Math.max(...flats.map(({ value }) => value), ...points.map(({ gws }) => gws))
  const [fromX, toX] = limits([...points.map(({ intensity }) => intensity), highest / roofs.dram_gbps], 1.8, 2.2)
  const [fromY, toY] = limits([...points.map(({ gws }) => gws), roofs.dram_gbps * fromX * 1.5, highest], 1.7, 1.9)
  const x = logScale({ from: fromX, to: toX, start: area.x, end: area.x + area.width })
  const y = logScale({ from: fromY, to: toY, start: area.y + area.height, end: area.y })
  const taken: Box[] = points.map(({ intensity, gws }) => markBox(x(intensity), y(gws)))
  const parts: string[] = []

  // The slope, from the left or lower edge up to the highest flat roof; flat ones begin where they meet it.
  const startX = Math.max(fromX, fromY / roofs.dram_gbps)
  const endX = Math.min(toX, highest / roofs.dram_gbps)
  const slope: [number, number, number, number] = [
    x(startX),
    y(startX * roofs.dram_gbps),
    x(endX),
    y(endX * roofs.dram_gbps),
  ]
  parts.push(
    polyline(
      [
        [slope[0], slope[1]],
        [slope[2], slope[3]],
      ],
      'roof roof-dram',
    ),
  )
  taken.push(...boxesAlong(...slope))
  parts.push(slopeLabel(slope, `memory ${short(roofs.dram_gbps)} GB/s`, taken))
  flats.sort((a, b) => b.value - a.value)
  for (const [i, { value, text, className }] of flats.entries()) {
    const from = x(Math.max(fromX, value / roofs.dram_gbps))
    const [right, at] = [area.x + area.width, y(value)]
    parts.push(
      polyline(
        [
          [from, at],
          [right, at],
        ],
        `roof ${className}`,
      ),
    )
    taken.push(...boxesAlong(from, at, right, at))
    const label = `${text} ${short(value)} Gw/s`
    const width = textWidth(label)
    const baseline = i === 0 ? at - 6 : at + 15 // the upper one above its line, the lower one below
    parts.push(textAt(`label ${className}`, right - 6, baseline, 'end', label))
    taken.push({ x: right - 6 - width, y: baseline - 12, width, height: 16 })
  }
  parts.push(...trails(points, x, y))
  for (const one of points) parts.push(marker(one.shape, x(one.intensity), y(one.gws), markClass(one), describe(one)))
  const requests = points.map((one): LabelRequest => {
    const { label: text, className } = one
    return { x: x(one.intensity), y: y(one.gws), text, className }
  })
  parts.push(placeLabels(requests, taken, area))
  const frame = axes(
    plot,
    { scale: x, title: 'weights multiplied per byte of weights read' },
    { scale: y, title: 'speed, 10⁹ weights × tokens per second (Gw/s)' },
  )
  const main = points.find(({ shape }) => shape !== 'circle')?.className ?? 's0'
  const key = legend(legendEntries(points, main), area.x, 16, area.width)
  return picture(plot, `Roofline of ${data.shape}`, frame + key.svg + parts.join(''))
}

/** Sessions are hollow: where they meet prefill points both can be seen. */
const markClass = ({ shape, className }: RooflinePoint) => (shape === 'triangle' ? `${className} hollow` : className)

function legendEntries(points: readonly RooflinePoint[], main: string): LegendEntry[] {
  const has = (shape: MarkerShape) => points.some((one) => one.shape === shape)
  return [
    { text: 'one session decodes', className: main, shape: 'circle' },
    ...(has('triangle')
      ? [{ text: '×N: N sessions in one step', className: `${main} hollow`, shape: 'triangle' } as const]
      : []),
    ...(has('square') ? [{ text: 'N: prefill, N tokens a pass', className: main, shape: 'square' } as const] : []),
  ]
}

/** A thin line through each family of points, in the order of their intensity. */
function trails(points: readonly RooflinePoint[], x: (v: number) => number, y: (v: number) => number): string[] {
  return (['triangle', 'square'] as const).flatMap((shape) => {
    const family = points.filter((one) => one.shape === shape).sort((a, b) => a.intensity - b.intensity)
    if (family.length < 2) return []
    return [
      polyline(
        family.map((one) => [x(one.intensity), y(one.gws)] as const),
        `trail ${family[0]!.className}`,
      ),
    ]
  })
}

/** Along the slope, on its upper side, where nothing can be faster. */
function slopeLabel([x1, y1, x2, y2]: [number, number, number, number], text: string, taken: Box[]): string {
  const angle = Math.atan2(y2 - y1, x2 - x1)
  const [middleX, middleY] = [x1 + (x2 - x1) * 0.42, y1 + (y2 - y1) * 0.42]
  const half = textWidth(text) / 2
  const at = (along: number) => [
    middleX + Math.cos(angle) * along + Math.sin(angle) * 12,
    middleY + Math.sin(angle) * along - Math.cos(angle) * 12,
  ]
  for (let along = -half; along <= half; along += 8) {
    const [cx, cy] = at(along) as [number, number]
    taken.push({ x: cx - 7, y: cy - 7, width: 14, height: 14 })
  }
  const transform = `translate(${px(middleX)} ${px(middleY)}) rotate(${px((angle * 180) / Math.PI)}) translate(0 -8)`
  return `<text class="label roof-dram" transform="${transform}" text-anchor="middle">${escapeXml(text)}</text>`
}
