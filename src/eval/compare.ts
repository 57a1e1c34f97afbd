/**
 * What one model loses against another: both read the same text, and their distributions are compared at every position,
 * as llama.cpp's users know it from its report on Kullback-Leibler divergence.
 */
import { OnebitError } from '../errors.js'
import { functionOption, integerOption, optionFields, signalOption } from '../options.js'
import type { Model } from '../run/model.js'
import type { Session } from '../run/session.js'
import { blocks } from './windows.js'

/** What `compare` is told. */
export interface CompareOptions {
  /** tokens a block, each from nothing, 4 to the positions of both models' sessions; default 512 */
  ctx?: number
  /** at most this many blocks; default: all that there are */
  chunks?: number
  /** stops within a chunk; the call rejects with the signal's reason */
  signal?: AbortSignal
  /** told after each block: how many are done, and of how many */
  onBlock?: (done: number, total: number) => void
}

/** What B lost against A. */
export interface CompareResult {
  /** positions at which both were compared */
  positions: number
  /** tokens of a block */
  ctx: number
  /** blocks that were read */
  chunks: number
  /** of A, which is taken for the truth */
  perplexityA: number
  /** of B */
  perplexityB: number
  /** B's perplexity over A's */
  ratio: number
  /** its standard error: that of the mean of its logarithm, times the ratio */
  ratioStderr: number
  /** the mean over positions of D(A || B) of the next token, the sum over tokens of p_A ln(p_A / p_B), in nats */
  klMean: number
  /** standard error of the mean */
  klStderr: number
  /** half of the positions have less, in nats */
  klMedian: number
  /** 99 of 100 positions have less, in nats */
  kl99: number
  /** the most of all positions, in nats */
  klMax: number
  /** share of positions at which both find the same token likeliest, 0 to 1 */
  sameTop: number
  /** standard error of the share */
  sameTopStderr: number
  /** root mean square of p_A - p_B of the token that the text has next, 0 to 1 */
  probabilityRms: number
}

/** Positions whose logits are held at a time: two models' of 152,000 tokens are 76 MiB then. */
const ROWS = 64
/** Predictions from less context than this are left out, as llama.cpp leaves out the first half of a block. */
const FIRST_SHARE = 0.5

/** @throws OnebitError ERR_BAD_OPTION */
export function checkCompareOptions(options: CompareOptions | undefined, most: number) {
  const fields = optionFields('options', options, ['ctx', 'chunks', 'signal', 'onBlock'])
  return {
    ctx: integerOption({ ctx: fields.ctx ?? Math.min(512, most) }, 'ctx', 4, most)!,
    chunks: integerOption(fields, 'chunks', 1, Number.MAX_SAFE_INTEGER) ?? Number.POSITIVE_INFINITY,
    signal: signalOption(fields),
    onBlock: functionOption<NonNullable<CompareOptions['onBlock']>>(fields, 'onBlock'),
  }
}

/**
 * What model `b` loses against `a`, which is taken for the truth: both read the same blocks of a text, and their distributions are
 * compared at every position of each block's second half, as llama.cpp's report on Kullback-Leibler divergence does it.
 *
 * ```ts
 * const { klMean, sameTop, ratio } = await compare(original, quantised, await readFile('text.txt', 'utf8'), { chunks: 20 })
 * ```
 * @throws OnebitError ERR_BAD_OPTION, ERR_TEXT_TOO_SHORT, ERR_VOCABULARIES (the two do not give the same ids), and those
 *   of computing; the signal's reason
 */
export async function compare(a: Model, b: Model, text: string, options?: CompareOptions): Promise<CompareResult> {
  const { ctx, chunks, signal, onBlock } = checkCompareOptions(options, Math.min(a.context, b.context))
  const ids = await sameIds(a, b, text)
  const windows = blocks(ids.length, ctx, chunks)
  if (windows.length === 0) {
    throw new OnebitError('ERR_TEXT_TOO_SHORT', `The text has ${ids.length} tokens, less than one block of ${ctx}.`, {
      hint: 'Give a longer text or smaller blocks (`ctx` in code, -c on the command line).',
    })
  }
  const columns = Math.min(a.config.vocab_size, b.config.vocab_size)
  const seen = new Comparison(columns)
  const sessions = [a.createSession({ context: ctx }), b.createSession({ context: ctx })] as const
  try {
    for (const [i, { start, end }] of windows.entries()) {
      for (const session of sessions) session.rewind(0)
      const first = start + Math.floor(ctx * FIRST_SHARE)
      for (const session of sessions) await session.append(ids.subarray(start, first), signal ? { signal } : {})
      for (let from = first; from < end - 1; from += ROWS) {
        const part = ids.subarray(from, Math.min(from + ROWS, end - 1))
        const [left, right] = [await rowsOf(sessions[0], part, signal), await rowsOf(sessions[1], part, signal)]
        for (let row = 0; row < part.length; row++) {
          seen.add(
            left.data.subarray(row * left.columns, row * left.columns + columns),
            right.data.subarray(row * right.columns, row * right.columns + columns),
            ids[from + row + 1]!,
          )
        }
      }
      onBlock?.(i + 1, windows.length)
    }
  } finally {
    for (const session of sessions) session.dispose()
  }
  return { ...seen.result(), ctx, chunks: windows.length }
}

