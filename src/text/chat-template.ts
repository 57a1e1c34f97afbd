/** Chat messages to token ids, through the template that came with the model. */
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { badOption, OnebitError } from '../errors.js'
import { TEMPLATE, TRUSTED } from './jinja/text.js'
import { type Remote, RemoteCalls, remoteProcess, remoteThread } from './remote-calls.js'
import type { RenderedRun, TemplateRequest } from './template-process.js'
import type { Tokenizer } from './tokenizer.js'
import { type AddedToken, isRecord } from './tokenizer-json.js'

/** A message of a conversation, as chat templates know them. Whatever else it has is handed to the template. */
export interface ChatMessage {
  /** system, user, assistant or tool, or what else the template understands */
  role: string
  /** text, or whatever else the template understands (parts, for example) */
  content: string | null | readonly Record<string, unknown>[]
  /** such as tool_calls, tool_call_id or reasoning_content */
  [key: string]: unknown
}

/** How messages are rendered. */
export interface RenderOptions {
  /** end with the beginning of an answer (default true) */
  addGenerationPrompt?: boolean
  /** more variables for the template, such as tools or enable_thinking */
  variables?: Record<string, unknown>
  /** stops the rendering; the call rejects with the signal's reason */
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

/**
 * How chat messages become one text: `model.chatTemplate`. Templates are Jinja; what they give is what transformers' Jinja2 gives.
 * They run in a process of their own, which is ended after 2 seconds.
 */
export class ChatTemplate {
  /** in Jinja */
  readonly source: string
  readonly #variables: Record<string, unknown>
  readonly #calls: RemoteCalls<TemplateRequest, RenderedRun[]>

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
      start: () => startRenderer(template),
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
   * @throws OnebitError ERR_TEMPLATE, ERR_TEMPLATE_TIMEOUT, ERR_BAD_OPTION; the signal's reason
   */
  async render(messages: readonly ChatMessage[], options: RenderOptions = {}): Promise<string> {
    const runs = await this.#render(messages, options)
    return runs.map(({ text }) => text).join('')
  }

  /**
   * The ids of a conversation. Special tokens come only from the template: written in a message they are plain text. Other
   * tokens that the template itself writes, such as `<think>`, may also stand in what the model or a system message says.
   * BOS is there when the template puts it there.
   * @throws OnebitError ERR_TEMPLATE, ERR_TEMPLATE_TIMEOUT, ERR_BAD_OPTION; the signal's reason
   */
  async encodeChat(
    messages: readonly ChatMessage[],
    tokenizer: Tokenizer,
    options: RenderOptions = {},
  ): Promise<Int32Array> {
    const runs = await this.#render(messages, options)
    const origins = new OriginMap(runs)
    const accept = ({ special }: AddedToken, start: number, end: number) =>
      origins.leastTrusted(start, end) <= (special ? TEMPLATE : TRUSTED)
    const signal = options.signal === undefined ? {} : { signal: options.signal }
    return tokenizer.encodeMarked(origins.text, markersIn(this.source, tokenizer), accept, signal)
  }

  /** Ends the process that renders; `model.dispose` does it too. */
  dispose(): void {
    this.#calls.stop()
  }

  async #render(messages: readonly ChatMessage[], options: RenderOptions): Promise<RenderedRun[]> {
    checkMessages(messages)
    const { addGenerationPrompt = true, variables: given = {}, signal } = options
    return this.#calls.call({ messages, given, own: this.#variables, addGenerationPrompt }, signal)
  }
}

/** Where the characters of a rendered text come from. */
class OriginMap {
  readonly text: string
  /** where each run ends */
  readonly #ends: number[] = []
  readonly #runs: readonly RenderedRun[]

  constructor(runs: readonly RenderedRun[]) {
    this.#runs = runs
    this.text = runs.map(({ text }) => text).join('')
    let end = 0
    for (const { text } of runs) {
      end += text.length
      this.#ends.push(end)
    }
  }

  leastTrusted(start: number, end: number): number {
    let [low, high] = [0, this.#ends.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#ends[middle]! <= start) low = middle + 1
      else high = middle
    }
    let least: number = TEMPLATE
    for (let run = low; run < this.#runs.length && (run === low || this.#ends[run - 1]! < end); run++) {
      least = Math.max(least, this.#runs[run]!.origin)
    }
    return least
  }
}

/** Names that look like markup, so that no word or line end that a template happens to contain is taken for a marker. */
const MARKUP = /^[\p{P}\p{S}].*[\p{L}\p{N}].*[\p{P}\p{S}]$/su

/** Added tokens that are not special and that a template writes itself, such as `<think>` and `<tool_response>`. */
function markersIn(source: string, tokenizer: Tokenizer): AddedToken[] {
  return tokenizer.addedTokens.filter(
    ({ special, content }) => !special && MARKUP.test(content) && source.includes(content),
  )
}

const RENDERER = new URL('./template-process.js', import.meta.url)

/** Single-file programs (Node's own kind): asked to run a file, they would start themselves once more instead. */
function isSingleFile(): boolean {
  // Older Node and other runtimes lack the function, or the module.
  return process.getBuiltinModule?.('node:sea')?.isSea?.() ?? false
}

function startRenderer(template: string): Remote {
  return isSingleFile() ? startThread(template) : startProcess(template)
}

function startThread(template: string): Remote {
  const limits = { maxOldGenerationSizeMb: MEMORY_MB }
  const worker = new Worker(RENDERER, { execArgv: [], env: templateEnvironment(), resourceLimits: limits })
  worker.postMessage({ template })
  return remoteThread(worker)
}

function startProcess(template: string): Remote {
  const child = fork(fileURLToPath(RENDERER), [], {
    execArgv: [`--max-old-space-size=${MEMORY_MB}`],
    env: templateEnvironment(),
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  })
  child.send({ template }, () => {})
  return remoteProcess(child)
}

/** Windows programs do not start without SystemRoot, and dates need the time zone; the rest is no template's business. */
function templateEnvironment(): NodeJS.ProcessEnv {
  const names = process.platform === 'win32' ? ['SystemRoot', 'TZ'] : ['TZ']
  return Object.fromEntries(
    names.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
  )
}

/** @throws OnebitError ERR_BAD_OPTION */
export function checkMessages(messages: unknown): void {
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
