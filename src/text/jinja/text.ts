/**
 * A string that knows where its characters come from: the template itself, or what it was given. Operations keep
 * that, so that whoever reads the finished text can tell a marker that the template wrote from one that a user did.
 */

/** Characters of the template's own literals and of what it computes. */
export const TEMPLATE = 0
/** Characters of data that is trusted as far as the conversation goes: system messages and the model's own answers. */
export const TRUSTED = 1
/** Characters of everything else that came from outside. */
export const FOREIGN = 2

export type Origin = typeof TEMPLATE | typeof TRUSTED | typeof FOREIGN

/** Characters [start, end) in UTF-16 that are not the template's own. */
export interface Span {
  start: number
  end: number
  origin: Origin
}

const NO_SPANS: readonly Span[] = []
const ASTRAL = /[\ud800-\udfff]/

export class Text {
  readonly text: string
  /** ascending, without overlaps; everything between them is the template's own */
  readonly spans: readonly Span[]
  /** the filters `safe` and `escape` made it: `+` escapes what is joined to it, as markupsafe does */
  readonly markup: boolean
  /** null: every unit is a code point; undefined: not looked at yet */
  #points: readonly number[] | null | undefined

  constructor(text: string, spans: readonly Span[] = NO_SPANS, markup = false) {
    this.text = text
    this.spans = spans
    this.markup = markup
  }

  static of(text: string, origin: Origin): Text {
    return new Text(text, origin === TEMPLATE || text === '' ? NO_SPANS : [{ start: 0, end: text.length, origin }])
  }

  static join(parts: readonly Text[], separator = EMPTY): Text {
    const spans: Span[] = []
    let text = ''
    const add = (piece: Text) => {
      for (const { start, end, origin } of piece.spans) {
        const last = spans.at(-1)
        if (last?.end === start + text.length && last.origin === origin) last.end = end + text.length
        else spans.push({ start: start + text.length, end: end + text.length, origin })
      }
      text += piece.text
    }
    for (const [index, part] of parts.entries()) {
      if (index > 0) add(separator)
      add(part)
    }
    return new Text(text, spans)
  }

  /** The least trusted origin in it. */
  get origin(): Origin {
    let most: Origin = TEMPLATE
    for (const { origin } of this.spans) if (origin > most) most = origin
    return most
  }

  /** UTF-16 units [start, end), both within the text. */
  slice(start: number, end = this.text.length): Text {
    const spans: Span[] = []
    for (const span of this.spans) {
      const [from, to] = [Math.max(span.start, start), Math.min(span.end, end)]
      if (from < to) spans.push({ start: from - start, end: to - start, origin: span.origin })
    }
    return new Text(this.text.slice(start, end), spans, this.markup)
  }

  /** A text that was made from all of this one: every character of it has this one's origin. */
  derive(text: string): Text {
    return new Text(text, Text.of(text, this.origin).spans, this.markup)
  }

  /** Changes characters one by one, such as their case; where a neighbour matters, the origin becomes that of all. */
  map(change: (text: string) => string): Text {
    if (this.spans.length === 0) return new Text(change(this.text), NO_SPANS, this.markup)
    const runs = this.runs().map((run) => Text.of(change(run.text), run.origin))
    const joined = Text.join(runs)
    const whole = change(this.text)
    return joined.text === whole ? new Text(whole, joined.spans, this.markup) : this.derive(whole)
  }

  /** The text cut where the origin changes. */
  runs(): { text: string; origin: Origin }[] {
    const runs: { text: string; origin: Origin }[] = []
    const push = (start: number, end: number, origin: Origin) => {
      if (start < end) runs.push({ text: this.text.slice(start, end), origin })
    }
    let at = 0
    for (const { start, end, origin } of this.spans) {
      push(at, start, TEMPLATE)
      push(start, end, origin)
      at = end
    }
    push(at, this.text.length, TEMPLATE)
    return runs
  }

  /** How many code points: Python's length. */
  get length(): number {
    const points = this.#codePoints()
    return points === undefined ? this.text.length : points.length - 1
  }

  /** Where a code point begins in UTF-16; the end for the one after the last. */
  offset(index: number): number {
    return this.#codePoints()?.[index] ?? index
  }

  /** Its code points, each a text and no markup, as iterating over it gives them. */
  characters(): Text[] {
    const plain = this.markup ? new Text(this.text, this.spans) : this
    return Array.from({ length: this.length }, (_, i) => plain.slice(this.offset(i), this.offset(i + 1)))
  }

  /** Where each code point begins, and the end; undefined when every unit is one. */
  #codePoints(): readonly number[] | undefined {
    if (this.#points === undefined) this.#points = ASTRAL.test(this.text) ? codePoints(this.text) : null
    return this.#points ?? undefined
  }
}

export const EMPTY = new Text('')

function codePoints(text: string): number[] {
  const offsets: number[] = []
  let at = 0
  for (const character of text) {
    offsets.push(at)
    at += character.length
  }
  offsets.push(at)
  return offsets
}

/** Below, at or above 0 as `a` comes before, with or after `b` by code points, which is Python's order. */
export function compareText(a: string, b: string): number {
  if (!ASTRAL.test(a) && !ASTRAL.test(b)) return a < b ? -1 : a > b ? 1 : 0
  const [left, right] = [Array.from(a), Array.from(b)]
  for (let i = 0; i < left.length && i < right.length; i++) {
    const gap = left[i]!.codePointAt(0)! - right[i]!.codePointAt(0)!
    if (gap !== 0) return gap
  }
  return left.length - right.length
}
