/** A batch: what a request gets does not depend on others, and everything that was taken is given back. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { Batch } from '../dist/batch/batch.js'
import type { BatchOptions, BatchScores } from '../dist/batch/requests.js'
import { type GenerateOptions, Model } from '../dist/index.js'
import { type Answer, collect, comparable, fromBatch, fromSession, randomNumbers, until } from './batch-requests.js'
import { codeOf } from './expect-code.js'
import { TINY_VOCAB, temporaryFolder, writeTinyModel } from './tiny-model.js'

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
const EMPTY = { running: 0, waiting: 0, runningBytes: 0, cacheBytes: 0 }
afterEach(async () => {
  for (const batch of batches.splice(0)) {
    await batch.close({ graceMs: 0 })
    expect(batch.state).toMatchObject(EMPTY)
  }
})

const ids = (count: number, seed = 1) =>
  Int32Array.from({ length: count }, (_, i) => (i * 37 * seed + (i % 11) + seed) % 256)

/** Every way in which an answer can differ. */
const WAYS: GenerateOptions[] = [
  { temperature: 0, logprobs: true },
  { seed: 1, topLogprobs: 3 },
  { seed: 2, temperature: 1.5, topK: 0, topP: 1, minP: 0 },
  { seed: 3, repeatPenalty: 1.3, presencePenalty: 0.5, frequencyPenalty: 0.2, repeatLastN: 20, logprobs: true },
  { seed: 4, stop: ['a', 'zz'], temperature: 2 },
  { seed: 5, stopTokens: [1, 2, 3, 4, 5, 6, 7], temperature: 3, topK: 0 },
  { seed: 6, logitBias: { 65: 3, 66: -100 }, ignoreEos: true, topLogprobs: 1 },
  { seed: 7, chunk: 5 },
].map((way) => ({ maxTokens: 30, ...way }))

async function scoresOf(
  tokens: Int32Array,
  top: number,
): Promise<Pick<BatchScores, 'logprobs' | 'topIds' | 'topLogprobs'>> {
  const session = model.createSession()
  const { logprobs, top: tops } = await session.score(tokens, { top })
  session.dispose()
  const row = (i: number, of: 'id' | 'logprob', missing: number) =>
    Array.from({ length: top }, (_, n) => tops[i]?.[n]?.[of] ?? missing)
  return {
    logprobs,
    topIds: Int32Array.from(tokens).length
      ? Int32Array.from([...tokens].flatMap((_, i) => row(i, 'id', -1)))
      : new Int32Array(0),
    topLogprobs: Float32Array.from([...tokens].flatMap((_, i) => row(i, 'logprob', Number.NaN))),
  }
}

