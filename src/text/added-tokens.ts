/** Finds added tokens in text: leftmost first, the longest where several start, as Hugging Face's tokenizers does. */
import type { AddedToken } from './tokenizer-json.js'

/** Either ordinary text or an added token. */
export type Section = string | AddedToken

/** Whether a token may stand where it was found: UTF-16 units [start, end) of the text. */
export type Accept = (token: AddedToken, start: number, end: number) => boolean

interface TrieNode {
  /** by UTF-16 unit */
  next: Map<number, TrieNode>
  token?: AddedToken
}

interface Match {
  token: AddedToken
  start: number
  end: number
}

/** Rust's \w and \s, which decide there. */
const WORD = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/u
const SPACES = /\p{White_Space}*/uy
const SPACE = /^\p{White_Space}$/u

export class AddedTokenSplitter {
  readonly #root: TrieNode = { next: new Map() }

  /** `contentOf`: the form in which a token appears in the text to be split */
  constructor(tokens: Iterable<AddedToken>, contentOf: (token: AddedToken) => string = (token) => token.content) {
    for (const token of tokens) {
      const content = contentOf(token)
      let node = this.#root
      for (let i = 0; i < content.length; i++) {
        const unit = content.charCodeAt(i)
        let next = node.next.get(unit)
        if (!next) {
          next = { next: new Map() }
          node.next.set(unit, next)
        }
        node = next
      }
      if (content !== '') node.token = token
    }
  }

  /** Empty pieces of text are left out. A token that is not accepted is text, and a shorter one in it may match. */
  split(text: string, accept?: Accept): Section[] {
    const sections: Section[] = []
    let done = 0
    for (const { token, start, end } of this.#matches(text, accept)) {
      // White space that an earlier token took in is not there any more.
      const from = token.lstrip ? Math.max(spaceBefore(text, start), done) : start
      if (done < from) sections.push(text.slice(done, from))
      sections.push(token)
      done = token.rstrip ? spaceAfter(text, end) : end
    }
    if (done < text.length) sections.push(text.slice(done))
    return sections
  }

  /** How many of its tokens stand in the text. */
  count(text: string, accept?: Accept): number {
    let count = 0
    for (const _ of this.#matches(text, accept)) count++
    return count
  }

  *#matches(text: string, accept: Accept | undefined): Generator<Match> {
    if (this.#root.next.size === 0) return
    for (let at = 0; at < text.length; ) {
      const match = this.#longest(text, at, accept)
      if (match && standsAlone(text, match)) yield match
      at = match ? match.end : at + 1
    }
  }

  #longest(text: string, start: number, accept: Accept | undefined): Match | undefined {
    let match: Match | undefined
    let node = this.#root.next.get(text.charCodeAt(start))
    for (let end = start + 1; node; node = node.next.get(text.charCodeAt(end++))) {
      const { token } = node
      if (token && (!accept || accept(token, start, end))) match = { token, start, end }
    }
    return match
  }
}

/** `single_word`: neither letters nor digits beside it */
function standsAlone(text: string, { token, start, end }: Match): boolean {
  if (!token.single_word) return true
  const before = Array.from(text.slice(Math.max(0, start - 2), start)).at(-1) ?? ''
  const [after = ''] = text.slice(end, end + 2)
  return !WORD.test(before) && !WORD.test(after)
}

function spaceBefore(text: string, at: number): number {
  let start = at
  while (start > 0 && SPACE.test(text[start - 1]!)) start--
  return start
}

function spaceAfter(text: string, at: number): number {
  SPACES.lastIndex = at
  SPACES.test(text)
  return SPACES.lastIndex
}
