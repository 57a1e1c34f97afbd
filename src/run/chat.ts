/**
 * A conversation over one session: renders the turns with the model's template, computes only what the cache does not
 * hold yet, and lets the oldest turns go when the context is full.
 */
import { badOption, OnebitError } from '../errors.js'
import { CONTEXT_OPTION } from '../native/hints.js'
import { withPath } from '../obt/obt.js'
import { functionOption, optionFields, signalOption, stringOption } from '../options.js'
import type { ChatMessage } from '../text/chat-template.js'
import { type Conversation, conversationText, parseConversation } from './chat-file.js'
import {
  type ChatPiece,
  callsOf,
  type SendOptions,
  splitSendOptions,
  type TakeTurn,
  type ToolCall,
  type ToolResult,
  type TurnForm,
  toolMessage,
  turnsWithTools,
  turnWithThinking,
} from './chat-tools.js'
import { type CachedAnswer, ChatTurn } from './chat-turn.js'
import { checkGenerateOptions } from './generate-options.js'
import type { Model } from './model.js'
import { type GenerateOptions, type GenerationSummary, type Piece, Session } from './session.js'

/** What a new chat is told. */
export interface ChatOptions {
  /** the system message; it stays when old turns go */
  system?: string
  /** positions of context (default: the model's) */
  context?: number
  /** called when turns had to go, with how many messages went; 0: the beginning of the answer itself */
  onTrim?: (messages: number) => void
}

/** What `Chat.restore` is told. The system message stands in the file. */
export interface RestoreChatOptions extends Pick<ChatOptions, 'context' | 'onTrim'> {
  /** stops the reading; it rejects with the signal's reason */
  signal?: AbortSignal
}

/** What a file gave. */
interface SavedChat extends Conversation {
  session: Session<Model>
}

/** Room that an answer should find at least, as a share of the context: less would stop it after a few words. */
const ANSWER_SHARE = 4
const LEAST_ANSWER = 16

/**
 * A conversation over one session: messages are rendered with the model's chat template, only what the cache does not hold yet
 * is computed, and the oldest turns go when the context is full. One answer at a time.
 *
 * ```ts
 * const chat = new Chat(model, { system: 'Answer in one sentence.' })
 * for await (const { text } of chat.send('Why is the sky blue?', { maxTokens: 100 })) process.stdout.write(text)
 * for await (const { text } of chat.send('And at night?')) process.stdout.write(text)
 * chat.dispose()
 * ```
 */
export class Chat {
  // A chat has at most one turn under way. `send` begins it, on a copy of the conversation; the end of `send` is the only
  // place where a turn changes the chat, and only while it is still the chat's turn. `reset` takes it away, so that it
  // ends without changing anything.

  /** what computes: its tokens are those of the conversation, as far as they were rendered */
  readonly session: Session<Model>
  readonly #model: Model
  #opening: readonly ChatMessage[]
  readonly #onTrim: ((messages: number) => void) | undefined
  #messages: readonly ChatMessage[]
  #answers: readonly CachedAnswer[] = []
  #last: GenerationSummary | undefined
  #turn: ChatTurn | undefined
  /** Resolves when no turn that was taken away uses the session any more. */
  #sessionFree: Promise<unknown> = Promise.resolve()

  /**
   * A conversation that nothing has been said in, but the system message, with a session of its own.
   * @throws OnebitError ERR_NO_CHAT_TEMPLATE when the model has none: use session.generate with plain text then;
   *   ERR_BAD_OPTION, and those of `model.createSession`
   */
  constructor(model: Model, options?: ChatOptions)
  /** @internal */
  constructor(model: Model, options: ChatOptions | undefined, saved: SavedChat)
  constructor(model: Model, options: ChatOptions = {}, saved?: SavedChat) {
    if (!model.hasChatTemplate) {
      throw new OnebitError('ERR_NO_CHAT_TEMPLATE', 'This model has no chat template.', {
        hint: 'Use it for plain text: session.generate(prompt), or `onebit run MODEL -p "…"`.',
      })
    }
    const fields = optionFields('options', options, ['system', 'context', 'onTrim'])
    const system = stringOption(fields, 'system')
    this.#onTrim = functionOption(fields, 'onTrim')
    this.#model = model
    this.#opening = saved ? openingOf(saved.messages) : systemMessage(system)
    this.#messages = saved?.messages ?? this.#opening
    this.#answers = saved?.answers ?? []
    this.session = saved
      ? saved.session
      : model.createSession(fields.context === undefined ? {} : { context: fields.context as number })
  }

