/**
 * Many texts at once, each from a first token on: the data that a 1-bit model learns from. All sessions are in every step,
 * and one that is at its end begins the next text at once, in the memory that it has.
 */
import { OnebitError } from '../errors.js'
import { addon } from '../native/addon.js'
import type { NativeModel, NativeSampler, NativeSession } from '../native/native.js'
import { integerOption, numberOption, optionFields, tokenIds } from '../options.js'
import { KV_TYPES } from '../run/kv.js'
import { internals, type Model } from '../run/model.js'
import { type CheckedSampling, checkSampling, nativeSampling } from '../run/sampler.js'
import { MOST_STEP_TOKENS } from './pace.js'

/** A step has at most so many tokens, and each text has one in it. */
export const MOST_TEXTS = MOST_STEP_TOKENS
const MOST_TEMPERATURE = 100
const MOST_COUNT = 2 ** 31 - 1

/** A text that is wanted. */
export interface TextOrder {
  /** its name: given back with the text, and nothing else */
  sequence: number
  /** what it begins with */
  ids: readonly number[] | Int32Array
  /** as long as the text has fewer tokens than this, the likeliest follows; then they are drawn */
  greedy: number
  /** of what is drawn: 0 to 2^53 - 1. The same order gives the same text, whatever others are written beside it. */
  seed: number
}

export interface WrittenText {
  sequence: number
  /** those that it begins with among them; without the token that ended it */
  ids: number[]
  /** an end token came, or it has as many tokens as a text may have */
  end: 'stop' | 'length'
}

export interface TextOptions {
  /** tokens of a text at most, those that it begins with among them: 2 to the model's context */
  length: number
  /** above 0; default 1 */
  temperature?: number
  /** draw from so many likeliest tokens; 0: from all; default 50 */
  topK?: number
  /** tokens that end a text */
  stopTokens?: readonly number[]
  /** texts that are written at the same time; default 64 */
  parallel?: number
}

/** @throws OnebitError ERR_BAD_OPTION, ERR_TOKEN_RANGE */
export function checkTextOptions(options: TextOptions, context: number, vocabSize: number) {
  const fields = optionFields('options', options, ['length', 'temperature', 'topK', 'stopTokens', 'parallel'])
  return {
    length: integerOption(fields, 'length', 2, context) ?? context,
    temperature: numberOption(fields, 'temperature', Number.MIN_VALUE, MOST_TEMPERATURE) ?? 1,
    topK: integerOption(fields, 'topK', 0, MOST_COUNT) ?? 50,
    stopTokens: new Set(tokenIds('stopTokens', fields.stopTokens ?? [], vocabSize)),
    parallel: integerOption(fields, 'parallel', 1, MOST_TEXTS) ?? 64,
  }
}

/** A session and the text that is written in it. */
interface Place {
  session: NativeSession
  sequence: number
  ids: number[]
  /** of `ids`, how many are in the session */
  fed: number
  greedy: number
  likeliest: NativeSampler
  drawing: NativeSampler
}

/**
 * Writes texts, one token of each in a step.
 *
 * ```ts
 * const writer = new TextWriter(model, { length: 256 })
 * for (const order of orders) {
 *   while (writer.free === 0) for (const text of await writer.step()) keep(text)
 *   writer.begin(order)
 * }
 * while (writer.running > 0) for (const text of await writer.step()) keep(text)
 * writer.dispose()
 * ```
 */
export class TextWriter {
  readonly #native: NativeModel
  readonly #vocabSize: number
  readonly #kv: 0 | 1 | 2
  readonly #options: ReturnType<typeof checkTextOptions>
  #places: Place[] = []
  /** sessions whose text has ended: the next one needs no fresh memory */
  #idle: NativeSession[] = []
  #made = 0

  /** @throws OnebitError ERR_BAD_OPTION, ERR_TOKEN_RANGE */
  constructor(model: Model, options: TextOptions) {
    this.#native = internals.native(model)
    this.#vocabSize = model.config.vocab_size
    this.#kv = KV_TYPES.indexOf(model.info.kv) as 0 | 1 | 2
    this.#options = checkTextOptions(options, model.config.context_length, this.#vocabSize)
  }

