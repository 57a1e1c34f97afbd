/** Comparing two models on a text, against a plain computation from all logits; and perplexity with windows. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { compare, perplexity, perplexityOfTexts } from '../dist/eval/index.js'
import { slidingWindows } from '../dist/eval/windows.js'
import { Model } from '../dist/index.js'
import { codeOf } from './expect-code.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const text = Array.from({ length: 90 }, (_, i) => `word ${i * i} and more`).join(', ')
let a: Model
let b: Model
beforeAll(async () => {
  await writeTinyModel(folder.path('a.obt'), { kind: 'f32' })
  await writeTinyModel(folder.path('b.obt'), { kind: 'sign' })
  a = await Model.load(folder.path('a.obt'), { threads: 2 })
  b = await Model.load(folder.path('b.obt'), { threads: 2 })
})
afterAll(async () => {
  await a.dispose()
  await b.dispose()
  folder.remove()
})

function softmax(logits: Float32Array): number[] {
  const most = Math.max(...logits)
  const weights = Array.from(logits, (x) => Math.exp(x - most))
  const sum = weights.reduce((total, x) => total + x, 0)
  return weights.map((x) => x / sum)
}

describe('compare', () => {
  it('says what follows from the logits', async () => {
    const ctx = 150 // the second half of a block is more than is held at a time
    const result = await compare(a, b, text, { ctx, chunks: 3 })
    const ids = await a.encode(text)
    const kl: number[] = []
    let [same, nllA, nllB, squares] = [0, 0, 0, 0]
    for (let block = 0; block < 3; block++) {
      const part = ids.subarray(block * ctx, (block + 1) * ctx)
      const rows = await Promise.all([a, b].map((model) => model.createSession().logits(part, { all: true })))
      for (let at = ctx / 2; at < ctx - 1; at++) {
        const [p, q] = rows.map(({ data, columns }) => softmax(data.subarray(at * columns, (at + 1) * columns))) as [
          number[],
          number[],
        ]
        kl.push(p.reduce((sum, x, i) => sum + x * Math.log(x / q[i]!), 0))
        if (p.indexOf(Math.max(...p)) === q.indexOf(Math.max(...q))) same++
        const next = part[at + 1]!
        nllA -= Math.log(p[next]!)
        nllB -= Math.log(q[next]!)
        squares += (p[next]! - q[next]!) ** 2
      }
    }
    const n = kl.length
    expect(result.positions).toBe(n)
    expect(result.klMean).toBeCloseTo(kl.reduce((sum, x) => sum + x, 0) / n, 5)
    expect(result.klMax).toBeCloseTo(Math.max(...kl), 4)
    expect(result.kl99).toBeLessThanOrEqual(result.klMax)
    expect(result.klMedian).toBeLessThan(result.kl99)
    expect(result.sameTop).toBeCloseTo(same / n, 10)
    expect(result.perplexityA).toBeCloseTo(Math.exp(nllA / n), 3)
    expect(result.perplexityB).toBeCloseTo(Math.exp(nllB / n), 3)
    expect(result.ratio).toBeCloseTo(Math.exp((nllB - nllA) / n), 4)
    expect(result.probabilityRms).toBeCloseTo(Math.sqrt(squares / n), 6)
    expect(result.klMean).toBeGreaterThan(0.01)
  })

  it('finds no difference of a model from itself', async () => {
    const result = await compare(a, a, text, { ctx: 64 })
    expect(result).toMatchObject({ klMean: 0, klMax: 0, sameTop: 1, ratio: 1, probabilityRms: 0 })
  })

  it('needs a text that is long enough', async () => {
    expect(await codeOf(() => compare(a, b, 'short', { ctx: 100 }))).toBe('ERR_TEXT_TOO_SHORT')
  })
})

describe('perplexity', () => {
  it('with a stride counts every token once, with as much before it as fits', async () => {
    const ids = (await a.encode(text)).subarray(0, 300)
    const [ctx, stride] = [64, 24]
    const result = await perplexity(a, ids, { ctx, stride })
    let [sum, count] = [0, 0]
    for (let begin = 0, done = 1; done < ids.length; begin += stride) {
      const end = Math.min(begin + ctx, ids.length)
      const { logprobs } = await a.createSession().score(ids.subarray(begin, end))
      for (let i = Math.max(done, begin + 1); i < end; i++, count++) sum -= logprobs[i - begin]!
      done = end
    }
    expect(count).toBe(ids.length - 1)
    expect(result.nll).toBeCloseTo(sum / count, 10)
    const once = await perplexity(a, ids, { ctx, stride: ctx })
    expect(once.nll).not.toBeCloseTo(result.nll, 6)
    expect(await codeOf(() => perplexity(a, ids, { ctx: 10, stride: 11 }))).toBe('ERR_BAD_OPTION')
  })

  it('cuts windows that end with the text', () => {
    expect(slidingWindows(10, 4, 2, 99).at(-1)).toEqual({ start: 6, end: 10, scored: 8 })
    expect(slidingWindows(3, 4, 2, 99)).toEqual([{ start: 0, end: 3, scored: 1 }])
    for (const [tokens, ctx, stride] of [
      [50, 7, 3],
      [51, 8, 7],
      [9, 8, 1],
      [2, 2, 1],
    ] as const) {
      const counted = slidingWindows(tokens, ctx, stride, 99).flatMap(({ scored, end }) =>
        Array.from({ length: end - scored }, (_, i) => scored + i),
      )
      expect(counted).toEqual(Array.from({ length: tokens - 1 }, (_, i) => i + 1))
    }
  })

  it('of many texts draws windows, the same for the same seed', async () => {
    const texts = Array.from({ length: 30 }, (_, i) => text.slice(i, i + 20 + 40 * (i % 5)))
    const options = { ctx: 50, chunks: 8 }
    const first = await perplexityOfTexts(a, texts, options)
    expect(first.chunkNlls).toHaveLength(8)
    expect(await perplexityOfTexts(a, texts, options)).toEqual(first)
    expect((await perplexityOfTexts(a, texts, { ...options, seed: 1 })).nll).not.toBe(first.nll)
    expect(await codeOf(() => perplexityOfTexts(a, ['short'], options))).toBe('ERR_TEXT_TOO_SHORT')
  })
})
