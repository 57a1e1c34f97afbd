/** A model as the AI SDK's `embed` and `embedMany` call it. */
import type {
  EmbeddingModelV4,
  EmbeddingModelV4CallOptions,
  EmbeddingModelV4Result,
  SharedV4Warning,
} from '@ai-sdk/provider'
import type { ChatModel } from '../batch-chat/prepare-chat.js'
import { badOption } from '../errors.js'
import { someAtATime } from '../flow/some-at-a-time.js'
import { optionFields } from '../options.js'
import { checkEmbedOptions } from '../run/embedding.js'

/** What `providerOptions.onebit` of an embedding may have. */
export interface OnebitEmbedOptions {
  /** of the hidden states after the final norm: their mean, or the last token's; default mean */
  pooling?: 'mean' | 'last'
  /** length 1; default true */
  normalize?: boolean
}

const MOST_VALUES = 1024
/** Texts of one call that are in the batch at once. */
const TOGETHER = 4

/** A model as the AI SDK's `embed` and `embedMany` call it. Made by `provider.embeddingModel(model)`. */
export class OnebitEmbeddingModel implements EmbeddingModelV4 {
  readonly specificationVersion = 'v4'
  readonly provider: string
  readonly modelId: string
  readonly maxEmbeddingsPerCall = MOST_VALUES
  readonly supportsParallelCalls = true
  readonly #ready: () => Promise<ChatModel>

  constructor(provider: string, modelId: string, ready: () => Promise<ChatModel>) {
    this.provider = provider
    this.modelId = modelId
    this.#ready = ready
  }

  /**
   * One vector (dim) for each of at most 1024 texts; `providerOptions.onebit` may have `OnebitEmbedOptions`.
   * @throws OnebitError ERR_BAD_OPTION, ERR_NO_TOKENIZER, ERR_CONTEXT_FULL, ERR_QUEUE_FULL, ERR_STOPPING,
   *   ERR_DISPOSED, ERR_OUT_OF_MEMORY, ERR_MEMORY_LIMIT, and those of `Model.load`; the signal's reason
   */
  async doEmbed({
    values,
    dimensions,
    abortSignal,
    providerOptions,
  }: EmbeddingModelV4CallOptions): Promise<EmbeddingModelV4Result> {
    const own = optionFields('providerOptions.onebit', providerOptions?.onebit, ['pooling', 'normalize'])
    checkEmbedOptions(own)
    abortSignal?.throwIfAborted()
    const { model, batch } = await this.#ready()
    const tokenizer = model.requireTokenizer()
    const warnings: SharedV4Warning[] = []
    const { dim } = model.config
    if (dimensions !== undefined && dimensions !== dim) {
      warnings.push({ type: 'unsupported', feature: 'dimensions', details: `They have ${dim} numbers each.` })
    }
    const embed = async (value: string, i: number, signal: AbortSignal) => {
      const ids = await tokenizer.encodeLong(value, { special: false, signal })
      if (ids.length === 0) throw badOption(`values[${i}]`, 'is empty')
      return batch.embed(ids, { ...(own as OnebitEmbedOptions), signal })
    }
    const results = await someAtATime(values, Math.min(TOGETHER, values.length), embed, abortSignal)
    return {
      embeddings: results.map(({ embedding }) => Array.from(embedding)),
      usage: { tokens: results.reduce((total, { tokens }) => total + tokens, 0) },
      warnings,
    }
  }
}
