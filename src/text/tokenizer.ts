/** Text to token ids and back, from the `tokenizer` blob of a model. */
import { setImmediate as otherEvents } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { OnebitError } from '../errors.js'
import type { Accept } from './added-tokens.js'
import type { EncodeRequest } from './encode-worker.js'
import { Encoder } from './encoder.js'
import { knownEnds } from './end-tokens.js'
import { IdBuffer } from './id-buffer.js'
import { RemoteCalls, remoteThread } from './remote-calls.js'
import { type TokenBytes, tokenBytesOf } from './token-bytes.js'
import {
  type AddedToken,
  checkTokenizerBlob,
  parseTokenizerBlob,
  type Step,
  type TokenizerBlob,
  type TokenizerConfig,
  tokenizerBlobBytes,
  tokenName,
} from './tokenizer-json.js'
import { Utf8Stream } from './utf8-stream.js'
import { Vocabulary } from './vocabulary.js'

/** How a text becomes ids. */
export interface EncodeOptions {
  /** parse special tokens written out in the text; otherwise their letters are ordinary text (the default) */
  special?: boolean
  /** put BOS in front; 'auto' (the default): when the tokenizer's own flag says so and it is not there already */
  bos?: boolean | 'auto'
}

/** How ids become a text. */
export interface DecodeOptions {
  /** write special tokens as they are named (the default), or leave them out */
  special?: boolean
  /** the ids continue a text, so a leading space is text (the default is that they begin one) */
  continuation?: boolean
}

/** Longer texts are encoded on a thread: this many characters take a few milliseconds. */
const LONG_TEXT = 8192
const WORKER_IDLE_MS = 30_000

/**
 * Text to token ids and back: `model.tokenizer`. Which ids a text has is what Hugging Face's tokenizers or llama.cpp say, whatever
 * file it came from.
 */
export class Tokenizer {
  /** put in front of a text by `encode` when `addsBos`; undefined when the vocabulary has none */
  readonly bosId: number | undefined
  /** the tokenizer's own flag */
  readonly addsBos: boolean
  /** the tokens that end an answer, ascending */
  readonly eosIds: readonly number[]
  /** one more than the highest id */
  readonly vocabSize: number
  /** names of special tokens, and the flag for BOS */
  readonly config: Readonly<TokenizerConfig>
  readonly #encoder: Encoder
  readonly #vocabulary: Vocabulary
  /** special tokens by their text */
  readonly #special: Map<string, number>
  readonly #specialIds: Set<number>
  readonly #addedById: Map<number, AddedToken>
  readonly #tokenBytes: TokenBytes
  readonly #bytes = new Map<number, Uint8Array>()
  readonly #longTexts: RemoteCalls<EncodeRequest, Int32Array>

  /** From the bytes of the blob (JSON in UTF-8). ERR_TOKENIZER_FILE, ERR_UNSUPPORTED_TOKENIZER. */
  static fromBytes(bytes: Uint8Array): Tokenizer {
    return new Tokenizer(parseTokenizerBlob(bytes), () => bytes)
  }

  /** As `fromBytes`, in pieces that let other events pass: a vocabulary of 50,000 takes a tenth of a second in all. */
  static async load(bytes: Uint8Array): Promise<Tokenizer> {
    const blob = parseTokenizerBlob(bytes)
    await otherEvents()
    const vocabulary = new Vocabulary(blob.tokenizer)
    await otherEvents()
    const encoder = new Encoder(blob, vocabulary)
    await otherEvents()
    return new Tokenizer(blob, () => bytes, vocabulary, encoder)
  }

  /** From a blob that is an object already. ERR_TOKENIZER_FILE, ERR_UNSUPPORTED_TOKENIZER. */
  static fromBlob(blob: TokenizerBlob): Tokenizer {
    const { model } = blob?.tokenizer ?? {}
    if (model?.type !== 'BPE' || !(model.vocab instanceof Map)) return Tokenizer.owning(blob)
    return Tokenizer.owning({
      ...blob,
      tokenizer: { ...blob.tokenizer, model: { ...model, vocab: new Map(model.vocab) } },
    })
  }

