/** Small parts of charts: numbers and text for SVG, scales with ticks, and labels that do not lie on each other. */

export function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}

/** Coordinates: tenths of a pixel are enough. */
export function px(value: number): string {
  return String(Math.round(value * 10) / 10)
}

export type Anchor = 'start' | 'middle' | 'end'

/** A piece of text with its baseline at y. */
export function textAt(className: string, x: number, y: number, anchor: Anchor, text: string): string {
  return `<text class="${className}" x="${px(x)}" y="${px(y)}" text-anchor="${anchor}">${escapeXml(text)}</text>`
}

export function lineAt(className: string, x1: number, y1: number, x2: number, y2: number): string {
  return `<line class="${className}" x1="${px(x1)}" y1="${px(y1)}" x2="${px(x2)}" y2="${px(y2)}"/>`
}

/** Three significant digits, thousands apart: 0.0123, 4.56, 1 230. */
export function short(value: number): string {
  if (value === 0) return '0'
  const magnitude = Math.floor(Math.log10(Math.abs(value)))
  const rounded = Number(value.toPrecision(3))
  if (magnitude >= 2) return String(Math.round(rounded)).replace(/\B(?=(\d{3})+$)/g, '\u202f')
  return rounded.toFixed(Math.max(0, 2 - magnitude))
}

/** A ratio: two digits are enough, "5.3×", "0.97×", "12×". */
export function times(ratio: number): string {
  return `${ratio >= 10 ? ratio.toFixed(0) : ratio >= 0.995 ? ratio.toFixed(1) : ratio.toFixed(2)}×`
}

/** A tick's number, without zeros that say nothing. */
export function tickText(value: number): string {
  const [whole, fraction] = String(Number(value.toPrecision(6))).split('.') as [string, string | undefined]
  const grouped = whole.length > 4 ? whole.replace(/\B(?=(\d{3})+$)/g, '\u202f') : whole
  return fraction === undefined ? grouped : `${grouped}.${fraction}`
}

export const FONT_PX = 12

/** Width of a text in pixels, on the safe side: no browser is asked. */
export function textWidth(text: string, size: number = FONT_PX): number {
  let units = 0
  for (const letter of text)
    units += /[MW%@—]/.test(letter) ? 0.92 : /[\s.,:;|!ilj()'·\u202f]/.test(letter) ? 0.36 : 0.62
  return units * size
}

export interface Scale {
  (value: number): number
  ticks: number[]
}

interface ScaleOptions {
  from: number
  to: number
  /** pixels */
  start: number
  end: number
  ticks?: number[]
}

export function linearScale({ from, to, start, end, ticks }: ScaleOptions): Scale {
  const scale = (value: number) => start + ((value - from) / (to - from)) * (end - start)
  return Object.assign(scale, { ticks: ticks ?? linearTicks(from, to) })
}

export function logScale({ from, to, start, end, ticks }: ScaleOptions): Scale {
  const [low, high] = [Math.log(from), Math.log(to)]
  const scale = (value: number) => start + ((Math.log(value) - low) / (high - low)) * (end - start)
  return Object.assign(scale, { ticks: ticks ?? logTicks(from, to) })
}

/** About five round numbers. */
export function linearTicks(from: number, to: number): number[] {
  const rough = (to - from) / 5
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 2.5, 5, 10].map((unit) => unit * power).find((unit) => unit >= rough) ?? rough
  const ticks: number[] = []
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + step * 1e-9; i++)
    ticks.push(Number((i * step).toPrecision(12)))
  return ticks
}

/** Powers of ten, with 2 and 5 between them where there is room. */
export function logTicks(from: number, to: number): number[] {
  const units = Math.log10(to / from) <= 2.6 ? [1, 2, 5] : [1]
  const ticks: number[] = []
  for (let power = Math.floor(Math.log10(from)); power <= Math.ceil(Math.log10(to)); power++) {
    for (const unit of units) {
      const value = Number((unit * 10 ** power).toPrecision(12))
      if (value >= from * 0.999 && value <= to * 1.001) ticks.push(value)
    }
  }
  return ticks
}

export interface Box {
  x: number
  y: number
  width: number
  height: number
}

export function overlap(a: Box, b: Box): number {
  const wide = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x)
  const high = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y)
  return wide > 0 && high > 0 ? wide * high : 0
}

/** Small boxes along a line, so that labels keep off it. */
export function boxesAlong(x1: number, y1: number, x2: number, y2: number): Box[] {
  const count = Math.max(1, Math.ceil(Math.hypot(x2 - x1, y2 - y1) / 4))
  return Array.from({ length: count + 1 }, (_, i) => ({
    x: x1 + ((x2 - x1) * i) / count - 1.5,
    y: y1 + ((y2 - y1) * i) / count - 1.5,
    width: 3,
    height: 3,
  }))
}

export interface LabelRequest {
  x: number
  y: number
  text: string
  className?: string
}

const DISTANCES = [9, 16, 26, 38, 54, 74]
/** Where a label may lie, seen from its point: right, above, below, left, then between. */
const DIRECTIONS: [number, number][] = [
  [1, 0],
  [0, -1],
  [0, 1],
  [-1, 0],
  [0.8, -0.8],
  [0.8, 0.8],
  [-0.8, -0.8],
  [-0.8, 0.8],
]

function labelBox(request: LabelRequest, dx: number, dy: number, distance: number): Box {
  const width = textWidth(request.text)
  const height = FONT_PX + 2
  const middleX = request.x + dx * distance + Math.sign(dx) * (width / 2)
  const middleY = request.y + dy * (distance + (dx === 0 ? 2 : 0))
  return { x: middleX - width / 2, y: middleY - height / 2, width, height }
}

/**
 * Puts each label where it covers nothing, as near to its point as can be; a thin line joins them when that is not
 * near. `taken` is what must stay visible; it grows by the labels.
 */
export function placeLabels(requests: readonly LabelRequest[], taken: Box[], bounds: Box): string {
  return requests
    .map((request) => {
      let best: { box: Box; cost: number; distance: number } | undefined
      for (const distance of DISTANCES) {
        for (const [dx, dy] of DIRECTIONS) {
          const box = labelBox(request, dx, dy, distance)
          const outside = box.width * box.height - overlap(box, bounds)
          const cost = 4 * outside + taken.reduce((sum, other) => sum + overlap(box, other), 0)
          if (!best || cost < best.cost - 1e-9) best = { box, cost, distance }
        }
        if (best && best.cost < 1e-9) break
      }
      const { box, distance } = best!
      taken.push(box)
      return (distance > 20 ? leader(request, box) : '') + textIn(box, request)
    })
    .join('')
}

function textIn(box: Box, { text, className }: LabelRequest): string {
  const classes = className === undefined ? 'label' : `label ${className}`
  return textAt(classes, box.x + box.width / 2, box.y + box.height - 4, 'middle', text)
}

function leader(request: LabelRequest, box: Box): string {
  const x = Math.min(Math.max(request.x, box.x), box.x + box.width)
  const y = Math.min(Math.max(request.y, box.y), box.y + box.height)
  return lineAt('leader', request.x, request.y, x, y)
}