describe('an answer', () => {
  it('is the same alone, among others, and after others', async () => {
    const prompts = WAYS.map((_, i) => ids(20 + 31 * i, i + 1))
    const expected = await Promise.all(WAYS.map((way, i) => fromSession(model, CONTEXT, prompts[i]!, way)))
    // Such that this says something:
    expect(expected.every(({ pieces }) => pieces.length > 0)).toBe(true)
    expect(new Set(expected.map(({ summary }) => summary.finishReason)).size).toBeGreaterThan(1)
    for (const parallel of [1, 3, 8]) {
      const batch = newBatch({ parallel })
      for (const round of ['cold', 'hot']) {
        const found = await Promise.all(WAYS.map((way, i) => fromBatch(batch, prompts[i]!, way)))
        for (const [i, answer] of found.entries()) {
          expect(comparable(answer), `${parallel} ${round} ${i}`).toEqual(comparable(expected[i]!))
          expect(answer.summary.usage.cachedTokens).toBe(round === 'hot' ? prompts[i]!.length - 1 : 0)
        }
      }
      expect(batch.state.requests).toBe(2 * WAYS.length)
      expect(batch.state.newTokens).toBe(2 * expected.reduce((sum, { summary }) => sum + summary.usage.newTokens, 0))
    }
  })

  it('ends with the context as in a session, and with maxTokens 0', async () => {
    const batch = newBatch({ context: 40 })
    for (const [count, options] of [
      [35, { seed: 1, ignoreEos: true }],
      [40, { seed: 1 }],
      [39, { temperature: 0 }],
      [40, { maxTokens: 0 }],
      [1, { maxTokens: 0 }],
      [1, { maxTokens: 1, seed: 4 }],
    ] as [number, GenerateOptions][]) {
      const answer = await fromBatch(batch, ids(count), options)
      expect(comparable(answer)).toEqual(comparable(await fromSession(model, 40, ids(count), options)))
    }
    const bos = [256] // a text begins after it
    expect(comparable(await fromBatch(batch, bos, { seed: 9 }))).toEqual(
      comparable(await fromSession(model, 40, bos, { seed: 9 })),
    )
    expect(await codeOf(() => fromBatch(batch, ids(41)))).toBe('ERR_CONTEXT_FULL')
    expect(await codeOf(() => fromBatch(batch, []))).toBe('ERR_EMPTY_PROMPT')
  })

  it('shares steps with others', async () => {
    const batch = newBatch({ parallel: 8 })
    await Promise.all(WAYS.map((_, i) => fromBatch(batch, ids(8, i), { maxTokens: 20, seed: i, ignoreEos: true })))
    expect(batch.state.newTokens).toBe(160)
    expect(batch.state.steps).toBeLessThan(50)
  })

  it('is told about from its place on, chunk by chunk', async () => {
    const batch = newBatch({ parallel: 1 })
    const first = batch.generate(ids(10, 5), { ignoreEos: true })
    await first.next()
    const told: string[] = []
    const second = fromBatch(batch, ids(50), {
      chunk: 20,
      maxTokens: 2,
      onStart: () => told.push('start'),
      onPrompt: (done, total) => told.push(`${done}/${total}`),
    })
    await until(() => batch.state.waiting === 1)
    expect(told).toEqual([])
    await first.return(undefined as never)
    const { summary } = await second
    expect(told).toEqual(['start', '20/50', '40/50', '50/50'])
    expect(summary.timings.prefillMs).toBeGreaterThan(0)
    expect(summary.timings.decodeMs).toBeGreaterThan(0)
  })

  it('fails alone when what it calls fails', async () => {
    const batch = newBatch()
    const fault = new Error('mine')
    const thrower = () => {
      throw fault
    }
    const others = [1, 2].map((seed) => fromBatch(batch, ids(30, seed), { maxTokens: 20, seed }))
    expect(await fromBatch(batch, ids(9), { onStart: thrower }).catch((error) => error)).toBe(fault)
    expect(await fromBatch(batch, ids(9), { onPrompt: thrower }).catch((error) => error)).toBe(fault)
    for (const [i, other] of (await Promise.all(others)).entries()) {
      const expected = await fromSession(model, CONTEXT, ids(30, i + 1), { maxTokens: 20, seed: i + 1 })
      expect(comparable(other)).toEqual(comparable(expected))
    }
  })
})

