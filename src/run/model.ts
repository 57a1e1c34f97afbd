/** A model: weights and tokenizer, immutable once loaded and shared by its sessions. */

import { LIMITS, type ModelConfig } from '../config/architecture.js'
import { nativeConfig, nativeSlots } from '../config/native-config.js'
import { parseWeightType, type Shape, type ShapeName, shapeConfig, type WeightType } from '../config/shapes.js'
import { badOption, OnebitError } from '../errors.js'
import { addon } from '../native/addon.js'
import type { NativeLoadOptions, NativeModel } from '../native/native.js'
import { type ObtHeader, type Provenance, readBlob, readObtHeader, withPath } from '../obt/obt.js'
import type { ChatMessage, ChatTemplate, RenderOptions } from '../text/chat-template.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { choiceOption, functionOption, integerOption, optionFields, signalOption, stringOption } from './options.js'
import { KV_TYPES, type KvType, Session, type SessionOptions } from './session.js'
import { Timeline } from './timeline.js'

/** In the order of the native enumeration. */
export const ACTIVATIONS = ['int8', 'f32', 'int4'] as const

/**
 * What sign matrices multiply. `int8`: activations rounded to 8 bits, one scale a token. `int4`: to 4 bits, about twice as
 * fast where arithmetic is the limit (prefill, batches), at a loss that only models trained for it forgive. `f32`: floats,
 * slow, for comparing with other implementations. Dense int8 rows (the head, say) round to 8 bits in both integer modes.
 */
export type Activations = (typeof ACTIVATIONS)[number]

export interface ModelOptions {
  /** threads that compute, 1 to 256; default: the physical cores this process may use */
  threads?: number
  /** positions of a session unless it asks for others; default: all that the model allows */
  context?: number
  /** what sign matrices multiply; default int8 */
  activations?: Activations
  /** numbers in the KV cache of a session unless it asks for others; default f16 */
  kv?: KvType
  /** instruction set to use; default: ONEBIT_ISA from the environment, or the best there is */
  isa?: string
  /** bytes that the weights and all sessions may take together; default: no limit */
  memoryLimit?: number
  /** called now and then while the weights are read */
  onProgress?: (doneBytes: number, totalBytes: number) => void
  /** stops the loading; it rejects with the signal's reason */
  signal?: AbortSignal
}

const OPTION_NAMES: (keyof ModelOptions)[] = [
  'threads',
  'context',
  'activations',
  'kv',
  'isa',
  'memoryLimit',
  'onProgress',
  'signal',
]

/** Of a model with random weights. */
export interface RandomModelOptions extends Omit<ModelOptions, 'onProgress'> {
  /** what the linears are stored as; default onebit */
  type?: WeightType
  /** the same seed gives the same weights everywhere; default 0 */
  seed?: number
}

/** Positions of a random model's sessions unless asked otherwise: a large shape's whole context fills many gigabytes. */
const RANDOM_CONTEXT = 4096

/** What was loaded and how it runs. */
export interface ModelInfo {
  /** empty for a random model, as is its file: 0 bytes */
  readonly path: string
  readonly architecture: ModelConfig['architecture']
  /** of the whole file */
  readonly fileBytes: number
  /** of the weights in memory, in the layout of the instruction set */
  readonly weightBytes: number
  readonly isa: string
  readonly threads: number
  readonly activations: Activations
  readonly kv: KvType
  /** positions of a session unless it asks for others */
  readonly context: number
  /** where the model came from, as its file says */
  readonly provenance: Provenance
}

/** @throws OnebitError ERR_BAD_OPTION */
export function checkModelOptions(options: unknown) {
  const fields = optionFields('options', options, OPTION_NAMES)
  return {
    threads: integerOption(fields, 'threads', 1, 256),
    context: integerOption(fields, 'context', 1, LIMITS.context),
    activations: choiceOption(fields, 'activations', ACTIVATIONS) ?? ('int8' as const),
    kv: choiceOption(fields, 'kv', KV_TYPES) ?? ('f16' as const),
    isa: stringOption(fields, 'isa') ?? process.env.ONEBIT_ISA ?? '',
    memoryLimit: integerOption(fields, 'memoryLimit', 1, Number.MAX_SAFE_INTEGER),
    onProgress: functionOption<NonNullable<ModelOptions['onProgress']>>(fields, 'onProgress'),
    signal: signalOption(fields),
  }
}

type CheckedOptions = ReturnType<typeof checkModelOptions>

function checkContext(context: number, config: ModelConfig): number {
  if (context <= config.context_length) return context
  throw badOption('context', `${context} is more than the ${config.context_length} positions of the model`)
}

function checkMemory(fileBytes: number, limit: number | undefined): void {
  if (limit === undefined || fileBytes <= limit) return
  throw new OnebitError('ERR_MEMORY_LIMIT', `The weights take about ${fileBytes} bytes, the limit is ${limit}`, {
    hint: 'Raise `memoryLimit`, or use a smaller model.',
  })
}

