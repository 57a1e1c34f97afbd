/** `'%s' % value` and `'{}'.format(value)`. */
import { numberDigits } from './number-format.js'
import { repr, toText } from './printing.js'
import { EMPTY, Text } from './text.js'
import {
  type Arguments,
  Dict,
  isInteger,
  isNumber,
  Sequence,
  TemplateError,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js'

interface Style {
  fill: string
  align: '<' | '>' | '^' | '='
  sign: string
  width: number
  alternate: boolean
  grouping: string
  precision: number | undefined
  type: string
}

const PERCENT = /%(?:\((\w*)\))?([#0\- +]*)(\*|\d+)?(?:\.(\*|\d+))?[hlL]?([a-zA-Z%])/g
const MOST_WIDTH = 100_000

/** `format % values` */
export function formatPercent(format: Text, values: Value): Text {
  if (format.markup) throw new TemplateError('% on a text made by safe or escape is not supported')
  const positional = values instanceof Tuple ? values.items : [values]
  let taken = 0
  const take = (): Value => {
    if (taken >= positional.length) throw new TemplateError('not enough arguments for the format')
    return positional[taken++]!
  }
  const number = (text: string | undefined) =>
    text === '*' ? Number(take()) : text === undefined ? undefined : Number(text)
  const parts: Text[] = []
  let at = 0
  for (const match of format.text.matchAll(PERCENT)) {
    const [whole, key, flags = '', width, precision, type] = match
    parts.push(format.slice(at, match.index))
    at = match.index + whole.length
    const style = percentStyle(flags, number(width), number(precision), type!)
    if (type === '%') parts.push(new Text('%'))
    else if (key === undefined) parts.push(percentValue(take(), style))
    else {
      const value = values instanceof Dict ? values.getText(key) : undefined
      if (value === undefined) throw new TemplateError(`the format's ${key} is not among the values`)
      parts.push(percentValue(value, style))
      taken = positional.length
    }
  }
  parts.push(format.slice(at))
  if (parts.some((part, i) => i % 2 === 0 && part.text.includes('%')))
    throw new TemplateError('an incomplete format after %')
  // Python asks this only of what cannot be indexed, and of tuples.
  const isIndexed =
    values instanceof Dict || values instanceof Undefined || (values instanceof Sequence && !(values instanceof Tuple))
  if (taken < positional.length && !isIndexed) throw new TemplateError('not all arguments of the format were used')
  return Text.join(parts)
}

function percentStyle(flags: string, width = 0, precision: number | undefined, type: string): Style {
  const left = flags.includes('-') || width < 0
  return {
    fill: flags.includes('0') && !left ? '0' : ' ',
    align: left ? '<' : flags.includes('0') ? '=' : '>',
    sign: flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : '-',
    width: Math.abs(width),
    alternate: flags.includes('#'),
    grouping: '',
    precision,
    type: type === 'i' || type === 'u' ? 'd' : type,
  }
}

function percentValue(value: Value, style: Style): Text {
  if (style.type === 's') return padText(cut(toText(value), style), { ...style, fill: ' ' })
  if (style.type === 'r') return padText(cut(repr(value), style), { ...style, fill: ' ' })
  if (value instanceof Undefined) value.fail()
  if (!isNumber(value)) throw new TemplateError(`%${style.type} wants a number, not ${typeName(value)}`)
  const truncates = style.type === 'd' && typeof value === 'number' && Number.isFinite(value)
  return formatNumber(truncates ? BigInt(Math.trunc(value)) : value, style)
}

const SPECIFICATION = /^(?:(.)?([<>=^]))?([+\- ])?(#)?(0)?(\d+)?([,_])?(?:\.(\d+))?([a-zA-Z%])?$/su

/** format(value, specification) */
function formatValue(value: Value, specification: Text): Text {
  if (specification.text === '') return toText(value)
  const match = SPECIFICATION.exec(specification.text)
  if (!match) throw new TemplateError(`the format ${JSON.stringify(specification.text)} is not supported`)
  const [, fill, align, sign, alternate, zero, width, grouping = '', precision, type = ''] = match
  const isText = value instanceof Text
  const style: Style = {
    fill: fill ?? (zero && !align ? '0' : ' '),
    align: (align ?? (zero ? '=' : isText ? '<' : '>')) as Style['align'],
    sign: sign ?? '-',
    width: Number(width ?? 0),
    alternate: alternate !== undefined,
    grouping,
    precision: precision === undefined ? undefined : Number(precision),
    type,
  }
  if (isText) {
    if ((type !== '' && type !== 's') || style.align === '=' || sign || alternate || grouping) {
      throw new TemplateError(`the format ${JSON.stringify(specification.text)} is not one of texts`)
    }
    return padText(cut(value, style), style)
  }
  // A bool is formatted as the int that it is.
  if (isNumber(value)) return formatNumber(value, style)
  throw new TemplateError(`the format ${JSON.stringify(specification.text)} for a value of type ${typeName(value)}`)
}

function cut(text: Text, { precision }: Style): Text {
  return precision === undefined || precision >= text.length ? text : text.slice(0, text.offset(precision))
}

function formatNumber(value: boolean | bigint | number, style: Style): Text {
  const negative = isInteger(value) ? BigInt(value) < 0n : value < 0 || Object.is(value, -0)
  const sign = negative ? '-' : style.sign === '-' ? '' : style.sign
  const body = numberDigits(value, style)
  if (style.align !== '=') return padText(new Text(sign + body), style)
  if (style.grouping && style.fill === '0') throw new TemplateError('zeros with grouping are not supported')
  checkWidth(style.width)
  return new Text(sign + style.fill.repeat(Math.max(0, style.width - sign.length - body.length)) + body)
}

function padText(text: Text, { fill, align, width }: Style): Text {
  checkWidth(width)
  const missing = Math.max(0, width - text.length)
  const before = align === '<' ? 0 : align === '^' ? Math.floor(missing / 2) : missing
  return Text.join([new Text(fill.repeat(before)), text, new Text(fill.repeat(missing - before))])
}

function checkWidth(width: number): void {
  if (width > MOST_WIDTH) throw new TemplateError(`a width of ${width} is too large`)
}

/** How `{a.b[c]}` finds b and c: an attribute or an item of a value. */
export type Lookup = (of: Value, name: string, isAttribute: boolean) => Value

/** `format.format(…)` */
export function formatBraces(format: Text, args: Arguments, lookup: Lookup, depth = 0): Text {
  if (format.markup || depth > 1) throw new TemplateError('this use of format() is not supported')
  const counter = { next: 0 }
  return braces(format, args, lookup, counter, depth)
}

function braces(format: Text, args: Arguments, lookup: Lookup, counter: { next: number }, depth: number): Text {
  const parts: Text[] = []
  const { text } = format
  for (let at = 0; at < text.length; ) {
    const open = text.slice(at).search(/[{}]/)
    if (open < 0) {
      parts.push(format.slice(at))
      break
    }
    const found = at + open
    parts.push(format.slice(at, found))
    if (text[found + 1] === text[found]) {
      parts.push(format.slice(found, found + 1))
      at = found + 2
      continue
    }
    const end = text[found] === '{' ? endOfField(text, found + 1) : -1
    if (end < 0) throw new TemplateError('a single brace in the format')
    parts.push(field(format.slice(found + 1, end), args, lookup, counter, depth))
    at = end + 1
  }
  return Text.join(parts)
}

function endOfField(text: string, from: number): number {
  let depth = 1
  for (let at = from; at < text.length; at++) {
    if (text[at] === '{') depth++
    else if (text[at] === '}' && --depth === 0) return at
  }
  return -1
}

const FIELD = /^([^!:]*)(?:!([rsa]))?(?::(.*))?$/s
const STEP = /\.([^.[]+)|\[([^\]]+)\]/g

function field(source: Text, args: Arguments, lookup: Lookup, counter: { next: number }, depth: number): Text {
  const match = FIELD.exec(source.text)
  if (!match) throw new TemplateError(`the field {${source.text}} of the format is not supported`)
  const [, path = '', conversion, specification] = match
  const first = /^[^.[]*/.exec(path)![0]
  const key = first === '' ? String(counter.next++) : first
  let value = /^\d+$/.test(key) ? args.positional[Number(key)] : args.named.get(key)
  if (value === undefined) throw new TemplateError(`the format's ${key} is not among the values`)
  for (const step of path.slice(first.length).matchAll(STEP)) {
    value = lookup(value, step[1] ?? step[2]!, step[1] !== undefined)
  }
  if (conversion === 'a') throw new TemplateError('!a in a format is not supported')
  if (conversion) value = conversion === 'r' ? repr(value) : toText(value)
  if (specification === undefined) return toText(value)
  if (depth > 0) throw new TemplateError('a format within a format within a format')
  const inner = braces(source.slice(source.text.length - specification.length), args, lookup, counter, depth + 1)
  return inner === EMPTY ? toText(value) : formatValue(value, inner)
}
