/** One of the things that are computed together: the tokens it is about, and its session while it has one. */
import { OnebitError } from '../errors.js'
import { CONTEXT_OPTION } from '../native/hints.js'
import type { NativeGeneration, NativeSession, NativeStepItem, NativeStepResult } from '../native/native.js'
import type { Chosen } from '../run/pieces.js'
import type { Known, KnownScores } from './known-scores.js'
import type { Demand } from './plan.js'

export abstract class BatchRequest {
  /** tokens that were given */
  readonly prompt: Int32Array
  native: NativeSession | undefined
  /** what is known about the first of its tokens */
  scores: KnownScores | undefined
  /** has ended, well or not: waits for nothing any more, and its place can be had */
  over = false
  /** its session must not be used again */
  spoilt = false
  /** counts the requests in the order in which they left the queue */
  order = 0
  /** another request computes the first `tokens` tokens just now; then its session is copied */
  leader: { request: BatchRequest; tokens: number } | undefined
  /** told when it can go on or is over */
  changed = () => {}

  readonly #signal: AbortSignal | undefined
  readonly #onAbort = () => this.stop(this.#signal!.reason, true)

  constructor(prompt: Int32Array, signal: AbortSignal | undefined) {
    this.prompt = prompt
    this.#signal = signal
  }

  /** From now on the signal counts; throws its reason when it has aborted already. */
  protected listen(): void {
    this.#signal?.throwIfAborted()
    this.#signal?.addEventListener('abort', this.#onAbort, { once: true })
  }

  /** tokens that it could have computed now, and the kind of them */
  abstract get demand(): Demand
  /** resolves when what it waits for is there; undefined when it waits for nothing */
  get maskComes(): Promise<void> | undefined {
    return undefined
  }
  /** whether an answer is under way, also while it cannot go on */
  get answering(): boolean {
    return false
  }
  /** whether its consumer is behind, so that nothing is computed for it */
  get paused(): boolean {
    return false
  }
  /** whether its session is worth keeping */
  get keeps(): boolean {
    return true
  }
  /** tokens of its answer so far */
  get made(): number {
    return 0
  }
  /** tokens in its cache, and what they are */
  get computed(): Int32Array {
    return this.prompt.subarray(0, this.native?.length ?? 0)
  }

  /** It left the queue. */
  start(): void {}
  /** `tokens` of its tokens were found in a session that begins alike. */
  abstract found(tokens: number, scores: KnownScores | undefined): void
  /** How many tokens of a session it can use that has the first `common` of its tokens computed. */
  abstract usable(common: number, scores: Known | undefined): number
  /** Whether this request will know, of each token that it computes, what that one has to. */
  serves(_other: BatchRequest): boolean {
    return true
  }
  abstract item(count: number): NativeStepItem
  /** What a step said about the `count` tokens after the first `before`. */
  abstract took(result: NativeStepResult, before: number, count: number): void
  /** What native code may compute and choose by itself until `cameBack`, while nobody else is there; undefined: nothing. */
  goAlone(): NativeGeneration | undefined {
    return undefined
  }
  /** Nothing more is to be computed for it. */
  get ending(): boolean {
    return this.over
  }
  /** It chose a token; `stepMs` is what it took for it. */
  told(_choice: Chosen, _stepMs: number): void {}
  /** Native code has let go of it: what was computed and is not part of it is taken back. */
  cameBack(): void {}
  /** A step failed whose item this was part of: everything as it was before it. */
  again(): void {}

  /** Ends it with an error, at once or after what it has to hand out. */
  stop(error: unknown, atOnce = false): void {
    if (this.over) return
    this.settle()
    this.failed(error, atOnce)
  }

  protected abstract failed(error: unknown, atOnce: boolean): void

  /** It is over, in whatever way. */
  protected settle(): void {
    this.over = true
    this.#signal?.removeEventListener('abort', this.#onAbort)
    this.changed()
  }
}

/** @throws OnebitError ERR_EMPTY_PROMPT, ERR_CONTEXT_FULL */
export function checkPrompt(ids: Int32Array, capacity: number): void {
  if (ids.length === 0) {
    throw new OnebitError('ERR_EMPTY_PROMPT', 'There is no token to start from.', { hint: 'Give at least one token.' })
  }
  if (ids.length <= capacity) return
  throw new OnebitError('ERR_CONTEXT_FULL', `The prompt has ${ids.length} tokens; the context is ${capacity}.`, {
    hint: `Use a larger context ${CONTEXT_OPTION}, at most what the model allows, or a shorter prompt.`,
  })
}