function checkRandomOptions(options: unknown) {
  const fields = optionFields('options', options, ['type', 'seed', ...OPTION_NAMES.filter((n) => n !== 'onProgress')])
  const { type, seed, ...others } = fields
  return {
    ...checkModelOptions(others),
    type: parseWeightType(stringOption({ type }, 'type') ?? 'onebit'),
    seed: integerOption({ seed }, 'seed', 0, Number.MAX_SAFE_INTEGER) ?? 0,
  }
}

async function makeWeights(config: ModelConfig, options: ReturnType<typeof checkRandomOptions>): Promise<NativeModel> {
  const { signal } = options
  const cancel = new (addon().Cancel)()
  const onAbort = () => cancel.cancel()
  signal?.addEventListener('abort', onAbort)
  try {
    const native = await addon().createRandomModel({
      config: nativeConfig(config),
      seed: options.seed,
      activations: ACTIVATIONS.indexOf(options.activations) as 0 | 1 | 2,
      threads: options.threads ?? 0,
      isa: options.isa,
      memory_limit: options.memoryLimit ?? 0,
      cancel,
    })
    if (!signal?.aborted) return native
    void native.dispose()
  } catch (error) {
    if (!signal?.aborted) throw error
  } finally {
    signal?.removeEventListener('abort', onAbort)
  }
  throw signal!.reason
}

/** Reads and repacks the weights on the native thread; `signal` and a throwing onProgress stop it. */
async function loadWeights(header: ObtHeader, path: string, options: CheckedOptions): Promise<NativeModel> {
  const { signal, onProgress } = options
  const cancel = new (addon().Cancel)()
  const onAbort = () => cancel.cancel()
  let failure: { error: unknown } | undefined
  const settings: NativeLoadOptions = {
    path,
    file_bytes: header.fileBytes,
    config: nativeConfig(header.config),
    slots: nativeSlots(header.tensors),
    activations: ACTIVATIONS.indexOf(options.activations) as 0 | 1 | 2,
    threads: options.threads ?? 0,
    isa: options.isa,
    memory_limit: options.memoryLimit ?? 0,
    cancel,
  }
  if (onProgress) {
    settings.onProgress = (done) => {
      try {
        if (!failure) onProgress(done, header.fileBytes)
      } catch (error) {
        failure = { error }
        cancel.cancel()
      }
    }
  }
  signal?.addEventListener('abort', onAbort)
  try {
    const native = await addon().loadModel(settings)
    settings.onProgress?.(header.fileBytes)
    if (!failure && !signal?.aborted) return native
    void native.dispose()
  } catch (error) {
    if (!failure && !signal?.aborted) throw withPath(error, path)
  } finally {
    signal?.removeEventListener('abort', onAbort)
  }
  throw failure ? failure.error : signal!.reason
}

/** What text needs; read and built, and its modules are loaded, while the native thread loads the weights. */
async function loadText(header: ObtHeader & { path: string }) {
  const modules = Promise.all([import('../text/tokenizer.js'), import('../text/chat-template.js')])
  modules.catch(() => {}) // an error of reading comes first
  const tokenizerBytes = await readBlob(header, 'tokenizer')
  const templateBytes = await readBlob(header, 'chat_template')
  const [{ Tokenizer }, { ChatTemplate }] = await modules
  const tokenizer = tokenizerBytes && (await Tokenizer.load(tokenizerBytes))
  return { tokenizer, template: templateBytes && ChatTemplate.fromBytes(templateBytes) }
}

