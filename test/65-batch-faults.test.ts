/** A batch when something goes wrong for one of its requests, or for all; and constraints, which come late or fail. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Batch } from '../dist/batch/batch.js'
import type { Constraint } from '../dist/grammar/constraint.js'
import { type GenerateOptions, Model } from '../dist/index.js'
import { comparable, fromBatch, fromSession, until } from './batch-requests.js'
import { codeOf, failure } from './expect-code.js'
import { TINY_VOCAB, temporaryFolder, writeTinyModel } from './tiny-model.js'

const CONTEXT = 600
const DIM = 128
/** The only token for which the last component of a state is not zero; the first feed-forward makes infinity of it. */
const POISON = 200
function poison(name: string, bytes: Uint8Array): void {
  const rows = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 2)
  const fillColumn = (value: number, from: number, to: number) => {
    for (let row = from; row < to; row++) rows[row * DIM + DIM - 1] = value
  }
  if (name === 'tok_embeddings.weight') {
    fillColumn(0, 0, TINY_VOCAB)
    fillColumn(100, POISON, POISON + 1)
  }
  if (name === 'layers.0.wo.weight') rows.fill(0, (DIM - 1) * DIM)
  if (name === 'layers.0.w1.weight' || name === 'layers.0.w3.weight') fillColumn(1e20, 0, 1)
}
const folder = temporaryFolder()
const path = folder.path('tiny.obt')
let model: Model
beforeAll(async () => {
  await writeTinyModel(path, {
    context: CONTEXT,
    embedding: 'f32',
    tied: false,
    kind: 'f32',
    change: poison,
  })
  model = await Model.load(path, { threads: 2 })
})
afterAll(async () => {
  await model.dispose()
  folder.remove()
})

const ids = (count: number, seed = 1) =>
  Int32Array.from({ length: count }, (_, i) => (i * 37 * seed + (i % 11) + seed) % POISON)
const NO_POISON = { logitBias: { [POISON]: -1000 } }
/** Samplers with a memory: the draws, and the tokens that penalties look at. */
const WAYS: GenerateOptions[] = [
  { seed: 1, temperature: 1.5, topK: 0 },
  { seed: 2, repeatPenalty: 1.5, presencePenalty: 1, frequencyPenalty: 0.5 },
  { temperature: 0, topLogprobs: 2 },
].map((way) => ({ maxTokens: 60, ignoreEos: true, ...NO_POISON, ...way }))

const WORDS = (TINY_VOCAB + 31) >> 5
function maskOf(allowed: Iterable<number>): Int32Array {
  const mask = new Int32Array(WORDS)
  for (const id of allowed) mask[id >> 5]! |= 1 << (id & 31)
  return mask
}

/** Allows `allowed(n)` for token number n, after `delay` ms. */
class Fixed implements Constraint {
  readonly accepted: number[] = []
  disposed = 0
  #asked = 0
  constructor(
    readonly allowed: (n: number) => Int32Array | undefined,
    readonly delay?: number,
  ) {}
  async next(): Promise<Int32Array | undefined> {
    const n = this.#asked++
    if (this.delay !== undefined) await new Promise((resolve) => setTimeout(resolve, this.delay))
    return this.allowed(n)
  }
  accept(id: number): void {
    this.accepted.push(id)
  }
  dispose(): void {
    this.disposed++
  }
}

/** Answers that take steps together with `fault`, and get what they would get without it. */
async function besides(batch: Batch, fault: () => Promise<unknown>): Promise<void> {
  let ended = 0
  const answers = WAYS.map((way, i) => fromBatch(batch, ids(20 + i, i + 1), way).finally(() => ended++))
  const before = batch.state.newTokens
  await until(() => batch.state.newTokens > before + 10)
  await fault()
  expect(ended).toBe(0) // they were under way when it happened
  for (const [i, answer] of (await Promise.all(answers)).entries()) {
    const alone = await fromSession(model, CONTEXT, ids(20 + i, i + 1), WAYS[i]!)
    expect(comparable(answer)).toEqual(comparable(alone))
  }
}

