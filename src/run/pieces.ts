/** From the tokens that are chosen to the pieces of an answer: its text, where it ends, and why. */
import { opensThinking, ThinkingGate } from '../answer/thinking.js'
import { StopStrings } from '../text/stop-strings.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { Utf8Stream } from '../text/utf8-stream.js'
import type { CheckedGenerateOptions } from './generate-options.js'

/** One of the likeliest tokens at a position. */
export interface TokenLogprob {
  /** the token */
  id: number
  /** natural logarithm of the model's own probability, before temperature, penalties and bias */
  logprob: number
}

/** What one token adds. */
export interface Piece {
  /** what is meant for the reader: whole characters only; empty while a character or a possible stop string is incomplete */
  text: string
  /** more of the model's thinking before its answer, where a chat template says that it thinks */
  reasoning?: string
  /** the token */
  id: number
  /** the text was held back until a stop token came, which is `id`: no token of the answer */
  released?: true
  /** with `logprobs` or `topLogprobs` */
  logprob?: number
  /** with `topLogprobs`: the likeliest tokens here, descending */
  topLogprobs?: TokenLogprob[]
}

/**
 * - stop: a stop token or a stop string
 * - length: maxTokens
 * - context: the session's context is full
 * - abort: aborted, disposed, failed, or left by its consumer
 */
export type FinishReason = 'stop' | 'length' | 'context' | 'abort'

/** A token as native code tells it. */
export interface Chosen {
  id: number
  logprob: number
  topIds: Int32Array | undefined
  topLogprobs: Float32Array | undefined
}

type PieceOptions = Pick<
  CheckedGenerateOptions,
  'stop' | 'stopTokens' | 'ignoreEos' | 'maxTokens' | 'logprobs' | 'topLogprobs' | 'showSpecial' | 'thinking'
>

export class Pieces {
  readonly #options: PieceOptions
  readonly #text: Utf8Stream | undefined
  readonly #stops: StopStrings | undefined
  /** keeps what is thinking away from the stop strings */
  readonly #gate: ThinkingGate | undefined
  readonly stopIds: ReadonlySet<number>
  /** tokens of the answer so far; a stop token is not counted */
  count = 0
  finish: FinishReason | undefined

  /** @param prompt the tokens before the answer */
  constructor(tokenizer: Tokenizer | undefined, options: PieceOptions, prompt: Int32Array) {
    this.#options = options
    // A special token gives no text that a stop string could be found in.
    const named = options.stop.flatMap((stop) => tokenizer?.specialTokens.get(stop) ?? [])
    const ends = options.ignoreEos ? [] : (tokenizer?.eosIds ?? [])
    this.stopIds = new Set([...options.stopTokens, ...named, ...ends])
    // After nothing but BOS a text begins, and SentencePiece's first space is no part of it.
    const begins = prompt.length === 1 && prompt[0] === tokenizer?.bosId
    const shown = options.showSpecial.flatMap((name) => tokenizer?.specialTokens.get(name) ?? [])
    this.#text = tokenizer?.stream({ continuation: !begins, special: new Set(shown) })
    this.#stops = options.stop.length > 0 ? new StopStrings(options.stop) : undefined
    const marks = this.#stops && options.thinking
    this.#gate = marks && new ThinkingGate(marks, opensThinking(tokenizer!.decode(prompt.slice(-8)), marks))
  }

  /**
   * What the next token adds; undefined when it ends the answer and adds nothing. Sets `finish` when it is the last.
   * @param full there is no place in the context for it
   */
  push({ id, logprob, topIds, topLogprobs }: Chosen, full: boolean): Piece | undefined {
    if (this.stopIds.has(id)) {
      this.finish = 'stop'
      const text = this.#flush('')
      return text === '' ? undefined : { text, id, released: true }
    }
    const piece: Piece = { text: this.#textOf(id), id }
    if (++this.count >= this.#options.maxTokens) this.finish ??= 'length'
    if (full) this.finish ??= 'context'
    if (this.finish === 'length' || this.finish === 'context') piece.text = this.#flush(piece.text)
    if (this.#options.logprobs) piece.logprob = logprob
    if (topIds && topLogprobs) {
      piece.topLogprobs = Array.from(topIds, (id, i) => ({ id, logprob: topLogprobs[i]! }))
    }
    return piece
  }

  #textOf(id: number): string {
    const text = this.#text?.push(id) ?? ''
    if (!this.#stops || text === '') return text
    const { thinking, answer } = this.#gate?.push(text) ?? { thinking: '', answer: text }
    const { text: released, stopped } = this.#stops.push(answer)
    if (stopped) this.finish = 'stop'
    return thinking + released
  }

  /** `text` and everything that was held back, when no token follows. */
  #flush(text: string): string {
    const rest = this.#text?.flush() ?? ''
    if (!this.#stops) return text + rest
    const { thinking, answer } = this.#gate?.push(rest) ?? { thinking: '', answer: rest }
    const last = this.#stops.push(answer + (this.#gate?.flush() ?? ''))
    return text + thinking + last.text + (last.stopped ? '' : this.#stops.flush())
  }
}
