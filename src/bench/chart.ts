/** The frame that all charts with two axes share, markers, lines and legends. Colours are CSS classes: s0, s1 … */
import { type Box, escapeXml, FONT_PX, lineAt, px, type Scale, short, textAt, textWidth, tickText } from './svg.js'

export interface Axis {
  scale: Scale
  /** with the unit */
  title: string
}

export interface Plot {
  /** of the whole picture */
  width: number
  height: number
  /** of the part between the axes */
  area: Box
}

export function plotOf(
  width: number,
  height: number,
  margin: { left?: number; top?: number; right?: number } = {},
): Plot {
  const { left = 58, top = 14, right = 18 } = margin
  return { width, height, area: { x: left, y: top, width: width - left - right, height: height - top - 48 } }
}

/** Axes with their titles, ticks and grid. */
export function axes({ area, height }: Plot, x: Axis, y: Axis): string {
  const [right, bottom] = [area.x + area.width, area.y + area.height]
  const parts: string[] = []
  for (const value of y.scale.ticks) {
    const at = y.scale(value)
    parts.push(lineAt('grid', area.x, at, right, at), textAt('tick', area.x - 7, at + 4, 'end', tickText(value)))
  }
  let free = Number.NEGATIVE_INFINITY
  for (const value of x.scale.ticks) {
    const at = x.scale(value)
    parts.push(lineAt('grid', at, area.y, at, bottom))
    const text = tickText(value)
    const half = textWidth(text, 11) / 2
    if (at - half < free) continue // a tick without its number is better than two numbers in one place
    free = at + half + 4
    parts.push(textAt('tick', at, bottom + 16, 'middle', text))
  }
  const upwards = `transform="translate(13 ${px(area.y + area.height / 2)}) rotate(-90)"`
  parts.push(
    `<path class="axis" d="M${px(area.x)} ${px(area.y)}V${px(bottom)}H${px(right)}"/>`,
    textAt('title', area.x + area.width / 2, height - 10, 'middle', x.title),
    `<text class="title" ${upwards} text-anchor="middle">${escapeXml(y.title)}</text>`,
  )
  return parts.join('')
}

export type MarkerShape = 'circle' | 'square' | 'triangle' | 'diamond'
const MARKERS: readonly MarkerShape[] = ['circle', 'square', 'triangle', 'diamond']

/** Shapes as well as colours tell series apart. */
export function markerShape(series: number): MarkerShape {
  return MARKERS[series % MARKERS.length]!
}

export function marker(shape: MarkerShape, x: number, y: number, className: string, title = ''): string {
  const tip = title === '' ? '' : `<title>${escapeXml(title)}</title>`
  const attributes = `class="mark ${className}"`
  switch (shape) {
    case 'circle':
      return `<circle ${attributes} cx="${px(x)}" cy="${px(y)}" r="5">${tip}</circle>`
    case 'square':
      return `<rect ${attributes} x="${px(x - 4.5)}" y="${px(y - 4.5)}" width="9" height="9">${tip}</rect>`
    case 'triangle':
      return `<path ${attributes} d="M${px(x)} ${px(y - 6)}l5.6 10h-11.2z">${tip}</path>`
    case 'diamond':
      return `<path ${attributes} d="M${px(x)} ${px(y - 6.2)}l6.2 6.2l-6.2 6.2l-6.2 -6.2z">${tip}</path>`
  }
}

export function polyline(points: readonly (readonly [number, number])[], className: string): string {
  return `<polyline class="line ${className}" points="${points.map(([x, y]) => `${px(x)},${px(y)}`).join(' ')}"/>`
}

/** From the least to the greatest of the repetitions. */
export function whisker(x: number, low: number, high: number, className: string): string {
  if (Math.abs(high - low) < 2) return ''
  const cap = (y: number) => `M${px(x - 4)} ${px(y)}h8`
  return `<path class="whisker ${className}" d="${cap(low)}${cap(high)}M${px(x)} ${px(low)}V${px(high)}"/>`
}

export function markBox(x: number, y: number): Box {
  return { x: x - 7, y: y - 7, width: 14, height: 14 }
}

export interface LegendEntry {
  text: string
  className: string
  /** absent: a line */
  shape?: MarkerShape
  dashed?: boolean
}

/** One or more lines of entries from (x, y) on; the height they take. */
export function legend(
  entries: readonly LegendEntry[],
  x: number,
  y: number,
  width: number,
): { svg: string; height: number } {
  let left = x
  let top = y
  const parts: string[] = []
  for (const { text, className, shape, dashed } of entries) {
    const needed = 22 + textWidth(text) + 16
    if (left > x && left + needed > x + width) {
      left = x
      top += 20
    }
    parts.push(
      shape
        ? marker(shape, left + 8, top, className)
        : lineAt(`line ${className}${dashed ? ' dashed' : ''}`, left, top, left + 17, top),
      textAt('label', left + 22, top + 4, 'start', text),
    )
    left += needed
  }
  return { svg: parts.join(''), height: top - y + FONT_PX + 10 }
}

/** The picture, with what it shows in words for those who do not see it. */
export function picture({ width, height }: { width: number; height: number }, title: string, body: string): string {
  return (
    `<svg viewBox="0 0 ${px(width)} ${px(height)}" role="img" aria-label="${escapeXml(title)}" ` +
    `xmlns="http://www.w3.org/2000/svg">${body}</svg>`
  )
}

export { short }
