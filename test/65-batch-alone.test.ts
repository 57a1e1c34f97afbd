/** An answer that nobody shares the steps with: native code goes on with it by itself, and nothing else about it differs. */
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { Batch } from '../dist/batch/batch.js'
import type { BatchOptions } from '../dist/batch/requests.js'
import { type GenerateOptions, Model } from '../dist/index.js'
import { addon } from '../dist/native/addon.js'
import { type Answer, collect, comparable, fromBatch, fromSession } from './batch-requests.js'
import { deltaFeatures, temporaryFolder, writeTinyModel } from './tiny-model.js'

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

/** An answer, and others that come after every so many of its tokens. */
async function withVisitors(batch: Batch, prompt: Int32Array | number[], options: GenerateOptions, every: number) {
  const pieces: Answer['pieces'] = []
  const visitors: Promise<Answer>[] = []
  const answer = batch.generate(prompt, options)
  for (;;) {
    const { value, done } = await answer.next()
    if (done) return { result: { pieces, summary: value }, visitors }
    pieces.push(value)
    if (pieces.length % every === 10) visitors.push(fromBatch(batch, ids(30, visitors.length + 2), SHORT))
  }
}

async function expectAsAlone(of: Model, visitors: readonly Promise<Answer>[]) {
  for (const [i, visitor] of visitors.entries()) {
    expect(comparable(await visitor)).toEqual(comparable(await fromSession(of, CONTEXT, ids(30, i + 2), SHORT)))
  }
}

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
    const { result, calls } = await countAlone(() => fromBatch(batch, ids(20), { ...LONG, speculate: 'off' }))
    expect(calls).toBeGreaterThan(0)
    expect(calls).toBeLessThan(119)
    expect(comparable(result)).toEqual(comparable(await fromSession(model, CONTEXT, ids(20), LONG)))
    // The prompt took one step, and so did each token after the first.
    expect(batch.state).toMatchObject({ running: 0, newTokens: 120, steps: 120 })
  })

  it('lets others in as soon as they come, and is alone again when they have gone', async () => {
    const expected = await fromSession(model, CONTEXT, ids(20), { ...LONG, maxTokens: 300 })
    const batch = newBatch({ parallel: 2 })
    const {
      result: { result, visitors },
      calls,
    } = await countAlone(() => withVisitors(batch, ids(20), { ...LONG, maxTokens: 300 }, 50))
    expect(calls).toBeGreaterThan(1)
    expect(comparable(result)).toEqual(comparable(expected))
    expect(visitors.length).toBe(6)
    await expectAsAlone(model, visitors)
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

describe('an answer with guesses', () => {
  const REPEATED = [...ids(20), ...ids(20), ...ids(12)]
  const LIKELY = { maxTokens: 150, temperature: 0, ignoreEos: true, topLogprobs: 1 }
  const WARM = { ...LIKELY, temperature: 0.6, seed: 4, frequencyPenalty: 0.3 }

  it.each([LIKELY, WARM])(
    'is the one without them, and takes fewer steps where they are right: %o',
    async (options) => {
      const expected = comparable(await fromSession(model, CONTEXT, REPEATED, { ...options, speculate: 'off' }))
      const steps = []
      for (const speculate of ['off', 'auto', 1, 9, 32] as const) {
        const batch = newBatch()
        expect(comparable(await fromBatch(batch, REPEATED, { ...options, speculate })), `${speculate}`).toEqual(
          expected,
        )
        steps.push(batch.state.steps)
        expect(batch.state.newTokens).toBe(150)
      }
      expect(steps[0]).toBe(150)
      // Taking the likeliest, it repeats itself here and there.
      if (options === LIKELY) expect(steps[3]).toBeLessThan(130)
    },
  )

  it('goes on with them when others have come and gone', async () => {
    const expected = comparable(await fromSession(model, CONTEXT, REPEATED, { ...LIKELY, maxTokens: 300 }))
    const batch = newBatch({ parallel: 2 })
    const given = { ...LIKELY, maxTokens: 300, speculate: 9 }
    const { result, visitors } = await withVisitors(batch, REPEATED, given, 60)
    expect(comparable(result)).toEqual(expected)
    await expectAsAlone(model, visitors)
    expect(batch.state.steps).toBeLessThan(batch.state.newTokens)
  })

  it('of a model with states is the one without them too', async () => {
    await writeTinyModel(folder.path('states.obt'), { context: CONTEXT, features: deltaFeatures([1]) })
    const recurrent = await Model.load(folder.path('states.obt'), { threads: 2 })
    for (const options of [LIKELY, WARM]) {
      const expected = comparable(await fromSession(recurrent, CONTEXT, REPEATED, { ...options, speculate: 'off' }))
      const batch = new Batch(recurrent, { parallel: 2 })
      const { result, visitors } = await withVisitors(batch, REPEATED, { ...options, speculate: 9 }, 60)
      expect(comparable(result)).toEqual(expected)
      await expectAsAlone(recurrent, visitors)
      await batch.close({ graceMs: 0 })
    }
    await recurrent.dispose()
  })
})
