/** Log-probabilities as the completions endpoint tells them: lists with an entry for each token. */
import type { BatchScores } from '../batch/requests.js'
import type { Piece, TokenLogprob } from '../run/generation.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { Utf8Stream } from '../text/utf8-stream.js'
import type { RawPrompt } from './prompts.js'
import { tokenText } from './served.js'

export interface CompletionLogprobs {
  tokens: string[]
  token_logprobs: (number | null)[]
  top_logprobs: (Record<string, number> | null)[]
  text_offset: number[]
}

/**
 * lm-evaluation-harness takes a token for the likeliest one when its log-probability equals the largest of the top ones
 * as a number, so both are the same number here; of tokens with equal texts the likelier one stands.
 */
export class TokenTable {
  readonly #tokenizer: Tokenizer
  readonly #text: Utf8Stream
  /** Unicode code points before the next token */
  #offset = 0
  #rows: CompletionLogprobs = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] }

  /** `continues`: what comes first continues a text that is not told here. */
  constructor(tokenizer: Tokenizer, continues: boolean) {
    this.#tokenizer = tokenizer
    this.#text = tokenizer.stream({ special: true, continuation: continues })
  }

  /** The prompt's tokens, as they were scored, `top` of the likeliest beside each. */
  addPrompt({ ids, text }: RawPrompt, scores: BatchScores, top: number): void {
    // BOS that the tokenizer put in front of a text is no part of it.
    const hidden =
      text !== undefined && ids[0] === this.#tokenizer.bosId && !startsWithBos(text, this.#tokenizer) ? 1 : 0
    for (const [i, id] of ids.entries()) {
      if (i === 0) this.#add(id, null, null, hidden === 1)
      else this.#add(id, scores.logprobs[i]!, topOf(scores, i, top))
    }
  }

  addPiece({ id, logprob, topLogprobs }: Piece): void {
    this.#add(id, logprob ?? null, topLogprobs ?? [])
  }

  addToken(id: number, logprob: number, tops: TokenLogprob[]): void {
    this.#add(id, logprob, tops)
  }

  /** What was added since the last time. */
  take(): CompletionLogprobs {
    const rows = this.#rows
    this.#rows = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] }
    return rows
  }

  #add(id: number, logprob: number | null, tops: TokenLogprob[] | null, hidden = false): void {
    const rows = this.#rows
    const own = tokenText(this.#tokenizer, id)
    rows.tokens.push(own)
    rows.token_logprobs.push(logprob)
    rows.text_offset.push(this.#offset)
    rows.top_logprobs.push(tops && logprob !== null ? this.#named(tops, own, logprob) : null)
    if (!hidden) for (const _ of this.#text.push(id)) this.#offset++
  }

  #named(tops: TokenLogprob[], own: string, logprob: number): Record<string, number> {
    const named = new Map<string, number>()
    for (const { id, logprob } of tops) keepLarger(named, tokenText(this.#tokenizer, id), logprob)
    keepLarger(named, own, logprob)
    // A token may be called __proto__.
    return Object.fromEntries(named)
  }
}

function keepLarger(named: Map<string, number>, text: string, logprob: number): void {
  if (!(named.get(text)! >= logprob)) named.set(text, logprob)
}

function startsWithBos(text: string, { bosId, specialTokens }: Tokenizer): boolean {
  return [...specialTokens].some(([name, id]) => id === bosId && text.startsWith(name))
}

/** Row `i` of the likeliest tokens. */
export function topOf({ topIds, topLogprobs }: BatchScores, i: number, top: number): TokenLogprob[] {
  return Array.from({ length: top }, (_, k) => ({ id: topIds[i * top + k]!, logprob: topLogprobs[i * top + k]! }))
}
