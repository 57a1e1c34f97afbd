/**
 * Numbers of JSON as EBNF. Digits are bounded: what is written is then a finite double, different texts are different
 * doubles, and an integer is exact.
 */
import { oneOf, type Rules } from './ebnf.js'

/** A number of so many digits is exact in a double. */
const DIGITS = 15
const WHOLE = `("0" | [1-9] [0-9]{0,${DIGITS - 1}})`

export interface Bounds {
  min?: number
  max?: number
  /** the bound itself is not in the range */
  openMin?: boolean
  openMax?: boolean
}

/** Beyond these a number has more digits than are exact. */
export const LARGEST = 10 ** DIGITS - 1

/** Undefined: there is no such number. Bounds beyond LARGEST come down to it. */
export function numberExpression(bounds: Bounds, isInteger: boolean, rules: Rules): string | undefined {
  if (bounds.min === undefined && bounds.max === undefined) {
    return isInteger
      ? rules.shared('integer', () => `"0" | "-"? [1-9] [0-9]{0,${DIGITS - 1}}`)
      : rules.shared('number', () => `"-"? ${WHOLE} ("." [0-9]{1,${DIGITS}})? ([eE] [+\\-]? [0-9]{1,2})?`)
  }
  const { min = -LARGEST, max = LARGEST, openMin = false, openMax = false } = isInteger ? wholeBounds(bounds) : bounds
  if (min > LARGEST || max < -LARGEST || min > max) return undefined
  const parts: string[] = []
  const range = (low: number, high: number, openLow: boolean, openHigh: boolean) =>
    new DecimalRange(rules, isInteger).expression(low, high, openLow, openHigh)
  if (max >= 0) {
    const low = Math.max(min, 0)
    const positive = range(low, Math.min(max, LARGEST), openMin && low === min, openMax)
    if (positive !== undefined) parts.push(positive)
  }
  if (min < 0) {
    // Below zero the other bound is the smaller one; -0 is no number of its own.
    const low = Math.max(-max, isInteger ? 1 : 0)
    const negative = range(low, Math.min(-min, LARGEST), low === 0 || openMax, openMin)
    if (negative !== undefined) parts.push(`("-" ${negative})`)
  }
  return parts.length === 0 ? undefined : oneOf(parts)
}

/** The integers in a range, or undefined when there are more than `most`. */
export function integersIn(bounds: Bounds, step: number, most: number): number[] | undefined {
  const { min, max } = wholeBounds(bounds)
  if (min === undefined || max === undefined) return undefined
  const first = Math.ceil(min / step)
  const count = Math.floor(max / step) - first + 1
  return count > most ? undefined : Array.from({ length: Math.max(0, count) }, (_, i) => (first + i) * step)
}

function wholeBounds({ min, max, openMin, openMax }: Bounds): Bounds {
  const result: Bounds = {}
  if (min !== undefined) result.min = openMin && Number.isInteger(min) ? min + 1 : Math.ceil(min)
  if (max !== undefined) result.max = openMax && Number.isInteger(max) ? max - 1 : Math.floor(max)
  return result
}

/** Digits that are still bounded from one side; undefined: no more, whatever follows is in the range. */
type Rest = string | undefined

/** Numbers from 0 on, digit by digit: as long as a prefix is that of a bound, the bound says what may follow. */
class DecimalRange {
  readonly #rules: Rules
  readonly #isInteger: boolean
  readonly #known = new Map<string, string | undefined>()
  #openLow = false
  #openHigh = false

  constructor(rules: Rules, isInteger: boolean) {
    this.#rules = rules
    this.#isInteger = isInteger
  }

