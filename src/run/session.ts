/** A session: one timeline of a model. */

import type { EmbedOptions } from '../batch/requests.js'
import type { ModelConfig } from '../config/config.js'
import { badOption, OnebitError } from '../errors.js'
import type { AnswerShape, Constraint } from '../grammar/constraint.js'
import { addon } from '../native/addon.js'
import type { NativeCancel } from '../native/native.js'
import {
  booleanOption,
  choiceOption,
  integerOption,
  optionFields,
  signalOption,
  stringOption,
  tokenIds,
} from '../options.js'
import type { ChatMessage, ChatTemplate, RenderOptions } from '../text/chat-template.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { Draft } from './draft.js'
import { checkEmbedOptions, pooled } from './embedding.js'
import { type CheckedGenerateOptions, checkGenerateOptions, type GenerateOptions } from './generate-options.js'
import { Generation, type GenerationSummary, type Piece, type TokenLogprob } from './generation.js'
import { KV_TYPES } from './kv.js'
import type { ModelInfo } from './loaded-model.js'
import { MOST_EXTRA, restoreTimeline, saveTimeline } from './session-file.js'
import {
  type Completion,
  checkScoreOptions,
  type Logits,
  type LogitsOptions,
  type Prompt,
  type RestoreOptions,
  type SaveOptions,
  type ScoreOptions,
  type Scores,
  type SessionOptions,
} from './session-options.js'
import type { Timeline } from './timeline.js'

export type { GenerateOptions } from './generate-options.js'
export type { GenerationSummary, Piece } from './generation.js'
export { KV_TYPES, type KvType } from './kv.js'

/** Logits that one native call returns at most: their copy must not hold the event loop up. */
const LOGITS_PER_CALL = 1 << 20

function isMessages(prompt: Prompt): prompt is readonly ChatMessage[] {
  return Array.isArray(prompt) && typeof prompt[0] === 'object' && prompt[0] !== null
}

/** A signal and what it stops. */
class Cancellation {
  readonly signal: AbortSignal | undefined
  readonly native: NativeCancel = new (addon().Cancel)()
  readonly #onAbort = () => this.native.cancel()

