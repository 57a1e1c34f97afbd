/**
 * A conversation over one session: renders the turns with the model's template, computes only what the cache does not
 * hold yet, and lets the oldest turns go when the context is full.
 */
import { OnebitError } from '../errors.js'
import type { ChatMessage } from '../text/chat-template.js'
import type { Model } from './model.js'
import type { GenerateOptions, GenerationSummary, Piece, Session } from './session.js'

export interface ChatOptions {
  /** the system message; it stays when old turns go */
  system?: string
  /** positions of context (default: the model's) */
  context?: number
  /** called when turns had to go, with how many messages went */
  onTrim?: (messages: number) => void
}

/** Room that an answer should find at least, as a share of the context: less would stop it after a few words. */
const ANSWER_SHARE = 4
const LEAST_ANSWER = 16

/**
 * An answer whose own ids stand in the cache. Encoding its text again can give other ids (a tokenizer has many ways to
 * spell a text), and everything after them would have to be computed again.
 */
interface CachedAnswer {
  /** where it begins in the encoded conversation */
  at: number
  /** what its text encodes to */
  encoded: Int32Array
  /** what was generated */
  ids: Int32Array
}

export class Chat {
  readonly session: Session<Model>
  readonly #model: Model
  readonly #options: ChatOptions
  #messages: ChatMessage[]
  /** in order; forgotten when turns go, because everything moves then */
  #answers: CachedAnswer[] = []
  #last: GenerationSummary | undefined

  /** ERR_NO_CHAT_TEMPLATE when the model has none: use session.generate with plain text then. */
  constructor(model: Model, options: ChatOptions = {}) {
    if (!model.hasChatTemplate) {
      throw new OnebitError('ERR_NO_CHAT_TEMPLATE', 'This model has no chat template.', {
        hint: 'Use it for plain text: session.generate(prompt), or `onebit run MODEL -p "…"`.',
      })
    }
    this.#model = model
    this.#options = options
    this.session = model.createSession(options.context === undefined ? {} : { context: options.context })
    this.#messages = this.#opening()
  }

  /** The turns so far, the system message first if there is one. */
  get messages(): readonly ChatMessage[] {
    return this.#messages
  }

  /**
   * How the last answer ended and what it cost, as `session.last` of a generation. When turns went in mid-answer, what was
   * left was read again and counts again.
   */
  get last(): GenerationSummary | undefined {
    return this.#last
  }

  /** Forgets every turn but the system message. */
  reset(): void {
    this.#messages = this.#opening()
    this.#answers = []
  }

  dispose(): void {
    this.session.dispose()
  }

  /**
   * Says `text` and streams the answer. An aborted answer stays in the conversation as far as it came. When the
   * context fills up in mid-answer, old turns go and the answer goes on.
   * @throws ERR_CONTEXT_FULL when the message does not fit even alone
   */
  async *send(text: string, options: GenerateOptions = {}): AsyncGenerator<Piece, void, undefined> {
    this.#messages.push({ role: 'user', content: text })
    this.#last = undefined
    let answer = ''
    const answerIds: number[] = []
    let start = 0
    let budget = options.maxTokens ?? Number.POSITIVE_INFINITY
    try {
      for (;;) {
        const prompt = await this.#fitted(answerIds)
        start = prompt.length - answerIds.length
        const limits = Number.isFinite(budget) ? { maxTokens: budget } : {}
        const before = this.session.last
        try {
          for await (const piece of this.session.generate(this.#reuse(prompt), { ...options, ...limits })) {
            answer += piece.text
            answerIds.push(piece.id)
            budget--
            yield piece
          }
        } finally {
          const part = this.session.last
          if (part && part !== before) this.#last = this.#last ? inAll(this.#last, part) : part
        }
        if (this.session.last?.finishReason !== 'context' || budget <= 0) return
      }
    } finally {
      // Without an answer the turn never happened: a prompt that did not fit must not haunt the next one.
      if (answerIds.length === 0) {
        this.#messages.pop()
      } else {
        this.#rememberIds(answer, start)
        this.#messages.push({ role: 'assistant', content: answer })
      }
    }
  }

  #opening(): ChatMessage[] {
    return this.#options.system === undefined ? [] : [{ role: 'system', content: this.#options.system }]
  }

