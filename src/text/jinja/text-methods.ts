/** The methods of Python's str that templates use. Results keep track of where their characters come from. */
import { type BoundArguments, bind } from './arguments.js'
import { formatBraces, type Lookup } from './formatting.js'
import {
  capitalized,
  isPythonSpace,
  LINE_END,
  PYTHON_SPACE,
  strippedEnd,
  strippedStart,
  titleWords,
} from './python-text.js'
import { EMPTY, Text } from './text.js'
import { type Arguments, Callable, Dict, iterate, List, TemplateError, Tuple, typeName, type Value } from './values.js'

type Method = (text: Text, args: BoundArguments) => Value

const RANGE = ['start', 'end']

/** By name: the parameters, and what is done. */
const METHODS: Record<string, [string[], Method]> = {
  capitalize: [[], (text) => text.map(capitalized)],
  center: [['width', 'fillchar'], (text, args) => pad(text, args, 'center')],
  count: [['sub', ...RANGE], (text, args) => BigInt(countOf(part(text, args), args.text('sub').text))],
  endswith: [
    ['suffix', ...RANGE],
    (text, args) => affixes(args, 'suffix').some((end) => part(text, args).text.endsWith(end)),
  ],
  expandtabs: [['tabsize'], (text, args) => expandTabs(text, args.integer('tabsize', 8))],
  find: [['sub', ...RANGE], (text, args) => find(text, args, false)],
  index: [['sub', ...RANGE], (text, args) => found(find(text, args, false))],
  isalnum: [[], every(/^[\p{L}\p{N}]+$/u)],
  isalpha: [[], every(/^\p{L}+$/u)],
  isascii: [[], ({ text }) => /^[\0-\x7f]*$/.test(text)],
  isdecimal: [[], every(/^\p{Nd}+$/u)],
  isdigit: [[], every(/^[\p{Nd}²³¹፩-፱᧚⁰⁴-⁹₀-₉①-⑨⑴-⑼⒈-⒐⓪⓵-⓽⓿❶-❾➀-➈➊-➒]+$/u)],
  isidentifier: [[], every(/^[\p{ID_Start}_]\p{ID_Continue}*$/u)],
  islower: [[], ({ text }) => /\p{Lowercase}/u.test(text) && !/[\p{Uppercase}\p{Lt}]/u.test(text)],
  isprintable: [[], ({ text }) => !/(?! )[\p{C}\p{Z}]/u.test(text)],
  isspace: [[], ({ text }) => isPythonSpace(text)],
  istitle: [[], ({ text }) => titleWords(text) === text && /[\p{Uppercase}\p{Lt}]/u.test(text)],
  isupper: [[], ({ text }) => /\p{Uppercase}/u.test(text) && !/[\p{Lowercase}\p{Lt}]/u.test(text)],
  join: [['iterable'], (text, args) => join(text, iterate(args.required('iterable')))],
  ljust: [['width', 'fillchar'], (text, args) => pad(text, args, 'left')],
  lower: [[], (text) => text.map((part) => part.toLowerCase())],
  lstrip: [['chars'], (text, args) => strip(text, args, true, false)],
  partition: [['sep'], (text, args) => partition(text, args.text('sep'), false)],
  removeprefix: [
    ['prefix'],
    (text, args) => {
      const { text: prefix } = args.text('prefix')
      return text.text.startsWith(prefix) ? text.slice(prefix.length) : text
    },
  ],
  removesuffix: [
    ['suffix'],
    (text, args) => {
      const { text: suffix } = args.text('suffix')
      return suffix !== '' && text.text.endsWith(suffix) ? text.slice(0, text.text.length - suffix.length) : text
    },
  ],
  replace: [
    ['old', 'new', 'count'],
    (text, args) => replaceText(text, args.text('old').text, args.text('new'), args.integer('count', -1)),
  ],
  rfind: [['sub', ...RANGE], (text, args) => find(text, args, true)],
  rindex: [['sub', ...RANGE], (text, args) => found(find(text, args, true))],
  rjust: [['width', 'fillchar'], (text, args) => pad(text, args, 'right')],
  rpartition: [['sep'], (text, args) => partition(text, args.text('sep'), true)],
  rsplit: [['sep', 'maxsplit'], (text, args) => split(text, args, true)],
  rstrip: [['chars'], (text, args) => strip(text, args, false, true)],
  split: [['sep', 'maxsplit'], (text, args) => split(text, args, false)],
  splitlines: [['keepends'], (text, args) => new List(splitLines(text, args.integer('keepends', 0) !== 0))],
  startswith: [
    ['prefix', ...RANGE],
    (text, args) => affixes(args, 'prefix').some((start) => part(text, args).text.startsWith(start)),
  ],
  strip: [['chars'], (text, args) => strip(text, args, true, true)],
  swapcase: [[], (text) => text.map((part) => Array.from(part, swapCase).join(''))],
  title: [[], (text) => text.map(titleWords)],
  upper: [[], (text) => text.map((part) => part.toUpperCase())],
  zfill: [['width'], (text, args) => zeroFill(text, args.integer('width', 0))],
}

