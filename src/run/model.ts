/** A model: weights and tokenizer, immutable once loaded and shared by its sessions. */

import type { ModelConfig } from '../config/config.js'
import { LIMITS } from '../config/limits.js'
import { badOption, OnebitError } from '../errors.js'
import type { AnswerShape, Constraint, Grammars } from '../grammar/constraint.js'
import type { NativeModel } from '../native/native.js'
import type { Provenance } from '../obt/obt.js'
import { choiceOption, integerOption, optionFields } from '../options.js'
import type { ChatMessage, ChatTemplate, RenderOptions } from '../text/chat-template.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { checkDraft, Draft } from './draft.js'
import { loadModel } from './load.js'
import type { LoadedModel, ModelInfo } from './loaded-model.js'
import { type Activations, checkContext, type ModelOptions } from './model-options.js'
import { KV_TYPES, Session } from './session.js'
import type { SessionOptions } from './session-options.js'
import { Timeline } from './timeline.js'

export type { ModelInfo } from './loaded-model.js'
export type { Activations, ModelOptions } from './model-options.js'

/** What src/bench needs of a model beyond its public face: one without a file, and steps of several sessions at once. */
export let internals: {
  create(parts: LoadedModel): Model
  native(model: Model): NativeModel
}

/**
 * A loaded model: weights and tokenizer. It never changes, any number of sessions share it, and what it computes is the same
 * bytes on every instruction set and with every number of threads. Memory is freed by `dispose()`, by leaving an `await using`
 * block, or by the garbage collector.
 *
 * ```ts
 * const model = await Model.load('smol.obt')
 * try {
 *   const session = model.createSession()
 *   for await (const piece of session.generate('Once upon a time', { maxTokens: 64 })) process.stdout.write(piece.text)
 * } finally {
 *   await model.dispose()
 * }
 * ```
 */
export class Model {
  /** sizes, features, and how the matrices are stored */
  readonly config: ModelConfig
  /** what was loaded and how it runs */
  readonly info: ModelInfo
  /** undefined when the file has none: such a model works with token ids */
  readonly tokenizer: Tokenizer | undefined
  /** how chat messages become one text; undefined when the file has none */
  readonly chatTemplate: ChatTemplate | undefined
  readonly #native: NativeModel
  /** made when the first answer of a given form is asked for */
  #grammars: Promise<Grammars> | undefined
  #draft: Model | undefined

  /**
   * Loads a `.obt` file, a GGUF file or a folder of Hugging Face's; what is no `.obt` is converted on its way into memory, as
   * `onebit convert` does it, and nothing is written. The file is read once and not needed afterwards.
   *
   * A model of the hub may be named instead: `hf:OWNER/NAME`, with `:FILE` or `:TYPE` behind it where there are several, or the
   * address of a file. It is downloaded once, into the cache that Hugging Face's tools use.
   * @param path of a file or folder, or the name of a model
   * @throws OnebitError ERR_FILE_NOT_FOUND, ERR_NOT_OBT, ERR_VERSION, ERR_HEADER, ERR_CHECKSUM, ERR_CONFIG,
   *   ERR_TENSOR_TABLE, ERR_TRUNCATED, ERR_FILE_SIZE, ERR_NOT_FINITE, ERR_TOKENIZER_FILE,
   *   ERR_OUT_OF_MEMORY, ERR_MEMORY_LIMIT, ERR_ISA, ERR_ADDON, ERR_BAD_OPTION; of other formats: ERR_UNKNOWN_FORMAT,
   *   ERR_BAD_SOURCE, ERR_MISSING_TENSOR, ERR_TENSOR_SHAPE, ERR_TERNARY_CODE, ERR_LFS_POINTER, ERR_PICKLE_FORBIDDEN,
   *   ERR_UNSUPPORTED_ARCHITECTURE, ERR_UNSUPPORTED_ROPE, ERR_UNSUPPORTED_TENSOR, ERR_UNSUPPORTED_TENSOR_TYPE,
   *   ERR_UNSUPPORTED_TOKENIZER; of a model that is named: ERR_HUB_NAME,
   *   ERR_HUB_NOT_FOUND, ERR_HUB_ACCESS, ERR_HUB_OFFLINE, ERR_HUB_BUSY, ERR_HUB_ANSWER, ERR_HUB_REDIRECT, ERR_HUB_PROXY,
   *   ERR_HUB_CHANGED, ERR_HUB_CHECKSUM, ERR_HUB_NOTHING_RUNS, ERR_HUB_SEVERAL, ERR_DISK_FULL, ERR_ACCESS, ERR_READ_ONLY;
   *   of a draft that does not fit: ERR_DRAFT; the signal's reason when it aborts
   */
  static async load(path: string, options?: ModelOptions): Promise<Model> {
    if (typeof path !== 'string' || path === '') throw badOption('path', 'must be the path or the name of a model')
    const model = new Model(await loadModel(path, options))
    if (options?.draft !== undefined) await model.#loadDraft(options.draft, options)
    return model
  }