  /** The conversation's ids with the answer so far, after letting go of as many turns as the context asks for. */
  async #fitted(answerIds: readonly number[]): Promise<Int32Array> {
    const { capacity } = this.session
    const room = answerIds.length === 0 ? Math.max(LEAST_ANSWER, Math.floor(capacity / ANSWER_SHARE)) : LEAST_ANSWER
    let gone = 0
    for (;;) {
      const head = this.#withCachedIds(await this.#model.encodeChat(this.#messages))
      const ids = concatenated([head, Int32Array.from(answerIds)])
      const fits = ids.length + room <= capacity
      const oldest = this.#messages[0]?.role === 'system' ? 1 : 0
      // The last message is the question itself.
      if (fits || oldest >= this.#messages.length - 1) {
        if (gone > 0) this.#options.onTrim?.(gone)
        return this.#lastResort(ids, answerIds.length, room)
      }
      const turn = this.#messages[oldest + 1]?.role === 'assistant' ? 2 : 1
      this.#messages.splice(oldest, turn)
      this.#answers = []
      gone += turn
    }
  }

  /** Notes the ids that the session holds from `start` on, if they are the answer and nothing but the answer. */
  #rememberIds(answer: string, start: number): void {
    const tokenizer = this.#model.requireTokenizer()
    let end = this.session.tokens.length
    // The token that ended the answer belongs to the template.
    if (end > start && tokenizer.eosIds.includes(this.session.tokens[end - 1]!)) end--
    const ids = Int32Array.from(this.session.tokens.slice(start, end))
    if (tokenizer.decode(ids, { continuation: true }) !== answer) return
    const grown = this.#answers.reduce((sum, { ids, encoded }) => sum + ids.length - encoded.length, 0)
    this.#answers.push({ at: start - grown, encoded: tokenizer.encode(answer, { bos: false }), ids })
  }

  /** The encoded conversation with the answers as they stand in the cache. */
  #withCachedIds(encoded: Int32Array): Int32Array {
    const parts: Int32Array[] = []
    let done = 0
    for (const { at, encoded: expected, ids } of this.#answers) {
      // A template may change an answer, by trimming it for example.
      if (!expected.every((id, i) => encoded[at + i] === id)) break
      parts.push(encoded.subarray(done, at), ids)
      done = at + expected.length
    }
    parts.push(encoded.subarray(done))
    return concatenated(parts)
  }

  /** Only the question is left. It must fit; a long answer to it goes on without its own beginning. */
  #lastResort(ids: Int32Array, answered: number, room: number): Int32Array {
    const { capacity } = this.session
    if (ids.length + LEAST_ANSWER <= capacity) return ids
    const question = ids.length - answered
    if (question + 2 * LEAST_ANSWER > capacity) {
      throw new OnebitError('ERR_CONTEXT_FULL', `The message has ${question} tokens; the context has ${capacity}.`, {
        hint: 'Say it shorter, or load the model with a larger context.',
      })
    }
    const kept = Math.floor((capacity - question - room) / 2)
    this.#options.onTrim?.(0)
    return concatenated([ids.subarray(0, question), ids.subarray(ids.length - kept)])
  }

  /** Rewinds the session to what it shares with `ids` and returns the rest: at least one token, to have logits from. */
  #reuse(ids: Int32Array): Int32Array {
    const cached = this.session.tokens
    let shared = 0
    while (shared < cached.length && shared < ids.length - 1 && cached[shared] === ids[shared]) shared++
    this.session.rewind(shared)
    return ids.subarray(shared)
  }
}

/** What two parts of one answer cost; it ended as the second did. */
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

function concatenated(parts: readonly Int32Array[]): Int32Array {
  const all = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}
