/**
 * Perplexity as the papers count it (the GPTQ convention: blocks of `ctx` tokens, each from nothing, the mean over blocks of
 * a block's mean negative log-likelihood), with a sliding window, and over random windows of many texts.
 */
import { badOption, OnebitError } from '../errors.js'
import { functionOption, integerOption, optionFields, signalOption } from '../options.js'
import type { Model } from '../run/model.js'
import type { Session } from '../run/session.js'
import { blocks, randomWindow, slidingWindows, type Window } from './windows.js'

/** What `perplexity` and `perplexityOfTexts` are told. */
export interface PerplexityOptions {
  /** tokens a block; default 2048 or the model's context when that is shorter */
  ctx?: number
  /** at most this many blocks; of texts: how many windows are drawn, default 256 */
  chunks?: number
  /** blocks begin this many tokens after each other, and only what no earlier one had counts; default `ctx`: blocks apart */
  stride?: number
  /** for texts: which windows are drawn, 0 to 2^32 - 1; default 0 */
  seed?: number
  /** stops within a chunk; the call rejects with the signal's reason */
  signal?: AbortSignal
  /** told after each block: how many are done, of how many, and the perplexity of these */
  onBlock?: (done: number, total: number, perplexitySoFar: number) => void
}

/** How surprising a text is to a model. */
export interface PerplexityResult {
  /** exp(nll) */
  perplexity: number
  /** mean negative log-likelihood, in nats: over blocks of their means; with a stride over all tokens that count */
  nll: number
  /** tokens of a block */
  ctx: number
  /** blocks that were read */
  chunks: number
  /** tokens of the whole text, used or not; of texts: of those that were drawn from */
  tokens: number
  /** mean negative log-likelihood of each block's tokens that count */
  chunkNlls: number[]
}

const NAMES = ['ctx', 'chunks', 'stride', 'seed', 'signal', 'onBlock']
const C4_WINDOWS = 256

/** `most`: the positions of the model; `usual`: those of its sessions. @throws OnebitError ERR_BAD_OPTION */
export function checkPerplexityOptions(options: PerplexityOptions | undefined, most: number, usual: number = most) {
  const fields = optionFields('options', options, NAMES)
  const ctx = integerOption({ ctx: fields.ctx ?? Math.min(2048, usual) }, 'ctx', 2, most)!
  const stride = integerOption(fields, 'stride', 1, most)
  if (stride !== undefined && stride > ctx) throw badOption('stride', `must be at most the ${ctx} tokens of a block`)
  return {
    ctx,
    stride,
    chunks: integerOption(fields, 'chunks', 1, Number.MAX_SAFE_INTEGER),
    seed: integerOption(fields, 'seed', 0, 2 ** 32 - 1) ?? 0,
    signal: signalOption(fields),
    onBlock: functionOption<NonNullable<PerplexityOptions['onBlock']>>(fields, 'onBlock'),
  }
}

/**
 * The perplexity of one long text, as the papers count it (the convention of GPTQ, arXiv 2210.17323): consecutive blocks of `ctx`
 * tokens, each from nothing, and exp of the mean over blocks of their mean negative log-likelihood. With `stride` a window
 * slides instead, and every token counts once with as much before it as fits.
 *
 * ```ts
 * const ids = await model.encode(await readFile('wikitext2.txt', 'utf8'))
 * const { perplexity: value } = await perplexity(model, ids, { ctx: 2048 })
 * ```
 * @param ids the whole text, as `model.encode` gives it
 * @throws OnebitError ERR_BAD_OPTION, ERR_TEXT_TOO_SHORT and those of computing; the signal's reason
 */
