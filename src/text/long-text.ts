/**
 * Cutting long texts where cutting changes nothing, so that memory stays bounded and words are remembered.
 */

/** SentencePiece's sign for a space. */
export const SPACE_SIGN = '\u2581'

/**
 * The characters that stand before a space sign inside some piece. A cut before a space sign that follows any other
 * character is exact, for BPE and Unigram alike: no piece of the vocabulary reaches across it.
 */
export function piecesSpanningWords(pieces: Iterable<string>): Set<string> {
  const before = new Set<string>()
  for (const piece of pieces) {
    for (let at = piece.indexOf(SPACE_SIGN, 1); at > 0; at = piece.indexOf(SPACE_SIGN, at + 1)) {
      before.add(piece[at - 1]!)
    }
  }
  return before
}

/** The words of SentencePiece text, each with the space sign in front of it. Runs of spaces stay together. */
export function* cutWords(text: string, spanning: Set<string>): Generator<string> {
  let start = 0
  for (let at = text.indexOf(SPACE_SIGN, 1); at > 0; at = text.indexOf(SPACE_SIGN, at + 1)) {
    if (spanning.has(text[at - 1]!)) continue
    yield text.slice(start, at)
    start = at
  }
  if (start < text.length) yield text.slice(start)
}

const PIECE = 1 << 15
const SEARCH = 1 << 11
const CONTEXT = 1 << 8

/** Places where every pre-tokenizer that we know begins a new pre-token; each is checked before it is used. */
const CANDIDATE = /[\p{L}\p{P}](?= \p{L})|\p{P}(?=\p{L})|\p{L}\n(?=\p{L})/gu

/**
 * Pieces of `text` of about 32 K characters, cut where `split` (the pre-tokenizer) cuts too: a candidate counts when
 * splitting the text around it gives the same pre-tokens as splitting its two sides. Expressions do not look back, so
 * what follows a cut is not changed by it. Where no candidate passes, the piece grows.
 */
export function* cutLongText(text: string, split: (part: string) => string[]): Generator<string> {
  let start = 0
  let target = PIECE
  while (text.length - start > PIECE + SEARCH && target < text.length) {
    const cut = findCut(text, Math.max(start + 1, target - SEARCH), target, split)
    if (cut !== undefined) {
      yield text.slice(start, cut)
      start = cut
      target = start + PIECE
    } else {
      target += SEARCH
    }
  }
  yield text.slice(start)
}

function findCut(text: string, from: number, to: number, split: (part: string) => string[]): number | undefined {
  let tried = 0
  for (const match of text.slice(from, to).matchAll(CANDIDATE)) {
    const cut = from + match.index + match[0].length
    if (cutsCleanly(text, cut, split)) return cut
    if (++tried === 16) return undefined
  }
  return undefined
}

function cutsCleanly(text: string, cut: number, split: (part: string) => string[]): boolean {
  const left = text.slice(Math.max(0, cut - CONTEXT), cut)
  const right = text.slice(cut, cut + CONTEXT)
  const whole = split(left + right)
  const parts = [...split(left), ...split(right)]
  return whole.length === parts.length && whole.every((part, index) => part === parts[index])
}