/**
 * A loaded model. Memory is freed by `dispose()`, by leaving an `await using` block, or by the garbage collector.
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
  readonly config: ModelConfig
  readonly info: ModelInfo
  /** undefined when the file has none: such a model works with token ids */
  readonly tokenizer: Tokenizer | undefined
  /** undefined when the file has none */
  readonly chatTemplate: ChatTemplate | undefined
  readonly #native: NativeModel

  /**
   * Loads a `.obt` file. The file is read once and not needed afterwards.
   * @throws OnebitError ERR_FILE_NOT_FOUND, ERR_NOT_OBT, ERR_VERSION, ERR_HEADER, ERR_CHECKSUM, ERR_CONFIG,
   *   ERR_TENSOR_TABLE, ERR_TRUNCATED, ERR_FILE_SIZE, ERR_NOT_FINITE, ERR_TOKENIZER_FILE, ERR_OUT_OF_MEMORY,
   *   ERR_MEMORY_LIMIT, ERR_ISA, ERR_ADDON, ERR_BAD_OPTION; the signal's reason when it aborts
   */
  static async load(path: string, options?: ModelOptions): Promise<Model> {
    if (typeof path !== 'string' || path === '') throw badOption('path', 'must be the path of a .obt file')
    const checked = checkModelOptions(options)
    checked.signal?.throwIfAborted()
    const header = await readObtHeader(path)
    checked.signal?.throwIfAborted()
    checkContext(checked.context ?? 1, header.config)
    checkMemory(header.fileBytes, checked.memoryLimit)
    const stop = new AbortController()
    const signal = checked.signal ? AbortSignal.any([checked.signal, stop.signal]) : stop.signal
    const weights = loadWeights(header, path, { ...checked, signal })
    const text = loadText(header)
    text.catch((error) => stop.abort(error))
    const native = await weights
    try {
      return new Model(native, header, checked, await text)
    } catch (error) {
      void native.dispose()
      throw error
    }
  }

  /**
   * A model of a shape with random weights, made in memory: for measuring. It has no tokenizer and works with ids.
   * Sessions have 4096 positions unless `context` says otherwise.
   * @throws OnebitError ERR_SHAPE when the type does not fit the shape, ERR_OUT_OF_MEMORY when the weights do not fit
   *   into free memory, ERR_MEMORY_LIMIT, ERR_CONFIG, ERR_ISA, ERR_ADDON, ERR_BAD_OPTION; the signal's reason when it
   *   aborts
   */
  static async random(shape: ShapeName | Shape, options?: RandomModelOptions): Promise<Model> {
    const checked = checkRandomOptions(options)
    checked.signal?.throwIfAborted()
    const config = shapeConfig(shape, checked.type)
    const context = checkContext(checked.context ?? Math.min(RANDOM_CONTEXT, config.context_length), config)
    const native = await makeWeights(config, checked)
    const provenance = { source: `random weights, seed ${checked.seed}` }
    return new Model(native, { config, provenance, path: '', fileBytes: 0 }, { ...checked, context }, {})
  }

  private constructor(
    native: NativeModel,
    header: Pick<ObtHeader, 'config' | 'provenance' | 'fileBytes'> & { path: string },
    options: CheckedOptions,
    text: Partial<Awaited<ReturnType<typeof loadText>>>,
  ) {
    this.#native = native
    this.config = header.config
    this.tokenizer = text.tokenizer
    this.chatTemplate = text.template
    this.info = Object.freeze({
      path: header.path,
      architecture: header.config.architecture,
      fileBytes: header.fileBytes,
      weightBytes: native.weightBytes,
      isa: native.isa,
      threads: native.threads,
      activations: options.activations,
      kv: options.kv,
      context: options.context ?? header.config.context_length,
      provenance: header.provenance,
    })
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

  get threads(): number {
    return this.info.threads
  }

  get activations(): Activations {
    return this.info.activations
  }

  get disposed(): boolean {
    return this.#native.disposed
  }

  /**
   * The ids of a raw text: special tokens are parsed, BOS is put in front as the tokenizer's own flag says (`bos`
   * overrides it). Long texts are encoded off the main thread.
   * @throws OnebitError ERR_NO_TOKENIZER
   */
  async encode(text: string, options: { bos?: boolean | 'auto'; signal?: AbortSignal } = {}): Promise<Int32Array> {
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
   * @throws OnebitError ERR_NO_TOKENIZER, ERR_NO_CHAT_TEMPLATE, ERR_TEMPLATE, ERR_TEMPLATE_TIMEOUT, ERR_BAD_OPTION
   */
  async encodeChat(messages: readonly ChatMessage[], options?: RenderOptions): Promise<Int32Array> {
    const tokenizer = this.requireTokenizer()
    if (this.chatTemplate) return this.chatTemplate.encodeChat(messages, tokenizer, options)
    throw new OnebitError('ERR_NO_CHAT_TEMPLATE', 'The model has no chat template inside', {
      hint: 'Use it for plain text: give a string instead of messages.',
    })
  }

  /** @internal For steps of several sessions at once (src/bench). */
  get native(): NativeModel {
    return this.#native
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
  createSession(options?: SessionOptions): Session {
    const fields = optionFields('options', options, ['context', 'kv'])
    const context = integerOption(fields, 'context', 1, LIMITS.context) ?? this.context
    const kv = choiceOption(fields, 'kv', KV_TYPES) ?? this.info.kv
    const native = this.#native.createSession(checkContext(context, this.config), KV_TYPES.indexOf(kv) as 0 | 1 | 2)
    return new Session(this, new Timeline(this.#native, native))
  }

  /**
   * Disposes the model and its sessions. What is under way stops within a step and fails with ERR_DISPOSED; the
   * promise resolves when the memory is free. Any number of times.
   */
  async dispose(): Promise<void> {
    this.tokenizer?.dispose()
    this.chatTemplate?.dispose()
    await this.#native.dispose()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  [Symbol.dispose](): void {
    void this.dispose()
  }
}
