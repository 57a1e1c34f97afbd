/** Saved sessions that somebody made: every checksum is right, and something else is not. */
import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Model, Session } from '../../dist/index.js'
import { addon } from '../../dist/native/addon.js'
import { type HeaderTensor, sealedHeader, unsealedHeader } from '../../dist/obt/sealed-header.js'
import { codeOf } from '../expect-code.js'
import { TINY_VOCAB, temporaryFolder, writeTinyModel } from '../tiny-model.js'

const folder = temporaryFolder()
let model: Model
beforeAll(async () => {
  const tiny = folder.path('tiny.obt')
  await writeTinyModel(tiny, { dim: 64, layers: 1, context: 1100 })
  model = await Model.load(tiny, { threads: 2 })
})
afterAll(async () => {
  await model.dispose()
  folder.remove()
})

const ids = (count: number, from = 0) =>
  Int32Array.from({ length: count }, (_, i) => ((i + from) * 37 + (i % 11)) % TINY_VOCAB)
const ANSWER = { maxTokens: 12, ignoreEos: true, seed: 3, topLogprobs: 3 }

describe('a file that somebody made', () => {
  const made = folder.path('made.session')
  const CHUNK = 2 * 256 * 32 * 2 // keys and values of one head of 32 in f16

  interface Parts {
    metadata?: Record<string, string>
    tensors?: (tensors: HeaderTensor[]) => HeaderTensor[]
    tokens?: Int32Array
    cache?: Buffer
    header?: (header: Buffer) => Buffer
  }

  /** One of no bytes, so that everything else stays where it is. */
  const withState = ([kv, tokens]: HeaderTensor[]): HeaderTensor[] => [
    kv!,
    { name: 'state.0', dtype: 'U8', shape: [0], from: kv!.to, to: kv!.to },
    tokens!,
  ]

  /** A session of 20 tokens with all checksums right, but for what is changed. */
  function craft({
    metadata = {},
    tensors = (all) => all,
    tokens = ids(20),
    cache = Buffer.alloc(CHUNK),
    header = (bytes) => bytes,
  }: Parts) {
    const data = [cache, Buffer.from(tokens.buffer)]
    const placed = [
      { name: 'kv.0', dtype: 'U8', shape: [cache.length], from: 0, to: cache.length },
      {
        name: 'tokens',
        dtype: 'I32',
        shape: [tokens.length],
        from: cache.length,
        to: cache.length + tokens.byteLength,
      },
    ]
    const about = {
      format: 'onebit-session',
      version: '1',
      model: model.info.identity,
      activations: 'int8',
      kv: 'f16',
      context: '100',
      positions: '20',
    }
    const crcs = data.map((bytes) => addon().crc32c(bytes, 0))
    const sealed = sealedHeader(unsealedHeader({ ...about, ...metadata }, tensors(placed), crcs))
    writeFileSync(made, Buffer.concat([header(sealed), ...data]))
  }
  const result = (parts: Parts) => {
    craft(parts)
    return codeOf(() => Session.restore(model, made))
  }

  it('is a session when all of it fits', async () => {
    craft({})
    const session = await Session.restore(model, made)
    expect(session.tokens).toEqual(ids(20))
    expect(session.capacity).toBe(100)
    expect((await session.complete(ids(2), ANSWER)).ids.length).toBe(12)
  })

  it('may hold any numbers in its cache: an error at worst', async () => {
    for (const byte of [0x7c, 0x7f, 0xff, 0xfc]) {
      craft({ cache: Buffer.alloc(CHUNK, byte) }) // infinite or not a number, in f16
      const session = await Session.restore(model, made)
      expect(await codeOf(() => session.logits([1]))).toBe('ERR_NOT_FINITE')
      session.rewind(0)
      expect((await session.logits([1])).rows).toBe(1)
    }
  })

  it.each<[string, Parts, string]>([
    ['another format', { metadata: { format: 'obt' } }, 'ERR_SESSION_FILE'],
    ['a later version', { metadata: { version: '3' } }, 'ERR_VERSION'],
    ['states that are not there', { metadata: { version: '2', states: '20' } }, 'ERR_SESSION_FILE'],
    ['a version with states, and none', { metadata: { version: '2' } }, 'ERR_SESSION_FILE'],
    ['states that are no numbers', { metadata: { version: '2', states: 'x,20' } }, 'ERR_SESSION_FILE'],
    ['states in no order', { metadata: { version: '2', states: '7,7,20' } }, 'ERR_SESSION_FILE'],
    ['more states than there are', { metadata: { version: '2', states: '1,2,3,4,5,6,20' } }, 'ERR_SESSION_FILE'],
    [
      'states of a model that has none',
      { metadata: { version: '2', states: '20' }, tensors: withState },
      'ERR_SESSION_FILE',
    ],
    ['no model', { metadata: { model: 'x' } }, 'ERR_SESSION_FILE'],
    ['a model of another identity', { metadata: { model: '0'.repeat(64) } }, 'ERR_SESSION_MODEL'],
    ['unknown activations', { metadata: { activations: 'int2' } }, 'ERR_SESSION_FILE'],
    ['other activations', { metadata: { activations: 'int4' } }, 'ERR_SESSION_MODEL'],
    ['an unknown kind of cache', { metadata: { kv: '__proto__' } }, 'ERR_SESSION_FILE'],
    ['another kind of cache', { metadata: { kv: 'int8' } }, 'ERR_SESSION_MODEL'],
    ['a context that is none', { metadata: { context: '1e2' } }, 'ERR_SESSION_FILE'],
    ['a context of nothing', { metadata: { context: '0' } }, 'ERR_SESSION_FILE'],
    ['a context below its tokens', { metadata: { context: '19' } }, 'ERR_SESSION_FILE'],
    ['a context beyond the model', { metadata: { context: '1101' } }, 'ERR_SESSION_FILE'],
    ['a context beyond all models', { metadata: { context: '99999999999' } }, 'ERR_SESSION_FILE'],
    ['negative positions', { metadata: { positions: '-1' } }, 'ERR_SESSION_FILE'],
    ['more positions than tokens', { metadata: { positions: '21' } }, 'ERR_SESSION_FILE'],
    ['more positions than chunks', { metadata: { positions: '257' }, tokens: ids(300) }, 'ERR_SESSION_FILE'],
    ['no positions, but a chunk', { metadata: { positions: '0' } }, 'ERR_SESSION_FILE'],
    ['a field of its own', { metadata: { more: 'x' } }, 'ERR_SESSION_FILE'],
    ['a chunk that is too short', { cache: Buffer.alloc(CHUNK - 64) }, 'ERR_SESSION_FILE'],
    ['a chunk that is too long', { cache: Buffer.alloc(CHUNK * 2) }, 'ERR_SESSION_FILE'],
    ['an empty chunk', { cache: Buffer.alloc(0) }, 'ERR_SESSION_FILE'],
    ['a token too high', { tokens: ids(20).fill(TINY_VOCAB, 7, 8) }, 'ERR_TOKEN_RANGE'],
    ['a token below zero', { tokens: ids(20).fill(-1, 19) }, 'ERR_TOKEN_RANGE'],
    [
      'a chunk of terabytes',
      {
        tensors: ([kv, tokens]) => [
          { ...kv!, shape: [2 ** 36], to: 2 ** 36 },
          { ...tokens!, from: 2 ** 36, to: 2 ** 36 + 80 },
        ],
      },
      'ERR_TRUNCATED',
    ],
    [
      'a chunk of more than that',
      { tensors: ([kv, tokens]) => [{ ...kv!, shape: [2 ** 52], to: 2 ** 52 }, tokens!] },
      'ERR_SESSION_FILE',
    ],
    [
      'millions of tokens',
      { tensors: ([kv, tokens]) => [kv!, { ...tokens!, shape: [2 ** 22], to: tokens!.from + 2 ** 24 }] },
      'ERR_TRUNCATED',
    ],
    ['another type', { tensors: ([kv, tokens]) => [{ ...kv!, dtype: 'I8' }, tokens!] }, 'ERR_SESSION_FILE'],
    ['overlapping tensors', { tensors: ([kv, tokens]) => [kv!, { ...tokens!, from: 0, to: 80 }] }, 'ERR_SESSION_FILE'],
    ['tensors the other way round', { tensors: ([kv, tokens]) => [tokens!, kv!] }, 'ERR_SESSION_FILE'],
    ['no tokens', { tensors: ([kv]) => [kv!] }, 'ERR_SESSION_FILE'],
    [
      'one more tensor',
      { tensors: (all) => [...all, { name: '__proto__', dtype: 'U8', shape: [0], from: 0, to: 0 }] },
      'ERR_SESSION_FILE',
    ],
    ['JSON that is none', { header: (bytes) => bytes.fill('x', 9, 10) }, 'ERR_SESSION_FILE'],
    ['brackets only', { header: (bytes) => bytes.fill('[', 9, bytes.length) }, 'ERR_SESSION_FILE'],
    ['bytes that are no UTF-8', { header: (bytes) => bytes.fill(0xff, 20, 24) }, 'ERR_SESSION_FILE'],
  ])('is refused: %s', async (_what, parts, code) => {
    expect(await result(parts)).toBe(code)
  })

  it('takes no memory for what is not there', async () => {
    const before = process.memoryUsage()
    expect(
      await result({ tensors: ([kv, tokens]) => [kv!, { ...tokens!, shape: [2 ** 22], to: tokens!.from + 2 ** 24 }] }),
    ).toBe('ERR_TRUNCATED')
    expect(process.memoryUsage().arrayBuffers - before.arrayBuffers).toBeLessThan(8 << 20)
  })
})
