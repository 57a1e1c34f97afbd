/**
 * The pieces of an answer on their way to who asked for them. Behaves as an async generator does that begins with its
 * first next(), but return() and throw() take effect at once, also while a next() waits.
 */
import type { GenerationSummary } from '../run/generation.js'
import type { Piece } from '../run/pieces.js'

type Result = IteratorResult<Piece, GenerationSummary>

/** Nothing more to say, as generators put it. */
const DONE = { done: true, value: undefined } as unknown as Result

export interface StreamSource {
  /** the first piece is waited for; what it throws is what the consumer gets */
  begin(): void
  /** the consumer has taken a piece */
  taken(): void
  /** the consumer wants no more; also when it never began */
  left(): void
}

export class PieceStream implements AsyncGenerator<Piece, GenerationSummary, undefined> {
  readonly #source: StreamSource
  readonly #pieces: Piece[] = []
  readonly #takers: { resolve: (result: Result) => void; reject: (error: unknown) => void }[] = []
  #begun = false
  #end: { summary: GenerationSummary } | { error: unknown } | undefined
  #over = false

  constructor(source: StreamSource) {
    this.#source = source
  }

  /** pieces that nobody has taken yet */
  get ahead(): number {
    return this.#pieces.length
  }

  push(piece: Piece): void {
    this.#pieces.push(piece)
    this.#serve()
  }

  end(summary: GenerationSummary): void {
    this.#end ??= { summary }
    this.#serve()
  }

  /** After the pieces there are, or at once. */
  fail(error: unknown, atOnce: boolean): void {
    this.#end ??= { error }
    if (atOnce) this.#pieces.length = 0
    this.#serve()
  }

  next(): Promise<Result> {
    if (!this.#begun && !this.#over) {
      this.#begun = true
      try {
        this.#source.begin()
      } catch (error) {
        this.fail(error, true)
      }
    }
    return new Promise((resolve, reject) => {
      this.#takers.push({ resolve, reject })
      if (this.#serve()) this.#source.taken()
    })
  }

  async return(value: GenerationSummary | PromiseLike<GenerationSummary>): Promise<Result> {
    this.#leave()
    return { done: true, value: await value }
  }

  async throw(error: unknown): Promise<Result> {
    this.#leave()
    throw error
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#leave()
  }

  #leave(): void {
    this.#pieces.length = 0
    if (!this.#over) this.#source.left()
    this.#over = true
    this.#serve()
  }

  /** Whether somebody got a piece. */
  #serve(): boolean {
    let served = false
    while (this.#takers.length > 0) {
      const piece = this.#pieces.shift()
      if (!piece && !this.#end && !this.#over) break
      const { resolve, reject } = this.#takers.shift()!
      if (piece) {
        served = true
        resolve({ done: false, value: piece })
      } else if (this.#over || !this.#end) {
        resolve(DONE)
      } else {
        this.#over = true
        if ('error' in this.#end) reject(this.#end.error)
        else resolve({ done: true, value: this.#end.summary })
      }
    }
    return served
  }
}
