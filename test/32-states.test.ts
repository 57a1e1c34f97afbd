/** Every method in every state, and objects that are not what they seem. Nothing may crash, every code is exact. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { nativeConfig, nativeKinds, nativeTensors } from '../dist/config/native-config.js'
import { Model, Session } from '../dist/index.js'
import { addon } from '../dist/native/addon.js'
import type { NativeModel, NativeSession } from '../dist/native/native.js'
import { readObtHeader } from '../dist/obt/obt.js'
import { checkSampling, nativeSampling } from '../dist/run/sampler.js'
import { TINY_VOCAB, temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const tiny = folder.path('tiny.obt')
beforeAll(() => writeTinyModel(tiny, {}))
afterAll(folder.remove)

const PROMPT = [1, 2, 3]
const OPTIONS = { maxTokens: 2, ignoreEos: true }

/** A whole answer takes the tiny model a few milliseconds: what is to happen in the middle of it cannot wait for a timer. */
async function atEachToken(session: Session, action: () => void, signal?: AbortSignal): Promise<void> {
  for await (const _ of session.generate(PROMPT, { ignoreEos: true, ...(signal ? { signal } : {}) })) action()
}

/** Each resolves when the method does what it should. */
const METHODS: Record<string, (session: Session) => Promise<unknown>> = {
  generate: async (session) => {
    for await (const _ of session.generate(PROMPT, OPTIONS)) return
  },
  complete: (session) => session.complete(PROMPT, OPTIONS),
  append: (session) => session.append(PROMPT),
  'append nothing': (session) => session.append([]),
  logits: (session) => session.logits(PROMPT),
  'all logits': (session) => session.logits(PROMPT, { all: true }),
  score: (session) => session.score(PROMPT, { top: 1 }),
  rewind: async (session) => session.rewind(0),
  fork: (session) => session.fork(),
  'fork a part': (session) => session.fork(0),
  save: (session) => session.save(folder.path('state.session')),
  embed: (session) => {
    if (!session.busy && !session.disposed) session.rewind(0)
    return session.embed(PROMPT)
  },
}

const ALWAYS: Record<string, (session: Session) => unknown> = {
  tokens: (session) => session.tokens,
  position: (session) => session.position,
  capacity: (session) => session.capacity,
  bytes: (session) => session.bytes,
  usedBytes: (session) => session.usedBytes,
  busy: (session) => session.busy,
  disposed: (session) => session.disposed,
  last: (session) => session.last,
  model: (session) => session.model,
}

/** Brings a session into a state; returns what ends it. */
const STATES: Record<string, { code?: string; enter: (model: Model) => Promise<[Session, () => Promise<unknown>]> }> = {
  fresh: { enter: async (model) => [model.createSession(), async () => {}] },
  used: {
    enter: async (model) => {
      const session = model.createSession()
      await session.complete(PROMPT, OPTIONS)
      return [session, async () => {}]
    },
  },
  generating: {
    code: 'ERR_BUSY',
    enter: async (model) => {
      const session = model.createSession()
      const pieces = session.generate(PROMPT, { ignoreEos: true })
      await pieces.next()
      return [session, () => pieces.return(undefined as never)]
    },
  },
  computing: {
    code: 'ERR_BUSY',
    enter: async (model) => {
      const session = model.createSession()
      const appended = session.append(Array.from({ length: 200 }, (_, i) => i))
      return [session, () => appended]
    },
  },
  aborted: {
    enter: async (model) => {
      const session = model.createSession()
      const controller = new AbortController()
      const reason = new Error('enough')
      const answer = atEachToken(session, () => controller.abort(reason), controller.signal)
      await expect(answer).rejects.toBe(reason)
      return [session, async () => {}]
    },
  },
  left: {
    enter: async (model) => {
      const session = model.createSession()
      for await (const _ of session.generate(PROMPT, { ignoreEos: true })) break
      return [session, async () => {}]
    },
  },
  disposed: {
    code: 'ERR_DISPOSED',
    enter: async (model) => {
      const session = model.createSession()
      await session.append(PROMPT)
      session.dispose()
      return [session, async () => {}]
    },
  },
  'disposed while generating': {
    code: 'ERR_DISPOSED',
    enter: async (model) => {
      const session = model.createSession()
      const answer = atEachToken(session, () => session.dispose())
      await expect(answer).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
      return [session, async () => {}]
    },
  },
  'with a disposed model': {
    code: 'ERR_DISPOSED',
    enter: async (model) => {
      const session = model.createSession()
      await session.append(PROMPT)
      await model.dispose()
      return [session, async () => {}]
    },
  },
  'generating with a disposed model': {
    code: 'ERR_DISPOSED',
    enter: async (model) => {
      const session = model.createSession()
      let gone: Promise<void> | undefined
      const answer = atEachToken(session, () => {
        gone ??= model.dispose()
      })
      await expect(answer).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
      await gone
      return [session, async () => {}]
    },
  },
}

