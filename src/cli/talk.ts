/** Where the turns of a chat in a terminal go: through the model's chat template, or, without one, into one growing text. */
import { OnebitError } from '../errors.js'
import { Chat, type ChatOptions } from '../run/chat.js'
import type { SendOptions } from '../run/chat-tools.js'
import type { Model } from '../run/model.js'
import { type GenerationSummary, type Piece, Session } from '../run/session.js'

export interface Talk {
  /** what the last answer cost */
  readonly last: GenerationSummary | undefined
  say(text: string, options: SendOptions): AsyncIterable<Piece>
  /** Answers the last question again. @throws OnebitError ERR_NO_QUESTION */
  regenerate(options: SendOptions): AsyncIterable<Piece>
  /** Takes the last question and its answer back; undefined when there is none. */
  undo(): string | undefined
  reset(): void
  /** @throws OnebitError ERR_NO_CHAT_TEMPLATE */
  setSystem(text: string | undefined): void
  /** The system message. */
  readonly system: string | undefined
  save(path: string): Promise<void>
  /** Takes the place of this conversation; when it cannot, this one stays. Returns in words what came. */
  load(path: string): Promise<string>
}

export type Note = (line: string) => void

export function startTalk(model: Model, system: string | undefined, note: Note): Talk {
  if (model.hasChatTemplate) return new ChatTalk(model, system, note)
  if (system !== undefined) throw withoutTemplate('--system')
  note('This model has no chat template: it continues your text.')
  return new PlainTalk(model)
}

/** A conversation that says when the context is full. */
export function startChat(model: Model, system: string | undefined, note: Note): Chat {
  return new Chat(model, { ...(system === undefined ? {} : { system }), onTrim: trimNote(note) })
}

function trimNote(note: Note): NonNullable<ChatOptions['onTrim']> {
  return (gone) =>
    note(
      gone > 0
        ? `The context is full: the ${gone} oldest messages are forgotten.`
        : 'The context is full: the beginning of this answer is forgotten.',
    )
}

function withoutTemplate(what: string): OnebitError {
  return new OnebitError('ERR_NO_CHAT_TEMPLATE', `This model has no chat template, so ${what} has no place in it.`)
}

class ChatTalk implements Talk {
  readonly #model: Model
  readonly #note: Note
  #chat: Chat

  constructor(model: Model, system: string | undefined, note: Note) {
    this.#model = model
    this.#note = note
    this.#chat = startChat(model, system, note)
  }

  get last(): GenerationSummary | undefined {
    return this.#chat.last
  }

  get system(): string | undefined {
    const [first] = this.#chat.messages
    return first?.role === 'system' ? shownContent(first.content) : undefined
  }

  say(text: string, options: SendOptions): AsyncIterable<Piece> {
    return this.#chat.send(text, options)
  }

  regenerate(options: SendOptions): AsyncIterable<Piece> {
    return this.#chat.regenerate(options)
  }

  undo(): string | undefined {
    const question = this.#chat.undo()
    return question && shownContent(question.content)
  }

  reset(): void {
    this.#chat.reset()
  }

  setSystem(text: string | undefined): void {
    this.#chat.setSystem(text)
  }

  save(path: string): Promise<void> {
    return this.#chat.save(path)
  }

  async load(path: string): Promise<string> {
    const chat = await Chat.restore(this.#model, path, { onTrim: trimNote(this.#note) })
    this.#chat.dispose()
    this.#chat = chat
    const { length } = chat.messages
    return `${length} ${length === 1 ? 'message' : 'messages'}, ${chat.session.position} tokens`
  }
}

/** Contents that are no text came from a file that another program wrote. */
function shownContent(content: unknown): string {
  return typeof content === 'string' ? content : JSON.stringify(content)
}

class PlainTalk implements Talk {
  readonly #model: Model
  #session: Session<Model>
  /** what was said, and where the text stood before it */
  #said: { text: string; at: number }[] = []

  constructor(model: Model) {
    this.#model = model
    this.#session = model.createSession()
  }

  readonly system = undefined

  get last(): GenerationSummary | undefined {
    return this.#session.last
  }

  /** Without a template nothing can be told about thinking. */
  async *say(text: string, { think: _, ...options }: SendOptions): AsyncGenerator<Piece> {
    const at = this.#session.position
    try {
      yield* this.#session.generate(text, options)
    } finally {
      if (this.#session.position > at) this.#said.push({ text, at })
    }
  }

  async *regenerate(options: SendOptions): AsyncGenerator<Piece> {
    const text = this.undo()
    if (text === undefined) throw new OnebitError('ERR_NO_QUESTION', 'There is nothing to continue again.')
    yield* this.say(text, options)
  }

  undo(): string | undefined {
    const last = this.#said.pop()
    if (last) this.#session.rewind(last.at)
    return last?.text
  }

  reset(): void {
    this.#session.rewind(0)
    this.#said = []
  }

  setSystem(): void {
    throw withoutTemplate('a system message')
  }

  save(path: string): Promise<void> {
    return this.#session.save(path)
  }

  async load(path: string): Promise<string> {
    const session = await Session.restore(this.#model, path)
    this.#session.dispose()
    this.#session = session
    this.#said = []
    return `${session.position} tokens`
  }
}