/** Methods whose arguments markupsafe would escape. */
const ESCAPING = new Set(['center', 'join', 'ljust', 'partition', 'replace', 'rjust', 'rpartition'])

/** Methods that str has and templates here have not. */
export const UNSUPPORTED_TEXT_METHODS = ['casefold', 'encode', 'isnumeric', 'maketrans', 'translate']

/** The method, bound to its text; undefined when str has none of this name. */
export function textMethod(text: Text, name: string, lookup: Lookup): Callable | undefined {
  if (name === 'format') return new Callable(name, (args) => formatBraces(text, args, lookup))
  if (name === 'format_map') return new Callable(name, (args) => formatBraces(text, fromMapping(args), lookup))
  if (UNSUPPORTED_TEXT_METHODS.includes(name)) throw new TemplateError(`the method ${name} of str is not supported`)
  const found = Object.hasOwn(METHODS, name) ? METHODS[name] : undefined
  if (!found) return undefined
  const [parameters, method] = found
  return new Callable(name, (args) => {
    if (text.markup && ESCAPING.has(name)) {
      throw new TemplateError(`the method ${name} of a text made by safe or escape is not supported`)
    }
    return method(text, bind(name, parameters, args))
  })
}

function fromMapping(args: Arguments): Arguments {
  const mapping = bind('format_map', ['mapping'], args).required('mapping')
  if (!(mapping instanceof Dict)) throw new TemplateError(`format_map() of a value of type ${typeName(mapping)}`)
  const named = new Map<string, Value>()
  for (const [key, value] of mapping.entries()) if (key instanceof Text) named.set(key.text, value)
  return { positional: [], named }
}

function every(pattern: RegExp): Method {
  return ({ text }) => pattern.test(text)
}

/** The code points from `start` to `end`, as slices count them. */
function part(text: Text, args: BoundArguments): Text {
  const [start, end] = [args.integer('start'), args.integer('end')]
  if (start === undefined && end === undefined) return text
  const { length } = text
  const clip = (value: number) => Math.min(Math.max(value < 0 ? value + length : value, 0), length)
  const from = clip(start ?? 0)
  return text.slice(text.offset(from), text.offset(Math.max(from, clip(end ?? length))))
}

function affixes(args: BoundArguments, name: string): string[] {
  const value = args.required(name)
  const values = value instanceof Tuple ? value.items : [value]
  return values.map((item) => {
    if (item instanceof Text) return item.text
    throw new TemplateError(`startswith() and endswith() want a str or a tuple of str, not ${typeName(item)}`)
  })
}

function countOf(text: Text, sub: string): number {
  return sub === '' ? text.length + 1 : text.text.split(sub).length - 1
}

/** In code points; -1 when it is not there. */
function find(text: Text, args: BoundArguments, fromEnd: boolean): bigint {
  const { text: sub } = args.text('sub')
  const within = part(text, args)
  const at = fromEnd ? within.text.lastIndexOf(sub) : within.text.indexOf(sub)
  if (at < 0) return -1n
  const start = args.integer('start', 0)
  const before = start < 0 ? Math.max(0, text.length + start) : Math.min(start, text.length)
  return BigInt(before + within.slice(0, at).length)
}

function found(at: bigint): bigint {
  if (at < 0n) throw new TemplateError('index() and rindex(): the text is not there')
  return at
}

function strip(text: Text, args: BoundArguments, atStart: boolean, atEnd: boolean): Text {
  const characters = args.optionalText('chars')?.text
  return stripText(text, characters, atStart, atEnd)
}

export function stripText(text: Text, characters: string | undefined, atStart = true, atEnd = true): Text {
  const start = atStart ? strippedStart(text.text, characters) : 0
  return text.slice(start, atEnd ? strippedEnd(text.text, start, characters) : text.text.length)
}

export function join(separator: Text, values: readonly Value[]): Text {
  const parts = values.map((value, index) => {
    if (value instanceof Text) return value
    throw new TemplateError(`join() wants texts; item ${index} is ${typeName(value)}`)
  })
  return Text.join(parts, separator)
}

/** `count` below 0: all of them */
export function replaceText(text: Text, old: string, replacement: Text, count: number): Text {
  const parts: Text[] = []
  let at = 0
  let left = count < 0 ? Number.POSITIVE_INFINITY : count
  let character = 0
  const nextCharacter = () => (character > text.length ? -1 : text.offset(character++))
  const next = () => (old === '' ? nextCharacter() : text.text.indexOf(old, at))
  for (let found = next(); found >= 0 && left > 0; found = next(), left--) {
    parts.push(text.slice(at, found), replacement)
    at = found + old.length
  }
  parts.push(text.slice(at))
  return Text.join(parts)
}