  /** texts that could be begun now */
  get free(): number {
    return this.#options.parallel - this.#places.length
  }

  /** texts that are being written */
  get running(): number {
    return this.#places.length
  }

  /** tokens that were chosen so far, of all texts */
  get made(): number {
    return this.#made
  }

  /**
   * Begins a text; its first token comes with the next step.
   * @throws OnebitError ERR_BAD_OPTION, ERR_TOKEN_RANGE, ERR_EMPTY_PROMPT, ERR_OUT_OF_MEMORY, ERR_MEMORY_LIMIT, ERR_DISPOSED
   */
  begin(order: TextOrder): void {
    const { length } = this.#options
    const fields = optionFields('order', order, ['sequence', 'ids', 'greedy', 'seed'])
    const sequence = integerOption(fields, 'sequence', 0, Number.MAX_SAFE_INTEGER) ?? 0
    const greedy = integerOption(fields, 'greedy', 0, Number.MAX_SAFE_INTEGER) ?? 0
    const seed = integerOption(fields, 'seed', 0, Number.MAX_SAFE_INTEGER) ?? 0
    const ids = [...tokenIds('ids', fields.ids, this.#vocabSize)]
    if (ids.length === 0) throw new OnebitError('ERR_EMPTY_PROMPT', 'A text needs a token to begin with.')
    if (ids.length >= length) {
      throw new OnebitError('ERR_CONTEXT_FULL', `A text of ${length} tokens cannot begin with ${ids.length}.`)
    }
    // The last token of a text is never computed: nothing follows it.
    const session = this.#idle.pop() ?? this.#native.createSession(length - 1, this.#kv)
    const [likeliest, drawing] = [this.#sampler(0, seed), this.#sampler(this.#options.temperature, seed)]
    this.#places.push({ session, sequence, ids, fed: 0, greedy, likeliest, drawing })
  }

  /**
   * One token more of every text; gives those that are at their end, in the order in which they were begun.
   * @throws OnebitError ERR_OUT_OF_MEMORY, ERR_NOT_FINITE, ERR_BAD_LOGITS, ERR_DISPOSED; nothing can be written after it
   */
  async step(): Promise<WrittenText[]> {
    const places = this.#places
    if (places.length === 0) return []
    const items = places.map(({ session, ids, fed, greedy, likeliest, drawing }) => ({
      session,
      tokens: Int32Array.from(fed === 0 ? ids : ids.slice(fed)),
      logits: 0 as const,
      sampler: ids.length < greedy ? likeliest : drawing,
    }))
    const results = await addon().step(this.#native, items, { chunk: MOST_STEP_TOKENS })
    const written: WrittenText[] = []
    this.#places = places.filter((place, i) => {
      const { id } = results[i]!
      if (id === undefined) throw new OnebitError('ERR_DISPOSED', 'The model was disposed while texts were written.')
      place.fed = place.ids.length
      const end = this.#took(place, id)
      if (end === undefined) return true
      written.push({ sequence: place.sequence, ids: place.ids, end })
      place.session.rewind(0)
      this.#idle.push(place.session)
      return false
    })
    return written
  }

  /** Frees the sessions. Any number of times. */
  dispose(): void {
    for (const session of [...this.#idle, ...this.#places.map(({ session }) => session)]) session.dispose()
    this.#idle = []
    this.#places = []
  }

  #took({ ids }: Place, id: number): WrittenText['end'] | undefined {
    this.#made++
    if (this.#options.stopTokens.has(id)) return 'stop'
    ids.push(id)
    return ids.length === this.#options.length ? 'length' : undefined
  }

  #sampler(temperature: number, seed: number): NativeSampler {
    const { topK } = this.#options
    const sampling: CheckedSampling = checkSampling({ temperature, topK, topP: 1, minP: 0, seed }, this.#vocabSize)
    return new (addon().Sampler)(nativeSampling(sampling, new Int32Array(0)))
  }
}