describe('the queue', () => {
  it('has a limit, is served in order, and its requests can leave', async () => {
    const batch = newBatch({ parallel: 1, queue: 3 })
    const started: number[] = []
    const controller = new AbortController()
    const ask = (n: number, signal?: AbortSignal) =>
      batch.generate(ids(10, n), { maxTokens: 3, onStart: () => started.push(n), ...(signal ? { signal } : {}) })
    const streams = [ask(0), ask(1), ask(2, controller.signal), ask(3)]
    const answers = streams.map((stream) => collect(stream).catch((error: unknown) => error))
    expect(await codeOf(() => collect(ask(4)))).toBe('ERR_QUEUE_FULL')
    expect(await codeOf(() => batch.score(ids(5)))).toBe('ERR_QUEUE_FULL')
    expect(await codeOf(() => batch.embed(ids(5)))).toBe('ERR_QUEUE_FULL')
    const reason = new Error('enough')
    controller.abort(reason)
    expect(await answers[2]).toBe(reason)
    // Its place can be had at once.
    answers.push(collect(ask(5)).catch((error: unknown) => error))
    expect(await streams[3]!.return(undefined as never)).toEqual({ done: true, value: undefined })
    await Promise.all(answers)
    expect(started).toEqual([0, 1, 5])
    expect(batch.state.requests).toBe(5)
  })

  it('is not entered before the first next(), nor by a request that has ended', async () => {
    const batch = newBatch({ parallel: 1, queue: 0 })
    const unused = batch.generate(ids(10))
    expect(batch.state).toMatchObject(EMPTY)
    await unused.return(undefined as never)
    expect(await unused.next()).toEqual({ done: true, value: undefined })
    const aborted = batch.generate(ids(10), { signal: AbortSignal.abort(new Error('before')) })
    await expect(aborted.next()).rejects.toThrow('before')
    expect(await aborted.next()).toEqual({ done: true, value: undefined })
    expect(batch.state.requests).toBe(0)
    const { summary } = await fromBatch(batch, ids(10), { maxTokens: 1 })
    expect(summary.finishReason).toBe('length')
  })

  it('is closed by close(), and what is under way may end within the grace', async () => {
    const batch = newBatch({ parallel: 2 })
    const answers = [1, 2].map((seed) => fromBatch(batch, ids(10, seed), { maxTokens: 60, seed, ignoreEos: true }))
    const waiting = fromBatch(batch, ids(10)).catch((error) => error.code)
    await until(() => batch.state.running === 2)
    const closed = batch.close()
    expect(await waiting).toBe('ERR_STOPPING')
    expect(await codeOf(() => fromBatch(batch, ids(10)))).toBe('ERR_STOPPING')
    expect(await codeOf(() => batch.score(ids(10)))).toBe('ERR_STOPPING')
    for (const { summary } of await Promise.all(answers)) expect(summary.usage.newTokens).toBe(60)
    await closed
    expect(batch.state).toMatchObject(EMPTY)
  })

  it('is closed with what never ends, after the pieces that were made', async () => {
    const batch = newBatch()
    const idle = batch.generate(ids(10), { ignoreEos: true })
    await idle.next()
    await batch.close({ graceMs: 30 })
    expect(batch.state).toMatchObject(EMPTY)
    let pieces = 0
    expect(
      await codeOf(async () => {
        for await (const _ of idle) pieces++
      }),
    ).toBe('ERR_STOPPING')
    expect(pieces).toBe(16)
    await batch.close()
  })
})

describe('a consumer', () => {
  it('that is slow makes its own request wait, and no other', async () => {
    const batch = newBatch({ parallel: 2 })
    const options = { maxTokens: 60, seed: 3, ignoreEos: true }
    const slow = batch.generate(ids(10), options)
    const first = await slow.next()
    const other = await fromBatch(batch, ids(10, 2), { ...options, maxTokens: 100 })
    expect(other.summary.usage.newTokens).toBe(100)
    expect(batch.state.newTokens).toBe(100 + 17) // 16 lie ready, and one was taken
    const { steps } = batch.state
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(batch.state.steps).toBe(steps)
    const rest = await collect(slow)
    const answer = { ...rest, pieces: [first.value as Answer['pieces'][0], ...rest.pieces] }
    expect(comparable(answer)).toEqual(comparable(await fromSession(model, CONTEXT, ids(10), options)))
  })

  it('that leaves frees its place at once, whatever it does', async () => {
    const batch = newBatch({ parallel: 1 })
    const reason = new Error('enough')
    const leave: ((seed: number) => Promise<unknown>)[] = [
      async (seed) => {
        for await (const _ of batch.generate(ids(10, seed), { ignoreEos: true })) break
      },
      async (seed) => {
        const controller = new AbortController()
        const stream = batch.generate(ids(10, seed), { ignoreEos: true, signal: controller.signal })
        await stream.next()
        controller.abort(reason)
        expect(await stream.next().catch((error) => error)).toBe(reason)
        expect(await stream.next()).toEqual({ done: true, value: undefined })
      },
      async (seed) => {
        const stream = batch.generate(ids(300, seed), { chunk: 1 })
        const next = stream.next()
        await until(() => batch.state.steps > 0)
        await stream.return(undefined as never)
        expect(await next).toEqual({ done: true, value: undefined })
      },
      async (seed) => {
        const stream = batch.generate(ids(10, seed), { ignoreEos: true })
        await stream.next()
        expect(await stream.throw(reason).catch((error) => error)).toBe(reason)
      },
      async (seed) => {
        await using stream = batch.generate(ids(10, seed), { ignoreEos: true })
        await stream.next()
      },
      async (seed) => {
        const controller = new AbortController()
        const scores = batch.score(ids(380, seed), { signal: controller.signal })
        await new Promise((resolve) => setImmediate(resolve)) // it takes more than one step
        controller.abort(reason)
        expect(await scores.catch((error) => error)).toBe(reason)
      },
      async (seed) => {
        const controller = new AbortController()
        const embedding = batch.embed(ids(380, seed), { signal: controller.signal })
        controller.abort(reason)
        expect(await embedding.catch((error) => error)).toBe(reason)
      },
    ]
    for (const [i, action] of leave.entries()) {
      await action(i + 20)
      await until(() => batch.state.running === 0 && batch.state.runningBytes === 0)
      const { steps } = batch.state
      await fromBatch(batch, ids(4, i + 50), { maxTokens: 1 })
      expect(batch.state.steps).toBeLessThan(steps + 3)
    }
  })
})