describe('an error of one request', () => {
  it('is one of that request only: numbers that are none', async () => {
    const batch = new Batch(model, { parallel: 8 })
    const bad = [...ids(30, 9), POISON, 5]
    expect(await codeOf(() => fromSession(model, CONTEXT, bad))).toBe('ERR_NOT_FINITE')
    await besides(batch, async () => {
      const faults = [() => fromBatch(batch, bad), () => batch.embed(bad), () => batch.score(bad)]
      for (const fault of faults) expect(await codeOf(fault)).toBe('ERR_NOT_FINITE')
      expect(await Promise.all(faults.map(codeOf))).toEqual(Array(3).fill('ERR_NOT_FINITE'))
    })
    // In the middle of an answer, too.
    await besides(batch, async () => {
      let pieces = 0
      const only = new Fixed((n) => maskOf([n < 5 ? 7 : POISON]))
      const stream = batch.generate(ids(30, 9), { constraint: only })
      const code = await codeOf(async () => {
        for await (const _ of stream) pieces++
      })
      expect([code, pieces, only.disposed > 0]).toEqual(['ERR_NOT_FINITE', 6, true])
    })
    await batch.close()
  })

  it('is one of that request only: no token may be chosen', async () => {
    const batch = new Batch(model, { parallel: 8 })
    await besides(batch, async () => {
      const none = new Fixed((n) => (n < 3 ? undefined : maskOf([])))
      expect(await codeOf(() => fromBatch(batch, ids(10, 8), { ...NO_POISON, constraint: none }))).toBe(
        'ERR_BAD_LOGITS',
      )
      expect(none.accepted.length).toBe(3)
      expect(none.disposed).toBeGreaterThan(0)
    })
    await batch.close()
  })

  it('does not stay in what is kept', async () => {
    const batch = new Batch(model)
    const bad = [...ids(30, 9), POISON]
    expect(await codeOf(() => fromBatch(batch, [...bad, 1]))).toBe('ERR_NOT_FINITE')
    const good = [...ids(30, 9), 6]
    expect(comparable(await fromBatch(batch, good, WAYS[0]))).toEqual(
      comparable(await fromSession(model, CONTEXT, good, WAYS[0])),
    )
    await batch.close()
    expect(batch.state).toMatchObject({ running: 0, runningBytes: 0, cacheBytes: 0 })
  })
})

describe('a constraint', () => {
  it('says which tokens may come, and is told which did', async () => {
    for (const delay of [undefined, 0, 3]) {
      const batch = new Batch(model, { parallel: 4 })
      const constraints = [1, 2, 3].map(() => new Fixed((n) => maskOf([65 + n, 97 + n]), delay))
      const others = WAYS.map((way, i) => fromBatch(batch, ids(20 + i, i + 1), way))
      const answers = await Promise.all(
        constraints.map((constraint, i) => fromBatch(batch, ids(50, i + 3), { constraint, maxTokens: 10, seed: i })),
      )
      for (const [i, { pieces }] of answers.entries()) {
        expect(pieces.map(({ text }) => text.toLowerCase()).join('')).toBe('abcdefghij')
        expect(constraints[i]!.accepted).toEqual(pieces.map(({ id }) => id).slice(0, -1))
        expect(constraints[i]!.disposed).toBeGreaterThan(0)
      }
      for (const [i, other] of (await Promise.all(others)).entries()) {
        expect(comparable(other)).toEqual(comparable(await fromSession(model, CONTEXT, ids(20 + i, i + 1), WAYS[i]!)))
      }
      await batch.close()
    }
  })

  it('that takes its time makes nobody else wait', async () => {
    const batch = new Batch(model, { parallel: 2 })
    let go = () => {}
    const wait = new Promise<void>((resolve) => {
      go = resolve
    })
    const slow = new Fixed(() => undefined)
    slow.next = async () => {
      await wait
      return undefined
    }
    const first = fromBatch(batch, ids(10), { constraint: slow, maxTokens: 5, ignoreEos: true, ...NO_POISON })
    const { summary } = await fromBatch(batch, ids(10, 2), { maxTokens: 50, ignoreEos: true, ...NO_POISON })
    expect(summary.usage.newTokens).toBe(50)
    expect(batch.state.newTokens).toBe(50)
    go()
    expect((await first).pieces.length).toBe(5)
    await batch.close()
  })

  it('ends its request when it fails, and is disposed of in every case', async () => {
    const batch = new Batch(model, { parallel: 1, queue: 1 })
    const fault = new Error('mine')
    const failing = new Fixed((n) => {
      if (n === 2) throw fault
      return undefined
    })
    expect(await fromBatch(batch, ids(5), { constraint: failing }).catch((error) => error)).toBe(fault)
    const refusing = new Fixed(() => undefined)
    refusing.accept = () => {
      throw fault
    }
    expect(await fromBatch(batch, ids(5), { constraint: refusing }).catch((error) => error)).toBe(fault)
    const wrong = new Fixed(() => new Int32Array(1))
    await expect(fromBatch(batch, ids(5), { constraint: wrong })).rejects.toThrow('mask has 1 words')
    const unused = [1, 2, 3, 4, 5].map(() => new Fixed(() => undefined))
    await batch.generate(ids(5), { constraint: unused[0]! }).return(undefined as never)
    expect(await codeOf(() => batch.generate(ids(5), { constraint: unused[1]!, maxTokens: -1 }))).toBe('ERR_BAD_OPTION')
    expect(await codeOf(() => fromBatch(batch, [], { constraint: unused[2]! }))).toBe('ERR_EMPTY_PROMPT')
    const endless = batch.generate(ids(5), { ignoreEos: true, ...NO_POISON })
    await endless.next()
    const queued = fromBatch(batch, ids(5), { constraint: unused[3]! }).catch((error) => error.code)
    expect(await codeOf(() => fromBatch(batch, ids(5), { constraint: unused[4]! }))).toBe('ERR_QUEUE_FULL')
    await batch.close({ graceMs: 0 })
    expect(await queued).toBe('ERR_STOPPING')
    for (const constraint of [failing, refusing, wrong, ...unused]) expect(constraint.disposed).toBeGreaterThan(0)
    expect(batch.state).toMatchObject({ running: 0, waiting: 0, runningBytes: 0, cacheBytes: 0 })
  })
})

