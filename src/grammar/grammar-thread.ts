/** One thread of grammar-worker.ts from outside: what it is asked and how long it may take. */
import { Worker } from 'node:worker_threads'
import { OnebitError } from '../errors.js'
import { TimeLimit } from '../flow/time-limit.js'
import type { WorkerAnswer, WorkerRequest, WorkerSetup } from './grammar-worker.js'
import type { ShapeText } from './shape-grammar.js'

/** Milliseconds; they are for what never ends, and long enough for a machine that is busy with other things. */
export interface GrammarTimes {
  compile: number
  mask: number
}

interface Waiting {
  resolve: (mask: Int32Array) => void
  reject: (error: Error) => void
  ms: number
  timeout: () => OnebitError
}

/** The old space and stack of the thread; the library's own memory is limited apart. */
const RESOURCE_LIMITS = { maxOldGenerationSizeMb: 512, stackSizeMb: 4 }

export class GrammarThread {
  readonly #worker: Worker
  readonly #times: GrammarTimes
  readonly #waiting: Waiting[] = []
  readonly #whenDone: (() => void)[] = []
  #ready = false
  #limit: TimeLimit | undefined
  #failure: OnebitError | undefined
  /** told once, when it can be used no more */
  readonly #onEnd: () => void

  constructor(setup: WorkerSetup, times: GrammarTimes, onEnd: () => void) {
    this.#times = times
    this.#onEnd = onEnd
    this.#worker = new Worker(new URL('./grammar-worker.js', import.meta.url), {
      workerData: setup,
      execArgv: [],
      resourceLimits: RESOURCE_LIMITS,
    })
    this.#worker.on('message', (answer: WorkerAnswer) => this.#receive(answer))
    this.#worker.on('error', (cause) => this.#fail(ended(cause)))
    this.#worker.on('exit', (code) => this.#fail(ended(new Error(`exit code ${code}`))))
  }

  get usable(): boolean {
    return this.#failure === undefined
  }

  /** Whether it keeps this process alive. */
  hold(held: boolean): void {
    if (held) this.#worker.ref()
    else this.#worker.unref()
  }

  /** Begins an answer; the mask of its first token. */
  begin(shape: ShapeText): Promise<Int32Array> {
    const ms = this.#times.compile
    const error = () =>
      new OnebitError('ERR_GRAMMAR_TIMEOUT', `The grammar was not compiled within ${ms} ms`, {
        hint: 'Use a smaller one: limits such as maxLength cost time for every character they count.',
      })
    return this.#ask({ shape }, ms, error)
  }

  /** The mask of the token after this one. */
  accept(id: number): Promise<Int32Array> {
    const ms = this.#times.mask
    const error = () =>
      new OnebitError('ERR_GRAMMAR_TIMEOUT', `What may come next was not found within ${ms} ms`, {
        hint: 'Use a grammar that is less ambiguous.',
      })
    return this.#ask({ accept: id }, ms, error)
  }

  /** Ends the answer; resolves when another may begin. */
  async end(): Promise<void> {
    this.#worker.postMessage({ end: true } satisfies WorkerRequest)
    if (this.#waiting.length > 0) await new Promise<void>((resolve) => this.#whenDone.push(resolve))
  }

  stop(error: OnebitError): void {
    this.#fail(error)
  }

  #ask(request: WorkerRequest, ms: number, timeout: () => OnebitError): Promise<Int32Array> {
    const result = new Promise<Int32Array>((resolve, reject) => {
      if (this.#failure) {
        reject(this.#failure)
        return
      }
      this.#waiting.push({ resolve, reject, ms, timeout })
      this.#worker.postMessage(request)
      if (this.#waiting.length === 1) this.#watch()
    })
    // Who asked may have gone before the answer comes.
    result.catch(() => {})
    return result
  }

  /** The time of a request counts from when it is the next to be answered. */
  #watch(): void {
    this.#limit?.clear()
    const [next] = this.#waiting
    if (!next || !this.#ready) return
    this.#limit = new TimeLimit(next.ms, () => this.#fail(next.timeout()))
  }

  #receive(answer: WorkerAnswer): void {
    if ('ready' in answer) {
      this.#ready = true
      this.#watch()
      return
    }
    const asked = this.#waiting.shift()
    this.#watch()
    if (this.#waiting.length === 0) this.#done()
    if ('mask' in answer) {
      asked?.resolve(answer.mask)
      return
    }
    const { code, message, hint } = answer.error
    const error = new OnebitError(code, message, { hint })
    asked?.reject(error)
    if (answer.unusable) this.#fail(error)
  }

  #fail(error: OnebitError): void {
    if (this.#failure) return
    this.#failure = error
    this.#limit?.clear()
    for (const { reject } of this.#waiting.splice(0)) reject(error)
    this.#done()
    void this.#worker.terminate()
    this.#onEnd()
  }

  #done(): void {
    for (const resolve of this.#whenDone.splice(0)) resolve()
  }
}

function ended(cause: Error): OnebitError {
  return new OnebitError('ERR_GRAMMAR_LIMIT', `The thread of the grammar ended (${cause.message})`, {
    hint: 'The grammar may need more memory than a thread has; use a smaller one.',
    cause,
  })
}
