/** Grammars in XGrammar's EBNF, written rule by rule. */
import { OnebitError } from '../errors.js'

/** Beyond it compiling takes minutes. */
const MOST_TEXT = 1 << 20

export function grammarLimit(problem: string, hint?: string): OnebitError {
  return new OnebitError('ERR_GRAMMAR_LIMIT', problem, { hint })
}

/** An expression that matches exactly this text, which must not have lone surrogates. */
export function literal(text: string): string {
  // Not \x22: the library reads every hexadecimal digit that follows as part of the character.
  const byNumber = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what has to be escaped
  return `"${text.replace(/["\\]/g, '\\$&').replace(/[\u0000-\u001f]/g, byNumber)}"`
}

/** One of these; none at all is no expression. */
export function oneOf(alternatives: readonly string[]): string {
  return alternatives.length === 1 ? alternatives[0]! : `(${alternatives.join(' | ')})`
}

export function repeated(expression: string, min: number, max: number | undefined): string {
  if (max === undefined) {
    if (min === 0) return `${expression}*`
    return min === 1 ? `${expression}+` : `${expression}{${min}} ${expression}*`
  }
  if (max === 0) return '""'
  if (min === 1 && max === 1) return expression
  if (min === 0 && max === 1) return `${expression}?`
  return min === max ? `${expression}{${min}}` : `${expression}{${min},${max}}`
}

export class Rules {
  readonly #lines = new Map<string, string>()
  #size = 0
  #count = 0

  /** A name for a rule that is defined later: rules may refer to each other. */
  name(hint: string): string {
    return `${hint}_${this.#count++}`
  }

  /** @throws OnebitError ERR_GRAMMAR_LIMIT */
  define(name: string, body: string): void {
    this.#size += name.length + body.length
    if (this.#size > MOST_TEXT) throw grammarLimit('The grammar that this makes is too large', 'Ask for less at once.')
    this.#lines.set(name, body)
  }

  add(hint: string, body: string): string {
    const name = this.name(hint)
    this.define(name, body)
    return name
  }

  /** A rule that is the same wherever it is used; `body` is asked for once. */
  shared(name: string, body: () => string): string {
    if (!this.#lines.has(name)) {
      this.#lines.set(name, '')
      this.define(name, body())
    }
    return name
  }

  /** The whole grammar. */
  text(root: string): string {
    const lines = Array.from(this.#lines, ([name, body]) => `${name} ::= ${body}`)
    return [`root ::= ${root}`, ...lines].join('\n')
  }
}
