/** Embeddings: hidden states after the final norm, whose product with the head is the logits; their mean or the last. */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Model, readObtHeader } from '../dist/index.js'
import { codeOf } from './expect-code.js'
import { TINY_VOCAB, temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const tiny = folder.path('tiny.obt')
let model: Model
beforeAll(async () => {
  await writeTinyModel(tiny, { embedding: 'f32', context: 600 })
  model = await Model.load(tiny, { threads: 2 })
})
afterAll(async () => {
  await model.dispose()
  folder.remove()
})

const DIM = 128
const ids = (count: number) => Int32Array.from({ length: count }, (_, i) => (i * 37 + (i % 11)) % TINY_VOCAB)
const RAW = { normalize: false } as const

/** (vocab, dim) the head, which is the embedding */
async function head(): Promise<Float32Array> {
  const { tensors } = await readObtHeader(tiny)
  const { offset, bytes } = tensors.find(({ spec }) => spec.name === 'tok_embeddings.weight')!
  const file = readFileSync(tiny)
  return new Float32Array(file.buffer.slice(file.byteOffset + offset, file.byteOffset + offset + bytes))
}

function norm(vector: Float32Array): number {
  return Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0))
}

describe('embeddings', () => {
  it('are what the head makes logits of', async () => {
    const weights = await head()
    expect(weights.length).toBe(TINY_VOCAB * DIM)
    const session = model.createSession()
    for (const count of [1, 2, 40]) {
      const vector = await session.embed(ids(count), { pooling: 'last', normalize: false })
      const { data } = await model.createSession().logits(ids(count))
      let largest = 0
      for (let row = 0; row < TINY_VOCAB; row++) {
        let sum = 0
        for (let d = 0; d < DIM; d++) sum += weights[row * DIM + d]! * vector[d]!
        largest = Math.max(largest, Math.abs(sum - data[row]!))
      }
      expect(largest).toBeLessThan(1e-5)
      expect(norm(data)).toBeGreaterThan(1) // such that this says something
    }
  })

  it('are the mean of all hidden states, or the last', async () => {
    const session = model.createSession()
    const each: Float32Array[] = []
    for (let count = 1; count <= 23; count++) each.push(await session.embed(ids(count), { pooling: 'last', ...RAW }))
    const mean = Float32Array.from({ length: DIM }, (_, d) => each.reduce((sum, one) => sum + one[d]!, 0) / each.length)
    const all = await session.embed(ids(23), { pooling: 'mean', ...RAW })
    expect(all).toEqual(mean)
    expect(await session.embed(ids(23), RAW)).toEqual(all)
    expect(each[22]).not.toEqual(all)
  })

  it('have length 1 unless told otherwise', async () => {
    const session = model.createSession()
    for (const pooling of ['mean', 'last'] as const) {
      const raw = await session.embed(ids(30), { pooling, ...RAW })
      const unit = await session.embed(ids(30), { pooling })
      expect(norm(unit)).toBeCloseTo(1, 6)
      for (const [d, x] of unit.entries()) expect(x).toBeCloseTo(raw[d]! / norm(raw), 6)
    }
    expect(norm(await session.embed(ids(30), RAW))).not.toBeCloseTo(1, 2)
  })

  it('are the same bytes whatever computes them', async () => {
    const expected = await model.createSession().embed(ids(500))
    for (const options of [{ threads: 1 }, { threads: 3 }, { threads: 2, isa: 'scalar' }]) {
      const other = await Model.load(tiny, options)
      const session = other.createSession({ context: 500 })
      const [first] = await Promise.all([session.embed(ids(500)), other.createSession().append(ids(90))])
      expect(first).toEqual(expected)
      expect(await session.embed(ids(500))).toEqual(expected) // after something else
      await other.dispose()
    }
  })

  it('take a text as a prompt is taken', async () => {
    const session = model.createSession()
    const tokens = await model.encode('Once upon a time')
    expect(await session.embed('Once upon a time')).toEqual(await session.embed(tokens))
    expect(await session.embed('Once upon a time')).not.toEqual(await session.embed('Once upon a tine'))
  })
})

describe('a session that embeds', () => {
  it('must be empty, and is again', async () => {
    const session = model.createSession({ context: 50 })
    await session.embed(ids(50))
    expect([session.position, session.busy, session.tokens.length]).toEqual([0, false, 0])
    await session.append([1, 2])
    expect(await codeOf(() => session.embed([3]))).toBe('ERR_NOT_EMPTY')
    expect(session.position).toBe(2)
    session.rewind(0)
    for (const [content, code] of [
      [ids(51), 'ERR_CONTEXT_FULL'],
      [[], 'ERR_EMPTY_PROMPT'],
      [[TINY_VOCAB], 'ERR_TOKEN_RANGE'],
      [5, 'ERR_BAD_OPTION'],
    ] as [number[], string][]) {
      expect(await codeOf(() => session.embed(content))).toBe(code)
      expect(session.position).toBe(0)
    }
    expect(await session.embed(ids(5))).toEqual(await model.createSession().embed(ids(5)))
  })

  it('knows its options', async () => {
    const session = model.createSession()
    for (const options of [{ pooling: 'max' }, { normalize: 1 }, { signal: {} }, { polling: 'mean' }, 'mean', null]) {
      expect(await codeOf(() => session.embed([1], options as never))).toBe('ERR_BAD_OPTION')
    }
  })

  it('can be aborted and disposed', async () => {
    const session = model.createSession()
    const reason = new Error('enough')
    expect(await session.embed([1], { signal: AbortSignal.abort(reason) }).catch((error) => error)).toBe(reason)
    const controller = new AbortController()
    const embedding = session.embed(ids(600), { signal: controller.signal })
    expect(await codeOf(() => session.embed([1]))).toBe('ERR_BUSY')
    controller.abort(reason)
    expect(await embedding.catch((error) => error)).toBe(reason)
    expect(session.position).toBe(0)
    const last = session.embed(ids(600))
    session.dispose()
    expect(await codeOf(() => last)).toBe('ERR_DISPOSED')
    expect(await codeOf(() => session.embed([1]))).toBe('ERR_DISPOSED')
  })
})
