/** Python's operators on a template's values: arithmetic, comparisons, `in`, subscripts and slices. */
import { formatPercent } from './formatting.js'
import { toText } from './printing.js'
import type { BinaryOperator, Comparison } from './syntax.js'
import { compareText, Text } from './text.js'
import {
  Dict,
  DictView,
  Generator,
  isInteger,
  isNumber,
  iterate,
  List,
  Range,
  Sequence,
  TemplateError,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js'

export function binary(operator: BinaryOperator, left: Value, right: Value): Value {
  if (left instanceof Undefined) left.fail()
  if (operator === '%' && left instanceof Text) return formatPercent(left, right)
  if (right instanceof Undefined) right.fail()
  if (isNumber(left) && isNumber(right)) {
    return isInteger(left) && isInteger(right)
      ? integerArithmetic(operator, BigInt(left), BigInt(right))
      : floatArithmetic(operator, Number(left), Number(right))
  }
  if (operator === '+') {
    if (left instanceof Text && right instanceof Text) return addTexts(left, right)
    if (left instanceof List && right instanceof List) return new List([...left.items, ...right.items])
    if (left instanceof Tuple && right instanceof Tuple) return new Tuple([...left.items, ...right.items])
  }
  if (operator === '*') {
    if (isInteger(right)) return repeat(left, right)
    if (isInteger(left)) return repeat(right, left)
  }
  throw new TemplateError(`${operator} between ${typeName(left)} and ${typeName(right)}`)
}

const MOST_BITS = 1 << 20

function integerArithmetic(operator: BinaryOperator, a: bigint, b: bigint): Value {
  if (operator === '+') return a + b
  if (operator === '-') return a - b
  if (operator === '*') return a * b
  if (operator === '**') {
    if (b < 0n) return floatArithmetic('**', Number(a), Number(b))
    if (BigInt(a.toString(2).length) * b > MOST_BITS) throw new TemplateError('the result of ** is too large')
    return a ** b
  }
  if (b === 0n) throw new TemplateError('division by zero')
  if (operator === '/') return Number(a) / Number(b)
  // Python rounds down, JavaScript towards zero.
  const roundsDown = a % b !== 0n && a % b < 0n !== b < 0n
  if (operator === '//') return a / b - (roundsDown ? 1n : 0n)
  return roundsDown ? (a % b) + b : a % b
}

function floatArithmetic(operator: BinaryOperator, a: number, b: number): Value {
  if (operator === '+') return a + b
  if (operator === '-') return a - b
  if (operator === '*') return a * b
  if (operator === '**') return floatPower(a, b)
  if (b === 0) throw new TemplateError('division by zero')
  if (operator === '/') return a / b
  const rest = a % b
  const modulo = rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest === 0 ? Math.sign(b) * 0 : rest
  return operator === '%' ? modulo : Math.floor((a - modulo) / b + 0.5)
}

function floatPower(a: number, b: number): number {
  const result = a ** b
  if (Number.isFinite(a) && Number.isFinite(b) && !Number.isFinite(result)) {
    throw new TemplateError('** gives no finite real number')
  }
  return result
}

function addTexts(left: Text, right: Text): Text {
  if (!left.markup && !right.markup) return Text.join([left, right])
  const joined = Text.join([left.markup ? left : escapeHtml(left), right.markup ? right : escapeHtml(right)])
  return new Text(joined.text, joined.spans, true)
}

const HTML: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', "'": '&#39;', '"': '&#34;' }

/** markupsafe.escape() */
export function escapeHtml(text: Text): Text {
  const escaped = text.map((part) => part.replace(/[&<>'"]/g, (character) => HTML[character]!))
  return new Text(escaped.text, escaped.spans, true)
}

/** Strings in JavaScript end before this; Python's would go on until memory ends. */
const LONGEST_TEXT = 1 << 28

function repeat(value: Value, count: boolean | bigint): Value {
  const times = Number(count) > 0 ? Number(count) : 0
  const length = value instanceof Text ? value.text.length : value instanceof Sequence ? value.items.length : 0
  if (length * times > LONGEST_TEXT) throw new TemplateError('the result of * is too long')
  if (value instanceof Text) {
    const joined = Text.join(Array.from({ length: times }, () => value))
    return new Text(joined.text, joined.spans, value.markup)
  }
  const items = (list: Sequence) => Array.from({ length: times }, () => list.items).flat()
  if (value instanceof List) return new List(items(value))
  if (value instanceof Tuple) return new Tuple(items(value))
  throw new TemplateError(`* between ${typeName(value)} and int`)
}

export function negate(value: Value): Value {
  if (value instanceof Undefined) value.fail()
  if (isInteger(value)) return -BigInt(value)
  if (typeof value === 'number') return -value
  throw new TemplateError(`- in front of a value of type ${typeName(value)}`)
}

export function plus(value: Value): Value {
  if (value instanceof Undefined) value.fail()
  if (isInteger(value)) return BigInt(value)
  if (typeof value === 'number') return value
  throw new TemplateError(`+ in front of a value of type ${typeName(value)}`)
}

/** `~`: the texts of all of them */
export function concatenate(values: readonly Value[]): Text {
  return Text.join(values.map(toText))
}

/** A bool as the int that it is. */
function plainNumber(value: boolean | bigint | number): bigint | number {
  return typeof value === 'boolean' ? BigInt(value) : value
}

/** Exact between a bigint and a number too, where === would say no. */
function sameNumber(a: bigint | number, b: bigint | number): boolean {
  return a <= b && a >= b
}

/** Python's == */
export function equals(a: Value, b: Value): boolean {
  if (isNumber(a) && isNumber(b)) return sameNumber(plainNumber(a), plainNumber(b))
  if (a instanceof Text && b instanceof Text) return a.text === b.text
  if (a instanceof Undefined) return b instanceof Undefined
  if (a instanceof Sequence && b instanceof Sequence) {
    if (a.constructor !== b.constructor || a.items.length !== b.items.length) return false
    return a.items.every((item, i) => equals(item, b.items[i]!))
  }
  if (a instanceof Dict && b instanceof Dict) {
    return a.size === b.size && a.entries().every(([key, value]) => b.has(key) && equals(value, b.get(key)!))
  }
  if (a instanceof DictView && b instanceof DictView && a.kind !== 'values' && b.kind !== 'values') {
    return a.items.length === b.items.length && a.items.every((item) => contains(b, item))
  }
  return a === b
}

/** Below, at or above 0; NaN where floats have no order. Values that Python does not order are an error. */
export function order(a: Value, b: Value, operator = '<'): number {
  if (a instanceof Undefined) a.fail()
  if (b instanceof Undefined) b.fail()
  if (isNumber(a) && isNumber(b)) {
    const [left, right] = [plainNumber(a), plainNumber(b)]
    return left < right ? -1 : left > right ? 1 : sameNumber(left, right) ? 0 : Number.NaN
  }
  if (a instanceof Text && b instanceof Text) return compareText(a.text, b.text)
  if ((a instanceof List && b instanceof List) || (a instanceof Tuple && b instanceof Tuple)) {
    for (const [i, item] of a.items.entries()) {
      const other = b.items[i]
      if (other === undefined) return 1
      if (!equals(item, other)) return order(item, other, operator)
    }
    return a.items.length - b.items.length
  }
  throw new TemplateError(`${operator} between ${typeName(a)} and ${typeName(b)}`)
}

export function compare(operator: Comparison, a: Value, b: Value): boolean {
  switch (operator) {
    case '==':
      return equals(a, b)
    case '!=':
      return !equals(a, b)
    case 'in':
      return contains(b, a)
    case 'not in':
      return !contains(b, a)
    case '<':
      return order(a, b, operator) < 0
    case '<=':
      return order(a, b, operator) <= 0
    case '>':
      return order(a, b, operator) > 0
    case '>=':
      return order(a, b, operator) >= 0
  }
}

/** `item in container` */
export function contains(container: Value, item: Value): boolean {
  if (container instanceof Text) {
    if (item instanceof Text) return container.text.includes(item.text)
    throw new TemplateError(`in: ${typeName(item)} in a str, which holds only str`)
  }
  if (container instanceof Dict) return container.has(item)
  if (container instanceof DictView || container instanceof Sequence || container instanceof Undefined) {
    return iterate(container).some((other) => other === item || equals(other, item))
  }
  if (container instanceof Generator) {
    for (const other of container.rest()) if (equals(other, item)) return true
    return false
  }
  throw new TemplateError(`in: a value of type ${typeName(container)} holds nothing`)
}

/** `of[key]`; undefined when there is no such item, or the type has no items. */
export function subscript(of: Value, key: Value): Value | undefined {
  if (of instanceof Undefined) of.fail()
  if (of instanceof Dict) return isHashable(key) ? of.get(key) : undefined
  if (!(of instanceof Text || of instanceof Sequence) || !isInteger(key)) return undefined
  const length = of instanceof Text ? of.length : of.items.length
  const index = Number(key) < 0 ? length + Number(key) : Number(key)
  if (index < 0 || index >= length) return undefined
  return of instanceof Text ? characterAt(of, index) : of.items[index]
}

function isHashable(key: Value): boolean {
  return !(key instanceof List || key instanceof Dict)
}

function characterAt(text: Text, index: number): Text {
  return text.slice(text.offset(index), text.offset(index + 1))
}

/** `of[start:stop:step]`; undefined when the type has no slices. */
export function slice(of: Value, start: Value, stop: Value, step: Value): Value | undefined {
  if (of instanceof Undefined) of.fail()
  if (!(of instanceof Text || of instanceof Sequence)) return undefined
  const by = index(step) ?? 1
  if (by === 0) throw new TemplateError('slice step cannot be zero')
  const length = of instanceof Text ? of.length : of.items.length
  const [from, to] = bounds(index(start), index(stop), by, length)
  if (of instanceof Text) return sliceText(of, from, to, by)
  if (of instanceof Range) {
    const at = (i: number) => of.start + of.step * BigInt(i)
    return new Range(at(from), at(to), of.step * BigInt(by))
  }
  const items: Value[] = []
  for (let i = from; by > 0 ? i < to : i > to; i += by) items.push(of.items[i]!)
  return of instanceof Tuple ? new Tuple(items) : new List(items)
}

function index(value: Value): number | undefined {
  if (value === null) return undefined
  if (value instanceof Undefined) value.fail()
  if (isInteger(value)) return Number(value)
  throw new TemplateError(`a slice from or to a value of type ${typeName(value)}`)
}

/** Python's slice.indices() */
function bounds(start: number | undefined, stop: number | undefined, step: number, length: number): [number, number] {
  const [low, high] = step > 0 ? [0, length] : [-1, length - 1]
  const clip = (value: number) => Math.min(Math.max(value < 0 ? value + length : value, low), high)
  const [first, last] = step > 0 ? [low, high] : [high, low]
  return [start === undefined ? first : clip(start), stop === undefined ? last : clip(stop)]
}

function sliceText(text: Text, from: number, to: number, step: number): Text {
  if (step === 1) return text.slice(text.offset(from), text.offset(Math.max(from, to)))
  const parts: Text[] = []
  for (let i = from; step > 0 ? i < to : i > to; i += step) parts.push(characterAt(text, i))
  return Text.join(parts)
}
