/**
 * Constraints for one model. Each answer has a thread to itself, so that what a client's schema does to it is that answer's
 * error alone; threads are kept for a while, with what they compiled.
 */
import { OnebitError } from '../errors.js'
import { isNestedDeeperThan } from '../files/json-depth.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { AnswerShape, Constraint, Grammars } from './constraint.js'
import { grammarLimit } from './ebnf.js'
import { GrammarThread, type GrammarTimes } from './grammar-thread.js'
import type { WorkerSetup } from './grammar-worker.js'
import type { ShapeText } from './shape-grammar.js'
import { vocabularyText } from './vocabulary-text.js'

export interface GrammarsOptions {
  /** answers that can be constrained at the same time, each by a thread; more wait. Default 8 */
  threads?: number
  /** milliseconds that compiling a grammar and making one mask may take; default 5000 and 2000 */
  times?: Partial<GrammarTimes>
  /** MiB that the library may take in a thread; default 512 */
  memoryMiB?: number
  /** special tokens that are part of tool calls: in shapes of the kind `tag` their text can be matched */
  markers?: ReadonlySet<number>
  /** milliseconds after which a thread without an answer ends; default a minute */
  idleMs?: number
}

const MOST_SCHEMA = 1 << 18
/** Levels of JSON, of which one level of a schema takes two or three. */
const MOST_JSON_LEVELS = 96
const THREADS = 8
const TIMES: GrammarTimes = { compile: 5000, mask: 2000 }
const MEMORY_MIB = 512
const IDLE_MS = 60_000

interface Asking {
  resolve: (thread: GrammarThread) => void
  reject: (error: unknown) => void
}

export class ModelGrammars implements Grammars {
  readonly #tokenizer: Tokenizer
  readonly #vocabSize: number
  readonly #options: GrammarsOptions
  #setup: Promise<WorkerSetup> | undefined
  readonly #threads = new Set<GrammarThread>()
  readonly #free = new Map<GrammarThread, NodeJS.Timeout>()
  readonly #asking: Asking[] = []
  #disposed = false

  /** `vocabSize`: the model's own, which may be larger than the tokenizer's. Nothing is loaded before the first answer. */
  constructor(tokenizer: Tokenizer, vocabSize: number, options: GrammarsOptions = {}) {
    this.#tokenizer = tokenizer
    this.#vocabSize = vocabSize
    this.#options = options
  }