  /** As `fromBlob`; the blob is the tokenizer's from then on, and a vocabulary in a Map need not be copied. */
  static owning(blob: TokenizerBlob): Tokenizer {
    checkTokenizerBlob(blob)
    const vocabulary = new Vocabulary(blob.tokenizer)
    return new Tokenizer(blob, () => tokenizerBlobBytes(vocabulary.whole(blob)), vocabulary)
  }

  private constructor(
    blob: TokenizerBlob,
    bytes: () => Uint8Array,
    vocabulary = new Vocabulary(blob.tokenizer),
    encoder = new Encoder(blob, vocabulary),
  ) {
    const { tokenizer, config } = blob
    const { added } = vocabulary
    this.config = config
    this.#vocabulary = vocabulary
    this.#encoder = encoder
    this.#tokenBytes = tokenBytesOf(tokenizer)
    this.#addedById = new Map(added.map((token) => [token.id, token]))
    this.#special = new Map(added.filter((token) => token.special).map((token) => [token.content, token.id]))
    this.#specialIds = new Set(this.#special.values())
    this.vocabSize = this.#vocabulary.size
    this.bosId = this.#idOfName(tokenName(config.bos_token))
    this.addsBos =
      this.bosId !== undefined && (config.add_bos_token ?? processorAdds(blob, tokenName(config.bos_token)))
    this.eosIds = this.#findEnds(config)
    this.#longTexts = new RemoteCalls({
      start: () =>
        remoteThread(new Worker(new URL('./encode-worker.js', import.meta.url), { workerData: bytes(), execArgv: [] })),
      idleMs: WORKER_IDLE_MS,
      onTimeout: () => new OnebitError('ERR_TOKENIZER_WORKER', 'encoding took too long'),
      onDeath: (cause) =>
        new OnebitError('ERR_TOKENIZER_WORKER', `the encoding thread ended (${cause.message})`, {
          cause,
          hint: 'The text may be too long for the memory there is; encode it in parts.',
        }),
    })
  }

  /**
   * The ids of a text. Long texts hold up the event loop: `encodeLong` does not.
   * @throws OnebitError ERR_BAD_OPTION: `bos` is true and there is no such token
   */
  encode(text: string, options: EncodeOptions = {}): Int32Array {
    const ids = new IdBuffer()
    const body = new IdBuffer()
    this.#encoder.encode(wellFormed(text), options.special === true, body)
    if (this.#wantsBos(options.bos, body.first())) ids.push(this.bosId!)
    if (ids.length === 0) return body.take()
    ids.append(body.take())
    return ids.take()
  }

  /**
   * The same ids as `encode`; texts above 8192 characters are encoded on a thread.
   * @throws OnebitError ERR_BAD_OPTION, ERR_TOKENIZER_WORKER; the signal's reason
   */
  async encodeLong(
    text: string,
    options: EncodeOptions & {
      /** stops the encoding */
      signal?: AbortSignal
    } = {},
  ): Promise<Int32Array> {
    options.signal?.throwIfAborted()
    if (text.length <= LONG_TEXT) return this.encode(text, options)
    const request = { text: wellFormed(text), special: options.special === true }
    const body = await this.#longTexts.call(request, options.signal)
    if (!this.#wantsBos(options.bos, body[0])) return body
    const ids = new Int32Array(body.length + 1)
    ids[0] = this.bosId!
    ids.set(body, 1)
    return ids
  }

  /**
   * @internal `ChatTemplate.encodeChat` is its one caller: who wrote what is known there alone.
   *
   * The ids of a text in which special tokens, and the added tokens `markers`, count only where `accept` says so; written
   * anywhere else they are plain text. No BOS.
   */
  async encodeMarked(
    text: string,
    markers: readonly AddedToken[],
    accept: Accept,
    options: { signal?: AbortSignal } = {},
  ): Promise<Int32Array> {
    options.signal?.throwIfAborted()
    const { parts, without } = this.#encoder.cutOut(wellFormed(text), markers, accept)
    if (text.length > LONG_TEXT) return this.#longTexts.call({ parts, without }, options.signal)
    const ids = new IdBuffer()
    this.#encoder.encodeParts(parts, without, ids)
    return ids.take()
  }

  /**
   * The text of ids; bytes that are no UTF-8 become U+FFFD.
   * @throws OnebitError ERR_TOKEN_ID for what is no id
   */
  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    const stream = this.stream({ special: options.special ?? true, continuation: options.continuation ?? false })
    return stream.push(ids) + stream.flush()
  }

  /**
   * Decodes ids as they come; by default as the continuation of a text, special tokens left out.
   * @param options special: of which special tokens the names are written, all, none or those of these ids
   */
  stream(
    options: Omit<DecodeOptions, 'special'> & {
      /** all, none, or those of these ids; default false */
      special?: boolean | ReadonlySet<number>
    } = {},
  ): Utf8Stream {
    const stripFirstSpace = options.continuation === false && this.#tokenBytes.stripsFirstSpace
    return new Utf8Stream(this, { special: options.special ?? false, stripFirstSpace })
  }

  /** The token's name in the vocabulary (byte-level and SentencePiece names are not the text: see tokenBytes). */
  idToToken(id: number): string | undefined {
    return this.#vocabulary.tokens[id]
  }

  /** The id of a token by its name in the vocabulary; undefined when there is none. */
  tokenToId(token: string): number | undefined {
    return this.#vocabulary.idOf(token)
  }

  /** Whether the token gives no text unless its name is asked for. */
  isSpecial(id: number): boolean {
    return this.#specialIds.has(id)
  }

  /** Tokens that were added to the model's own vocabulary, special or not. */
  get addedTokens(): readonly AddedToken[] {
    return this.#vocabulary.added
  }

  /** The ids of all special tokens, by their texts. */
  get specialTokens(): ReadonlyMap<string, number> {
    return this.#special
  }

  /**
   * The bytes a token adds to a text. Ids that the vocabulary leaves unused give none; do not change the array.
   * @throws OnebitError ERR_TOKEN_ID for what is no id
   */
  tokenBytes(id: number): Uint8Array {
    const known = this.#bytes.get(id)
    if (known) return known
    if (!(Number.isInteger(id) && id >= 0)) {
      throw new OnebitError('ERR_TOKEN_ID', `token id ${id} is not an integer from 0 on`)
    }
    const token = this.#vocabulary.tokens[id]
    const bytes = token === undefined ? new Uint8Array(0) : this.#bytesOf(id, token)
    this.#bytes.set(id, bytes)
    return bytes
  }

  #bytesOf(id: number, token: string): Uint8Array {
    const added = this.#addedById.get(id)
    if (!added) return this.#tokenBytes.of(token)
    // What the normalizer put beside a token, a space for example, is part of it.
    const normalized = this.#encoder.normalizedContent(added)
    return this.#tokenBytes.ofAdded(normalized ?? added.content)
  }

  /** Ends the thread for long texts, if there is one; `model.dispose` does it too. */
  dispose(): void {
    this.#longTexts.stop()
  }

  #wantsBos(bos: boolean | 'auto' | undefined, first: number | undefined): boolean {
    if (bos === true && this.bosId === undefined) {
      throw new OnebitError('ERR_BAD_OPTION', 'bos: this tokenizer has no beginning-of-sequence token')
    }
    return bos === true || (bos !== false && this.addsBos && first !== this.bosId)
  }

  #idOfName(name: string | undefined): number | undefined {
    return name === undefined ? undefined : this.#vocabulary.idOf(name)
  }

  #findEnds(config: TokenizerConfig): number[] {
    const ends = new Set<number>()
    const eos = this.#idOfName(tokenName(config.eos_token))
    if (eos !== undefined) ends.add(eos)
    for (const id of config.eos_token_ids ?? []) ends.add(id)
    const { added } = this.#vocabulary
    for (const { id } of knownEnds((token) => this.#vocabulary.idOf(token), added)) ends.add(id)
    return [...ends].sort((a, b) => a - b)
  }
}

/** Lone surrogates become U+FFFD, which is what their UTF-8 would be. */
function wellFormed(text: string): string {
  return text.replace(/\p{Cs}/gu, '\ufffd')
}

/** Whether the post-processor puts this token in front of a single text. */
function processorAdds({ tokenizer }: TokenizerBlob, bos: string | undefined): boolean {
  const steps = (step: Step | null | undefined): Step[] => {
    if (!step) return []
    return Array.isArray(step.processors) ? step.processors.flatMap((item: Step) => steps(item)) : [step]
  }
  return steps(tokenizer.post_processor).some((step) => {
    const first = Array.isArray(step.single) ? step.single[0] : undefined
    return first?.SpecialToken?.id === bos && bos !== undefined
  })
}
