/** Many requests that share the steps of one model: what a server is built on. */

import { badOption } from '../errors.js'
import type { Constraint } from '../grammar/constraint.js'
import {
  booleanOption,
  functionOption,
  integerOption,
  likeliestOption,
  numberOption,
  optionFields,
  signalOption,
  tokenIds,
} from '../options.js'
import { checkEmbedOptions } from '../run/embedding.js'
import { checkGenerateOptions } from '../run/generate-options.js'
import type { GenerationSummary } from '../run/generation.js'
import { KV_TYPES } from '../run/kv.js'
import { internals, Model } from '../run/model.js'
import type { Piece } from '../run/pieces.js'
import { type Embedding, EmbedRequest } from './embed-request.js'
import { Engine } from './engine.js'
import { type GenerateCallbacks, GenerateRequest } from './generate-request.js'
import { checkPrompt } from './request.js'
import type {
  BatchGenerateOptions,
  BatchOptions,
  BatchScoreOptions,
  BatchScores,
  BatchState,
  EmbedOptions,
} from './requests.js'
import { ScoreRequest } from './score-request.js'

export type * from './requests.js'

/** Each has a session, and a step has at most 256 tokens. */
const MOST_PARALLEL = 128
const MOST_QUEUE = 1 << 20
const MOST_CACHE_MIB = 1 << 24
/** What a service is usually given to end in. */
const GRACE_MS = 10_000

const MIB = 2 ** 20

/**
 * Computes several requests at once: one token of each answer and pieces of prompts in every step. What a request gets
 * does not depend on the others: the same ids, log-probabilities and text as from a session of its own. Sessions of
 * requests that have ended are kept for those that begin with the same tokens.
 *
 * ```ts
 * const batch = new Batch(model, { parallel: 8 })
 * const answer = batch.generate(await model.encode('Once upon a time'), { maxTokens: 64 })
 * for await (const piece of answer) process.stdout.write(piece.text)
 * await batch.close()
 * ```
 */
export class Batch {
  readonly model: Model
  readonly #engine: Engine
  readonly #context: number

