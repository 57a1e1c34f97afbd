/** An answer that nobody shares the steps with: native code goes on with it by itself, and nothing else about it differs. */
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { Batch } from '../dist/batch/batch.js'
import type { BatchOptions } from '../dist/batch/requests.js'
import { Model } from '../dist/index.js'
import { addon } from '../dist/native/addon.js'
import { type Answer, collect, comparable, fromBatch, fromSession } from './batch-requests.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const CONTEXT = 400
const folder = temporaryFolder()
let model: Model
beforeAll(async () => {
  await writeTinyModel(folder.path('tiny.obt'), { context: CONTEXT })
  model = await Model.load(folder.path('tiny.obt'), { threads: 2 })
})
afterAll(async () => {
  await model.dispose()
  folder.remove()
})

const batches: Batch[] = []
function newBatch(options: BatchOptions = {}): Batch {
  const batch = new Batch(model, options)
  batches.push(batch)
  return batch
}
afterEach(async () => {
  for (const batch of batches.splice(0)) {
    await batch.close({ graceMs: 0 })
    expect(batch.state).toMatchObject({ running: 0, waiting: 0, runningBytes: 0, cacheBytes: 0 })
  }
})

const ids = (count: number, seed = 1) =>
  Int32Array.from({ length: count }, (_, i) => (i * 37 * seed + (i % 11) + seed) % 256)
const SHORT = { maxTokens: 30, temperature: 0, logprobs: true }

describe('an answer that has the engine to itself', () => {
  /** What native code was given to go on with by itself, while `work` is done. */
  async function countAlone<T>(work: () => Promise<T>): Promise<{ result: T; calls: number }> {
    const spy = vi.spyOn(addon(), 'generate')
    try {
      const result = await work()
      return { result, calls: spy.mock.calls.length }
    } finally {
      spy.mockRestore()
    }
  }
  const LONG = { maxTokens: 120, seed: 8, ignoreEos: true, temperature: 1.2, repeatPenalty: 1.2, topLogprobs: 2 }

  it('does not come back for every token, and is the same', async () => {
    const batch = newBatch()
    const { result, calls } = await countAlone(() => fromBatch(batch, ids(20), LONG))
    expect(calls).toBeGreaterThan(0)
    expect(calls).toBeLessThan(119)
    expect(comparable(result)).toEqual(comparable(await fromSession(model, CONTEXT, ids(20), LONG)))
    // The prompt took one step, and so did each token after the first.
    expect(batch.state).toMatchObject({ running: 0, newTokens: 120, steps: 120 })
  })

  it('lets others in as soon as they come, and is alone again when they have gone', async () => {
    const expected = await fromSession(model, CONTEXT, ids(20), { ...LONG, maxTokens: 300 })
    const batch = newBatch({ parallel: 2 })
    const visitors: Promise<Answer>[] = []
    const answer = batch.generate(ids(20), { ...LONG, maxTokens: 300 })
    const { result, calls } = await countAlone(async () => {
      const pieces: Answer['pieces'] = []
      for (;;) {
        const { value, done } = await answer.next()
        if (done) return { pieces, summary: value }
        pieces.push(value)
        if (pieces.length % 50 === 10) visitors.push(fromBatch(batch, ids(30, visitors.length + 2), SHORT))
      }
    })
    expect(calls).toBeGreaterThan(1)
    expect(comparable(result)).toEqual(comparable(expected))
    expect(visitors.length).toBe(6)
    for (const [i, visitor] of visitors.entries()) {
      expect(comparable(await visitor)).toEqual(comparable(await fromSession(model, CONTEXT, ids(30, i + 2), SHORT)))
    }
  })

  it('keeps no more than what was told of it', async () => {
    const batch = newBatch({ parallel: 1 })
    const whole = await fromSession(model, CONTEXT, ids(20), LONG)
    const text = whole.pieces.map((piece) => piece.text).join('')
    // A stop text, which native code knows nothing of.
    const stop = text.slice(40, 43)
    const cut = await fromBatch(batch, ids(20), { ...LONG, stop: [stop] })
    expect(cut.summary.finishReason).toBe('stop')
    expect(cut.pieces.map((piece) => piece.text).join('')).toBe(text.slice(0, text.indexOf(stop)))
    const answer = whole.pieces.slice(0, 30).map(({ id }) => id)
    const next = await fromBatch(batch, [...ids(20), ...answer], LONG)
    expect(next.summary.usage.cachedTokens).toBeGreaterThan(40)
    expect(comparable(next)).toEqual(comparable(await fromSession(model, CONTEXT, [...ids(20), ...answer], LONG)))
  })

  it('ends at once when it is not wanted, in whatever way', async () => {
    const batch = newBatch({ parallel: 1 })
    const reason = new Error('enough')
    const controller = new AbortController()
    const aborted = batch.generate(ids(20), { ...LONG, maxTokens: 300, signal: controller.signal })
    for (let i = 0; i < 5; i++) await aborted.next()
    controller.abort(reason)
    expect(await aborted.next().catch((error) => error)).toBe(reason)
    for await (const _ of batch.generate(ids(21), { ...LONG, maxTokens: 300 })) break
    const closing = batch.generate(ids(22), { ...LONG, maxTokens: 300 })
    await closing.next()
    const closed = batch.close({ graceMs: 0 })
    expect(await collect(closing).catch((error) => error.code)).toBe('ERR_STOPPING')
    await closed
  })
})
