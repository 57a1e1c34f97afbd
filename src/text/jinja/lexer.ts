/**
 * A template's source as tokens, with Jinja2's rules for white space under `trim_blocks` and `lstrip_blocks`, the
 * settings of chat templates (jinja2/lexer.py).
 */
import { isPythonSpace, PYTHON_SPACE, trimPythonEnd } from './python-text.js'
import { TemplateError } from './values.js'

export type Token =
  | { type: 'data'; value: string; line: number }
  | { type: 'begin' | 'end'; value: 'block' | 'print'; line: number }
  | { type: 'name' | 'string' | 'integer' | 'float' | 'operator'; value: string; line: number }
  | { type: 'eof'; value: ''; line: number }

/** An error at a place in the template's source. */
export function syntaxError(message: string, line: number): TemplateError {
  const error = new TemplateError(message)
  error.line = line
  return error
}

const OPEN = /\{([%{#])([-+]?)/g
const RAW_BEGIN = new RegExp(`\\{%[-+]?[${PYTHON_SPACE}]*raw[${PYTHON_SPACE}]*(?:-%\\}[${PYTHON_SPACE}]*|%\\})`, 'y')
const RAW_END = new RegExp(
  `\\{%([-+]?)[${PYTHON_SPACE}]*endraw[${PYTHON_SPACE}]*(?:\\+%\\}|-%\\}[${PYTHON_SPACE}]*|%\\}\\n?)`,
  'g',
)
const COMMENT_END = new RegExp(`(?:\\+#\\}|-#\\}[${PYTHON_SPACE}]*|#\\}\\n?)`, 'g')
const BLOCK_END = new RegExp(`(?:\\+%\\}|-%\\}[${PYTHON_SPACE}]*|%\\}\\n?)`, 'y')
const PRINT_END = new RegExp(`(?:-\\}\\}[${PYTHON_SPACE}]*|\\}\\})`, 'y')
const SPACES = new RegExp(`[${PYTHON_SPACE}]+`, 'y')
const FLOAT = /(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?e[+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/iy
const INTEGER = /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy
const NAME = /[\p{ID_Start}_]\p{ID_Continue}*/uy
const STRING = /'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"/sy
const OPERATOR = /\/\/|\*\*|==|!=|>=|<=|[+\-/*%~[\](){}><=.:|,;]/y
const CLOSERS: Record<string, string> = { ')': '(', ']': '[', '}': '{' }

export function tokenize(source: string): Token[] {
  // Every line end is one to Jinja, and the last one is not part of the text.
  return new Lexer(source.replace(/\r\n?/g, '\n').replace(/\n$/, '')).run()
}

class Lexer {
  readonly #source: string
  readonly #tokens: Token[] = []
  #at = 0
  #line = 1
  #counted = 0

  constructor(source: string) {
    this.#source = source
  }

  run(): Token[] {
    while (this.#at < this.#source.length) this.#next()
    this.#tokens.push({ type: 'eof', value: '', line: this.#lineOf(this.#source.length) })
    return this.#tokens
  }

  /** Text up to the next tag, and the tag. */
  #next(): void {
    OPEN.lastIndex = this.#at
    const open = OPEN.exec(this.#source)
    if (!open) {
      this.#data(this.#source.slice(this.#at))
      this.#at = this.#source.length
      return
    }
    const [whole, kind, sign] = open
    this.#data(this.#stripped(this.#source.slice(this.#at, open.index), sign!, kind === '{'))
    this.#at = open.index
    if (kind === '%' && this.#skip(RAW_BEGIN)) {
      this.#raw()
      return
    }
    this.#at = open.index + whole.length
    if (kind === '#') this.#comment()
    else this.#tag(kind === '%' ? 'block' : 'print')
  }

  /** Text before a tag: `-` takes all white space, otherwise a block at the start of its line takes its indentation. */
  #stripped(text: string, sign: string, isPrint: boolean): string {
    if (sign === '-') return trimPythonEnd(text)
    if (sign === '+' || isPrint) return text
    const lineStart = text.lastIndexOf('\n') + 1
    const startsLine = lineStart > 0 || this.#at === 0 || this.#source[this.#at - 1] === '\n'
    return startsLine && isPythonSpace(text.slice(lineStart)) ? text.slice(0, lineStart) : text
  }

  #data(value: string): void {
    if (value !== '') this.#tokens.push({ type: 'data', value, line: this.#lineOf(this.#at) })
  }

  #comment(): void {
    const line = this.#lineOf(this.#at)
    COMMENT_END.lastIndex = this.#at
    if (!COMMENT_END.test(this.#source)) throw syntaxError('a comment has no end', line)
    this.#at = COMMENT_END.lastIndex
  }

  #raw(): void {
    const line = this.#lineOf(this.#at)
    RAW_END.lastIndex = this.#at
    const end = RAW_END.exec(this.#source)
    if (!end) throw syntaxError('{% raw %} has no end', line)
    this.#data(this.#stripped(this.#source.slice(this.#at, end.index), end[1]!, false))
    this.#at = RAW_END.lastIndex
  }

  #tag(kind: 'block' | 'print'): void {
    this.#push('begin', kind)
    const open: string[] = []
    for (;;) {
      this.#skip(SPACES)
      // Inside brackets `}}` and `%}` close nothing but brackets.
      if (open.length === 0 && this.#ends(kind)) return
      if (this.#at >= this.#source.length) throw syntaxError(`a ${kind} tag has no end`, this.#lineOf(this.#at))
      this.#word(open)
    }
  }

  #ends(kind: 'block' | 'print'): boolean {
    const line = this.#lineOf(this.#at)
    if (!this.#skip(kind === 'block' ? BLOCK_END : PRINT_END)) return false
    this.#tokens.push({ type: 'end', value: kind, line })
    return true
  }

  #word(open: string[]): void {
    const line = this.#lineOf(this.#at)
    const before = this.#source[this.#at - 1]
    const token = (type: 'name' | 'string' | 'integer' | 'float' | 'operator', pattern: RegExp) => {
      const value = this.#skip(pattern)
      if (value) this.#tokens.push({ type, value, line })
      return value
    }
    if (before !== '.' && token('float', FLOAT)) return
    if (token('integer', INTEGER) || token('name', NAME) || token('string', STRING)) return
    const operator = token('operator', OPERATOR)
    if (!operator) throw syntaxError(`unexpected ${JSON.stringify(this.#source[this.#at])}`, line)
    if ('([{'.includes(operator)) open.push(operator)
    else if (operator in CLOSERS && open.pop() !== CLOSERS[operator]) throw syntaxError(`unexpected ${operator}`, line)
  }

  #push(type: 'begin', value: 'block' | 'print'): void {
    this.#tokens.push({ type, value, line: this.#lineOf(this.#at) })
  }

  /** What matches here, stepped over; undefined when it does not match. */
  #skip(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#source)
    if (found) this.#at = pattern.lastIndex
    return found?.[0]
  }

  /** `at` never goes back. */
  #lineOf(at: number): number {
    for (; this.#counted < at; this.#counted++) if (this.#source[this.#counted] === '\n') this.#line++
    return this.#line
  }
}

const ESCAPES: Record<string, string> = {
  '\n': '',
  '\\': '\\',
  "'": "'",
  '"': '"',
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
}
const ESCAPE = /\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([0-7]{1,3})|([^xuUN]))|\\/gs

/** The text of a string literal, quotes and all, as Python's unicode_escape reads it. */
export function stringValue({ value, line }: Token): string {
  return value.slice(1, -1).replace(ESCAPE, (whole, x, u, long, octal, character) => {
    const hex = x ?? u ?? long
    const code = hex ? Number.parseInt(hex, 16) : octal ? Number.parseInt(octal, 8) : undefined
    if (code !== undefined && code <= 0x10ffff) return String.fromCodePoint(code)
    // A backslash before any other character is a backslash.
    if (character !== undefined) return ESCAPES[character] ?? whole
    throw syntaxError(`the string ${value.slice(0, 40)} has an escape that is not read`, line)
  })
}
