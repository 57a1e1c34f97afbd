/** The filter `tojson` of transformers: Python's json.dumps, with its options. */
import { equals, order } from './operators.js'
import { floatText, toText } from './printing.js'
import { type Origin, TEMPLATE, Text } from './text.js'
import { Dict, isInteger, List, Sequence, TemplateError, Tuple, typeName, type Value } from './values.js'

export interface JsonOptions {
  ensureAscii: boolean
  /** undefined: everything on one line */
  indent: string | undefined
  itemSeparator: string
  keySeparator: string
  sortKeys: boolean
}

export function toJson(value: Value, options: JsonOptions): Text {
  const parts: Text[] = []
  // What is not text shows how the data is built: it counts as coming from where the data came from.
  const mark = originOf(value)
  write(value, options, '\n', (part) => parts.push(typeof part === 'string' ? Text.of(part, mark) : part))
  return Text.join(parts)
}

/** The least trusted origin of any text in a value. */
function originOf(value: Value): Origin {
  const inner = value instanceof Dict ? value.entries().flat() : value instanceof Sequence ? value.items : []
  let most: Origin = value instanceof Text ? value.origin : TEMPLATE
  for (const item of inner) {
    const origin = originOf(item)
    if (origin > most) most = origin
  }
  return most
}

type Put = (part: string | Text) => void

function write(value: Value, options: JsonOptions, newline: string, put: Put): void {
  const plain = scalar(value)
  if (plain !== undefined) put(plain)
  else if (value instanceof Text) put(quoted(value, options.ensureAscii))
  else if (value instanceof Dict) {
    const entries = options.sortKeys ? sorted(value.entries()) : value.entries()
    block('{', '}', entries, options, newline, put, ([key, item], inner) => {
      put(quoted(keyText(key), options.ensureAscii))
      put(options.keySeparator)
      write(item, options, inner, put)
    })
  } else if (value instanceof List || value instanceof Tuple) {
    block('[', ']', value.items, options, newline, put, (item, inner) => write(item, options, inner, put))
  } else throw new TemplateError(`tojson of a value of type ${typeName(value)}`)
}

function block<T>(
  open: string,
  close: string,
  items: readonly T[],
  { indent, itemSeparator }: JsonOptions,
  newline: string,
  put: Put,
  one: (item: T, newline: string) => void,
): void {
  const inner = indent === undefined ? '' : newline + indent
  put(open)
  for (const [index, item] of items.entries()) {
    put(index === 0 ? inner : itemSeparator + inner)
    one(item, newline + (indent ?? ''))
  }
  put(items.length > 0 && indent !== undefined ? newline + close : close)
}

function scalar(value: Value): string | undefined {
  if (value === null) return 'null'
  if (typeof value === 'boolean') return String(value)
  if (isInteger(value)) return String(value)
  if (typeof value !== 'number') return undefined
  if (Number.isFinite(value)) return floatText(value)
  return Number.isNaN(value) ? 'NaN' : value > 0 ? 'Infinity' : '-Infinity'
}

function keyText(key: Value): Text {
  if (key instanceof Text) return key
  const text = scalar(key)
  if (text === undefined) throw new TemplateError(`tojson of a dict with a key of type ${typeName(key)}`)
  return new Text(text)
}

function sorted(entries: [Value, Value][]): [Value, Value][] {
  return entries.sort(([a, x], [b, y]) => (equals(a, b) ? order(x, y) : order(a, b)))
}

const ESCAPES: Record<string, string> = {
  '"': '\\"',
  '\\': '\\\\',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\b': '\\b',
  '\f': '\\f',
}

function quoted(text: Text, ensureAscii: boolean): Text {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must be escaped
  const pattern = ensureAscii ? /["\\]|[^ -~]/g : /["\\\x00-\x1f]/g
  const unit = (c: string) => ESCAPES[c] ?? `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`
  const inner = toText(text).map((part) => part.replace(pattern, unit))
  const quote = Text.of('"', text.origin)
  return Text.join([quote, inner, quote])
}