  constructor(signal: AbortSignal | undefined) {
    this.signal = signal
    signal?.addEventListener('abort', this.#onAbort)
  }

  close(): void {
    this.signal?.removeEventListener('abort', this.#onAbort)
  }
}

/** What a session asks of its model: `Model` does it all. */
export interface SessionModel {
  /** sizes and features */
  readonly config: ModelConfig
  /** undefined: it works with token ids alone */
  readonly tokenizer: Tokenizer | undefined
  /** the Jinja source of how messages become one text */
  readonly chatTemplate?: Pick<ChatTemplate, 'source'> | undefined
  /** what a saved session belongs to, and the kind of cache that sessions have */
  readonly info: Pick<ModelInfo, 'identity' | 'activations' | 'kv'>
  /** As `Model.encode`. */
  encode(
    text: string,
    options: {
      /** put BOS in front; 'auto': when the tokenizer's own flag says so */
      bos: boolean | 'auto'
      /** stops the encoding */
      signal?: AbortSignal
    },
  ): Promise<Int32Array>
  /** As `Model.encodeChat`. */
  encodeChat(messages: readonly ChatMessage[], options: RenderOptions): Promise<Int32Array>
  /** @internal */
  requireTokenizer(): Tokenizer
  /** @internal */
  newDraft?(capacity: number): Draft | undefined
  /** @internal */
  constrain(shape: AnswerShape, options: { signal: AbortSignal | undefined }): Promise<Constraint>
}

/** A model that makes sessions of its own. */
export interface SessionMaker<M extends SessionModel> {
  /** As `Model.createSession`. */
  createSession(options?: SessionOptions): Session<M>
}

/**
 * One timeline of a model: tokens and their KV cache. Made by `model.createSession()`. One thing at a time: anything
 * but `dispose()` is ERR_BUSY while a generation or another call is under way. After an abort or an error the session
 * works on with the tokens that were computed.
 *
 * ```ts
 * using session = model.createSession()
 * const { text } = await session.complete('The capital of France is', { maxTokens: 8, temperature: 0 })
 * session.rewind(0)
 * const { logprobs } = await session.score(await model.encode('Hello'))
 * ```
 */
export class Session<M extends SessionModel = SessionModel> {
  readonly #model: M
  readonly #timeline: Timeline
  #busy = false
  #last: GenerationSummary | undefined
  #extra: string | undefined
  #ended: Promise<void> = Promise.resolve()
  /** made when the first answer can have guesses */
  #draft: Draft | undefined

  /** @internal */
  constructor(model: M, timeline: Timeline) {
    this.#model = model
    this.#timeline = timeline
  }

  /** whose timeline it is */
  get model(): M {
    return this.#model
  }

  /** A copy of all tokens on the timeline. The last may not be computed yet: it will be with what comes next. */
  get tokens(): Int32Array {
    return this.#timeline.slice().slice()
  }

  /** How many tokens are on the timeline. */
  get position(): number {
    return this.#timeline.length
  }

  /** The most tokens the timeline can hold: the session's context. */
  get capacity(): number {
    return this.#timeline.capacity
  }

  /** Memory of the KV cache when full, in bytes; 0 when disposed. */
  get bytes(): number {
    return this.#timeline.bytes
  }

  /** Memory of the KV cache as it is, in bytes: it grows by chunks of 256 positions. 0 when disposed. */
  get usedBytes(): number {
    return this.#timeline.usedBytes
  }

  /** True while a generation or another call is under way. */
  get busy(): boolean {
    return this.#busy
  }

  /** `dispose` was called, of the session or of its model */
  get disposed(): boolean {
    return this.#timeline.disposed
  }

  /** How the last generation ended and what it cost. */
  get last(): GenerationSummary | undefined {
    return this.#last
  }

  /** The text that was saved with the session, if it was restored from a file that has some. */
  get extra(): string | undefined {
    return this.#extra
  }

  /**
   * Generates token by token. Leaving the loop early stops it; the session stays usable. Computing runs ahead of the
   * consumer by one token, or by as many as take 20 ms (at most 49); tokens made within 8 ms come together.
   *
   * The iterator throws OnebitError ERR_BUSY, ERR_DISPOSED, ERR_CONTEXT_FULL (nothing changed), ERR_EMPTY_PROMPT,
   * ERR_NO_TOKENIZER, ERR_NO_CHAT_TEMPLATE, ERR_TEMPLATE, ERR_TEMPLATE_TIMEOUT, ERR_NOT_FINITE, ERR_OUT_OF_MEMORY, those of a
   * wrong form (ERR_SCHEMA, ERR_REGEX, ERR_GRAMMAR, ERR_GRAMMAR_LIMIT, ERR_GRAMMAR_TIMEOUT), or the signal's reason.
   * @returns an iterator of pieces whose return value is the summary, also found in `last`
   * @throws OnebitError ERR_BAD_OPTION, ERR_TOKEN_RANGE
   */
  generate(prompt: Prompt, options?: GenerateOptions): AsyncGenerator<Piece, GenerationSummary, undefined> {
    const { vocab_size } = this.#model.config
    const checked = checkGenerateOptions(options, vocab_size)
    if (checked.stop.length > 0) this.#model.requireTokenizer()
    if (typeof prompt === 'string' || isMessages(prompt)) return this.#generate(prompt, checked)
    return this.#generate(tokenIds('prompt', prompt, vocab_size), checked)
  }

  /** The whole answer at once; errors as in `generate`. */
  async complete(prompt: Prompt, options?: GenerateOptions): Promise<Completion> {
    const completion = {
      text: '',
      reasoning: '',
      ids: [] as number[],
      logprobs: [] as number[],
      topLogprobs: [] as TokenLogprob[][],
    }
    const pieces = this.generate(prompt, options)
    for (;;) {
      const { value, done } = await pieces.next()
      if (done) {
        const { reasoning, logprobs, topLogprobs, ...rest } = completion
        return {
          ...rest,
          ...(reasoning === '' ? {} : { reasoning }),
          ...value,
          ...(logprobs.length > 0 ? { logprobs } : {}),
          ...(topLogprobs.length > 0 ? { topLogprobs } : {}),
        }
      }
      completion.text += value.text
      completion.reasoning += value.reasoning ?? ''
      // What a stop token lets go of is text, but no token of the answer.
      if (value.released) continue
      completion.ids.push(value.id)
      if (value.logprob !== undefined) completion.logprobs.push(value.logprob)
      if (value.topLogprobs !== undefined) completion.topLogprobs.push(value.topLogprobs)
    }
  }

  async *#generate(
    prompt: string | Int32Array | readonly ChatMessage[],
    given: CheckedGenerateOptions,
  ): AsyncGenerator<Piece, GenerationSummary, undefined> {
    const release = this.#take(given.signal)
    const cancellation = new Cancellation(given.signal)
    let constraint: Constraint | undefined
    try {
      // Only what talks with templates needs it.
      const chat = isMessages(prompt)
        ? await (await import('./parted-answer.js')).conversationForm(this.#model, prompt, given)
        : undefined
      const options = { ...given, ...chat?.options }
      // What is wrong with a schema is said before anything is computed.
      constraint = options.shape && (await this.#model.constrain(options.shape, cancellation))
      const cached = await this.#feed(
        chat ? { conversation: chat.ids } : (prompt as string | Int32Array),
        options.signal,
      )
      const { tokenizer } = this.#model
      const more = constraint ? { constraint } : this.#drafting(options)
      const generation = new Generation(this.#timeline, tokenizer, options, cancellation.native, cached, more)
      try {
        yield* chat?.apart(generation.run()) ?? generation.run()
      } finally {
        this.#last = generation.summary()
        more.draft?.settle(this.#timeline)
      }
      return this.#last
    } finally {
      constraint?.dispose()
      cancellation.close()
      release()
    }
  }

  #drafting({ speculate, maxTokens }: CheckedGenerateOptions): { constraint?: Constraint; draft?: Draft } {
    if (speculate === 'off' || maxTokens === 0) return {}
    this.#draft ??= this.#model.newDraft?.(this.#timeline.capacity)
    this.#draft?.begin(this.#timeline)
    return this.#draft ? { draft: this.#draft } : {}
  }

  /**
   * Puts ids (or a text, as in a prompt) on the timeline and computes them.
   * @throws OnebitError ERR_BUSY, ERR_DISPOSED, ERR_CONTEXT_FULL, ERR_TOKEN_RANGE, ERR_NO_TOKENIZER,
   *   ERR_NOT_FINITE, ERR_OUT_OF_MEMORY; the signal's reason
   */
  async append(
    content: string | readonly number[] | Int32Array,
    options?: {
      /** stops within a chunk */
      signal?: AbortSignal
    },
  ): Promise<void> {
    const signal = signalOption(optionFields('options', options, ['signal']))
    const ids = typeof content === 'string' ? content : tokenIds('content', content, this.#model.config.vocab_size)
    await this.#exclusive(signal, async (cancel) => {
      await this.#feed(ids, signal, true)
      if (this.#timeline.computed < this.#timeline.length) await this.#timeline.compute({ cancel })
    })
  }

  /**
   * Puts ids on the timeline and returns logits: after the last id, or after each of them with `all`. With an empty list:
   * after the last token of the timeline.
   * @throws OnebitError as `append`, and ERR_EMPTY_PROMPT
   */
  async logits(ids: readonly number[] | Int32Array, options?: LogitsOptions): Promise<Logits> {
    const fields = optionFields('options', options, ['all', 'chunk', 'signal'])
    const all = booleanOption(fields, 'all') ?? false
    const chunk = integerOption(fields, 'chunk', 0, 256) ?? 0
    const signal = signalOption(fields)
    const { vocab_size: columns } = this.#model.config
    const tokens = tokenIds('ids', ids, columns)
    return this.#exclusive(signal, async (cancel) => {
      this.#timeline.checkRoom(this.#timeline.length, tokens.length)
      if (!all || tokens.length === 0) {
        await this.#feed(tokens, signal)
        const result = await this.#timeline.compute({ logits: 1, cancel, chunk })
        return { rows: 1, columns, data: this.#rows(result.logits, 1, columns, signal) }
      }
      const data = floats(tokens.length, columns)
      const piece = Math.max(1, Math.floor(LOGITS_PER_CALL / columns))
      // What is pending gets computed first: its logits were not asked for.
      if (this.#timeline.computed < this.#timeline.length) await this.#timeline.compute({ cancel })
      for (let from = 0; from < tokens.length; from += piece) {
        signal?.throwIfAborted()
        const part = tokens.subarray(from, from + piece)
        this.#timeline.push(part)
        const result = await this.#timeline.compute({ logits: 2, cancel, chunk })
        data.set(this.#rows(result.logits, part.length, columns, signal), from * columns)
      }
      return { rows: tokens.length, columns, data }
    })
  }

  /**
   * Puts ids on the timeline and returns the log-probability of each, computed natively: no logits cross to
   * JavaScript.
   * @throws OnebitError as `append`
   */
  async score(ids: readonly number[] | Int32Array, options?: ScoreOptions): Promise<Scores> {
    const { vocab_size } = this.#model.config
    const { top, signal } = checkScoreOptions(options, vocab_size)
    const tokens = tokenIds('ids', ids, vocab_size)
    return this.#exclusive(signal, (cancel) => this.#score(tokens, top, cancel, signal))
  }

  async #score(ids: Int32Array, top: number, cancel: NativeCancel, signal: AbortSignal | undefined): Promise<Scores> {
    const timeline = this.#timeline
    const start = timeline.length
    timeline.checkRoom(start, ids.length)
    const logprobs = new Float32Array(ids.length).fill(Number.NaN)
    const tops: TokenLogprob[][] = top > 0 ? Array.from(ids, () => []) : []
    const rows = start === 0 ? ids.length - 1 : ids.length // the first token of all has nothing before it
    if (rows > 0) {
      // The token before the first of `ids` says what it is likely to be, so it is computed again if need be.
      if (timeline.computed === start && start > 0) timeline.rewindCache(start - 1)
      timeline.push(ids.subarray(0, -1))
      const score = { from: Math.max(0, start - 1), top, next: ids.at(-1)! }
      const { scores } = await timeline.compute({ score, cancel, keep: start })
      if (scores?.logprobs.length !== rows) this.#stopped(signal)
      logprobs.set(scores!.logprobs, ids.length - rows)
      for (let row = 0; row < rows && top > 0; row++) {
        tops[ids.length - rows + row] = Array.from({ length: top }, (_, i) => ({
          id: scores!.top_ids[row * top + i]!,
          logprob: scores!.top_logprobs[row * top + i]!,
        }))
      }
    }
    timeline.push(ids.subarray(-1))
    return { logprobs, top: tops }
  }

  /**
   * Goes back to the first `position` tokens; the rest is forgotten. In a model with recurrent layers, what was computed
   * after the last checkpoint before that is computed again with whatever comes next.
   * @throws OnebitError ERR_BUSY, ERR_DISPOSED, ERR_BAD_OPTION
   */
  rewind(position: number): void {
    this.#checkFree()
    this.#timeline.rewind(this.#checkPosition(position))
  }

  /**
   * A new session with the first `position` tokens (default: all), which goes its own way from there.
   * @throws OnebitError ERR_BUSY, ERR_DISPOSED, ERR_BAD_OPTION, ERR_OUT_OF_MEMORY, ERR_MEMORY_LIMIT
   */
  async fork(position: number = this.position): Promise<Session<M>> {
    const length = this.#checkPosition(position)
    return this.#exclusive(undefined, async () => new Session(this.#model, await this.#timeline.fork(length)))
  }

  /**
   * One vector for a text or for ids: the mean of the hidden states after the final norm, or the last one. A text is
   * encoded as a prompt is. The session must be empty, and is empty again afterwards; it serves for one after another.
   * @returns (dim) of length 1 unless `normalize` is false
   * @throws OnebitError ERR_NOT_EMPTY, ERR_EMPTY_PROMPT, and as `append`
   */
  async embed(content: string | readonly number[] | Int32Array, options?: EmbedOptions): Promise<Float32Array> {
    const { pooling, normalize, signal } = checkEmbedOptions(options)
    const ids = typeof content === 'string' ? content : tokenIds('content', content, this.#model.config.vocab_size)
    return this.#exclusive(signal, async (cancel) => {
      const timeline = this.#timeline
      if (timeline.length > 0) {
        throw new OnebitError('ERR_NOT_EMPTY', `There are ${timeline.length} tokens in the session`, {
          hint: 'Use a session of its own for embeddings: model.createSession().',
        })
      }
      try {
        await this.#feed(ids, signal)
        const count = pooling === 'mean' ? timeline.length : 1
        const { hidden } = await timeline.compute({ hidden: pooling === 'mean' ? 2 : 1, cancel })
        if (!hidden) this.#stopped(signal)
        return pooled(hidden, count, normalize)
      } finally {
        if (!timeline.disposed) timeline.rewind(0)
      }
    })
  }

  /**
   * Writes the session to a file: its tokens and what is computed of them. The file is replaced only when all of it was
   * written; after an error or an abort it is what it was.
   * @throws OnebitError ERR_BUSY, ERR_DISPOSED, ERR_NO_FOLDER, ERR_IS_DIRECTORY, ERR_NOT_A_FILE, ERR_ACCESS,
   *   ERR_READ_ONLY, ERR_DISK_FULL, ERR_IO; the signal's reason
   */
  async save(path: string, options?: SaveOptions): Promise<void> {
    const fields = optionFields('options', options, ['extra', 'signal'])
    const [extra, signal] = [stringOption(fields, 'extra'), signalOption(fields)]
    if (extra !== undefined && extra.length > MOST_EXTRA)
      throw badOption('extra', `has more than ${MOST_EXTRA} characters`)
    checkPath(path)
    const { identity: model, activations } = this.#model.info
    const { kv } = this.#timeline
    signal?.throwIfAborted()
    // Without the signal: one that comes when the file is in its place does not undo it.
    await this.#exclusive(undefined, () =>
      saveTimeline(path, this.#timeline, { model, activations, kv }, { extra, signal }),
    )
  }

  /**
   * A session from a file that `save` wrote with the same model (its `info.identity` and activations) and the same kind
   * of cache. It goes on with the same bytes as the one that was saved.
   * @param options context: default as it was saved; kv: default as the model has it
   * @throws OnebitError ERR_SESSION_FILE (no saved session, or damaged), ERR_SESSION_MODEL, ERR_VERSION, ERR_CHECKSUM,
   *   ERR_TRUNCATED, ERR_FILE_SIZE, ERR_TOKEN_RANGE, ERR_CONTEXT_FULL, ERR_FILE_NOT_FOUND and others of opening a file,
   *   and as `createSession`; the signal's reason
   */
  static async restore<M extends SessionModel>(
    model: M & SessionMaker<M>,
    path: string,
    options?: RestoreOptions,
  ): Promise<Session<M>> {
    const fields = optionFields('options', options, ['context', 'kv', 'signal'])
    const signal = signalOption(fields)
    const kv = choiceOption(fields, 'kv', KV_TYPES) ?? model.info.kv
    const { context_length: mostContext, vocab_size: vocabSize } = model.config
    const wanted = integerOption(fields, 'context', 1, mostContext)
    checkPath(path)
    signal?.throwIfAborted()
    const { identity, activations } = model.info
    const origin = { model: identity, activations, kv }
    const create = (context: number) => model.createSession({ context: wanted ?? context, kv }).#timeline
    const { timeline, extra } = await restoreTimeline(path, { origin, vocabSize, mostContext, create, signal })
    const session = new Session<M>(model, timeline)
    session.#extra = extra
    return session
  }

  /** Frees the cache, at once or as soon as the step under way has ended. Any number of times. */
  dispose(): void {
    this.#timeline.dispose()
    this.#draft?.dispose()
  }

  /** What `await using` calls: disposes, and resolves when nothing is under way any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.dispose()
    await this.#ended
  }

  /** What `using` calls: `dispose`. */
  [Symbol.dispose](): void {
    this.dispose()
  }

  #checkPosition(position: number): number {
    if (Number.isInteger(position) && position >= 0 && position <= this.position) return position
    throw badOption('position', `must be an integer from 0 to ${this.position}, the tokens there are`)
  }

  #checkFree(): void {
    if (this.#timeline.disposed) throw new OnebitError('ERR_DISPOSED', 'The session has been disposed.')
    if (!this.#busy) return
    throw new OnebitError('ERR_BUSY', 'The session is in the middle of something else.', {
      hint: 'Wait for it, abort it, or use another session of the same model.',
    })
  }

  /** Makes the session busy; the result ends that. */
  #take(signal: AbortSignal | undefined): () => void {
    signal?.throwIfAborted()
    this.#checkFree()
    this.#busy = true
    this.#timeline.mark()
    const { promise, resolve } = withResolvers()
    this.#ended = promise
    return () => {
      this.#busy = false
      resolve()
    }
  }

  async #exclusive<T>(signal: AbortSignal | undefined, body: (cancel: NativeCancel) => Promise<T>): Promise<T> {
    const release = this.#take(signal)
    const cancellation = new Cancellation(signal)
    try {
      const result = await body(cancellation.native)
      if (this.#timeline.disposed || signal?.aborted) this.#stopped(signal)
      return result
    } finally {
      cancellation.close()
      release()
    }
  }

  /** A step came back unfinished: says why. */
  #stopped(signal: AbortSignal | undefined): never {
    signal?.throwIfAborted()
    throw new OnebitError('ERR_DISPOSED', 'The session was disposed in the middle of something.')
  }