describe('scores', () => {
  it('are those of a session, in whatever company, kept or not', async () => {
    const tokens = ids(300)
    const expected = await scoresOf(tokens, 3)
    for (const cacheMiB of [0, 64]) {
      const batch = newBatch({ parallel: 4, cacheMiB })
      const [found] = await Promise.all([
        batch.score(tokens, { top: 3 }),
        fromBatch(batch, ids(200, 2), { maxTokens: 50 }),
        batch.embed(ids(390, 3)),
      ])
      expect(found).toEqual({ ...expected, cachedTokens: 0 })
      const again = await batch.score(tokens, { top: 3 })
      expect(again).toEqual({ ...expected, cachedTokens: cacheMiB > 0 ? 298 : 0 })
      const less = await batch.score(tokens.subarray(0, 100), { top: 1 })
      expect(less).toEqual({ ...(await scoresOf(tokens.subarray(0, 100), 1)), cachedTokens: cacheMiB > 0 ? 98 : 0 })
      // More than what is known of a kept session has to be computed.
      const more = await batch.score(tokens, { top: 5 })
      expect(more).toEqual({ ...(await scoresOf(tokens, 5)), cachedTokens: 0 })
      expect((await batch.score(tokens, { top: 5 })).cachedTokens).toBe(cacheMiB > 0 ? 298 : 0)
    }
  })

  it('tell what comes next', async () => {
    const batch = newBatch()
    const tokens = ids(50)
    const session = model.createSession()
    const { data } = await session.logits(tokens)
    const likeliest = data.indexOf(data.reduce((a, b) => Math.max(a, b)))
    for (let round = 0; round < 2; round++) {
      const { topIds, topLogprobs, logprobs } = await batch.score(tokens, { top: 2, next: true })
      expect([topIds.length, topLogprobs.length, logprobs.length]).toEqual([102, 102, 50])
      expect([topIds[0], topIds[1], topIds[100]]).toEqual([-1, -1, likeliest])
      expect(topLogprobs[100]).toBeLessThan(0)
      const greedy = await fromBatch(batch, tokens, { temperature: 0, maxTokens: 1, logprobs: true })
      expect(greedy.pieces[0]).toMatchObject({ id: likeliest, logprob: topLogprobs[100] })
    }
    const one = await batch.score([7], { top: 1 })
    expect(one).toEqual({
      logprobs: Float32Array.of(Number.NaN),
      topIds: Int32Array.of(-1),
      topLogprobs: Float32Array.of(Number.NaN),
      cachedTokens: 0,
    })
    expect((await batch.score([7], { top: 1, next: true })).topIds.length).toBe(2)
    expect(await codeOf(() => batch.score([]))).toBe('ERR_EMPTY_PROMPT')
    expect(await codeOf(() => batch.score(ids(401)))).toBe('ERR_CONTEXT_FULL')
  })

  it('of several choices compute their question once, one after another and at the same time', async () => {
    const question = ids(90)
    const choices = [3, 4, 5, 6].map((seed) => Int32Array.from([...question, ...ids(5 + seed, seed)]))
    const expected = await Promise.all(choices.map((tokens) => scoresOf(tokens, 1)))
    const check = (found: BatchScores[]) => {
      for (const [i, { cachedTokens, ...scores }] of found.entries()) {
        expect(scores).toEqual(expected[i])
        // What follows the last token in common is another thing each time. The session of one that has just begun
        // ends there, so that one token more is computed again.
        expect(i === 0 ? [0] : [88, 89]).toContain(cachedTokens)
      }
    }
    const after = newBatch({ parallel: 1 })
    const found: BatchScores[] = []
    for (const tokens of choices) found.push(await after.score(tokens, { top: 1 }))
    check(found)
    const together = newBatch({ parallel: 4 })
    check(await Promise.all(choices.map((tokens) => together.score(tokens, { top: 1 }))))
    // What was scored serves answers, too.
    const { summary } = await fromBatch(together, question, { maxTokens: 1 })
    expect(summary.usage.cachedTokens).toBe(89)
  })
})

