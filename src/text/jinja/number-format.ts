/** Numbers as text with Python's format specifications, rounded as Python rounds: to the nearest, ties to even. */
import { floatText, pythonExponent } from './printing.js'
import { isInteger, TemplateError } from './values.js'

/** Doubles differ from a tie by more than this many further digits can hide. */
const EXTRA_DIGITS = 30
const EXTRA = 10n ** BigInt(EXTRA_DIGITS)
const MOST_DIGITS = 100 - EXTRA_DIGITS

export interface NumberStyle {
  type: string
  precision?: number | undefined
  /** `#` */
  alternate?: boolean
  /** put between groups of three digits */
  grouping?: string
}

/** The digits of a number's size, without sign or padding. */
export function numberDigits(value: boolean | bigint | number, style: NumberStyle): string {
  const text = digits(value, style)
  if (!style.grouping) return text
  const [whole = '', ...rest] = text.split(/(?=[.e%])/)
  return whole.replace(/\B(?=(?:\d{3})+$)/g, style.grouping) + rest.join('')
}

function digits(value: boolean | bigint | number, { type, precision, alternate }: NumberStyle): string {
  const radix = { b: 2, o: 8, x: 16, X: 16 }[type]
  if (radix !== undefined || type === 'd') {
    if (!isInteger(value) || precision !== undefined) throw unsupported(type)
    const size = BigInt(value) < 0n ? -BigInt(value) : BigInt(value)
    const text = (radix && alternate ? `0${type}` : '') + size.toString(radix ?? 10)
    return type === 'X' ? text.toUpperCase() : text
  }
  if (type === '' && isInteger(value)) return digits(value, { type: 'd', precision })
  const size = Math.abs(Number(value))
  if (!Number.isFinite(size))
    return type === type.toUpperCase() && type !== '' ? floatText(size).toUpperCase() : floatText(size)
  if (type === '' && precision === undefined) return floatText(size)
  if (alternate) throw unsupported(`#${type}`)
  const places = precision ?? 6
  if (type === 'f' || type === 'F') return fixed(size, places)
  if (type === '%') return `${fixed(size * 100, places)}%`
  if (type === 'e') return exponential(size, places)
  if (type === 'E') return exponential(size, places).toUpperCase()
  if (type === 'g') return general(size, places)
  if (type === 'G') return general(size, places).toUpperCase()
  throw unsupported(type)
}

function unsupported(type: string): TemplateError {
  return new TemplateError(`a number in the format ${JSON.stringify(type)} is not supported`)
}

function halfEven(value: bigint): bigint {
  const [rounded, rest] = [value / EXTRA, value % EXTRA]
  const up = rest * 2n > EXTRA || (rest * 2n === EXTRA && rounded % 2n === 1n)
  return up ? rounded + 1n : rounded
}

function checkDigits(places: number): void {
  if (places > MOST_DIGITS) throw new TemplateError(`${places} digits of a float are too many`)
}

/** At least 0, with `places` digits behind the point. */
export function fixed(size: number, places: number): string {
  checkDigits(places)
  if (size >= 1e21) return BigInt(size).toString() + (places > 0 ? `.${'0'.repeat(places)}` : '')
  const all = halfEven(BigInt(size.toFixed(places + EXTRA_DIGITS).replace('.', ''))).toString()
  if (places === 0) return all
  const padded = all.padStart(places + 1, '0')
  return `${padded.slice(0, -places)}.${padded.slice(-places)}`
}

function exponential(size: number, places: number): string {
  checkDigits(places)
  const [mantissa = '', exponent = ''] = size.toExponential(places + EXTRA_DIGITS).split('e')
  let all = halfEven(BigInt(mantissa.replace('.', '')))
    .toString()
    .padStart(places + 1, '0')
  const carried = all.length > places + 1
  if (carried) all = all.slice(0, -1)
  const power = Number(exponent) + (carried ? 1 : 0)
  const point = places > 0 ? `.${all.slice(1)}` : ''
  return pythonExponent(`${all[0]}${point}e${power < 0 ? '-' : '+'}${Math.abs(power)}`)
}

function general(size: number, precision: number): string {
  const places = Math.max(precision, 1)
  const power = Number(exponential(size, places - 1).split('e')[1])
  const withoutZeros = (text: string) => (text.includes('.') ? text.replace(/\.?0+$/, '') : text)
  if (power >= -4 && power < places) return withoutZeros(fixed(size, places - 1 - power))
  const [mantissa = '', exponent = ''] = exponential(size, places - 1).split('e')
  return `${withoutZeros(mantissa)}e${exponent}`
}

/** round(value, places) of a float */
export function roundFloat(value: number, places: number): number {
  if (!Number.isFinite(value)) return value
  if (places < 0) throw new TemplateError('rounding to tens of a float is not supported')
  const rounded = Number(fixed(Math.abs(value), places))
  return value < 0 || Object.is(value, -0) ? -rounded : rounded
}
