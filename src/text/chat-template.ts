/** Chat messages to token ids, through the template that came with the model. */
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { badOption, OnebitError } from '../errors.js'
import { ContentGuard } from './content-guard.js'
import { type Remote, RemoteCalls, remoteProcess } from './remote-calls.js'
import type { TemplateRequest } from './template-process.js'
import type { Tokenizer } from './tokenizer.js'
import { isRecord } from './tokenizer-json.js'

export interface ChatMessage {
  role: string
  /** text, or whatever else the template understands (parts, for example) */
  content: string | null | readonly Record<string, unknown>[]
  [key: string]: unknown
}

export interface RenderOptions {
  /** end with the beginning of an answer (default true) */
  addGenerationPrompt?: boolean
  /** more variables for the template, such as tools or enable_thinking */
  variables?: Record<string, unknown>
  signal?: AbortSignal
}

/** The `chat_template` blob. */
export interface ChatTemplateBlob {
  template: string
  bos_token?: string | null
  eos_token?: string | null
  [key: string]: unknown
}

/** Rendering takes about a millisecond; a template that needs longer than this does not end. */
const TIMEOUT_MS = 2000
const MEMORY_MB = 128
const MAX_TEMPLATE = 1 << 20
const IDLE_MS = 60_000

export class ChatTemplate {
  readonly source: string
  readonly #variables: Record<string, unknown>
  readonly #calls: RemoteCalls<TemplateRequest, string>

  /** From the bytes of the blob (JSON in UTF-8). ERR_TEMPLATE when it is no such thing. */
  static fromBytes(bytes: Uint8Array): ChatTemplate {
    let value: unknown
    try {
      value = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'))
    } catch (error) {
      throw new OnebitError('ERR_TEMPLATE', `The chat template's blob is not JSON (${(error as Error).message})`)
    }
    if (!isRecord(value) || typeof value.template !== 'string') {
      throw new OnebitError('ERR_TEMPLATE', "The chat template's blob has no template")
    }
    return new ChatTemplate(value as ChatTemplateBlob)
  }

  constructor({ template, ...variables }: ChatTemplateBlob) {
    if (template.length > MAX_TEMPLATE) {
      throw new OnebitError('ERR_TEMPLATE', `The chat template has ${template.length} characters, too many`)
    }
    this.source = template
    this.#variables = variables
    this.#calls = new RemoteCalls({
      start: () => startProcess(template),
      timeoutMs: TIMEOUT_MS,
      idleMs: IDLE_MS,
      onTimeout: () =>
        new OnebitError('ERR_TEMPLATE_TIMEOUT', `The chat template did not end within ${TIMEOUT_MS} ms`, {
          hint: 'The template in the model file is broken or hostile; use plain text instead of chat messages.',
        }),
      onDeath: (cause) =>
        new OnebitError('ERR_TEMPLATE', `The chat template ended its process (${cause.message})`, { cause }),
    })
  }

  /** Starts the process that renders, so that the first answer does not wait for it. */
  warmUp(): void {
    this.#calls.warmUp()
  }

  /**
   * The rendered text, for people to look at: in it special tokens of the template and of contents look the same.
   * @throws OnebitError ERR_TEMPLATE, ERR_TEMPLATE_TIMEOUT, ERR_BAD_OPTION
   */
  async render(messages: readonly ChatMessage[], options: RenderOptions = {}): Promise<string> {
    checkMessages(messages)
    return this.#render(messages, options.variables ?? {}, options)
  }

  /**
   * The ids of a conversation. Special tokens come only from the template: written in a message they are plain text.
   * BOS is there when the template puts it there.
   * @throws OnebitError ERR_TEMPLATE, ERR_TEMPLATE_TIMEOUT, ERR_BAD_OPTION
   */
  async encodeChat(
    messages: readonly ChatMessage[],
    tokenizer: Tokenizer,
    options: RenderOptions = {},
  ): Promise<Int32Array> {
    checkMessages(messages)
    const variables = options.variables ?? {}
    const guard = new ContentGuard(tokenizer.specialTokens.keys(), [messages, variables])
    const guarded = guard.guard(messages) as ChatMessage[]
    const rendered = await this.#render(guarded, guard.guard(variables) as Record<string, unknown>, options)
    const parts = tokenizer.splitSpecial(rendered)
    const signal = options.signal === undefined ? {} : { signal: options.signal }
    return tokenizer.encodeParts(
      parts.map((part) => (typeof part === 'string' ? guard.unmark(part) : part)),
      signal,
    )
  }

  /** Ends the process that renders. */
  dispose(): void {
    this.#calls.stop()
  }

  #render(
    messages: readonly ChatMessage[],
    variables: Record<string, unknown>,
    { addGenerationPrompt, signal }: RenderOptions,
  ): Promise<string> {
    const all = { ...this.#variables, ...variables, messages, add_generation_prompt: addGenerationPrompt ?? true }
    return this.#calls.call({ variables: all }, signal)
  }
}

function startProcess(template: string): Remote {
  const child = fork(fileURLToPath(new URL('./template-process.js', import.meta.url)), [], {
    execArgv: [`--max-old-space-size=${MEMORY_MB}`],
    // Windows programs do not start without it; nothing else of the environment is the template's business.
    env: process.platform === 'win32' ? { SystemRoot: process.env.SystemRoot } : {},
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  })
  child.send({ template }, () => {})
  return remoteProcess(child)
}

function checkMessages(messages: unknown): void {
  if (!Array.isArray(messages) || messages.length === 0) throw badOption('messages', 'must be an array of messages')
  for (const [index, message] of messages.entries()) {
    const field = `messages[${index}]`
    if (!isRecord(message)) throw badOption(field, 'must be an object with role and content')
    if (typeof message.role !== 'string') throw badOption(`${field}.role`, 'must be a string')
    const { content } = message
    const good = content === undefined || content === null || typeof content === 'string' || Array.isArray(content)
    if (!good) throw badOption(`${field}.content`, 'must be a string')
  }
}
