/** An answer that is generated token by token while others are. */
import type { Constraint } from '../grammar/constraint.js'
import { addon } from '../native/addon.js'
import type { NativeGeneration, NativeSampler, NativeStepItem, NativeStepResult } from '../native/native.js'
import type { CheckedGenerateOptions } from '../run/generate-options.js'
import type { GenerationSummary } from '../run/generation.js'
import { type Chosen, Pieces } from '../run/pieces.js'
import { nativeSampling } from '../run/sampler.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { KnownScores } from './known-scores.js'
import { PieceStream } from './piece-stream.js'
import type { Demand } from './plan.js'
import { BatchRequest, checkPrompt } from './request.js'
import type { BatchGenerateOptions } from './requests.js'

/** Pieces that may lie ready for a consumer that is slower than the model; then its request waits. */
const MOST_AHEAD = 16

export type GenerateCallbacks = Pick<BatchGenerateOptions, 'constraint' | 'onStart' | 'onPrompt'>

export class GenerateRequest extends BatchRequest {
  readonly stream: PieceStream
  readonly #options: CheckedGenerateOptions
  readonly #callbacks: GenerateCallbacks
  readonly #constraint: Constraint | undefined
  readonly #pieces: Pieces
  /** prompt and answer; the last may have no place in the context */
  readonly #ids: Int32Array
  #length: number
  #sampler: NativeSampler | undefined
  /** tokens chosen by #sampler */
  #chosen = 0
  #mask: Int32Array | undefined
  #maskComes: Promise<void> | undefined
  #cached = 0
  #started = 0
  #prefillMs = 0
  #decodeMs = 0
  #decoded = 0
  /** native code goes on with it by itself */
  #isAlone = false
  /** how it ends as soon as native code has let go of its session */
  #ending: GenerationSummary['finishReason'] | undefined

  /** @param submit puts it into the queue */
  constructor(
    prompt: Int32Array,
    capacity: number,
    tokenizer: Tokenizer | undefined,
    options: CheckedGenerateOptions,
    callbacks: GenerateCallbacks,
    submit: (request: GenerateRequest) => void,
  ) {
    super(prompt, options.signal)
    this.#options = options
    this.#callbacks = callbacks
    this.#constraint = callbacks.constraint
    this.#pieces = new Pieces(tokenizer, options, prompt)
    this.#ids = new Int32Array(Math.max(capacity, prompt.length))
    this.#ids.set(prompt)
    this.#length = prompt.length
    this.stream = new PieceStream({
      begin: () => {
        try {
          checkPrompt(prompt, capacity)
          this.listen()
          submit(this)
        } catch (error) {
          this.stop(error, true)
        }
      },
      taken: () => this.changed(),
      left: () => {
        if (!this.over) this.settle()
      },
    })
  }

  override get computed(): Int32Array {
    return this.#ids.subarray(0, this.native?.length ?? 0)
  }

  override get answering(): boolean {
    return this.#chosen > 0
  }

  override get maskComes(): Promise<void> | undefined {
    return this.over ? undefined : this.#maskComes
  }

  override get paused(): boolean {
    return this.stream.ahead >= MOST_AHEAD
  }

  get demand(): Demand {
    const { answering, paused } = this
    // The last token is computed together with the choice after it, which needs the mask.
    const end = this.#maskComes ? this.#length - 1 : this.#length
    const pending = paused ? 0 : Math.max(0, end - this.native!.length)
    // What is computed again, because a cache could go back only farther, is like a prompt.
    return { answering: answering && pending <= 1, pending, chunk: this.#options.chunk }
  }

  override start(): void {
    this.#started = performance.now()
    this.#guarded(() => {
      this.#callbacks.onStart?.()
      if (this.#options.maxTokens === 0) return
      this.#sampler = this.#newSampler()
      this.#askMask()
    })
  }

  override found(tokens: number, scores: KnownScores | undefined): void {
    this.#cached = tokens
    this.scores = scores?.cut(Math.min(tokens, scores.known))
  }

  override usable(common: number): number {
    return Math.min(common, this.prompt.length - 1)
  }

  override serves(other: BatchRequest): boolean {
    return other instanceof GenerateRequest
  }