describe.each(Object.entries(STATES))('a session that is %s', (_name, { code, enter }) => {
  it.each(Object.entries(METHODS))(`${code ? `answers with ${code}` : 'works'}: %s`, async (_method, call) => {
    const model = await Model.load(tiny, { threads: 1 })
    const [session, leave] = await enter(model)
    if (code) await expect((async () => call(session))()).rejects.toMatchObject({ name: 'OnebitError', code })
    else await call(session)
    for (const read of Object.values(ALWAYS)) read(session)
    await leave()
    session.dispose()
    session.dispose()
    await session[Symbol.asyncDispose]()
    expect(session.disposed).toBe(true)
    expect(session.bytes).toBe(0)
    await model.dispose()
    await model.dispose()
  })
})

describe('a disposed model', () => {
  it('makes no sessions, and says so again and again', async () => {
    const model = await Model.load(tiny)
    model[Symbol.dispose]()
    await model[Symbol.asyncDispose]()
    expect(model.disposed).toBe(true)
    expect(() => model.createSession()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }))
    expect(model.info.path).toBe(tiny)
  })
})

describe('objects that are not what they seem', () => {
  let model: Model
  let native: { model: NativeModel; session: NativeSession }
  beforeAll(async () => {
    model = await Model.load(tiny, { threads: 1 })
    const header = await readObtHeader(tiny)
    const loaded = await addon().loadModel({
      path: tiny,
      file_bytes: header.fileBytes,
      config: nativeConfig(header.config),
      kinds: nativeKinds(header.config),
      tensors: nativeTensors(header.tensors),
      activations: 0,
      threads: 1,
      isa: '',
      memory_limit: 0,
    })
    native = { model: loaded, session: loaded.createSession(64, 0) }
  })
  afterAll(async () => {
    await model.dispose()
    await native.model.dispose()
  })

  it('are TypeErrors for the methods of Model and Session', async () => {
    const session = model.createSession()
    const rewind = Session.prototype.rewind as (this: unknown, position: number) => void
    for (const foreign of [{}, null, model, new Proxy(session, {}), Object.create(session)]) {
      expect(() => rewind.call(foreign, 0)).toThrow(TypeError)
      await expect((async () => Session.prototype.append.call(foreign as Session, [1]))()).rejects.toThrow(TypeError)
      const create = Model.prototype.createSession as (this: unknown) => Session
      if (foreign !== model) expect(() => create.call(foreign)).toThrow(TypeError)
    }
    Object.freeze(session)
    await session.append([1, 2])
    expect(session.position).toBe(2)
  })

  it('are TypeErrors for native methods', () => {
    const { session, model } = native
    const foreigners = [
      {},
      [],
      null,
      1,
      'x',
      Symbol('s'),
      () => {},
      model,
      new Proxy(session, {}),
      Object.create(session),
    ]
    for (const foreign of foreigners) {
      expect(() => session.rewind.call(foreign, 0)).toThrow(TypeError)
      expect(() => session.dispose.call(foreign)).toThrow(TypeError)
      expect(() => session.readChunk.call(foreign, 0)).toThrow(TypeError)
      expect(() => session.writeChunk.call(foreign, 0, new Uint8Array(session.bytes))).toThrow(TypeError)
      expect(() => session.restored.call(foreign, 0)).toThrow(TypeError)
      expect(() => addon().step(foreign as NativeModel, [], { chunk: 0 })).toThrow(
        foreign === model ? Error : TypeError,
      )
      const item = { session: foreign as NativeSession, tokens: Int32Array.of(1), logits: 0 as const }
      expect(() => addon().step(model, [item], { chunk: 0 })).toThrow(TypeError)
      if (foreign !== model) expect(() => model.createSession.call(foreign, 8, 0)).toThrow(TypeError)
    }
    const made = session as unknown as { constructor: new () => unknown }
    expect(() => new made.constructor()).toThrow(TypeError)
    Object.freeze(session)
    session.rewind(0)
  })

  it('of another model are refused', async () => {
    const [other, { session }] = [native.model, native]
    const header = await readObtHeader(tiny)
    const second = await addon().loadModel({
      path: tiny,
      file_bytes: header.fileBytes,
      config: nativeConfig(header.config),
      kinds: nativeKinds(header.config),
      tensors: nativeTensors(header.tensors),
      activations: 0,
      threads: 1,
      isa: '',
      memory_limit: 0,
    })
    const item = { session, tokens: Int32Array.of(1), logits: 0 as const }
    expect(() => addon().step(second, [item], { chunk: 0 })).toThrow(TypeError)
    expect(() => addon().step(other, [item, item], { chunk: 0 })).toThrow(TypeError)
    await second.dispose()
  })

  it('cannot lie about numbers', () => {
    const { session, model } = native
    const step = (change: object, options: object = { chunk: 0 }) => {
      const item = { session, tokens: Int32Array.of(1, 2), logits: 0, ...change }
      return () => addon().step(model, [item as never], options as never)
    }
    const sampling = nativeSampling(checkSampling({}, TINY_VOCAB), new Int32Array(0))
    const sampler = (change: object) => () => new (addon().Sampler)({ ...sampling, ...change })
    const good = sampler({})()
    const generate = (change: object, options: object = {}) => {
      const item = { session, tokens: Int32Array.of(1, 2), sampler: good, most: 1, top: 0, ...change }
      const all = { stop_tokens: new Int32Array(0), ...item }
      return () => addon().generate(model, all as never, { chunk: 0, onToken: () => {}, ...options } as never)
    }
    const detached = new Int32Array(4)
    structuredClone(detached, { transfer: [detached.buffer] })
    const wrong = [
      step({ tokens: [1, 2] }),
      step({ tokens: new Int32Array(0) }),
      step({ tokens: detached }),
      step({ tokens: new Float32Array(2) }),
      step({ tokens: new Proxy(new Int32Array(2), {}) }),
      step({ logits: 3 }),
      step({ logits: Number.NaN }),
      step({ hidden: 3 }),
      step({ hidden: 'last' }),
      step({ score: { from: 2, top: 0, next: -1 } }),
      step({ score: { from: -1, top: 0, next: -1 } }),
      step({ score: { from: 0, top: 1e9, next: -1 } }),
      step({ score: { from: 0, top: 0, next: 2 ** 40 } }),
      step({ sampler: {} }),
      step({ sampler: sampler({ vocab_size: 7 })() }),
      sampler({ first: 0 }),
      sampler({ top_k: 1e10 }),
      sampler({ temperature: Number.NaN }),
      sampler({ repeat_penalty: 0 }),
      sampler({ presence_penalty: Number.POSITIVE_INFINITY }),
      sampler({ recent: [1] }),
      sampler({ bias_ids: Int32Array.of(1), bias_values: Float32Array.of(Number.NaN) }),
      sampler({ bias_ids: Int32Array.of(1) }),
      ...[{ said: [1] }, { most: 0 }, { most: 33 }, { always: 1 }, { draft: {} }, { draft: model }].map((change) =>
        sampler({ guesses: { said: Int32Array.of(1), most: 4, always: false, ...change } }),
      ),
      sampler({ vocab_size: 7, guesses: { said: Int32Array.of(1), most: 4, always: false, draft: session } }),
      () => (addon().Sampler as unknown as () => unknown)(),
      () => good.choose(new Float32Array(3)),
      () => good.allow(new Int32Array(3)),
      () => good.allow(new Int32Array(1 << 20)),
      () => good.allow(new Uint32Array(Math.ceil(TINY_VOCAB / 32)) as never),
      () => good.allow(null as never),
      generate({ tokens: new Int32Array(0) }),
      generate({ sampler: session }),
      generate({ most: 0 }),
      generate({ top: 101 }),
      generate({ stop_tokens: [1] }),
      generate({}, { onToken: 1 }),
      generate({}, { chunk: 257 }),
      generate({}, { cancel: {} }),
      step({}, { chunk: -1 }),
      step({}, { chunk: 257 }),
      step({}, { chunk: 0, cancel: {} }),
      step({}, null as never),
      () => addon().step(model, [], { chunk: 0 }),
      () => addon().step(model, 'items' as never, { chunk: 0 }),
      () => addon().step(model, [null as never], { chunk: 0 }),
      () => session.rewind(1),
      () => session.rewind(-1),
      () => session.fork(2 ** 40),
      () => session.readChunk(0), // there is none yet
      () => session.readChunk(-1),
      () => session.readChunk(Number.NaN),
      () => session.writeChunk(1, new Uint8Array(1)),
      () => session.writeChunk(0, new Uint8Array(1)),
      () => session.writeChunk(0, new Uint8Array(1 << 24)),
      () => session.writeChunk(0, new Int8Array(session.bytes) as never),
      () => session.writeChunk(0, undefined as never),
      () => session.restored(65),
      () => session.restored(0.5),
      () => model.createSession(0, 0),
      () => model.createSession(64, 3 as never),
    ]
    for (const call of wrong) expect(call).toThrow(expect.objectContaining({ code: 'ERR_BAD_ARGUMENT' }))
    const range = expect.objectContaining({ code: 'ERR_TOKEN_RANGE' })
    const said = Int32Array.of(TINY_VOCAB)
    expect(sampler({ guesses: { said, most: 4, always: false } })).toThrow(range)
    expect(step({ tokens: Int32Array.of(1, -1) })).toThrow(range)
    expect(step({ tokens: Int32Array.of(100_000) })).toThrow(range)
    expect(sampler({ bias_ids: Int32Array.of(-5), bias_values: Float32Array.of(1) })).toThrow(range)
    expect(sampler({ recent: Int32Array.of(TINY_VOCAB) })).toThrow(range)
    expect(generate({ tokens: Int32Array.of(-1) })).toThrow(range)
    expect(generate({ tokens: new Int32Array(65) })).toThrow(expect.objectContaining({ code: 'ERR_CONTEXT_FULL' }))
    expect(step({ tokens: new Int32Array(65) })).toThrow(expect.objectContaining({ code: 'ERR_CONTEXT_FULL' }))
    expect(() => model.createSession(257, 0)).toThrow(expect.objectContaining({ code: 'ERR_BAD_OPTION' }))
    expect(() => session.restored(1)).toThrow(expect.objectContaining({ code: 'ERR_BAD_OPTION' }))
  })

  it('can copy a cache, but not while something else has it', async () => {
    const { model } = native
    const tokens = Int32Array.from({ length: 40 }, (_, i) => i)
    const step = (session: NativeSession, ids: Int32Array) =>
      addon().step(model, [{ session, tokens: ids, logits: 1 }], { chunk: 0 })
    const [from, to] = [model.createSession(64, 0), model.createSession(100, 0)]
    await step(from, tokens)
    const busy = expect.objectContaining({ code: 'ERR_BUSY' })
    const reading = from.readChunk(0)
    for (const call of [
      () => from.readChunk(0),
      () => from.writeChunk(0, new Uint8Array(from.bytes)),
      () => from.restored(0),
    ]) {
      expect(call).toThrow(busy)
    }
    const chunk = await reading
    expect(chunk.length).toBe(from.bytes)
    await expect(from.writeChunk(0, chunk)).rejects.toMatchObject({ code: 'ERR_BAD_OPTION' }) // it is not empty
    const writing = to.writeChunk(0, chunk)
    chunk.fill(0) // was copied
    expect(() => to.restored(40)).toThrow(busy)
    await writing
    expect(to.length).toBe(0)
    expect(() => to.restored(101)).toThrow(expect.objectContaining({ code: 'ERR_BAD_ARGUMENT' }))
    to.restored(40)
    expect(await to.readChunk(0)).toEqual(await from.readChunk(0))
    const [[a], [b]] = await Promise.all([step(from, Int32Array.of(7)), step(to, Int32Array.of(7))])
    expect(a!.logits).toEqual(b!.logits)
    // Disposed in the middle of it.
    const [late, later] = [from.readChunk(0), model.createSession(64, 0)]
    from.dispose()
    await expect(late).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    expect(() => from.readChunk(0)).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }))
    const written = later.writeChunk(0, new Uint8Array(later.bytes))
    later.dispose()
    await expect(written).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    expect(() => later.restored(1)).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }))
    to.dispose()
  })

  it('give hidden states whose product with the head is the logits', async () => {
    const { model } = native
    const session = model.createSession(64, 0)
    const tokens = Int32Array.of(5, 6, 7)
    const step = async (hidden: 0 | 1 | 2, ids: Int32Array) =>
      (await addon().step(model, [{ session, tokens: ids, logits: 0, hidden }], { chunk: 0 }))[0]!
    const sum = await step(2, tokens)
    expect(sum.logits).toBeUndefined()
    expect(sum.hidden!.length).toBe(128)
    session.rewind(0)
    const each: Float64Array[] = []
    for (const id of tokens) each.push((await step(1, Int32Array.of(id))).hidden!)
    expect(sum.hidden).toEqual(each[0]!.map((x, i) => x + each[1]![i]! + each[2]![i]!))
    expect((await step(0, tokens)).hidden).toBeUndefined()
    session.dispose()
  })

  it('that dispose things from inside a getter find nothing to break', async () => {
    const header = await readObtHeader(tiny)
    const doomed = await addon().loadModel({
      path: tiny,
      file_bytes: header.fileBytes,
      config: nativeConfig(header.config),
      kinds: nativeKinds(header.config),
      tensors: nativeTensors(header.tensors),
      activations: 0,
      threads: 1,
      isa: '',
      memory_limit: 0,
    })
    const session = doomed.createSession(64, 0)
    const late = {
      session,
      tokens: Int32Array.of(1),
      get logits(): 0 {
        void doomed.dispose()
        return 0
      },
    }
    expect(() => addon().step(doomed, [late], { chunk: 0 })).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }))
    const throwing = {
      get session(): NativeSession {
        throw new RangeError('from a getter')
      },
      tokens: Int32Array.of(1),
      logits: 0 as const,
    }
    expect(() => addon().step(native.model, [throwing], { chunk: 0 })).toThrow('from a getter')
  })
})