function rowsOf(session: Session, ids: Int32Array, signal: AbortSignal | undefined) {
  return session.logits(ids, { all: true, ...(signal ? { signal } : {}) })
}

async function sameIds(a: Model, b: Model, text: string): Promise<Int32Array> {
  const ids = await a.encode(text)
  const others = await b.encode(text)
  if (ids.length === others.length && ids.every((id, i) => id === others[i])) return ids
  throw new OnebitError('ERR_VOCABULARIES', 'The two models have different tokenizers: the text gives other ids.', {
    hint: 'Only models with one vocabulary can be compared token by token; compare others by `onebit eval`.',
  })
}

/** Collects what is said about each position. */
class Comparison {
  readonly #columns: number
  readonly #kl: number[] = []
  #nllA = 0
  #nllB = 0
  #logRatioSquares = 0
  #sameTop = 0
  #probabilitySquares = 0

  constructor(columns: number) {
    this.#columns = columns
  }

  /** Logits (vocab_size) of both, and the token that follows. */
  add(a: Float32Array, b: Float32Array, next: number): void {
    const [topA, sumA] = topAndLogSum(a)
    const [topB, sumB] = topAndLogSum(b)
    let kl = 0
    for (let i = 0; i < this.#columns; i++) {
      const logA = a[i]! - sumA
      const p = Math.exp(logA)
      if (p > 0) kl += p * (logA - (b[i]! - sumB))
    }
    // Rounding can leave a little less than nothing.
    this.#kl.push(Math.max(0, kl))
    const [logA, logB] = [a[next]! - sumA, b[next]! - sumB]
    this.#nllA -= logA
    this.#nllB -= logB
    this.#logRatioSquares += (logA - logB) ** 2
    this.#probabilitySquares += (Math.exp(logA) - Math.exp(logB)) ** 2
    if (topA === topB) this.#sameTop++
  }

  result(): Omit<CompareResult, 'ctx' | 'chunks'> {
    const n = this.#kl.length
    const sorted = Float64Array.from(this.#kl).sort()
    const klMean = this.#kl.reduce((sum, x) => sum + x, 0) / n
    const klSquares = this.#kl.reduce((sum, x) => sum + (x - klMean) ** 2, 0)
    const logRatio = (this.#nllB - this.#nllA) / n
    const ratioVariance = Math.max(0, this.#logRatioSquares / n - logRatio ** 2)
    const sameTop = this.#sameTop / n
    const ofMean = (squares: number) => (n > 1 ? Math.sqrt(squares / (n - 1) / n) : 0)
    return {
      positions: n,
      perplexityA: Math.exp(this.#nllA / n),
      perplexityB: Math.exp(this.#nllB / n),
      ratio: Math.exp(logRatio),
      ratioStderr: Math.exp(logRatio) * ofMean(ratioVariance * n),
      klMean,
      klStderr: ofMean(klSquares),
      klMedian: quantile(sorted, 0.5),
      kl99: quantile(sorted, 0.99),
      klMax: sorted.at(-1)!,
      sameTop,
      sameTopStderr: ofMean(n * sameTop * (1 - sameTop)),
      probabilityRms: Math.sqrt(this.#probabilitySquares / n),
    }
  }
}

function topAndLogSum(logits: Float32Array): [top: number, logSum: number] {
  let top = 0
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[top]!) top = i
  const most = logits[top]!
  let sum = 0
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - most)
  return [top, most + Math.log(sum)]
}

/** Between the two nearest ones. */
function quantile(sorted: Float64Array, share: number): number {
  const at = share * (sorted.length - 1)
  const below = Math.floor(at)
  const above = Math.min(below + 1, sorted.length - 1)
  return sorted[below]! + (at - below) * (sorted[above]! - sorted[below]!)
}