describe('embeddings', () => {
  it('are those of a session, in whatever company', async () => {
    const batch = newBatch({ parallel: 4 })
    const session = model.createSession()
    for (const options of [{}, { pooling: 'last' }, { normalize: false }] as const) {
      const [found] = await Promise.all([
        batch.embed(ids(333), options),
        fromBatch(batch, ids(100, 4), { maxTokens: 20 }),
        batch.embed(ids(20, 6)),
      ])
      expect(found).toEqual({ embedding: await session.embed(ids(333), options), tokens: 333 })
    }
  })
})

describe('kept prefixes', () => {
  it('let a conversation compute only what is new', async () => {
    const batch = newBatch({ parallel: 2 })
    let history: number[] = [...ids(20)]
    let known = 0
    for (let turn = 0; turn < 20; turn++) {
      const options = { maxTokens: 5, seed: turn, ignoreEos: true }
      const other = fromBatch(batch, ids(30, 30 + turn), options)
      const answer = await fromBatch(batch, history, options)
      await other
      expect(comparable(answer)).toEqual(comparable(await fromSession(model, CONTEXT, history, options)))
      expect(answer.summary.usage).toMatchObject({ promptTokens: history.length, cachedTokens: known })
      history = [...history, ...answer.pieces.map(({ id }) => id)]
      known = history.length - 1 // the last token was chosen, and not computed
      history.push(...ids(10, turn + 2))
    }
  })

  it('serve several conversations that begin alike, without one losing what the other has', async () => {
    const batch = newBatch({ parallel: 1 })
    const system = ids(60)
    const talks = [1, 2, 3].map((seed) => [...system, ...ids(40, seed + 10)])
    const cached: number[][] = []
    for (let round = 0; round < 3; round++) {
      cached.push([])
      for (const talk of talks) {
        const { summary, pieces } = await fromBatch(batch, talk, { maxTokens: 4, seed: 1, ignoreEos: true })
        cached[round]!.push(talk.length - summary.usage.cachedTokens)
        talk.push(...pieces.map(({ id }) => id), ...ids(5, round + 3))
      }
    }
    expect(cached).toEqual([
      [100, 40, 40],
      [6, 6, 6],
      [6, 6, 6],
    ])
  })

  it('are had from a request under way, and waited for where they are being computed', async () => {
    const batch = newBatch({ parallel: 8 })
    const prompt = ids(300)
    const first = batch.generate(prompt, { seed: 1, ignoreEos: true })
    await first.next()
    const { summary } = await fromBatch(batch, prompt, { maxTokens: 2 })
    expect(summary.usage.cachedTokens).toBe(299)
    await first.return(undefined as never)
    const many = await Promise.all(
      [1, 2, 3, 4].map((seed) => fromBatch(batch, ids(300, 9), { seed, maxTokens: 10, ignoreEos: true, chunk: 50 })),
    )
    expect(many.map(({ summary }) => summary.usage.cachedTokens)).toEqual([0, 299, 299, 299])
    for (const [i, answer] of many.entries()) {
      const options = { seed: i + 1, maxTokens: 10, ignoreEos: true }
      expect(comparable(answer)).toEqual(comparable(await fromSession(model, CONTEXT, ids(300, 9), options)))
    }
  })

  it('go on when the request they were waited for leaves', async () => {
    const batch = newBatch({ parallel: 2 })
    const first = batch.generate(ids(300), { chunk: 1 })
    const waits = first.next()
    const second = fromBatch(batch, ids(300), { maxTokens: 3, seed: 1 })
    await until(() => batch.state.steps > 20)
    await first.return(undefined as never)
    await waits
    const answer = await second
    expect(comparable(answer)).toEqual(
      comparable(await fromSession(model, CONTEXT, ids(300), { maxTokens: 3, seed: 1 })),
    )
    expect(answer.summary.usage.cachedTokens).toBeGreaterThan(15)
  })

  it('keep within their limit', async () => {
    const session = model.createSession()
    await session.append(ids(20))
    const bytes = session.usedBytes
    session.dispose()
    const batch = newBatch({ cacheMiB: (3.5 * bytes) / 2 ** 20 })
    for (let seed = 1; seed < 8; seed++) await fromBatch(batch, ids(30, seed), { maxTokens: 2 })
    expect(batch.state.cacheBytes).toBeGreaterThan(2.9 * bytes)
    expect(batch.state.cacheBytes).toBeLessThan(3.5 * bytes)
    const none = newBatch({ cacheMiB: 0 })
    await fromBatch(none, ids(30), { maxTokens: 2 })
    expect(none.state).toMatchObject(EMPTY)
  })
})