  #rows(logits: Float32Array | undefined, rows: number, columns: number, signal?: AbortSignal): Float32Array {
    if (logits?.length !== rows * columns) this.#stopped(signal)
    return logits!
  }

  /** Puts a prompt on the timeline; returns how many of the tokens there are in the cache already. */
  async #feed(
    prompt: string | Int32Array | { conversation: Int32Array },
    signal: AbortSignal | undefined,
    emptyIsFine = false,
  ): Promise<number> {
    const timeline = this.#timeline
    if (typeof prompt === 'string') {
      const bos = timeline.length === 0 ? 'auto' : false
      timeline.push(await this.#model.encode(prompt, { bos, ...(signal ? { signal } : {}) }))
    } else if (prompt instanceof Int32Array) {
      timeline.push(prompt)
    } else {
      const ids = prompt.conversation
      const common = timeline.commonPrefix(ids)
      timeline.checkRoom(common, ids.length - common)
      timeline.rewind(common)
      timeline.push(ids.subarray(common))
    }
    this.#checkStillThere()
    if (timeline.length === 0 && !emptyIsFine) {
      throw new OnebitError('ERR_EMPTY_PROMPT', 'There is no token to start from.', {
        hint: 'Give a prompt; this tokenizer puts no BOS in front by itself.',
      })
    }
    return Math.min(timeline.computed, Math.max(0, timeline.length - 1))
  }

  #checkStillThere(): void {
    if (this.#timeline.disposed) throw new OnebitError('ERR_DISPOSED', 'The session was disposed.')
  }
}

function checkPath(path: unknown): void {
  if (typeof path !== 'string' || path === '') throw badOption('path', 'must be the path of a file')
}

function floats(rows: number, columns: number): Float32Array {
  try {
    return new Float32Array(rows * columns)
  } catch (cause) {
    throw new OnebitError('ERR_OUT_OF_MEMORY', `There is no memory for ${rows} x ${columns} logits`, {
      hint: 'Ask for the logits of fewer tokens at a time.',
      cause,
    })
  }
}

/** Promise.withResolvers, which Node 20 lacks. */
function withResolvers(): { promise: Promise<void>; resolve: () => void } {
  let resolve = () => {}
  const promise = new Promise<void>((settle) => {
    resolve = settle
  })
  return { promise, resolve }
}