describe('memory', () => {
  it('that is kept is given up before a request fails for want of it', async () => {
    const session = model.createSession()
    const { bytes } = session // of a whole session
    session.dispose()
    const limited = await Model.load(path, {
      threads: 1,
      memoryLimit: model.info.weightBytes + Math.floor(2.5 * bytes),
    })
    const batch = new Batch(limited, { parallel: 3 })
    const options = { maxTokens: 300, ignoreEos: true, ...NO_POISON, temperature: 0 }
    for (let seed = 1; seed < 5; seed++) {
      const { summary } = await fromBatch(batch, ids(250, seed), options)
      expect(summary.usage.newTokens).toBe(300)
    }
    // All the while that two are under way there is no room for a third.
    const two = [5, 6].map((seed) => batch.generate(ids(250, seed), options))
    for (const stream of two) await stream.next()
    expect(await codeOf(() => fromBatch(batch, ids(250, 7), options))).toBe('ERR_MEMORY_LIMIT')
    for (const stream of two) await stream.return(undefined as never)
    expect((await fromBatch(batch, ids(250, 7), options)).summary.usage.newTokens).toBe(300)
    await batch.close()
    await limited.dispose()
  })
})

describe('a model', () => {
  it('that is disposed ends everything', async () => {
    const own = await Model.load(path, { threads: 1 })
    const batch = new Batch(own, { parallel: 2 })
    const requests = [
      fromBatch(batch, ids(10), { ignoreEos: true, ...NO_POISON }),
      fromBatch(batch, ids(500, 2), { chunk: 1 }),
      batch.score(ids(400, 3)),
      batch.embed(ids(400, 3)),
    ].map((request) => failure(() => request))
    await until(() => batch.state.newTokens > 3)
    await own.dispose()
    for (const error of await Promise.all(requests)) expect(error.code).toBe('ERR_DISPOSED')
    expect(await codeOf(() => batch.score(ids(10)))).toBe('ERR_DISPOSED')
    expect(batch.state).toMatchObject({ running: 0, waiting: 0, runningBytes: 0 })
    await batch.close()
  })

  it('can have several batches, and there can be several models', async () => {
    const other = await Model.load(path, { threads: 1 })
    const batches = [new Batch(model), new Batch(model, { parallel: 1 }), new Batch(other)]
    const answers = await Promise.all(
      batches.flatMap((batch) => WAYS.map((way, i) => fromBatch(batch, ids(60, i + 1), way))),
    )
    const alone = await Promise.all(WAYS.map((way, i) => fromSession(model, CONTEXT, ids(60, i + 1), way)))
    for (const [i, answer] of answers.entries()) expect(comparable(answer)).toEqual(comparable(alone[i % WAYS.length]!))
    for (const batch of batches) await batch.close()
    await other.dispose()
  })
})
