/** Sessions in files: what was saved goes on with the same bytes, and whatever else a file holds is refused. */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type RandomModelOptions, randomModel } from '../dist/bench/random-model.js'
import type { Shape } from '../dist/bench/shapes.js'
import { Model, readObtHeader, Session } from '../dist/index.js'
import { codeOf, failure } from './expect-code.js'
import { TINY_VOCAB, temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const [path, tiny, other] = [folder.path('a.session'), folder.path('tiny.obt'), folder.path('other.obt')]
let model: Model
beforeAll(async () => {
  await writeTinyModel(tiny, { dim: 64, layers: 1, context: 1100, features: { window: 300 } })
  await writeTinyModel(other, { dim: 64, layers: 1, context: 1100 })
  model = await Model.load(tiny, { threads: 2 })
})
afterAll(async () => {
  await model.dispose()
  folder.remove()
})

const SHAPE: Shape = {
  vocab_size: 64,
  dim: 64,
  hidden_dim: 64,
  n_layers: 1,
  n_heads: 2,
  n_kv_heads: 1,
  head_dim: 32,
  context_length: 64,
  rope_theta: 10000,
  norm_eps: 1e-5,
  tied_head: true,
}

const ids = (count: number, from = 0) =>
  Int32Array.from({ length: count }, (_, i) => ((i + from) * 37 + (i % 11)) % TINY_VOCAB)
const ANSWER = { maxTokens: 12, ignoreEos: true, seed: 3, topLogprobs: 3 }

/** Everything that can be seen of how a session goes on. */
async function goesOn(session: Session) {
  const before = [session.tokens, session.position, session.capacity, session.bytes]
  const { ids: chosen, logprobs, topLogprobs, text } = await session.complete(ids(3), ANSWER)
  const { data } = await session.logits(ids(2), { all: true })
  return { before, answer: [chosen, logprobs, topLogprobs, text], data, usedBytes: session.usedBytes }
}

describe('a saved session', () => {
  it.each(['f16', 'f32', 'int8'] as const)('goes on with the same bytes: %s', async (kv) => {
    for (const length of [0, 1, 17, 255, 256, 257, 512, 700]) {
      const session = model.createSession({ kv, context: 900 })
      await session.append(ids(length))
      await session.save(path)
      const restored = await Session.restore(model, path, { kv })
      expect(restored.usedBytes).toBe(session.usedBytes)
      expect(await goesOn(restored)).toEqual(await goesOn(session))
      // What was computed and then taken back leaves no trace in the file.
      session.rewind(length)
      const again = folder.path('again.session')
      await session.save(again)
      expect(readFileSync(again).equals(readFileSync(path))).toBe(true)
      for (const one of [session, restored]) one.dispose()
    }
  })

  it('keeps tokens that are not computed yet', async () => {
    const session = model.createSession()
    await session.complete(ids(250), { ...ANSWER, maxTokens: 6 }) // the last of them is not
    expect(session.position).toBe(256)
    await session.save(path)
    const restored = await Session.restore(model, path)
    expect(restored.tokens).toEqual(session.tokens)
    expect(await goesOn(restored)).toEqual(await goesOn(session))
  })

  it('belongs to no instruction set, number of threads, process or name of the file', async () => {
    const session = model.createSession({ context: 600 })
    await session.append(ids(300))
    await session.save(path)
    const expected = await goesOn(session)
    const copy = folder.path('copy.obt')
    writeFileSync(copy, readFileSync(tiny))
    for (const options of [
      { isa: 'scalar', threads: 1 },
      { threads: 3, context: 32 },
    ]) {
      const elsewhere = await Model.load(copy, options)
      expect(elsewhere.info.identity).toBe(model.info.identity)
      expect(await goesOn(await Session.restore(elsewhere, path))).toEqual(expected)
      await elsewhere.dispose()
    }
  })

  it('has the context it was saved with, or another that is large enough', async () => {
    const session = model.createSession({ context: 300 })
    await session.append(ids(280))
    await session.save(path)
    expect((await Session.restore(model, path)).capacity).toBe(300)
    const larger = await Session.restore(model, path, { context: 900 })
    await larger.append(ids(500))
    expect(larger.position).toBe(780)
    expect((await Session.restore(model, path, { context: 280 })).position).toBe(280)
    expect(await codeOf(() => Session.restore(model, path, { context: 279 }))).toBe('ERR_CONTEXT_FULL')
    expect(await codeOf(() => Session.restore(model, path, { context: 1101 }))).toBe('ERR_BAD_OPTION')
  })

  it('can be one of a fork, and of one that was restored', async () => {
    const session = model.createSession({ kv: 'int8' })
    await session.append(ids(40))
    const fork = await session.fork(30)
    await fork.save(path)
    const restored = await Session.restore(model, path, { kv: 'int8' })
    await restored.save(path)
    expect(await goesOn(await Session.restore(model, path, { kv: 'int8' }))).toEqual(await goesOn(fork))
  })

  it('is a safetensors file', async () => {
    const session = model.createSession()
    await session.append(ids(300))
    await session.save(path)
    const file = readFileSync(path)
    const start = 8 + Number(file.readBigUInt64LE())
    const { __metadata__: metadata, ...tensors } = JSON.parse(file.subarray(8, start).toString())
    expect(Object.values(metadata).every((value) => typeof value === 'string')).toBe(true)
    expect(metadata).toMatchObject({
      format: 'onebit-session',
      version: '1',
      activations: 'int8',
      kv: 'f16',
      positions: '300',
    })
    expect(metadata.model).toBe(model.info.identity)
    expect(Object.keys(tensors)).toEqual(['kv.0', 'kv.1', 'tokens'])
    let at = 0
    for (const { shape, data_offsets } of Object.values(tensors) as { shape: number[]; data_offsets: number[] }[]) {
      expect(data_offsets[0]).toBe(at)
      at = data_offsets[1]!
      expect([1, 4]).toContain((at - data_offsets[0]!) / shape[0]!)
    }
    expect(start + at).toBe(file.length)
    expect(start % 64).toBe(0)
    expect(
      new Int32Array(file.subarray(file.length - 1200).buffer.slice(file.byteOffset + file.length - 1200)),
    ).toEqual(ids(300))
  })
})

describe('the identity of a model', () => {
  it('is the SHA-256 of its header', async () => {
    const { headerBytes } = await readObtHeader(tiny)
    const bytes = readFileSync(tiny).subarray(0, headerBytes)
    expect(model.info.identity).toBe(createHash('sha256').update(bytes).digest('hex'))
  })

  it('tells random models apart by shape, type and seed', async () => {
    const identity = async (options: RandomModelOptions) => {
      const made = await randomModel(SHAPE, { threads: 1, ...options })
      await made.dispose()
      return made.info.identity
    }
    const all = [await identity({}), await identity({ seed: 1 }), await identity({ type: 'q8' })]
    expect(new Set(all).size).toBe(3)
    expect(await identity({ seed: 1 })).toBe(all[1])
    for (const one of all) expect(one).toMatch(/^[0-9a-f]{64}$/)
  })
})

describe('of another kind', () => {
  beforeAll(async () => {
    const session = model.createSession()
    await session.append(ids(20))
    await session.save(path)
    session.dispose()
  })

  it('is refused: another model', async () => {
    await using second = await Model.load(other)
    const error = await failure(() => Session.restore(second, path))
    expect(error.code).toBe('ERR_SESSION_MODEL')
    expect(error.message).toMatch(/a\.session: The session was saved with another model/)
    expect(error.hint).toContain(model.info.identity.slice(0, 12))
  })

  it('is refused: other activations, another kind of cache', async () => {
    await using second = await Model.load(tiny, { activations: 'f32' })
    expect((await failure(() => Session.restore(second, path))).hint).toMatch(/activations: 'int8'/)
    expect(await codeOf(() => Session.restore(second, path))).toBe('ERR_SESSION_MODEL')
    const error = await failure(() => Session.restore(model, path, { kv: 'f32' }))
    expect([error.code, error.hint]).toEqual(['ERR_SESSION_MODEL', "Give the option kv: 'f16'."])
    await using third = await Model.load(tiny, { kv: 'int8' })
    expect(await codeOf(() => Session.restore(third, path))).toBe('ERR_SESSION_MODEL')
    expect((await Session.restore(third, path, { kv: 'f16' })).position).toBe(20)
  })

  it('is refused: no session at all', async () => {
    const file = folder.path('none.session')
    const refused: [string | Buffer, string][] = [
      ['', 'ERR_TRUNCATED'],
      ['hello', 'ERR_TRUNCATED'],
      ['hello, this is some text', 'ERR_SESSION_FILE'],
      [readFileSync(tiny), 'ERR_SESSION_FILE'],
      [Buffer.concat([Buffer.from([255, 255, 255, 255, 255, 255, 255, 255]), Buffer.from('{}')]), 'ERR_SESSION_FILE'],
      ['version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n', 'ERR_LFS_POINTER'],
    ]
    for (const [bytes, code] of refused) {
      writeFileSync(file, bytes)
      expect(await codeOf(() => Session.restore(model, file))).toBe(code)
    }
    expect(await codeOf(() => Session.restore(model, folder.path('absent')))).toBe('ERR_FILE_NOT_FOUND')
    expect(await codeOf(() => Session.restore(model, folder.path('.')))).toBe('ERR_IS_DIRECTORY')
  })

  it('is refused: options that are none', async () => {
    for (const call of [
      () => Session.restore(model, ''),
      () => Session.restore(model, 5 as never),
      () => Session.restore(model, path, { context: 0 }),
      () => Session.restore(model, path, { kv: 'f64' as never }),
      () => Session.restore(model, path, { sigal: 1 } as never),
      () => model.createSession().save(''),
      () => model.createSession().save(path, { signal: 5 as never }),
    ]) {
      expect(await codeOf(call)).toBe('ERR_BAD_OPTION')
    }
  })
})

const DAMAGE = ['ERR_SESSION_FILE', 'ERR_CHECKSUM', 'ERR_TRUNCATED', 'ERR_FILE_SIZE', 'ERR_VERSION']

describe('a damaged file', () => {
  const damaged = folder.path('damaged.session')
  let file: Buffer
  let start: number
  beforeAll(async () => {
    const session = model.createSession({ kv: 'int8' })
    await session.append(ids(70))
    await session.save(path)
    session.dispose()
    file = readFileSync(path)
    start = 8 + Number(file.readBigUInt64LE())
  })
  const restore = async (bytes: Uint8Array) => {
    writeFileSync(damaged, bytes)
    return codeOf(() => Session.restore(model, damaged, { kv: 'int8' }))
  }

  it('is noticed, whichever byte of its header or tokens is another', async () => {
    const places = [...Array(start).keys(), ...Array.from({ length: 280 }, (_, i) => file.length - 280 + i)]
    for (const at of places) {
      for (const change of [1, 0x20, 0xff]) {
        const bytes = Buffer.from(file)
        bytes[at]! ^= change
        expect(DAMAGE, `byte ${at} ^ ${change}`).toContain(await restore(bytes))
      }
    }
  })

  it('is noticed in the cache', async () => {
    for (let at = start; at < file.length - 280; at += process.env.ONEBIT_LONG ? 1 : 61) {
      const bytes = Buffer.from(file)
      bytes[at]! ^= 1 << (at % 8)
      expect(await restore(bytes)).toBe('ERR_CHECKSUM')
    }
  })

  it('is noticed at every length', async () => {
    for (let length = 0; length < file.length; length += length < start + 70 || length > file.length - 70 ? 1 : 97) {
      expect(await restore(file.subarray(0, length))).toBe('ERR_TRUNCATED')
    }
    expect(await restore(Buffer.concat([file, Buffer.alloc(1)]))).toBe('ERR_FILE_SIZE')
    writeFileSync(damaged, file) // and the whole of it is fine
    expect((await Session.restore(model, damaged, { kv: 'int8' })).position).toBe(70)
  })
})

describe('what goes wrong while saving or restoring', () => {
  const leftovers = () => readdirSync(folder.path('.')).filter((name) => name.includes('.tmp-'))

  it('leaves the file that was there', async () => {
    const session = model.createSession()
    await session.append(ids(300))
    await session.save(path)
    const before = readFileSync(path)
    await session.append(ids(300))
    const reason = new Error('enough')
    expect(await session.save(path, { signal: AbortSignal.abort(reason) }).catch((error) => error)).toBe(reason)
    const controller = new AbortController()
    const saving = session.save(path, { signal: controller.signal })
    expect(session.busy).toBe(true)
    expect(await codeOf(() => session.append([1]))).toBe('ERR_BUSY')
    expect(await codeOf(() => session.save(folder.path('b.session')))).toBe('ERR_BUSY')
    controller.abort(reason)
    expect(await saving.catch((error) => error)).toBe(reason)
    expect(readFileSync(path).equals(before)).toBe(true)
    expect(leftovers()).toEqual([])
    await session.save(path)
    expect((await Session.restore(model, path)).position).toBe(600)
    const last = session.save(path)
    session.dispose()
    expect(await codeOf(() => last)).toBe('ERR_DISPOSED')
    expect((await Session.restore(model, path)).position).toBe(600)
    expect(leftovers()).toEqual([])
    expect(await codeOf(() => session.save(path))).toBe('ERR_DISPOSED')
  })

  it('is told by its name', async () => {
    const session = model.createSession()
    await session.append(ids(5))
    expect(await codeOf(() => session.save(folder.path('absent/a.session')))).toBe('ERR_NO_FOLDER')
    mkdirSync(folder.path('folder'))
    expect(await codeOf(() => session.save(folder.path('folder')))).toBe('ERR_IS_DIRECTORY')
    await session.append([1]) // it works on
    expect(existsSync(folder.path('absent'))).toBe(false)
  })

  it('ends a restoring that is aborted, or whose model goes away', async () => {
    const session = model.createSession()
    await session.append(ids(1000))
    await session.save(path)
    const reason = new Error('enough')
    expect(await Session.restore(model, path, { signal: AbortSignal.abort(reason) }).catch((error) => error)).toBe(
      reason,
    )
    const controller = new AbortController()
    const restoring = Session.restore(model, path, { signal: controller.signal })
    controller.abort(reason)
    expect(await restoring.catch((error) => error)).toBe(reason)
    const doomed = await Model.load(tiny)
    const late = codeOf(() => Session.restore(doomed, path)) // it may fail while the model goes away
    await doomed.dispose()
    expect(await late).toBe('ERR_DISPOSED')
    expect(await codeOf(() => Session.restore(doomed, path))).toBe('ERR_DISPOSED')
  })

  it('keeps to the limit of memory', async () => {
    const session = model.createSession({ context: 1000 })
    await session.append(ids(10))
    await session.save(path)
    await using small = await Model.load(tiny, { memoryLimit: model.info.weightBytes + 2 * session.bytes })
    const kept = [await Session.restore(small, path), await Session.restore(small, path)]
    expect(await codeOf(() => Session.restore(small, path))).toBe('ERR_MEMORY_LIMIT')
    kept[0]!.dispose()
    expect((await Session.restore(small, path)).position).toBe(10)
  })
})