function partition(text: Text, separator: Text, fromEnd: boolean): Tuple {
  if (separator.text === '') throw new TemplateError('partition() wants a separator that is not empty')
  const at = fromEnd ? text.text.lastIndexOf(separator.text) : text.text.indexOf(separator.text)
  if (at < 0) return new Tuple(fromEnd ? [EMPTY, EMPTY, text] : [text, EMPTY, EMPTY])
  const end = at + separator.text.length
  return new Tuple([text.slice(0, at), text.slice(at, end), text.slice(end)])
}

function split(text: Text, args: BoundArguments, fromEnd: boolean): List {
  const most = args.integer('maxsplit', -1)
  const separator = args.optionalText('sep')?.text
  if (separator === '') throw new TemplateError('split() wants a separator that is not empty')
  const pieces = separator === undefined ? splitAtSpace(text) : splitAt(text, separator, fromEnd)
  if (most < 0 || pieces.length - 1 <= most) return new List(pieces.map(([start, end]) => text.slice(start, end)))
  const stripped = separator === undefined ? stripText(text, undefined, !fromEnd, fromEnd) : text
  const [first, last] = [text.text.length - stripped.text.length, stripped.text.length]
  const kept: [number, number][] = fromEnd
    ? [[0, pieces[pieces.length - most - 1]![1]], ...pieces.slice(pieces.length - most)]
    : [...pieces.slice(0, most), [pieces[most]![0], text.text.length]]
  if (separator === undefined && most === 0) return new List([fromEnd ? text.slice(0, last) : text.slice(first)])
  return new List(kept.map(([start, end]) => text.slice(start, end)))
}

function splitAt({ text }: Text, separator: string, fromEnd: boolean): [number, number][] {
  const pieces: [number, number][] = []
  if (fromEnd) {
    let end = text.length
    for (let at = lastBefore(text, separator, end); at >= 0; at = lastBefore(text, separator, end)) {
      pieces.unshift([at + separator.length, end])
      end = at
    }
    return [[0, end], ...pieces]
  }
  let start = 0
  for (let at = text.indexOf(separator); at >= 0; at = text.indexOf(separator, start)) {
    pieces.push([start, at])
    start = at + separator.length
  }
  pieces.push([start, text.length])
  return pieces
}

/** Where the last `separator` begins that ends at or before `end`. */
function lastBefore(text: string, separator: string, end: number): number {
  return end < separator.length ? -1 : text.lastIndexOf(separator, end - separator.length)
}

const WORD = new RegExp(`[^${PYTHON_SPACE}]+`, 'g')

function splitAtSpace({ text }: Text): [number, number][] {
  return Array.from(text.matchAll(WORD), (match) => [match.index, match.index + match[0].length])
}

export function splitLines(text: Text, keepEnds = false): Text[] {
  const lines: Text[] = []
  let start = 0
  for (const match of text.text.matchAll(LINE_END)) {
    const end = match.index + match[0].length
    lines.push(text.slice(start, keepEnds ? end : match.index))
    start = end
  }
  if (start < text.text.length) lines.push(text.slice(start))
  return lines
}

const MOST_WIDTH = 100_000

function pad(text: Text, args: BoundArguments, side: 'left' | 'right' | 'center'): Text {
  const fill = args.has('fillchar') ? args.text('fillchar') : new Text(' ')
  if (fill.length !== 1) throw new TemplateError('the character to fill with must be one')
  return padText(text, args.integer('width', 0), fill, side)
}

export function padText(text: Text, width: number, fill: Text, side: 'left' | 'right' | 'center'): Text {
  if (width > MOST_WIDTH) throw new TemplateError(`a width of ${width} is too large`)
  const missing = Math.max(0, width - text.length)
  // CPython puts the odd one on the left where the width is odd.
  const before = side === 'left' ? 0 : side === 'right' ? missing : Math.floor(missing / 2) + (missing & width & 1)
  const filling = (count: number) => Array.from({ length: count }, () => fill)
  const padded = Text.join([...filling(before), text, ...filling(missing - before)])
  return new Text(padded.text, padded.spans, text.markup)
}

function zeroFill(text: Text, width: number): Text {
  const sign = /^[+-]/.test(text.text) ? 1 : 0
  return Text.join([text.slice(0, sign), padText(text.slice(sign), width - sign, new Text('0'), 'right')])
}

function expandTabs(text: Text, size: number): Text {
  const parts: Text[] = []
  let column = 0
  for (const character of text.characters()) {
    if (character.text === '\t') {
      const spaces = size > 0 ? size - (column % size) : 0
      parts.push(character.derive(' '.repeat(spaces)))
      column += spaces
    } else {
      parts.push(character)
      column = character.text === '\n' || character.text === '\r' ? 0 : column + 1
    }
  }
  return Text.join(parts)
}

function swapCase(character: string): string {
  return /\p{Uppercase}/u.test(character) ? character.toLowerCase() : character.toUpperCase()
}