  override item(count: number): NativeStepItem {
    const from = this.native!.length
    const item: NativeStepItem = { session: this.native!, tokens: this.#ids.subarray(from, from + count), logits: 0 }
    if (from + count < this.#length || !this.#sampler) return item
    item.sampler = this.#sampler
    const { topLogprobs: top } = this.#options
    if (top > 0) item.score = { from: count - 1, top, next: -1 }
    return item
  }

  override took({ id, logprob, stepMs, scores }: NativeStepResult, before: number, count: number): void {
    const { prompt } = this
    const done = before + count
    if (done <= prompt.length) this.#guarded(() => this.#callbacks.onPrompt?.(done, prompt.length))
    if (this.over || done < this.#length) return
    if (id === undefined || logprob === undefined) {
      this.#prefillMs = performance.now() - this.#started
      this.#finish('length') // maxTokens is 0
      return
    }
    this.#choice({ id, logprob, topIds: scores?.top_ids, topLogprobs: scores?.top_logprobs }, stepMs)
  }

  /** As many tokens as its consumer may find ready; each of them is as from a step of its own. */
  override goAlone(): NativeGeneration | undefined {
    const { answering, paused, over, native } = this
    if (!native || !answering || paused || over || this.#constraint || this.#length !== native.length + 1)
      return undefined
    this.#isAlone = true
    return {
      session: native,
      tokens: this.#ids.subarray(native.length, this.#length),
      sampler: this.#sampler!,
      most: Math.min(this.#options.maxTokens - this.#chosen, MOST_AHEAD - this.stream.ahead),
      stop_tokens: Int32Array.from(this.#pieces.stopIds),
      top: this.#options.topLogprobs,
    }
  }

  override told(choice: Chosen, stepMs: number): void {
    // What may lie ready is limited by `most`, not by what was taken.
    this.#sampler!.took()
    if (!this.#ending) this.#choice(choice, stepMs)
    if (this.#ending) this.changed()
  }

  override get ending(): boolean {
    return this.over || this.#ending !== undefined
  }

  override cameBack(): void {
    this.#isAlone = false
    const { native } = this
    if (native && !native.disposed && native.length > this.#length) native.rewind(this.#length)
    if (this.#ending && !this.over) this.#finish(this.#ending)
  }

  #choice(choice: Chosen, stepMs: number): void {
    if (this.#chosen++ === 0) {
      this.#prefillMs = performance.now() - this.#started
    } else {
      this.#decodeMs += stepMs
      this.#decoded++
    }
    this.#handOut(choice)
  }

  #handOut(chosen: Chosen): void {
    const full = this.#length === this.#ids.length
    if (!full) this.#ids[this.#length++] = chosen.id
    const piece = this.#pieces.push(chosen, full)
    if (piece) this.stream.push(piece)
    const { finish } = this.#pieces
    if (finish) {
      this.#finish(finish)
      return
    }
    this.#guarded(() => {
      this.#constraint?.accept(chosen.id)
      this.#askMask()
    })
  }

  override get made(): number {
    return this.#pieces.count
  }

  /**
   * A sampler that stands where the other stood before the step that failed: it is made to choose again what was
   * chosen, by being allowed nothing else.
   */
  override again(): void {
    if (!this.#sampler) return
    this.#sampler = this.#newSampler()
    const { vocabSize } = this.#options.sampling
    const logits = new Float32Array(vocabSize)
    const answer = this.#ids.subarray(this.prompt.length, this.prompt.length + this.#chosen)
    for (const id of answer) {
      const only = new Int32Array((vocabSize + 31) >> 5)
      only[id >> 5] = 1 << (id & 31)
      this.#sampler.allow(only)
      this.#sampler.choose(logits)
    }
    this.#sampler.allow(this.#mask)
  }

  #newSampler(): NativeSampler {
    const { sampling, speculate } = this.#options
    const guessing = {
      speculate: this.#constraint ? 'off' : speculate,
      said: this.#ids.subarray(0, this.#length),
    } as const
    return new (addon().Sampler)(nativeSampling(sampling, this.prompt, guessing))
  }

  #askMask(): void {
    if (!this.#constraint) return
    this.#maskComes = this.#constraint.next().then(
      (mask) => {
        this.#maskComes = undefined
        if (this.over) return
        this.#guarded(() => {
          this.#mask = mask
          this.#sampler!.allow(mask)
        })
        this.changed()
      },
      (error: unknown) => this.stop(error),
    )
  }

  /** Others' code ends this request when it throws, and no other. */
  #guarded(action: () => void): void {
    try {
      action()
    } catch (error) {
      this.stop(error)
    }
  }

  #finish(finishReason: GenerationSummary['finishReason']): void {
    if (this.#isAlone) {
      // Who is told of the end finds the place free.
      this.#ending = finishReason
      return
    }
    this.settle()
    this.stream.end({
      finishReason,
      usage: { promptTokens: this.prompt.length, cachedTokens: this.#cached, newTokens: this.#pieces.count },
      timings: {
        prefillMs: this.#prefillMs,
        decodeMs: this.#decodeMs,
        tokensPerSecond: this.#decodeMs > 0 ? (1000 * this.#decoded) / this.#decodeMs : 0,
      },
    })
  }

  protected override failed(error: unknown, atOnce: boolean): void {
    this.stream.fail(error, atOnce)
  }

  protected override settle(): void {
    super.settle()
    try {
      this.#constraint?.dispose()
    } catch {
      // It is over, and nobody could do anything about it.
    }
  }
}
