/**
 * How likely each answer of a question is. A prompt is computed once for all of its answers, and several questions are
 * computed in one step, because a step costs nearly the same for a few tokens as for many. What comes out is the same
 * bytes as from scoring each answer alone.
 */
import { stateBytes } from '../config/model-size.js'
import { OnebitError } from '../errors.js'
import { addon } from '../native/addon.js'
import type { NativeCancel, NativeModel, NativeSession, NativeStepItem, NativeStepResult } from '../native/native.js'
import { KV_TYPES } from '../run/kv.js'
import { internals, type Model } from '../run/model.js'
import type { Question } from './tasks/task.js'

/** How likely an answer is after its question. */
export interface AnswerScore {
  /** of all its tokens together, a natural logarithm */
  logprob: number
  /** each of its tokens is the likeliest one at its place */
  greedy: boolean
}

/** A context and its continuation in tokens. */
interface Pair {
  ids: Int32Array
  /** where the continuation begins */
  from: number
}

/** A question under way. */
interface Open {
  session: NativeSession
  pairs: Pair[]
  /** tokens that all pairs begin with, less those about whose successor something is asked */
  shared: number
  scores: AnswerScore[]
}

/** Questions in a step: with more there is nothing to be won (135M, 2 threads: see docs/evaluation.md). */
const TOGETHER = 16
const MOST_SESSION_BYTES = 1 << 29

export class ChoiceScorer {
  readonly #model: Model
  readonly #native: NativeModel
  readonly #bos: boolean
  readonly #cancel: NativeCancel = new (addon().Cancel)()
  readonly #sessions: NativeSession[] = []

  /** @throws OnebitError ERR_NO_TOKENIZER, ERR_BAD_OPTION (`bos` for a tokenizer without one) */
  constructor(model: Model, options: { bos?: boolean } = {}) {
    this.#model = model
    this.#native = internals.native(model)
    this.#bos = options.bos ?? false
    model.requireTokenizer().encode('', { bos: this.#bos })
  }

  /** Questions that are worth asking at once. */
  get together(): number {
    const { config } = this.#model
    const { n_layers, n_kv_heads, head_dim, context_length, delta_layers } = config
    const perPosition = 2 * (n_layers - delta_layers.length) * n_kv_heads * head_dim * 4
    // A session has its recurrent states twice.
    const session = perPosition * Math.min(context_length, 1024) + 2 * stateBytes(config)
    return Math.max(1, Math.min(TOGETHER, Math.floor(MOST_SESSION_BYTES / session)))
  }

  /**
   * One score for each pair of each question.
   * @throws OnebitError ERR_CONTEXT_FULL when an answer alone is longer than the context; the signal's reason
   */
  async score(questions: readonly Question[], signal?: AbortSignal): Promise<AnswerScore[][]> {
    signal?.throwIfAborted()
    const stop = () => this.#cancel.cancel()
    signal?.addEventListener('abort', stop)
    try {
      const open = questions.map((question, i) => this.#open(question, i))
      await this.#step(
        open.flatMap(({ session, pairs, shared }) =>
          shared > 0 ? [{ session, tokens: pairs[0]!.ids.subarray(0, shared), logits: 0 as const, ends: true }] : [],
        ),
        signal,
      )
      for (const { session } of open) session.mark() // all answers go on from here
      const most = Math.max(...open.map(({ pairs }) => pairs.length))
      for (let n = 0; n < most; n++) await this.#answers(open, n, signal)
      return open.map(({ scores }) => scores)
    } finally {
      signal?.removeEventListener('abort', stop)
    }
  }

  dispose(): void {
    for (const session of this.#sessions) session.dispose()
    this.#sessions.length = 0
  }

  #open(question: Question, index: number): Open {
    const pairs = question.pairs.map(({ context, continuation }) => this.#encode(context, continuation))
    const session = this.#session(index)
    session.rewind(0)
    const known = Math.min(...pairs.map(({ from }) => Math.max(0, from - 1)))
    return { session, pairs, shared: Math.min(known, commonPrefix(pairs)), scores: [] }
  }

  #session(index: number): NativeSession {
    while (this.#sessions.length <= index) {
      const { context, info } = this.#model
      this.#sessions.push(this.#native.createSession(context, KV_TYPES.indexOf(info.kv) as 0 | 1 | 2))
    }
    return this.#sessions[index]!
  }

  /** Answer number `n` of all questions that have so many. */
  async #answers(open: readonly Open[], n: number, signal: AbortSignal | undefined): Promise<void> {
    const asked = open.filter(({ pairs }) => n < pairs.length)
    const items = asked.map(({ session, pairs, shared }): NativeStepItem => {
      const { ids, from } = pairs[n]!
      session.rewind(shared)
      // A cache with recurrent states may have gone back farther than that.
      const { length } = session
      const score = { from: Math.max(0, from - 1) - length, top: 1, next: ids.at(-1)! }
      return { session, tokens: ids.subarray(length, -1), logits: 0, score }
    })
    const results = await this.#step(items, signal)
    asked.forEach(({ pairs, scores }, i) => {
      scores.push(answerScore(pairs[n]!, results[i]!.scores!))
    })
  }

  async #step(items: NativeStepItem[], signal: AbortSignal | undefined): Promise<NativeStepResult[]> {
    if (items.length === 0) return []
    const results = await addon().step(this.#native, items, { chunk: 0, cancel: this.#cancel })
    signal?.throwIfAborted()
    return results
  }

  /**
   * As the harness does it: spaces at the end of the context belong to the continuation, and its tokens are what encoding
   * both together has beyond the tokens of the context. What is too long loses its beginning; the harness keeps one
   * position for a token that would be generated.
   */
  #encode(context: string, continuation: string): Pair {
    const trimmed = context.replace(/\p{White_Space}+$/u, '')
    const encode = (text: string) => this.#model.requireTokenizer().encode(text, { special: true, bos: this.#bos })
    const before = encode(trimmed)
    const answer = encode(context + continuation).subarray(before.length)
    const room = this.#model.context - 1
    const cut = Math.max(0, before.length + answer.length - room)
    if (answer.length === 0 || cut >= before.length) {
      throw new OnebitError(
        'ERR_CONTEXT_FULL',
        `An answer of ${answer.length} tokens and something before it do not fit into ${room} positions.`,
        {
          hint: 'Use a larger context (--ctx).',
        },
      )
    }
    const ids = new Int32Array(before.length - cut + answer.length)
    ids.set(before.subarray(cut))
    ids.set(answer, before.length - cut)
    return { ids, from: before.length - cut }
  }
}

function commonPrefix(pairs: readonly Pair[]): number {
  const [{ ids: first }, ...others] = pairs as [Pair, ...Pair[]]
  let n = 0
  while (n < first.length && others.every(({ ids }) => ids[n] === first[n])) n++
  return n
}

function answerScore(
  { ids, from }: Pair,
  { logprobs, top_ids: likeliest }: NonNullable<NativeStepResult['scores']>,
): AnswerScore {
  const answer = ids.subarray(from)
  return {
    logprob: logprobs.reduce((sum, logprob) => sum + logprob, 0),
    greedy: answer.every((id, i) => likeliest[i] === id),
  }
}
