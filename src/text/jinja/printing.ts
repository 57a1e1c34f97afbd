/** Values as Python prints them: str() and repr(). */
import { FOREIGN, type Origin, TEMPLATE, Text } from './text.js'
import {
  Callable,
  Dict,
  DictView,
  Generator,
  List,
  Namespace,
  Range,
  TemplateError,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js'

/** str() */
export function toText(value: Value): Text {
  if (value instanceof Text) return value.markup ? new Text(value.text, value.spans) : value
  if (value instanceof Undefined) return new Text('')
  return repr(value)
}

/** repr() */
export function repr(value: Value): Text {
  if (value === null) return new Text('None')
  if (value === true) return new Text('True')
  if (value === false) return new Text('False')
  if (typeof value === 'bigint') return new Text(String(value))
  if (typeof value === 'number') return new Text(floatText(value))
  if (value instanceof Text) return value.markup ? wrap('Markup(', [quoted(value)], ')') : quoted(value)
  if (value instanceof Undefined) return new Text('Undefined')
  if (value instanceof List) return wrap('[', value.items.map(repr), ']')
  if (value instanceof Tuple) return wrap('(', value.items.map(repr), value.items.length === 1 ? ',)' : ')')
  if (value instanceof Range) return rangeText(value)
  if (value instanceof Dict)
    return wrap(
      '{',
      value.entries().map(([key, item]) => pair(repr(key), repr(item))),
      '}',
    )
  if (value instanceof DictView) return wrap(`dict_${value.kind}([`, value.items.map(repr), '])')
  if (value instanceof Namespace) {
    const entries = [...value.attributes].map(([name, item]) => pair(quoted(Text.of(name, FOREIGN)), repr(item)))
    return wrap('<Namespace {', entries, '}>')
  }
  throw unprintable(value)
}

/** Such a text holds an address in Python: it is nothing that anybody wants in a prompt. */
function unprintable(value: Value): TemplateError {
  const what = value instanceof Generator || value instanceof Callable ? `a ${typeName(value)}` : typeName(value)
  const hint = value instanceof Generator ? ' (put `| list` behind it)' : ''
  return new TemplateError(`${what} is printed, which has no text${hint}`)
}

function pair(key: Text, value: Text): Text {
  return Text.join([key, value], new Text(': '))
}

/** The brackets and commas say how many items there were: they count as coming from where the items came from. */
function wrap(open: string, items: Text[], close: string): Text {
  let origin: Origin = TEMPLATE
  for (const item of items) if (item.origin > origin) origin = item.origin
  const own = (text: string) => Text.of(text, origin)
  return Text.join([own(open), Text.join(items, own(', ')), own(close)])
}

function rangeText({ start, stop, step }: Range): Text {
  return new Text(step === 1n ? `range(${start}, ${stop})` : `range(${start}, ${stop}, ${step})`)
}

/** repr() of a float: the shortest digits that name it, with an exponent from 1e16 on and below 1e-4. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return 'nan'
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf'
  if (Object.is(value, -0)) return '-0.0'
  const size = Math.abs(value)
  if (value !== 0 && (size >= 1e16 || size < 1e-4)) return pythonExponent(value.toExponential())
  const text = String(value)
  return text.includes('.') ? text : `${text}.0`
}

/** Python writes at least two digits of an exponent. */
export function pythonExponent(text: string): string {
  return text.replace(/e([+-])(\d)$/, 'e$10$2')
}

const ESCAPES: Record<string, string> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' }
/** str.isprintable() says no: the categories Other and Separator, except the space. */
const UNPRINTABLE = /[\\\n\r\t]|(?! )[\p{C}\p{Z}]/gu

function escaped(character: string): string {
  const known = ESCAPES[character]
  if (known !== undefined) return known
  const code = character.codePointAt(0)!
  if (code <= 0xff) return `\\x${code.toString(16).padStart(2, '0')}`
  return code <= 0xffff ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`
}

function quoted(text: Text): Text {
  const quote = text.text.includes("'") && !text.text.includes('"') ? '"' : "'"
  const inner = text.map((part) => {
    const plain = part.replace(UNPRINTABLE, escaped)
    return quote === "'" ? plain.replaceAll("'", "\\'") : plain
  })
  const mark = Text.of(quote, text.origin)
  return Text.join([mark, inner, mark])
}