  /**
   * A chat from a file that `save` wrote with the same model. It goes on with what the cache holds: nothing is computed
   * again.
   * @param options context: default as it was saved
   * @throws OnebitError ERR_NO_CHAT_TEMPLATE, ERR_SESSION_FILE when it is the session of no chat, and those of
   *   `Session.restore`
   */
  static async restore(model: Model, path: string, options?: RestoreChatOptions): Promise<Chat> {
    const { onTrim, ...rest } = optionFields('options', options, ['context', 'onTrim', 'signal']) as RestoreChatOptions
    const session = await Session.restore(model, path, rest)
    try {
      const conversation = parseConversation(session.extra, session.tokens, model.requireTokenizer())
      return new Chat(model, onTrim === undefined ? {} : { onTrim }, { session, ...conversation })
    } catch (cause) {
      session.dispose()
      throw withPath(cause, path)
    }
  }

  /**
   * Writes the conversation with its session to a file, as `session.save` does.
   * @throws OnebitError ERR_BUSY while an answer is under way, ERR_CHAT_SIZE, and those of `session.save`
   */
  async save(
    path: string,
    options?: {
      /** stops the writing */
      signal?: AbortSignal
    },
  ): Promise<void> {
    const signal = signalOption(optionFields('options', options, ['signal']))
    this.#checkFree()
    const conversation = { messages: this.#messages, answers: this.#answers }
    const extra = conversationText(conversation, this.session.tokens)
    await this.session.save(path, { extra, ...(signal ? { signal } : {}) })
  }

  /**
   * The conversation, the system message first if there is one. The turn under way joins it when it has ended; the array
   * itself never changes.
   */
  get messages(): readonly ChatMessage[] {
    return this.#messages
  }

  /**
   * How the last answer ended and what it cost, as `session.last` of a generation; undefined while the next is under
   * way. When turns went in mid-answer, what was left was read again and counts again.
   */
  get last(): GenerationSummary | undefined {
    return this.#last
  }

  /**
   * Forgets every turn but the system message. An answer under way is stopped: whoever reads it gets ERR_CHAT_RESET. The
   * next `send` may come at once.
   */
  reset(): void {
    const turn = this.#turn
    this.#turn = undefined
    this.#messages = this.#opening
    this.#answers = []
    this.#last = undefined
    if (turn) this.#sessionFree = Promise.allSettled([this.#sessionFree, turn.reset()])
  }

  /**
   * Takes the last question back, with all that came after it; returns it, or undefined when there is none. What the cache
   * holds of the rest stays.
   * @throws OnebitError ERR_BUSY while an answer is under way
   */
  undo(): ChatMessage | undefined {
    this.#checkFree()
    const asked = this.#messages.findLastIndex(({ role }) => role === 'user')
    if (asked < 0) return undefined
    const question = this.#messages[asked]
    this.#messages = this.#messages.slice(0, asked)
    this.#answers = this.#answers.filter(({ message }) => message < asked)
    return question
  }

  /**
   * Answers the last question again: by chance, another answer. When nothing comes (an error, an abort before the first
   * token) the old one stays. Throws what `send` throws, and:
   * @throws OnebitError ERR_NO_QUESTION when there is none
   */
  async *regenerate(options: SendOptions = {}): AsyncGenerator<ChatPiece, void, undefined> {
    const before = [this.#messages, this.#answers] as const
    const question = this.undo()
    if (!question) throw new OnebitError('ERR_NO_QUESTION', 'There is no question to answer again.')
    const rest = this.#messages
    try {
      yield* this.#say([question], options)
    } finally {
      if (this.#messages === rest) [this.#messages, this.#answers] = before
    }
  }

  /**
   * Gives the conversation another system message, or none. Everything after it is computed again with the next answer.
   * @throws OnebitError ERR_BUSY while an answer is under way; ERR_BAD_OPTION
   */
  setSystem(text: string | undefined): void {
    this.#checkFree()
    const opening = systemMessage(stringOption({ system: text }, 'system'))
    this.#messages = [...opening, ...this.#messages.slice(openingOf(this.#messages).length)]
    this.#opening = opening
    // Where they stand is no more known.
    this.#answers = []
  }

  /** Disposes of the session. An answer under way ends with ERR_DISPOSED. Any number of times. */
  dispose(): void {
    this.session.dispose()
  }

  /**
   * Says `text` and streams the answer. An answer that is aborted, or left by its reader, stays in the conversation as
   * far as it came; a question without an answer leaves no trace. When the context fills up in mid-answer, old turns go
   * and the answer goes on. The iterator throws the errors of `session.generate`, and:
   * @throws OnebitError ERR_BUSY while another answer is under way; ERR_CHAT_RESET when the chat is reset meanwhile;
   *   ERR_CONTEXT_FULL when the message does not fit even alone; ERR_NO_TOOLS when the template knows of no tools
   */
  async *send(text: string, options: SendOptions = {}): AsyncGenerator<ChatPiece, void, undefined> {
    yield* this.#say([{ role: 'user', content: text }], options)
  }

  /** Calls of the last answer that nothing here could run; `sendToolResults` answers them. */
  get toolCalls(): ToolCall[] {
    return callsOf(this.#messages.at(-1))
  }

  /**
   * Gives the model what its calls gave, one result for each of `toolCalls`, and streams the answer.
   * @throws OnebitError ERR_BAD_OPTION when the results are not those of the calls, and as `send`
   */
  async *sendToolResults(
    results: readonly ToolResult[],
    options: SendOptions = {},
  ): AsyncGenerator<ChatPiece, void, undefined> {
    const calls = this.toolCalls
    const messages = calls.map(({ id, name }) => {
      const result = results.find((one) => one.id === id)
      if (typeof result?.content !== 'string') throw badOption('results', `must have a text for the call ${id}`)
      return toolMessage(name, result)
    })
    if (calls.length === 0) throw badOption('results', 'there are no calls that wait for them')
    yield* this.#say(messages, options)
  }

  async *#say(question: ChatMessage[], options: SendOptions): AsyncGenerator<ChatPiece, void, undefined> {
    const { tools, variables, rest } = splitSendOptions(options)
    const take: TakeTurn = (...turn) => this.#takeTurn(...turn)
    const before = () => this.#messages
    if (tools) yield* turnsWithTools(this.#model, take, before, question, tools, variables, rest)
    else yield* turnWithThinking(this.#model, take, before, question, variables, rest)
  }

  async *#takeTurn(
    question: readonly ChatMessage[],
    options: GenerateOptions,
    form?: TurnForm,
  ): AsyncGenerator<Piece, void, undefined> {
    const { maxTokens, signal, shape } = checkGenerateOptions(options, this.#model.config.vocab_size)
    signal?.throwIfAborted()
    this.#checkFree()
    const turn = new ChatTurn(this.#messages, question, this.#answers, signal)
    if (form) turn.form = form
    this.#turn = turn
    this.#last = undefined
    try {
      await this.#sessionFree
      // An answer of a given form cannot lose its beginning.
      yield* this.#answer(turn, maxTokens, { ...options, signal: turn.signal }, shape === undefined)
    } finally {
      if (this.#turn === turn) this.#end(turn)
    }
  }

  #checkFree(): void {
    if (!this.#turn) return
    throw new OnebitError('ERR_BUSY', 'The chat is in the middle of another answer.', {
      hint: 'Read that answer to its end, abort it, or reset the chat.',
    })
  }

  async *#answer(
    turn: ChatTurn,
    maxTokens: number,
    options: GenerateOptions,
    mayGoOn: boolean,
  ): AsyncGenerator<Piece, void, undefined> {
    for (;;) {
      const left = maxTokens - turn.ids.length
      const prompt = await this.#fitted(turn)
      turn.signal.throwIfAborted()
      turn.start = prompt.length - turn.ids.length
      const before = this.session.last
      try {
        const pieces = this.session.generate(this.#reuse(prompt), { ...options, maxTokens: left })
        for await (const piece of turn.open(pieces)) {
          turn.add(piece)
          this.#tell(turn)
          yield piece
        }
      } finally {
        const part = this.session.last
        if (part && part !== before) turn.addCost(part)
      }
      if (turn.isReset) throw turn.signal.reason
      if (!mayGoOn || turn.cost?.finishReason !== 'context' || turn.ids.length >= maxTokens) return
    }
  }

  /** The turn has ended, in whatever way: what there is of an answer joins the conversation. */
  #end(turn: ChatTurn): void {
    this.#turn = undefined
    this.#last = turn.cost
    if (turn.ids.length === 0) return
    const message = turn.form?.message?.() ?? { role: 'assistant', content: turn.text }
    // What is rendered later without its thinking has other places than what stands in the cache.
    const remembered = message.content === turn.text ? this.#remembered(turn) : undefined
    this.#answers = remembered ? [...turn.answers, remembered] : turn.answers
    this.#messages = [...turn.messages, message]
    this.#tell(turn)
  }

  /** Once there is something of an answer, the turns that went are gone for good. */
  #tell(turn: ChatTurn): void {
    for (const gone of turn.trims.splice(0)) this.#onTrim?.(gone)
  }

  /** The conversation's ids with the answer so far, after letting go of as many turns as the context asks for. */
  async #fitted(turn: ChatTurn): Promise<Int32Array> {
    const { capacity } = this.session
    const room = turn.ids.length === 0 ? Math.max(LEAST_ANSWER, Math.floor(capacity / ANSWER_SHARE)) : LEAST_ANSWER
    let gone = 0
    for (;;) {
      const head = withCachedIds(
        await this.#model.encodeChat(turn.messages, { signal: turn.signal, ...turn.variables }),
        turn.answers,
      )
      const ids = concatenated([head, Int32Array.from(turn.ids)])
      const fits = ids.length + room <= capacity
      const dropped = fits ? 0 : turn.dropOldest()
      if (dropped === 0) {
        if (gone > 0) turn.trims.push(gone)
        return fits ? ids : this.#lastResort(turn, ids, room)
      }
      gone += dropped
    }
  }

  /** Only the question is left. It must fit; a long answer to it goes on without its own beginning. */
  #lastResort(turn: ChatTurn, ids: Int32Array, room: number): Int32Array {
    const { capacity } = this.session
    if (ids.length + LEAST_ANSWER <= capacity) return ids
    const question = ids.length - turn.ids.length
    if (question + 2 * LEAST_ANSWER > capacity) {
      throw new OnebitError('ERR_CONTEXT_FULL', `The message has ${question} tokens; the context has ${capacity}.`, {
        hint: `Say it shorter, or use a larger context ${CONTEXT_OPTION}.`,
      })
    }
    const kept = Math.floor((capacity - question - room) / 2)
    turn.trims.push(0)
    return concatenated([ids.subarray(0, question), ids.subarray(ids.length - kept)])
  }

  /** The ids that the session holds of an answer, if they are the answer and nothing but the answer. */
  #remembered({ messages, start, text, answers }: ChatTurn): CachedAnswer | undefined {
    const tokenizer = this.#model.requireTokenizer()
    const { tokens } = this.session
    // The token that ended the answer belongs to the template.
    const end = tokens.length > start && tokenizer.eosIds.includes(tokens.at(-1)!) ? tokens.length - 1 : tokens.length
    const ids = tokens.slice(start, end)
    if (tokenizer.decode(ids, { continuation: true }) !== text) return undefined
    const grown = answers.reduce((sum, { ids, encoded }) => sum + ids.length - encoded.length, 0)
    return { message: messages.length, at: start - grown, encoded: tokenizer.encode(text, { bos: false }), ids }
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

function systemMessage(text: string | undefined): readonly ChatMessage[] {
  return text === undefined ? [] : [{ role: 'system', content: text }]
}

/** The system message, if the conversation begins with one. */
function openingOf(messages: readonly ChatMessage[]): readonly ChatMessage[] {
  return messages[0]?.role === 'system' ? messages.slice(0, 1) : []
}

/** The encoded conversation with the answers as they stand in the cache. */
function withCachedIds(encoded: Int32Array, answers: readonly CachedAnswer[]): Int32Array {
  const parts: Int32Array[] = []
  let done = 0
  for (const { at, encoded: expected, ids } of answers) {
    // A template may change an answer, by trimming it for example.
    if (!expected.every((id, i) => encoded[at + i] === id)) break
    parts.push(encoded.subarray(done, at), ids)
    done = at + expected.length
  }
  parts.push(encoded.subarray(done))
  return concatenated(parts)
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
