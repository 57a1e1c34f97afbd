/** Finds added tokens in text: leftmost first, the longest where several start. */
import { escapeRegex } from './pre-tokenizers.js'
import type { AddedToken } from './tokenizer-json.js'

/** Either ordinary text or an added token. */
export type Section = string | AddedToken

export class AddedTokenSplitter {
  readonly #byContent = new Map<string, AddedToken>()
  readonly #pattern: RegExp | undefined

  /** `contentOf`: the form in which a token appears in the text to be split */
  constructor(tokens: AddedToken[], contentOf: (token: AddedToken) => string = (token) => token.content) {
    for (const token of tokens) {
      const content = contentOf(token)
      if (content !== '') this.#byContent.set(content, token)
    }
    // An alternation takes its first branch that matches: longer ones first makes that the longest.
    const contents = [...this.#byContent.keys()].sort((a, b) => b.length - a.length)
    if (contents.length > 0) this.#pattern = new RegExp(contents.map(escapeRegex).join('|'), 'gu')
  }

  /** Empty pieces of text are left out. */
  split(text: string): Section[] {
    if (!this.#pattern) return text === '' ? [] : [text]
    const sections: Section[] = []
    let start = 0
    let stripNext = false
    for (const match of text.matchAll(this.#pattern)) {
      const token = this.#byContent.get(match[0])!
      this.#pushText(sections, text.slice(start, match.index), stripNext, token.lstrip === true)
      sections.push(token)
      start = match.index + match[0].length
      stripNext = token.rstrip === true
    }
    this.#pushText(sections, text.slice(start), stripNext, false)
    return sections
  }

  #pushText(sections: Section[], text: string, stripStart: boolean, stripEnd: boolean): void {
    let stripped = stripStart ? text.trimStart() : text
    if (stripEnd) stripped = stripped.trimEnd()
    if (stripped !== '') sections.push(stripped)
  }
}