  /** @throws OnebitError ERR_BAD_OPTION */
  constructor(model: Model, options?: BatchOptions) {
    if (!(model instanceof Model)) throw badOption('model', 'must be a Model')
    const fields = optionFields('options', options, ['parallel', 'queue', 'cacheMiB', 'context'])
    this.model = model
    this.#context = integerOption(fields, 'context', 1, model.config.context_length) ?? model.context
    this.#engine = new Engine(internals.native(model), {
      parallel: integerOption(fields, 'parallel', 1, MOST_PARALLEL) ?? 4,
      queue: integerOption(fields, 'queue', 0, MOST_QUEUE) ?? 16,
      cacheBytes: (numberOption(fields, 'cacheMiB', 0, MOST_CACHE_MIB) ?? 512) * MIB,
      context: this.#context,
      kv: KV_TYPES.indexOf(model.info.kv) as 0 | 1 | 2,
      threads: model.threads,
    })
  }

  /** positions of a request: its prompt and its answer */
  get context(): number {
    return this.#context
  }

  get state(): BatchState {
    return this.#engine.state
  }

  /**
   * Generates token by token, as `session.generate` does in a session of its own. The request is in the queue from the
   * first next() on. Up to 16 pieces are made ahead of a slow consumer; then its request waits, and no other does.
   * Leaving the loop, return(), or the signal frees the place within one step.
   *
   * The iterator throws OnebitError ERR_QUEUE_FULL, ERR_STOPPING, ERR_EMPTY_PROMPT, ERR_CONTEXT_FULL, ERR_DISPOSED,
   * ERR_NOT_FINITE, ERR_OUT_OF_MEMORY, ERR_MEMORY_LIMIT, what the constraint or a callback throws, or the signal's reason.
   * @returns an iterator of pieces whose return value is the summary
   * @throws OnebitError ERR_BAD_OPTION, ERR_TOKEN_RANGE, ERR_NO_TOKENIZER
   */
  generate(
    ids: readonly number[] | Int32Array,
    options?: BatchGenerateOptions,
  ): AsyncGenerator<Piece, GenerationSummary, undefined> {
    const { callbacks, others } = splitOptions(options)
    try {
      const { vocab_size } = this.model.config
      const checked = checkGenerateOptions(others, vocab_size)
      if (checked.shape) throw badOption(Object.keys(checked.shape)[0]!, 'a batch takes a `constraint` instead')
      const tokenizer = checked.stop.length > 0 ? this.model.requireTokenizer() : this.model.tokenizer
      const prompt = tokenIds('ids', ids, vocab_size)
      const submit = (request: GenerateRequest) => this.#engine.submit(request)
      return new GenerateRequest(prompt, this.#context, tokenizer, checked, callbacks, submit).stream
    } catch (error) {
      callbacks.constraint?.dispose()
      throw error
    }
  }

  /**
   * How likely each token is, given those before it.
   * @throws OnebitError as `generate`
   */
  async score(ids: readonly number[] | Int32Array, options?: BatchScoreOptions): Promise<BatchScores> {
    const { vocab_size } = this.model.config
    const fields = optionFields('options', options, ['top', 'next', 'signal'])
    const top = likeliestOption(fields, 'top', vocab_size)
    const next = booleanOption(fields, 'next') ?? false
    const checked = { top, next, signal: signalOption(fields) }
    const tokens = tokenIds('ids', ids, vocab_size)
    checkPrompt(tokens, this.#context)
    return this.#submit(new ScoreRequest(tokens, checked))
  }

  /**
   * One vector (dim) for a text: the mean of the hidden states after the final norm, or the last one.
   * @returns `tokens`: how many there were
   * @throws OnebitError as `generate`
   */
  async embed(ids: readonly number[] | Int32Array, options?: EmbedOptions): Promise<Embedding> {
    const checked = checkEmbedOptions(options)
    const tokens = tokenIds('ids', ids, this.model.config.vocab_size)
    checkPrompt(tokens, this.#context)
    return this.#submit(new EmbedRequest(tokens, checked))
  }

  /**
   * Takes no more requests: those in the queue end with ERR_STOPPING at once, those under way after `graceMs` (default
   * 10,000). Resolves when nothing is under way and all sessions are freed. The model is not disposed. Any number of
   * times; the shortest grace counts.
   */
  async close(options?: { graceMs?: number }): Promise<void> {
    const fields = optionFields('options', options, ['graceMs'])
    await this.#engine.close(numberOption(fields, 'graceMs', 0, 2 ** 31 - 1) ?? GRACE_MS)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close({ graceMs: 0 })
  }

  async #submit<T>(request: (ScoreRequest | EmbedRequest) & { result: Promise<T> }): Promise<T> {
    try {
      this.#engine.submit(request)
    } catch (error) {
      request.stop(error)
    }
    return request.result
  }
}

/** What is the batch's own among the options of an answer. */
function splitOptions(options: BatchGenerateOptions | undefined) {
  if (options === undefined || typeof options !== 'object' || options === null) {
    return { callbacks: {} as GenerateCallbacks, others: options }
  }
  const { constraint, onStart, onPrompt, ...others } = options
  if (constraint !== undefined && !isConstraint(constraint)) throw badOption('constraint', 'must be a Constraint')
  const fields = { onStart, onPrompt }
  const callbacks: GenerateCallbacks = {
    ...(constraint ? { constraint } : {}),
    ...(functionOption(fields, 'onStart') ? { onStart: onStart! } : {}),
    ...(functionOption(fields, 'onPrompt') ? { onPrompt: onPrompt! } : {}),
  }
  return { callbacks, others }
}

function isConstraint(value: unknown): value is Constraint {
  const methods = ['next', 'accept', 'dispose'] as const
  const fields = value as Partial<Record<(typeof methods)[number], unknown>> | null
  return typeof fields === 'object' && fields !== null && methods.every((name) => typeof fields[name] === 'function')
}