describe('many requests that come and go', () => {
  const longer = process.env.ONEBIT_LONG ? 20 : 1
  for (let seed = 1; seed <= 4 * longer; seed++) {
    it(`get what they would get alone (${seed})`, async () => {
      const random = randomNumbers(seed * 7919)
      const batch = newBatch({ parallel: 1 + random(8), queue: random(20), cacheMiB: random(3) })
      const expected = new Map<string, Answer>()
      const trunk = ids(120, seed)
      const overflows = { seen: 0 }
      const one = async (n: number): Promise<void> => {
        const prompt = Int32Array.from([...trunk.subarray(0, random(120)), ...ids(1 + random(60), n)])
        const way = WAYS[random(WAYS.length)]!
        const slow = random(4) === 0
        const leaveAfter = random(3) === 0 ? 1 + random(12) : Number.POSITIVE_INFINITY
        const controller = new AbortController()
        try {
          if (random(4) === 0) {
            const { cachedTokens: _, ...scores } = await batch.score(prompt, { top: 2 })
            expect(scores).toEqual(await scoresOf(prompt, 2))
            return
          }
          const pieces: Answer['pieces'] = []
          const stream = batch.generate(prompt, { ...way, signal: controller.signal })
          for (;;) {
            if (pieces.length >= leaveAfter) {
              if (random(2) === 0) await stream.return(undefined as never)
              else controller.abort(new Error('left'))
            }
            const { value, done } = await stream.next()
            if (slow) await new Promise((resolve) => setTimeout(resolve, random(5)))
            if (!done) {
              pieces.push(value)
              continue
            }
            const key = JSON.stringify([[...prompt], way])
            if (!expected.has(key)) expected.set(key, await fromSession(model, CONTEXT, prompt, way))
            const alone = expected.get(key)!
            if (value) expect(comparable({ pieces, summary: value })).toEqual(comparable(alone))
            else expect(pieces).toEqual(alone.pieces.slice(0, pieces.length))
            return
          }
        } catch (error) {
          if ((error as { code?: string }).code === 'ERR_QUEUE_FULL') overflows.seen++
          else if ((error as Error).message !== 'left') throw error
        }
      }
      const all: Promise<void>[] = []
      for (let n = 0; n < 60; n++) {
        all.push(one(n))
        if (random(3) > 0) await new Promise((resolve) => setTimeout(resolve, random(8)))
      }
      await Promise.all(all)
      await until(() => batch.state.running === 0)
      expect(batch.state).toMatchObject({ running: 0, waiting: 0, runningBytes: 0 })
      expect(batch.state.requests + overflows.seen).toBe(60)
    })
  }
})

describe('options', () => {
  it('are checked', async () => {
    const bad = async (action: () => unknown) => expect(await codeOf(action)).toBe('ERR_BAD_OPTION')
    await bad(() => new Batch({} as Model))
    for (const options of [
      { parallel: 0 },
      { parallel: 1.5 },
      { queue: -1 },
      { cacheMiB: '1' },
      { context: 401 },
      { x: 1 },
      5,
    ]) {
      await bad(() => new Batch(model, options as never))
    }
    const batch = newBatch()
    for (const options of [
      { maxTokens: -1 },
      { onStart: 1 },
      { onPrompt: 'x' },
      { constraint: {} },
      { y: 1 },
      5,
      null,
    ]) {
      await bad(() => batch.generate([1], options as never))
    }
    for (const options of [{ top: -1 }, { next: 1 }, { signal: {} }, { z: 1 }]) {
      await bad(() => batch.score([1], options as never))
    }
    await bad(() => batch.embed([1], { pooling: 'max' } as never))
    await bad(() => batch.close({ graceMs: -1 }))
    for (const action of [() => batch.generate([TINY_VOCAB]), () => batch.score([-1]), () => batch.embed([0.5])]) {
      expect(await codeOf(action)).toBe('ERR_TOKEN_RANGE')
    }
    expect(batch.state.requests).toBe(0)
  })
})