  async constrain(shape: AnswerShape, { signal }: { signal?: AbortSignal } = {}): Promise<Constraint> {
    signal?.throwIfAborted()
    const text = shapeText(shape)
    if (this.#tokenizer.eosIds.length === 0) {
      throw new OnebitError('ERR_GRAMMAR', 'This model has no token that could end an answer of a given form.')
    }
    const thread = await this.#take(signal)
    const onAbort = () => thread.stop(new OnebitError('ERR_ABORTED', 'The answer was not wanted any more.'))
    signal?.addEventListener('abort', onAbort)
    try {
      const first = await thread.begin(text)
      signal?.throwIfAborted()
      return new ThreadConstraint(thread, first, () => void this.#giveBack(thread))
    } catch (error) {
      void this.#giveBack(thread)
      signal?.throwIfAborted()
      throw error
    } finally {
      signal?.removeEventListener('abort', onAbort)
    }
  }

  dispose(): void {
    this.#disposed = true
    const error = disposedError()
    for (const { reject } of this.#asking.splice(0)) reject(error)
    for (const thread of this.#threads) thread.stop(error)
  }

  /** A thread without an answer. */
  async #take(signal: AbortSignal | undefined): Promise<GrammarThread> {
    this.#setup ??= this.#makeSetup()
    const setup = await this.#setup
    signal?.throwIfAborted()
    if (this.#disposed) throw disposedError()
    const [free] = this.#free.keys()
    if (free) {
      clearTimeout(this.#free.get(free))
      this.#free.delete(free)
      free.hold(true)
      return free
    }
    if (this.#threads.size < (this.#options.threads ?? THREADS)) return this.#start(setup)
    return this.#wait(signal)
  }

  #wait(signal: AbortSignal | undefined): Promise<GrammarThread> {
    return new Promise((resolve, reject) => {
      const asking: Asking = {
        resolve: (thread) => {
          signal?.removeEventListener('abort', onAbort)
          resolve(thread)
        },
        reject,
      }
      const onAbort = () => {
        this.#asking.splice(this.#asking.indexOf(asking), 1)
        reject(signal?.reason)
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      this.#asking.push(asking)
    })
  }

  #start(setup: WorkerSetup): GrammarThread {
    const times = { ...TIMES, ...this.#options.times }
    const thread = new GrammarThread(setup, times, () => {
      this.#threads.delete(thread)
      clearTimeout(this.#free.get(thread))
      this.#free.delete(thread)
      const next = this.#disposed ? undefined : this.#asking.shift()
      next?.resolve(this.#start(setup))
    })
    this.#threads.add(thread)
    return thread
  }

  /** The answer has ended; whoever waits is next. */
  async #giveBack(thread: GrammarThread): Promise<void> {
    if (!thread.usable) return
    await thread.end()
    if (!thread.usable) return
    const next = this.#asking.shift()
    if (next) {
      next.resolve(thread)
      return
    }
    thread.hold(false)
    const timer = setTimeout(() => thread.stop(disposedError()), this.#options.idleMs ?? IDLE_MS)
    timer.unref()
    this.#free.set(thread, timer)
  }

  async #makeSetup(): Promise<WorkerSetup> {
    const { markers, memoryMiB = MEMORY_MIB } = this.#options
    const hidden = [...(markers ?? [])].filter((id) => this.#tokenizer.isSpecial(id))
    return {
      vocabulary: await vocabularyText(this.#tokenizer, this.#vocabSize),
      vocabularyWithMarkers:
        hidden.length > 0 ? await vocabularyText(this.#tokenizer, this.#vocabSize, new Set(hidden)) : undefined,
      vocabSize: this.#vocabSize,
      stopIds: [...this.#tokenizer.eosIds],
      memoryBytes: memoryMiB * 2 ** 20,
    }
  }
}

class ThreadConstraint implements Constraint {
  readonly #thread: GrammarThread
  readonly #release: () => void
  #next: Promise<Int32Array>
  #disposed = false

  constructor(thread: GrammarThread, first: Int32Array, release: () => void) {
    this.#thread = thread
    this.#release = release
    this.#next = Promise.resolve(first)
  }

  async next(): Promise<Int32Array | undefined> {
    if (this.#disposed) throw disposedError()
    return this.#next
  }

  accept(id: number): void {
    if (!this.#disposed) this.#next = this.#thread.accept(id)
  }

  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    this.#release()
  }
}

function disposedError(): OnebitError {
  return new OnebitError('ERR_DISPOSED', 'The constraint or its model was disposed.')
}

/** @throws OnebitError ERR_SCHEMA, ERR_GRAMMAR, ERR_GRAMMAR_LIMIT */
function shapeText(shape: AnswerShape): ShapeText {
  if ('json' in shape) return { kind: 'json', text: '' }
  if ('regex' in shape) return { kind: 'regex', text: shape.regex }
  if ('grammar' in shape) return { kind: 'grammar', text: shape.grammar }
  if ('tag' in shape) return { kind: 'tag', text: jsonText(shape.tag, 'structural tag') }
  return { kind: 'schema', text: jsonText(shape.schema, 'JSON Schema') }
}

function jsonText(value: unknown, what: string): string {
  let text: string | undefined
  try {
    text = JSON.stringify(value)
  } catch (cause) {
    throw new OnebitError('ERR_SCHEMA', `The ${what} cannot be written as JSON (${(cause as Error).message})`, {
      cause,
    })
  }
  if (text === undefined) throw new OnebitError('ERR_SCHEMA', `The ${what} is none`)
  if (text.length > MOST_SCHEMA) {
    throw grammarLimit(`The ${what} has ${text.length} characters, at most ${MOST_SCHEMA} are possible`)
  }
  if (isNestedDeeperThan(JSON.parse(text), MOST_JSON_LEVELS)) {
    throw grammarLimit(`The ${what} is nested too deep`)
  }
  return text
}
