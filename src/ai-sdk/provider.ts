/** Models in this process, by the names that a program gives them. */
import type { ProviderV4 } from '@ai-sdk/provider'
import { answerFormat } from '../answer/format.js'
import { Batch } from '../batch/batch.js'
import type { BatchOptions, BatchState } from '../batch/requests.js'
import type { ChatModel } from '../batch-chat/prepare-chat.js'
import { badOption, OnebitError } from '../errors.js'
import { optionFields, stringOption } from '../options.js'
import { Model } from '../run/model.js'
import { checkModelOptions, type ModelOptions } from '../run/model-options.js'
import { isRecord } from '../text/tokenizer-json.js'
import { OnebitEmbeddingModel } from './embedding-model.js'
import { OnebitLanguageModel } from './language-model.js'

/** What `createOnebit` is told. */
export interface OnebitProviderSettings extends BatchOptions {
  /** requests that wait for a place; one more is ERR_QUEUE_FULL. Default 1024: who asks is this program itself */
  queue?: number
  /** models by name: loaded ones, or what `Model.load` takes. Without it, the id of a model is the path of its file. */
  models?: Readonly<Record<string, Model | string>>
  /** how they are loaded */
  load?: Omit<ModelOptions, 'signal'>
  /** what the provider is called where calls are logged; default onebit */
  name?: string
}

/** A loaded model; or the name of one among `models`, or without `models` the path of one: it is loaded when it is first used. */
export type ModelReference = Model | string

/** Models for the AI SDK, by name or as they are. */
export interface OnebitProvider extends ProviderV4 {
  /** As `languageModel`. */
  (model: ModelReference): OnebitLanguageModel
  /**
   * A model for `generateText`, `streamText` and what is made of them.
   * @throws OnebitError ERR_NO_MODEL: there is none of this name
   */
  languageModel(model: ModelReference): OnebitLanguageModel
  /**
   * A model for `embed` and `embedMany`.
   * @throws OnebitError ERR_NO_MODEL: there is none of this name
   */
  embeddingModel(model: ModelReference): OnebitEmbeddingModel
  /**
   * The AI SDK asks for it; none of these models makes images.
   * @throws OnebitError ERR_NO_MODEL, always
   */
  imageModel(modelId: string): never
  /** What is under way on a model and what it has done; undefined as long as nothing has asked it. */
  state(model: ModelReference): BatchState | undefined
  /**
   * Ends what is under way after `graceMs` (default 10,000) and frees what the provider loaded. Models that were given to
   * it stay loaded. Any number of times; what is asked for afterwards fails with ERR_DISPOSED.
   */
  close(options?: {
    /** milliseconds until answers under way are cut off */
    graceMs?: number
  }): Promise<void>
  /** What `await using` calls: `close` without grace. */
  [Symbol.asyncDispose](): Promise<void>
}

const BATCH_NAMES = ['parallel', 'queue', 'cacheMiB', 'context'] as const
const NAMES = ['models', 'load', 'name', ...BATCH_NAMES]
/** Who asks is this program itself: it may ask for many at once, as Promise.all does. */
const QUEUE = 1024

/**
 * Models for the AI SDK (`ai`), in this process. Everything that asks one model shares its steps.
 *
 * ```ts
 * import { streamText } from 'ai'
 * import { createOnebit } from 'onebit-run/ai-sdk'
 *
 * const onebit = createOnebit({ models: { smol: 'smol.obt' } })
 * const { textStream } = streamText({ model: onebit('smol'), prompt: 'Why is the sky blue?' })
 * for await (const text of textStream) process.stdout.write(text)
 * await onebit.close()
 * ```
 * @throws OnebitError ERR_BAD_OPTION
 */
