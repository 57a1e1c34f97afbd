/** JSON files as other programs write them. */

/** Deeper than any real file; each level is a call. */
const MOST_LEVELS = 1000

/**
 * As JSON.parse, and NaN, Infinity and -Infinity are numbers: Python's json module writes them.
 * @throws SyntaxError that says the line and the column
 */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // Slower, but it knows those numbers, and where it is.
    return new Reader(text).whole()
  }
}

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y
const WORD = /true|false|null|NaN|-?Infinity/y
const WORDS: Record<string, unknown> = {
  true: true,
  false: false,
  null: null,
  NaN: Number.NaN,
  Infinity: Number.POSITIVE_INFINITY,
  '-Infinity': Number.NEGATIVE_INFINITY,
}
const SPACE = /[ \t\n\r]*/y

class Reader {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  whole(): unknown {
    const value = this.#value(MOST_LEVELS)
    this.#skipSpace()
    if (this.#at < this.#text.length) throw this.#expected('the end')
    return value
  }

  #value(levels: number): unknown {
    this.#skipSpace()
    const first = this.#text[this.#at]
    if ((first === '{' || first === '[') && levels === 0) throw this.#error(`more than ${MOST_LEVELS} levels`)
    if (first === '{') return Object.fromEntries(this.#list('}', () => this.#field(levels - 1)))
    if (first === '[') return this.#list(']', () => this.#value(levels - 1))
    if (first === '"') return this.#string()
    const word = this.#match(WORD)
    if (word !== undefined) return WORDS[word]
    const number = this.#match(NUMBER)
    if (number !== undefined) return Number(number)
    throw this.#expected('a value')
  }

  /** From the bracket at this place to its partner. */
  #list<T>(close: '}' | ']', item: () => T): T[] {
    this.#at++
    const items: T[] = []
    if (this.#takes(close)) return items
    for (;;) {
      items.push(item())
      if (this.#takes(close)) return items
      if (!this.#takes(',')) throw this.#expected(`, or ${close}`)
    }
  }

  #field(levels: number): [string, unknown] {
    this.#skipSpace()
    if (this.#text[this.#at] !== '"') throw this.#expected('a name in quotes')
    const name = this.#string()
    if (!this.#takes(':')) throw this.#expected(':')
    return [name, this.#value(levels)]
  }

  #string(): string {
    let end = this.#at + 1
    while (end < this.#text.length && this.#text[end] !== '"') end += this.#text[end] === '\\' ? 2 : 1
    if (end >= this.#text.length) throw this.#error('this text has no end')
    try {
      const text = JSON.parse(this.#text.slice(this.#at, end + 1)) as string
      this.#at = end + 1
      return text
    } catch {
      throw this.#error('this text has something that JSON does not know')
    }
  }

  /** Whether the next thing is this sign; then it is behind us. */
  #takes(sign: string): boolean {
    this.#skipSpace()
    if (this.#text[this.#at] !== sign) return false
    this.#at++
    return true
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)?.[0]
    this.#at += found?.length ?? 0
    return found
  }

  #skipSpace(): void {
    this.#match(SPACE)
  }

  #expected(what: string): SyntaxError {
    const next = this.#text.codePointAt(this.#at)
    const found = next === undefined ? 'the end' : JSON.stringify(String.fromCodePoint(next))
    return this.#error(`${what} must be here, not ${found}`)
  }

  #error(problem: string): SyntaxError {
    const before = this.#text.slice(0, this.#at).split('\n')
    return new SyntaxError(`line ${before.length}, column ${before.at(-1)!.length + 1}: ${problem}`)
  }
}
