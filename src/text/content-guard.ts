/**
 * Special tokens come from the template, never from what people write. Before rendering, every special-token string
 * in the messages is broken by a mark that no text has; after rendering, special tokens are parsed first and the marks
 * taken out afterwards. Templates may trim, test and join contents as they like, and contents without such strings
 * are not touched, so their ids are those of the plain rendering.
 */
import { randomInt } from 'node:crypto'
import { escapeRegex } from './pre-tokenizers.js'

/** Roles that templates name tokens after; they are words of the format, not contents. */
const ROLES = new Set(['system', 'user', 'assistant', 'tool', 'developer', 'ipython', 'function'])
const MAX_DEPTH = 32

export class ContentGuard {
  readonly #special: string[]
  readonly #whole: RegExp | undefined
  readonly #mark: string

  /** `value`: everything that will be guarded, so that the mark can be one that does not occur in it */
  constructor(specialTokens: Iterable<string>, value: unknown) {
    this.#special = [...specialTokens].filter((token) => token !== '').sort((a, b) => b.length - a.length)
    if (this.#special.length > 0) this.#whole = new RegExp(this.#special.map(escapeRegex).join('|'), 'gu')
    const text = JSON.stringify(value) ?? ''
    let mark = randomMark()
    while (text.includes(mark)) mark = randomMark()
    this.#mark = mark
  }

  /** A copy of messages, tools or other variables with every text in it guarded, standard roles left alone. */
  guard(value: unknown, key = '', depth = 0): unknown {
    if (depth > MAX_DEPTH) return null
    if (typeof value === 'string') return key === 'role' && ROLES.has(value) ? value : this.guardText(value)
    if (Array.isArray(value)) return value.map((item) => this.guard(item, '', depth + 1))
    if (typeof value !== 'object' || value === null) return value
    const entries = Object.entries(value)
    return Object.fromEntries(entries.map(([name, item]) => [this.guardText(name), this.guard(item, name, depth + 1)]))
  }

  guardText(text: string): string {
    if (!this.#whole) return text
    // Broken after every character: a template that drops some of them finds no rest that is a token.
    const broken = text.replace(this.#whole, (token) => Array.from(token).join(this.#mark))
    const core = broken.trim()
    if (core === '') return broken
    const start = broken.length - broken.trimStart().length
    // The template's own text may stand right beside the content: neither end may complete a token with it.
    const head = this.#special.some((token) => isInside(token, core) || endsTail(token, core)) ? this.#mark : ''
    const tail = this.#special.some((token) => startsHead(token, core)) ? this.#mark : ''
    return broken.slice(0, start) + head + core + tail + broken.slice(start + core.length)
  }

  /** The rendered text as it would have been without the guard. */
  unmark(rendered: string): string {
    return rendered.replaceAll(this.#mark, '')
  }
}

/** Two characters of the private planes 15 and 16: a template has no reason to contain them. */
function randomMark(): string {
  return String.fromCodePoint(0xf0000 + randomInt(0xfffe), 0x100000 + randomInt(0xfffe))
}

function isInside(token: string, core: string): boolean {
  return core.length < token.length && token.includes(core)
}

/** Whether `core` begins with the rest of a token that was begun before it. */
function endsTail(token: string, core: string): boolean {
  for (let cut = 1; cut < token.length; cut++) if (core.startsWith(token.slice(cut))) return true
  return false
}

/** Whether `core` ends with the beginning of a token. */
function startsHead(token: string, core: string): boolean {
  for (let cut = 1; cut < token.length; cut++) if (core.endsWith(token.slice(0, cut))) return true
  return false
}