export function createOnebit(settings?: OnebitProviderSettings): OnebitProvider {
  const fields = optionFields('settings', settings, NAMES)
  const name = stringOption(fields, 'name') ?? 'onebit'
  checkModels(fields.models)
  checkModelOptions(fields.load)
  const hosted = new HostedModels(settings ?? {})
  const languageModel = (model: ModelReference) => {
    const { id, ready } = hosted.find(model)
    return new OnebitLanguageModel(name, id, ready)
  }
  const embeddingModel = (model: ModelReference) => {
    const { id, ready } = hosted.find(model)
    return new OnebitEmbeddingModel(name, id, ready)
  }
  const close = (options?: { graceMs?: number }) => hosted.close(options)
  return Object.assign((model: ModelReference) => languageModel(model), {
    specificationVersion: 'v4' as const,
    languageModel,
    embeddingModel,
    imageModel: (modelId: string): never => {
      throw new OnebitError('ERR_NO_MODEL', `${JSON.stringify(modelId)} makes no images: these are models of text.`)
    },
    state: (model: ModelReference) => hosted.find(model).batch()?.state,
    close,
    [Symbol.asyncDispose]: () => close({ graceMs: 0 }),
  })
}

function checkModels(models: unknown): void {
  if (models === undefined) return
  if (!isRecord(models)) throw badOption('models', 'must be an object: names, and a model or a path for each')
  for (const [name, model] of Object.entries(models)) {
    if (!(model instanceof Model) && (typeof model !== 'string' || model === '')) {
      throw badOption(`models.${name}`, 'must be a loaded Model or the path of a .obt file')
    }
  }
}

interface FoundModel {
  id: string
  ready: () => Promise<ChatModel>
  batch: () => Batch | undefined
}

class HostedModels {
  readonly #settings: OnebitProviderSettings
  /** by path, and by model where that was given */
  readonly #hosted = new Map<ModelReference, Promise<ChatModel>>()
  readonly #batches = new Map<ModelReference, Batch>()
  #closing: Promise<unknown> | undefined

  constructor(settings: OnebitProviderSettings) {
    this.#settings = settings
  }

  /** @throws OnebitError ERR_NO_MODEL, ERR_BAD_OPTION */
  find(asked: ModelReference): FoundModel {
    if (asked instanceof Model) return this.#found(asked.info.path, asked)
    if (typeof asked !== 'string' || asked === '') throw badOption('model', 'must be a loaded Model or a name')
    const { models } = this.#settings
    if (models === undefined) return this.#found(asked, asked)
    if (Object.hasOwn(models, asked)) return this.#found(asked, models[asked]!)
    const names = Object.keys(models).map((name) => JSON.stringify(name))
    throw new OnebitError('ERR_NO_MODEL', `There is no model called ${JSON.stringify(asked)}.`, {
      hint: `There are ${names.join(', ')}.`,
    })
  }

  #found(id: string, source: ModelReference): FoundModel {
    return { id, ready: () => this.#ready(source), batch: () => this.#batches.get(source) }
  }

  async #ready(source: ModelReference): Promise<ChatModel> {
    if (this.#closing) throw new OnebitError('ERR_DISPOSED', 'The provider was closed.')
    const found = this.#hosted.get(source)
    if (found) return found
    const host = this.#host(source)
    this.#hosted.set(source, host)
    // What could not be loaded may be there the next time.
    host.catch(() => this.#hosted.delete(source))
    return host
  }

  async #host(source: ModelReference): Promise<ChatModel> {
    const model = typeof source === 'string' ? await Model.load(source, this.#settings.load) : source
    const { parallel, queue = QUEUE, cacheMiB, context } = this.#settings
    const given = Object.entries({ parallel, queue, cacheMiB, context }).filter(([, value]) => value !== undefined)
    try {
      const batch = new Batch(model, Object.fromEntries(given))
      this.#batches.set(source, batch)
      return { model, batch, format: answerFormat(model.chatTemplate?.source) }
    } catch (error) {
      if (typeof source === 'string') await model.dispose()
      throw error
    }
  }

  async close(options?: { graceMs?: number }): Promise<void> {
    const closed = [...this.#hosted].map(async ([source, host]) => {
      const hosted = await host.catch(() => undefined) // what could not be loaded holds nothing
      await hosted?.batch.close(options)
      if (typeof source === 'string') await hosted?.model.dispose()
    })
    const all = Promise.all([this.#closing, ...closed])
    this.#closing = all
    await all
  }
}