export async function perplexity(
  model: Model,
  ids: Int32Array,
  options: PerplexityOptions = {},
): Promise<PerplexityResult> {
  const checked = checkPerplexityOptions(options, model.config.context_length, model.context)
  const { ctx, stride, chunks = Number.POSITIVE_INFINITY } = checked
  const windows =
    stride === undefined ? blocks(ids.length, ctx, chunks) : slidingWindows(ids.length, ctx, stride, chunks)
  if (windows.length === 0) {
    throw new OnebitError('ERR_TEXT_TOO_SHORT', `The text has ${ids.length} tokens, less than one block of ${ctx}.`, {
      hint: 'Give a longer text or smaller blocks (`ctx` in code, -c on the command line).',
    })
  }
  const parts = windows.map((window) => ({ ids, window }))
  return { ...(await measure(model, parts, checked, stride !== undefined)), tokens: ids.length }
}

/**
 * The perplexity over random windows of many texts, each encoded by itself, as the papers measure C4. The same seed draws the
 * same windows on every machine.
 * @throws OnebitError ERR_BAD_OPTION, ERR_NO_TOKENIZER, ERR_TEXT_TOO_SHORT and those of computing; the signal's reason
 */
export async function perplexityOfTexts(
  model: Model,
  texts: readonly string[],
  options: PerplexityOptions = {},
): Promise<PerplexityResult> {
  const checked = checkPerplexityOptions(options, model.config.context_length, model.context)
  if (checked.stride !== undefined) throw badOption('stride', 'is for one long text; windows of many texts stand alone')
  const { ctx, chunks = C4_WINDOWS, seed, signal } = checked
  const draw = drawing(seed)
  const encoded = new Map<number, Int32Array>()
  const parts: { ids: Int32Array; window: Window }[] = []
  for (let tries = 0; parts.length < chunks; tries++) {
    if (tries >= 100 * chunks) {
      throw new OnebitError('ERR_TEXT_TOO_SHORT', `Hardly any of ${texts.length} texts has more than ${ctx} tokens.`, {
        hint: 'Give longer texts or smaller blocks (`ctx` in code, -c on the command line).',
      })
    }
    const chosen = draw(texts.length)
    // A token has at least a byte.
    if (Buffer.byteLength(texts[chosen]!) <= ctx) continue
    const ids = encoded.get(chosen) ?? (await model.encode(texts[chosen]!, signal ? { signal } : {}))
    encoded.set(chosen, ids)
    if (ids.length > ctx) parts.push({ ids, window: randomWindow(ids.length, ctx, draw) })
  }
  const tokens = [...new Set(parts.map(({ ids }) => ids))].reduce((sum, ids) => sum + ids.length, 0)
  return { ...(await measure(model, parts, checked, false)), tokens }
}

/** mulberry32: integers below a bound, the same for the same seed. */
function drawing(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below)
  }
}

async function measure(
  model: Model,
  parts: readonly { ids: Int32Array; window: Window }[],
  { ctx, signal, onBlock }: ReturnType<typeof checkPerplexityOptions>,
  weighted: boolean,
): Promise<Omit<PerplexityResult, 'tokens'>> {
  const session = model.createSession({ context: ctx })
  const chunkNlls: number[] = []
  let [sum, weight] = [0, 0]
  try {
    for (const { ids, window } of parts) {
      signal?.throwIfAborted()
      const count = window.end - window.scored
      const blockSum = await windowNll(session, ids, window, signal)
      chunkNlls.push(blockSum / count)
      sum += weighted ? blockSum : blockSum / count
      weight += weighted ? count : 1
      onBlock?.(chunkNlls.length, parts.length, Math.exp(sum / weight))
    }
  } finally {
    session.dispose()
  }
  const nll = sum / weight
  return { perplexity: Math.exp(nll), nll, ctx, chunks: parts.length, chunkNlls }
}

async function windowNll(
  session: Session,
  ids: Int32Array,
  { start, end, scored }: Window,
  signal: AbortSignal | undefined,
): Promise<number> {
  const options = signal ? { signal } : {}
  session.rewind(0)
  // Nobody wants the logits of what is only context.
  const before = scored - start - 1
  if (before > 0) await session.append(ids.subarray(start, start + before), options)
  const { logprobs } = await session.score(ids.subarray(start + before, end), options)
  let sum = 0
  for (let i = 1; i < logprobs.length; i++) sum -= logprobs[i]!
  return sum
}