  expression(low: number, high: number, openLow: boolean, openHigh: boolean): string | undefined {
    this.#openLow = openLow
    this.#openHigh = openHigh
    const [lowWhole, lowFraction] = decimal(low)
    const [highWhole, highFraction] = decimal(high)
    const parts: string[] = []
    for (let length = lowWhole.length; length <= highWhole.length; length++) {
      const from = length === lowWhole.length ? lowWhole : `1${'0'.repeat(length - 1)}`
      const to = length === highWhole.length ? highWhole : '9'.repeat(length)
      const isLow = length === lowWhole.length
      const isHigh = length === highWhole.length
      const whole = this.#whole(from, to, {
        low: isLow ? lowFraction : undefined,
        high: isHigh ? highFraction : undefined,
        places: DIGITS - length,
      })
      if (whole !== undefined) parts.push(whole)
    }
    return parts.length === 0 ? undefined : oneOf(parts)
  }

  /** Whole digits between `from` and `to`, then a fraction that the bounds' own fractions limit where all digits are theirs. */
  #whole(from: Rest, to: Rest, fraction: { low: Rest; high: Rest; places: number }, left?: number): string | undefined {
    const digits = left ?? from!.length
    if (digits === 0) {
      const low = from === undefined ? undefined : fraction.low
      return this.#fraction(low, to === undefined ? undefined : fraction.high, fraction.places)
    }
    if (from === undefined && to === undefined) {
      const rest = this.#fraction(undefined, undefined, fraction.places)
      return `[0-9]{${digits}} ${rest}`
    }
    const kind = ['w', digits, fraction.low ?? '-', fraction.high ?? '-', fraction.places].join(' ')
    return this.#byDigit(kind, from, to, (lower, upper) => this.#whole(lower, upper, fraction, digits - 1))
  }

  /** The point and what follows it, or nothing. */
  #fraction(low: Rest, high: Rest, places: number): string | undefined {
    if (this.#isInteger) return '""'
    const mayEnd = this.#mayEnd(low, high)
    const tail = places > 0 ? this.#tail(low, high, places, true) : undefined
    if (tail === undefined) return mayEnd ? '""' : undefined
    return mayEnd ? `("." ${tail})?` : `"." ${tail}`
  }

  /** Digits after the point; the first of them has to be there. */
  #tail(low: Rest, high: Rest, places: number, isFirst = false): string | undefined {
    if (low === undefined && high === undefined) return `[0-9]{${isFirst ? 1 : 0},${places}}`
    const mayEnd = !isFirst && this.#mayEnd(low, high)
    const more =
      places === 0
        ? undefined
        : this.#byDigit(`f${places}`, low, high, (lower, upper) => this.#tail(lower, upper, places - 1))
    if (more === undefined) return mayEnd ? '""' : undefined
    return mayEnd ? `(${more} | "")` : more
  }

  #mayEnd(low: Rest, high: Rest): boolean {
    const isAbove = low === undefined || (!/[1-9]/.test(low) && !this.#openLow)
    const isBelow = high === undefined || /[1-9]/.test(high) || !this.#openHigh
    return isAbove && isBelow
  }

  /** One digit within the bounds and what may follow each: alternatives in a rule, one for each different rest. */
  #byDigit(kind: string, from: Rest, to: Rest, rest: (from: Rest, to: Rest) => string | undefined): string | undefined {
    const key = [kind, from ?? '-', to ?? '-'].join(' ')
    if (this.#known.has(key)) return this.#known.get(key)
    const least = from === undefined ? 0 : Number(from[0] ?? 0)
    const most = to === undefined ? 9 : Number(to[0] ?? 0)
    const parts: string[] = []
    const add = (first: number, last: number) => {
      if (first > last) return
      const lower = from !== undefined && first === least ? from.slice(1) : undefined
      const upper = to !== undefined && last === most ? to.slice(1) : undefined
      const after = rest(lower, upper)
      if (after !== undefined) parts.push(`${first === last ? `"${first}"` : `[${first}-${last}]`} ${after}`)
    }
    if (least === most || (from === undefined && to === undefined)) add(least, most)
    else {
      if (from !== undefined) add(least, least)
      add(from === undefined ? least : least + 1, to === undefined ? most : most - 1)
      if (to !== undefined) add(most, most)
    }
    const result = parts.length === 0 ? undefined : this.#rules.add('digits', parts.join(' | '))
    this.#known.set(key, result)
    return result
  }
}

/** Digits before and after the point, without zeros at the end; the shortest that mean this double. */
function decimal(value: number): [string, string] {
  const [mantissa = '', exponent = '0'] = String(value).split('e')
  const [whole = '', fraction = ''] = mantissa.split('.')
  const shift = Number(exponent)
  const digits = whole + fraction
  const point = whole.length + shift
  const padded = point <= 0 ? '0'.repeat(1 - point) + digits : digits.padEnd(point, '0')
  const at = Math.max(point, 1)
  const before = padded.slice(0, at).replace(/^0+(?=\d)/, '')
  return [before, padded.slice(at).replace(/0+$/, '')]
}
