/** Jinja2's filters (jinja2/filters.py) and transformers' own `tojson`. */
import type { BoundArguments } from './arguments.js'
import { getAttribute } from './attributes.js'
import { type Filter, filter } from './filter.js'
import { formatPercent } from './formatting.js'
import { toJson } from './json.js'
import { roundFloat } from './number-format.js'
import { escapeHtml } from './operators.js'
import { toText } from './printing.js'
import { capitalized, PYTHON_SPACE } from './python-text.js'
import { SEQUENCE_FILTERS } from './sequence-filters.js'
import { EMPTY, Text } from './text.js'
import { padText, replaceText, splitLines, stripText } from './text-methods.js'
import {
  Callable,
  Dict,
  DictView,
  given,
  isInteger,
  isNumber,
  isTrue,
  iterate,
  lengthOf,
  Sequence,
  TemplateError,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js'

/** Jinja2 has them; for a prompt they make no sense, or their result hangs on tables that are not here. */
export const UNSUPPORTED_FILTERS = ['filesizeformat', 'pprint', 'random', 'striptags', 'urlize', 'wordwrap', 'xmlattr']

/** A filter of text: what is no text is printed first. */
function textFilter(name: string, parameters: string[], apply: (text: Text, args: BoundArguments) => Value): Filter {
  return filter(name, parameters, (value, args) => apply(value instanceof Text ? value : toText(value), args))
}

const TEXT_FILTERS: Record<string, Filter> = {
  capitalize: textFilter('capitalize', [], (text) => text.map(capitalized)),
  center: textFilter('center', ['width'], (text, args) =>
    padText(text, args.integer('width', 80), new Text(' '), 'center'),
  ),
  escape: textFilter('escape', [], (text) => (text.markup ? text : escapeHtml(text))),
  forceescape: filter('forceescape', [], (value) => escapeHtml(toText(value))),
  format: (value, { positional, named }) => {
    const values = new Dict([...named].map(([name, item]) => [new Text(name), item]))
    return formatPercent(value instanceof Text ? value : toText(value), named.size > 0 ? values : new Tuple(positional))
  },
  indent: filter('indent', ['width', 'first', 'blank'], indent),
  lower: textFilter('lower', [], (text) => text.map((part) => part.toLowerCase())),
  replace: filter('replace', ['old', 'new', 'count'], (value, args) =>
    replaceText(
      toText(value),
      toText(args.required('old')).text,
      toText(args.required('new')),
      args.integer('count', -1),
    ),
  ),
  safe: filter('safe', [], (value) => {
    const text = toText(value)
    return new Text(text.text, text.spans, true)
  }),
  string: textFilter('string', [], (text) => text),
  title: textFilter('title', [], (text) => text.map(titleFilter)),
  trim: textFilter('trim', ['chars'], (text, args) => stripText(text, args.optionalText('chars')?.text)),
  truncate: filter('truncate', ['length', 'killwords', 'end', 'leeway'], truncate),
  upper: textFilter('upper', [], (text) => text.map((part) => part.toUpperCase())),
  urlencode: filter('urlencode', [], urlEncode),
  wordcount: textFilter('wordcount', [], ({ text }) => BigInt(text.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0)),
}

const VALUE_FILTERS: Record<string, Filter> = {
  abs: filter('abs', [], absolute),
  attr: filter('attr', ['name'], (value, args) => attributeOnly(value, toText(args.required('name')).text)),
  default: filter('default', ['default_value', 'boolean'], (value, args) => {
    const missing = value instanceof Undefined || (args.flag('boolean') && !isTrue(value))
    return missing ? args.value('default_value', EMPTY) : value
  }),
  float: filter('float', ['default'], (value, args) => given(toFloat(value), args.value('default', 0))),
  int: filter('int', ['default', 'base'], (value, args) =>
    given(toInteger(value, args.integer('base', 10)), args.value('default', 0n)),
  ),
  length: filter('length', [], length),
  round: filter('round', ['precision', 'method'], round),
  tojson: filter('tojson', ['ensure_ascii', 'indent', 'separators', 'sort_keys'], jsonFilter),
}

const ALIASES: Record<string, string> = { count: 'length', d: 'default', e: 'escape' }

const FILTERS = new Map(Object.entries({ ...TEXT_FILTERS, ...VALUE_FILTERS, ...SEQUENCE_FILTERS }))

/** undefined for a name that no filter has */
export function findFilter(name: string): Filter | undefined {
  return FILTERS.get(ALIASES[name] ?? name)
}

function length(value: Value): Value {
  const found = lengthOf(value)
  if (found === undefined) throw new TemplateError(`a value of type ${typeName(value)} has no length`)
  return BigInt(found)
}

const WORD_BEGINNING = new RegExp(`([-${PYTHON_SPACE}({\\[<]+)`)

/** Not as str.title(): words begin after a hyphen, white space or an opening bracket. */
function titleFilter(text: string): string {
  return text
    .split(WORD_BEGINNING)
    .map((word) => {
      const [first = '', ...rest] = word
      return first.toUpperCase() + rest.join('').toLowerCase()
    })
    .join('')
}

function indent(text: Value, args: BoundArguments): Text {
  if (!(text instanceof Text)) throw new TemplateError(`indent of a value of type ${typeName(text)}`)
  const width = args.value('width', 4n)
  const indention = width instanceof Text ? width : new Text(' '.repeat(Math.max(0, args.integer('width', 4))))
  const newline = new Text('\n')
  const blank = args.flag('blank')
  // Jinja2 adds a line end, so that a text that ends with one keeps it.
  const lines = splitLines(Text.join([text, newline]))
  const indented = lines.map((line, i) => (i > 0 && (blank || line.text !== '') ? Text.join([indention, line]) : line))
  const joined = Text.join(indented, newline)
  return args.flag('first') ? Text.join([indention, joined]) : joined
}

/** jinja2's policy truncate.leeway */
const LEEWAY = 5

function truncate(text: Value, args: BoundArguments): Value {
  const most = args.integer('length', 255)
  const end = args.has('end') ? args.text('end') : new Text('...')
  if (Number(length(text)) <= most + args.integer('leeway', LEEWAY)) return text
  if (!(text instanceof Text)) throw new TemplateError(`truncate of a value of type ${typeName(text)}`)
  if (most < end.length) throw new TemplateError(`truncate: ${most} characters are too few for the end`)
  const kept = text.slice(0, text.offset(most - end.length))
  const space = args.flag('killwords') ? -1 : kept.text.lastIndexOf(' ')
  return Text.join([space < 0 ? kept : kept.slice(0, space), end])
}

function urlEncode(value: Value): Value {
  const quote = (part: Value, safe: string) => {
    const text = toText(part)
    const encode = (c: string) =>
      safe.includes(c)
        ? c
        : encodeURIComponent(c).replace(/[!'()*]/g, (d) => `%${d.charCodeAt(0).toString(16).toUpperCase()}`)
    return text.map((run) => Array.from(run, encode).join(''))
  }
  if (value instanceof Text || !(value instanceof Dict || value instanceof Sequence)) return quote(value, '/')
  const pairs = value instanceof Dict ? new DictView(value, 'items').items : value.items
  const texts = pairs.map((pair) => {
    const [key, item] = iterate(pair)
    if (key === undefined || item === undefined) throw new TemplateError('urlencode wants pairs')
    return Text.join([formPlus(quote(key, '')), formPlus(quote(item, ''))], new Text('='))
  })
  return Text.join(texts, new Text('&'))
}

function formPlus(text: Text): Text {
  return replaceText(text, '%20', new Text('+'), -1)
}

function absolute(value: Value): Value {
  if (value instanceof Undefined) value.fail()
  if (isInteger(value)) return BigInt(value) < 0n ? -BigInt(value) : BigInt(value)
  if (typeof value === 'number') return Math.abs(value)
  throw new TemplateError(`abs of a value of type ${typeName(value)}`)
}

/** `attr` sees no items. */
function attributeOnly(value: Value, name: string): Value {
  if (!(value instanceof Dict || value instanceof Sequence || value instanceof Text)) return getAttribute(value, name)
  const found = getAttribute(value, name)
  return found instanceof Callable
    ? found
    : new Undefined(`a value of type ${typeName(value)} has no attribute ${name}`)
}

const FLOAT = /^[+-]?(?:(?:\d+(?:_\d+)*)?\.?(?:\d+(?:_\d+)*)?(?:e[+-]?\d+(?:_\d+)*)?|inf(?:inity)?|nan)$/i

/** float(); undefined for what is no number */
function toFloat(value: Value): number | undefined {
  if (value instanceof Undefined) value.fail()
  if (isNumber(value)) return Number(value)
  if (!(value instanceof Text)) return undefined
  const text = stripText(value, undefined).text
  if (!FLOAT.test(text) || !/\d|n/i.test(text)) return undefined
  if (/inf/i.test(text)) return text.startsWith('-') ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY
  const number = Number(text.replaceAll('_', ''))
  return Number.isNaN(number) && !/nan/i.test(text) ? undefined : number
}

const DIGITS = '0123456789abcdefghijklmnopqrstuvwxyz'
const PREFIXES: Record<number, RegExp> = { 2: /^0b_?/, 8: /^0o_?/, 16: /^0x_?/ }

/** int(); undefined for what is no number */
function toInteger(value: Value, base: number): bigint | undefined {
  if (isInteger(value)) return BigInt(value)
  if (value instanceof Text) {
    const whole = parseInteger(stripText(value, undefined).text.toLowerCase(), base)
    if (whole !== undefined) return whole
  }
  const number = toFloat(value)
  if (number === undefined) return undefined
  if (Number.isFinite(number)) return BigInt(Math.trunc(number))
  // Python's int() of an infinity overflows where it was a float; of a text it gives the default.
  if (value instanceof Text || Number.isNaN(number)) return undefined
  throw new TemplateError('int of an infinite float')
}

function parseInteger(text: string, base: number): bigint | undefined {
  if (base < 2 || base > 36) throw new TemplateError(`int: base ${base} is not supported`)
  const match = /^([+-]?)(.*)$/s.exec(text)!
  const body = match[2]!.replace(PREFIXES[base] ?? /(?!)/, '')
  if (!/^[\da-z]+(?:_[\da-z]+)*$/.test(body)) return undefined
  let result = 0n
  for (const character of body.replaceAll('_', '')) {
    const digit = DIGITS.indexOf(character)
    if (digit >= base) return undefined
    result = result * BigInt(base) + BigInt(digit)
  }
  return match[1] === '-' ? -result : result
}

function round(value: Value, args: BoundArguments): Value {
  if (value instanceof Undefined) value.fail()
  if (!isNumber(value)) throw new TemplateError(`round of a value of type ${typeName(value)}`)
  const precision = args.integer('precision', 0)
  const method = args.has('method') ? args.text('method').text : 'common'
  if (method === 'common')
    return isInteger(value) ? roundInteger(BigInt(value), precision) : roundFloat(value, precision)
  if (method !== 'ceil' && method !== 'floor')
    throw new TemplateError('round: the method must be common, ceil or floor')
  const scale = 10 ** precision
  return Math[method](Number(value) * scale) / scale
}

function roundInteger(value: bigint, precision: number): Value {
  if (precision >= 0) return value
  const unit = 10n ** BigInt(-precision)
  const rest = ((value % unit) + unit) % unit
  const low = value - rest
  const up = rest * 2n > unit || (rest * 2n === unit && (low / unit) % 2n !== 0n)
  return up ? low + unit : low
}

function jsonFilter(value: Value, args: BoundArguments): Value {
  const indention = args.value('indent')
  const indent =
    indention === null
      ? undefined
      : indention instanceof Text
        ? indention.text
        : ' '.repeat(Math.max(0, args.integer('indent', 0)))
  const separators = args.value('separators')
  let [itemSeparator, keySeparator] = [indent === undefined ? ', ' : ',', ': ']
  if (separators !== null) {
    const given = iterate(separators)
    if (given.length !== 2 || !given.every((item) => item instanceof Text))
      throw new TemplateError('tojson: separators must be two texts')
    ;[itemSeparator, keySeparator] = given.map((item) => (item as Text).text) as [string, string]
  }
  const [ensureAscii, sortKeys] = [args.flag('ensure_ascii'), args.flag('sort_keys')]
  return toJson(value, { ensureAscii, indent, itemSeparator, keySeparator, sortKeys })
}
