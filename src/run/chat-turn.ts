/**
 * One turn of a chat: a question and its answer, as far as it has come. It works on copies of the conversation, so that
 * the chat can take them over when the turn has ended, or forget them.
 */
import { OnebitError } from '../errors.js'
import type { ChatMessage } from '../text/chat-template.js'
import type { TurnForm } from './chat-tools.js'
import type { GenerationSummary, Piece } from './session.js'

/**
 * An answer whose own ids stand in the cache. Encoding its text again can give other ids (a tokenizer has many ways to
 * spell a text), and everything after them would have to be computed again.
 */
export interface CachedAnswer {
  /** which of the messages it is */
  message: number
  /** where it begins in the encoded conversation */
  at: number
  /** what its text encodes to */
  encoded: Int32Array
  /** what was generated */
  ids: Int32Array
}

export class ChatTurn {
  /** the conversation that the answer follows: the question is the last; old turns go from here when the context is full */
  readonly messages: ChatMessage[]
  /** those in it whose ids are known, in order; none when turns went, because everything moves then */
  answers: readonly CachedAnswer[]
  /** the answer so far */
  text = ''
  readonly ids: number[] = []
  /** where the answer begins in what the session holds */
  start = 0
  /** what the answer has cost so far; undefined while nothing was generated */
  cost: GenerationSummary | undefined
  /** how its answer is taken, where that is not usual */
  form: TurnForm | undefined
  /** what onTrim has still to be told */
  readonly trims: number[] = []
  /** aborts when the caller's own signal does, and when the chat is reset; the first of them is the reason */
  readonly signal: AbortSignal
  readonly #reset = new AbortController()
  /** how many messages the question is: the last ones, which stay whatever goes */
  readonly #asked: number
  #pieces: AsyncGenerator<Piece> | undefined

  constructor(
    before: readonly ChatMessage[],
    question: readonly ChatMessage[],
    answers: readonly CachedAnswer[],
    signal: AbortSignal | undefined,
  ) {
    this.messages = [...before, ...question]
    this.#asked = question.length
    this.answers = answers
    this.signal = signal ? AbortSignal.any([signal, this.#reset.signal]) : this.#reset.signal
  }

  /** what the template is told besides the messages */
  get variables(): { variables?: Record<string, unknown> } {
    return this.form?.variables ? { variables: this.form.variables } : {}
  }

  get isReset(): boolean {
    return this.#reset.signal.aborted
  }

  /** The pieces, which `reset` closes even when nobody reads them any more. */
  open(pieces: AsyncGenerator<Piece>): AsyncGenerator<Piece> {
    this.#pieces = pieces
    return pieces
  }

  /** Stops the turn; resolves when it uses the session no more. */
  async reset(): Promise<void> {
    this.#reset.abort(new OnebitError('ERR_CHAT_RESET', 'The chat was reset in the middle of this answer.'))
    await this.#pieces?.return(undefined)
  }

  add(piece: Piece): void {
    this.text += piece.text
    // What a stop token lets go of is text, but no token of the answer.
    if (!piece.released) this.ids.push(piece.id)
  }

  /** Lets the oldest turn go; returns how many messages that were, 0 when only the question is left. */
  dropOldest(): number {
    const oldest = this.messages[0]?.role === 'system' ? 1 : 0
    const last = this.messages.length - this.#asked
    if (oldest >= last) return 0
    // A question goes with all that followed it, calls and their results too.
    let count = 1
    while (oldest + count < last && this.messages[oldest + count]!.role !== 'user') count++
    this.messages.splice(oldest, count)
    this.answers = []
    return count
  }

  /** A part of the answer has ended. When turns went in its middle, there are several; it ended as the last did. */
  addCost(part: GenerationSummary): void {
    this.cost = this.cost ? inAll(this.cost, part) : part
  }
}

function inAll(first: GenerationSummary, second: GenerationSummary): GenerationSummary {
  const decodeMs = first.timings.decodeMs + second.timings.decodeMs
  const weighted = ({ timings }: GenerationSummary) => timings.tokensPerSecond * timings.decodeMs
  return {
    finishReason: second.finishReason,
    usage: {
      promptTokens: first.usage.promptTokens + second.usage.promptTokens,
      cachedTokens: first.usage.cachedTokens + second.usage.cachedTokens,
      newTokens: first.usage.newTokens + second.usage.newTokens,
    },
    timings: {
      prefillMs: first.timings.prefillMs + second.timings.prefillMs,
      decodeMs,
      tokensPerSecond: decodeMs > 0 ? (weighted(first) + weighted(second)) / decodeMs : 0,
    },
  }
}
