/** The tokens of a template, one after the other. */
import { syntaxError, type Token, tokenize } from './lexer.js'
import type { TemplateError } from './values.js'

export class TokenStream {
  readonly #tokens: Token[]
  #at = 0

  constructor(source: string) {
    this.#tokens = tokenize(source)
  }

  get current(): Token {
    return this.#tokens[this.#at]!
  }

  get line(): number {
    return this.current.line
  }

  next(): Token {
    const token = this.current
    if (token.type !== 'eof') this.#at++
    return token
  }

  is(type: Token['type'], value?: string): boolean {
    return this.current.type === type && (value === undefined || this.current.value === value)
  }

  isOperator(...values: string[]): boolean {
    return this.current.type === 'operator' && values.includes(this.current.value)
  }

  isName(...values: string[]): boolean {
    return this.current.type === 'name' && values.includes(this.current.value)
  }

  /** Whether the token after the current one is this. */
  isFollowedBy(type: Token['type'], value: string): boolean {
    const token = this.#tokens[this.#at + 1]
    return token?.type === type && token.value === value
  }

  skipIf(type: Token['type'], value: string): boolean {
    const found = this.is(type, value)
    if (found) this.next()
    return found
  }

  expect(type: Token['type'], value?: string): Token {
    if (this.is(type, value)) return this.next()
    throw this.unexpected(value ?? `a ${type}`)
  }

  unexpected(expected?: string): TemplateError {
    const { type, value, line } = this.current
    const found =
      type === 'eof' ? 'the end of the template' : type === 'end' ? 'the end of the tag' : JSON.stringify(value)
    return syntaxError(expected === undefined ? `unexpected ${found}` : `expected ${expected}, found ${found}`, line)
  }
}