  static {
    internals = { create: (parts) => new Model(parts), native: (model) => model.#native }
  }

  private constructor({ native, config, info, tokenizer, chatTemplate }: LoadedModel) {
    this.#native = native
    this.config = config
    this.info = info
    this.tokenizer = tokenizer
    this.chatTemplate = chatTemplate
  }

  async #loadDraft(path: string, { context: _, draft: __, onProgress: ___, ...options }: ModelOptions): Promise<void> {
    try {
      this.#draft = await Model.load(path, options)
      checkDraft(this.#draft, this)
    } catch (error) {
      await this.dispose()
      throw error
    }
  }

  /** the smaller model that guesses what follows; undefined when none was given */
  get draft(): Model | undefined {
    return this.#draft
  }

  /** @internal For a session with so many positions: where its guesses come from besides what was said. */
  newDraft(capacity: number): Draft | undefined {
    const draft = this.#draft
    if (!draft || draft.disposed) return undefined
    const { context_length } = draft.config
    const kv = KV_TYPES.indexOf(draft.info.kv) as 0 | 1 | 2
    return new Draft(draft.#native.createSession(Math.min(capacity, context_length), kv))
  }

  /** positions of a session unless it asks for others */
  get context(): number {
    return this.info.context
  }

  /** the instruction set that computes, such as avx2 */
  get isa(): string {
    return this.info.isa
  }

  /** where the model came from, as its file says */
  get provenance(): Provenance {
    return this.info.provenance
  }

  /** threads that compute */
  get threads(): number {
    return this.info.threads
  }

  /** what sign matrices multiply */
  get activations(): Activations {
    return this.info.activations
  }

  /** `dispose` was called: nothing can be computed any more */
  get disposed(): boolean {
    return this.#native.disposed
  }

  /**
   * The ids of a raw text: special tokens are parsed, BOS is put in front as the tokenizer's own flag says (`bos`
   * overrides it). Long texts are encoded off the main thread.
   * @throws OnebitError ERR_NO_TOKENIZER, ERR_BAD_OPTION, ERR_TOKENIZER_WORKER; the signal's reason
   */
  async encode(
    text: string,
    options: {
      /** put BOS in front; 'auto' (the default): when the tokenizer's own flag says so */
      bos?: boolean | 'auto'
      /** stops the encoding */
      signal?: AbortSignal
    } = {},
  ): Promise<Int32Array> {
    if (typeof text !== 'string') throw badOption('text', 'must be a string')
    return this.requireTokenizer().encodeLong(text, { special: true, ...options })
  }

  /** Whether `encodeChat` and chat prompts work. */
  get hasChatTemplate(): boolean {
    return this.chatTemplate !== undefined && this.tokenizer !== undefined
  }

  /**
   * The ids of a conversation, rendered with the model's chat template and open for the assistant's answer. Special
   * tokens come from the template only, never from the messages.
   * @throws OnebitError ERR_NO_TOKENIZER, ERR_NO_CHAT_TEMPLATE, ERR_TEMPLATE, ERR_TEMPLATE_TIMEOUT, ERR_BAD_OPTION; the
   *   signal's reason
   */
  async encodeChat(messages: readonly ChatMessage[], options?: RenderOptions): Promise<Int32Array> {
    const tokenizer = this.requireTokenizer()
    if (this.chatTemplate) return this.chatTemplate.encodeChat(messages, tokenizer, options)
    throw new OnebitError('ERR_NO_CHAT_TEMPLATE', 'The model has no chat template inside', {
      hint: 'Use it for plain text: give a string instead of messages.',
    })
  }

  /**
   * @internal
   * What keeps an answer to a form; whoever asked disposes of it.
   * @throws OnebitError ERR_NO_TOKENIZER, and as Grammars.constrain
   */
  async constrain(shape: AnswerShape, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<Constraint> {
    this.#grammars ??= this.#loadGrammars()
    return (await this.#grammars).constrain(shape, signal ? { signal } : {})
  }

  async #loadGrammars(): Promise<Grammars> {
    const tokenizer = this.requireTokenizer()
    const [{ ModelGrammars }, { answerFormat }] = await Promise.all([
      import('../grammar/grammars.js'),
      import('../answer/format.js'),
    ])
    const ids = answerFormat(this.chatTemplate?.source).markers.map((text) => tokenizer.tokenToId(text))
    return new ModelGrammars(tokenizer, this.config.vocab_size, {
      markers: new Set(ids.filter((id) => id !== undefined)),
    })
  }

  /** @internal */
  requireTokenizer(): Tokenizer {
    if (this.tokenizer) return this.tokenizer
    throw new OnebitError('ERR_NO_TOKENIZER', 'The model has no tokenizer inside', {
      hint: 'Give token ids instead of text, or convert the model again with --tokenizer FILE.',
    })
  }

  /**
   * A new session: one timeline of this model with a KV cache of its own.
   * @throws OnebitError ERR_DISPOSED, ERR_OUT_OF_MEMORY, ERR_MEMORY_LIMIT, ERR_BAD_OPTION
   */
  createSession(options?: SessionOptions): Session<Model> {
    const fields = optionFields('options', options, ['context', 'kv'])
    const context = integerOption(fields, 'context', 1, LIMITS.context) ?? this.context
    const kv = choiceOption(fields, 'kv', KV_TYPES) ?? this.info.kv
    const native = this.#native.createSession(checkContext(context, this.config), KV_TYPES.indexOf(kv) as 0 | 1 | 2)
    return new Session(this, new Timeline(this.#native, native, kv))
  }

  /**
   * Disposes the model and its sessions. What is under way stops within a step and fails with ERR_DISPOSED; the
   * promise resolves when the memory is free. Any number of times.
   */
  async dispose(): Promise<void> {
    this.tokenizer?.dispose()
    this.chatTemplate?.dispose()
    this.#grammars?.then((grammars) => grammars.dispose()).catch(() => {})
    await Promise.all([this.#native.dispose(), this.#draft?.dispose()])
  }

  /** What `await using` calls: `dispose`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  /** What `using` calls: `dispose`, without waiting until the memory is free. */
  [Symbol.dispose](): void {
    void this.dispose()
  }
}
