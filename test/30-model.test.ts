/** Loading models of every kind, what they say about themselves, and what goes wrong. */
import { spawnSync } from 'node:child_process'
import { copyFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Features } from '../dist/config/config.js'
import { nativeConfig, nativeKinds, nativeTensors } from '../dist/config/native-config.js'
import { perplexity } from '../dist/eval/perplexity.js'
import { Model } from '../dist/index.js'
import { addon } from '../dist/native/addon.js'
import { readObtHeader } from '../dist/obt/obt.js'
import { DEFAULT_CONTEXT } from '../dist/run/model-options.js'
import { PROJECT } from './data.js'
import { codeOf } from './expect-code.js'
import { KINDS, type KindName, TINY_VOCAB, temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const tiny = folder.path('tiny.obt')
beforeAll(() => writeTinyModel(tiny, {}))
afterAll(folder.remove)

/** Each is a model that can be written, whether the engine computes it or not. */
const UNUSUAL: Partial<Features>[] = [
  { norm: 'layer' },
  { norm_bias: true },
  { positions: 'learned' },
  { rope_dims: 8 },
  { attention_inner_norm: true },
  { window: 8 },
  { output_gate: true },
  { feed_forward: 'plain' },
  { activation: 'gelu' },
  { ffn_inner_norm: true },
  { parallel_residual: true },
]

const PROMPT = [72, 101, 108, 108, 111]

describe('loading', () => {
  const kinds = Object.keys(KINDS) as KindName[]
  it.each(kinds.flatMap((kind) => [[kind, 'llama'] as const, [kind, 'qwen3'] as const]))(
    'reads %s linears in %s and gives the same bytes of logits on every instruction set',
    async (kind, architecture) => {
      const path = folder.path(`${kind}-${architecture}.obt`)
      const embedding = kind === 'q1_0' ? 'q1_0' : 'f16'
      await writeTinyModel(path, { kind, architecture, embedding, tied: architecture === 'qwen3' })
      const usable = addon()
        .info()
        .isas.filter(({ state }) => state === 'usable')
      for (const activations of ['int8', 'f32', 'int4'] as const) {
        const bytes = new Set<string>()
        for (const { name } of usable) {
          for (const threads of [1, 2]) {
            const model = await Model.load(path, { activations, isa: name, threads })
            const { data, rows, columns } = await model.createSession().logits(PROMPT, { all: true })
            expect([rows, columns, data.length]).toEqual([PROMPT.length, TINY_VOCAB, PROMPT.length * TINY_VOCAB])
            expect(data.every(Number.isFinite)).toBe(true)
            bytes.add(Buffer.from(data.buffer).toString('base64'))
            await model.dispose()
          }
        }
        expect(bytes.size).toBe(1)
      }
    },
  )

  it('tells what it loaded', async () => {
    const progress: [number, number][] = []
    const model = await Model.load(tiny, {
      threads: 1,
      context: 99,
      onProgress: (done, all) => progress.push([done, all]),
    })
    const { fileBytes } = await readObtHeader(tiny)
    expect(model.info).toMatchObject({
      path: tiny,
      architecture: 'llama',
      fileBytes,
      threads: 1,
      context: 99,
      activations: 'int8',
      kv: 'f16',
      isa: addon().info(process.env.ONEBIT_ISA ?? '').chosen,
    })
    expect(model.info.weightBytes).toBeGreaterThan(0)
    expect(model.createSession().capacity).toBe(99)
    expect(progress.length).toBeGreaterThan(0)
    expect(progress.at(-1)).toEqual([fileBytes, fileBytes])
    await model.dispose()
    expect(model.disposed).toBe(true)
  })

  it.each([
    [DEFAULT_CONTEXT - 1, DEFAULT_CONTEXT - 1],
    [DEFAULT_CONTEXT, DEFAULT_CONTEXT],
    [DEFAULT_CONTEXT + 1, DEFAULT_CONTEXT],
    [1 << 20, DEFAULT_CONTEXT],
  ])('of %i positions has sessions of %i, and of as many as it has when they are asked for', async (own, usual) => {
    const path = folder.path(`context-${own}.obt`)
    await writeTinyModel(path, { context: own, dim: 64, layers: 1 })
    const model = await Model.load(path)
    expect([model.context, model.info.context, model.config.context_length]).toEqual([usual, usual, own])
    expect(model.createSession().capacity).toBe(usual)
    const most = Math.min(own, 40_000)
    expect(model.createSession({ context: most }).capacity).toBe(most)
    // No text is as long as these blocks; one longer than the model is a mistake of the option.
    const blocks = (ctx: number) => codeOf(() => perplexity(model, Int32Array.of(1, 2, 3), { ctx }))
    expect([await blocks(most), await blocks(own + 1)]).toEqual(['ERR_TEXT_TOO_SHORT', 'ERR_BAD_OPTION'])
    await model.dispose()
    const wide = await Model.load(path, { context: most })
    expect([wide.context, wide.createSession().capacity]).toEqual([most, most])
    await wide.dispose()
    await expect(Model.load(path, { context: own + 1 })).rejects.toMatchObject({ code: 'ERR_BAD_OPTION' })
  })

  it('keeps no hold on the file: overwriting it changes nothing', async () => {
    const copy = folder.path('overwritten.obt')
    copyFileSync(tiny, copy)
    const model = await Model.load(copy)
    const before = await model.createSession().logits(PROMPT)
    truncateSync(copy, 100)
    expect((await model.createSession().logits(PROMPT)).data).toEqual(before.data)
    await model.dispose()
  })

  it('reads text by itself and works with ids when there is no tokenizer', async () => {
    const plain = folder.path('plain.obt')
    await writeTinyModel(plain, { tokenizer: false, chat: false })
    const model = await Model.load(plain)
    const session = model.createSession()
    await expect(session.complete('text')).rejects.toMatchObject({ code: 'ERR_NO_TOKENIZER' })
    const { ids, text } = await session.complete(PROMPT, { maxTokens: 3 })
    expect([ids.length, text]).toEqual([3, ''])
    await model.dispose()
  })
})

describe('the addon', () => {
  it('that is not there is an error that says how to build it', () => {
    const index = pathToFileURL(join(PROJECT, 'dist', 'index.js')).href
    const code = `import { Model } from ${JSON.stringify(index)}
      Model.load(${JSON.stringify(tiny)}).catch((error) => {
        console.log(JSON.stringify([error.name, error.code, error.hint]))
      })`
    // The addon is looked for in this folder instead of the package's own.
    const env = { ...process.env, ONEBIT_RUN_PREBUILD: folder.path('empty') }
    const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', code], { env, encoding: 'utf8' })
    expect(JSON.parse(stdout)).toEqual(['OnebitError', 'ERR_ADDON', expect.stringContaining('npm run build')])
  })
})

describe('what cannot be loaded', () => {
  const damaged = (name: string, change: (bytes: Buffer) => Buffer) => {
    const path = folder.path(name)
    writeFileSync(path, change(readFileSync(tiny)))
    return path
  }

  it('is an error with a code', async () => {
    const load = (path: string, options = {}) => Model.load(path, options)
    await expect(load(folder.path('nowhere.obt'))).rejects.toMatchObject({ code: 'ERR_FILE_NOT_FOUND' })
    await expect(load(damaged('short.obt', (b) => b.subarray(0, -1)))).rejects.toMatchObject({ code: 'ERR_TRUNCATED' })
    await expect(load(damaged('long.obt', (b) => Buffer.concat([b, b])))).rejects.toMatchObject({
      code: 'ERR_FILE_SIZE',
    })
    await expect(load(tiny, { isa: 'sse9' })).rejects.toMatchObject({ name: 'OnebitError', code: 'ERR_ISA' })
    await expect(load(tiny, { memoryLimit: 1000 })).rejects.toMatchObject({ code: 'ERR_MEMORY_LIMIT' })
  })

  it('runs with every feature that a config can name', async () => {
    const path = folder.path('feature.obt')
    for (const features of UNUSUAL) {
      await writeTinyModel(path, { features })
      const model = await Model.load(path)
      const { data } = await model.createSession().logits([1, 2, 3])
      expect(data.every(Number.isFinite), JSON.stringify(features)).toBe(true)
      await model.dispose()
    }
  })

  it('names the tensor whose checksum is wrong', async () => {
    const { tensors } = await readObtHeader(tiny)
    const { offset, spec } = tensors[5]!
    const path = damaged('flipped.obt', (bytes) => {
      bytes[offset] = bytes[offset]! ^ 1
      return bytes
    })
    await expect(Model.load(path)).rejects.toMatchObject({
      code: 'ERR_CHECKSUM',
      message: expect.stringContaining(spec.name),
    })
  })

  it('is refused by the native loader too, whatever TypeScript was told', async () => {
    const header = await readObtHeader(tiny)
    const good = {
      path: tiny,
      file_bytes: header.fileBytes,
      config: nativeConfig(header.config),
      kinds: nativeKinds(header.config),
      tensors: nativeTensors(header.tensors),
      activations: 0,
      threads: 1,
      isa: '',
      memory_limit: 0,
    } as const
    const native = addon()
    await (await native.loadModel(good)).dispose()
    const { tensors, kinds, config } = good
    const shifted = { ...tensors, offsets: tensors.offsets.map((offset) => offset + 1) }
    const larger = { ...tensors, bytes: tensors.bytes.map((bytes, i) => (i === 3 ? bytes * 2 : bytes)) }
    const fewer = {
      names: tensors.names.slice(tensors.names.indexOf('\n') + 1),
      types: tensors.types.slice(1),
      offsets: tensors.offsets.slice(1),
      bytes: tensors.bytes.slice(1),
      crc32c: tensors.crc32c.slice(1),
    }
    // The same sizes under each other's names: only the names tell them apart.
    const swapped = tensors.names.replaceAll('0.wk.', '0.W.').replaceAll('0.wv.', '0.wk.').replaceAll('0.W.', '0.wv.')
    expect(swapped).not.toBe(tensors.names)
    const other = await native.loadModel({ ...good, tensors: { ...tensors, names: swapped } })
    await other.dispose()
    for (const lie of [
      { tensors: larger },
      { tensors: fewer },
      { tensors: { ...tensors, names: tensors.names.replace('wq', 'wx') } },
      { kinds: { ...kinds, names: kinds.names.replace('wq', 'wx') } },
      { config: { ...config, dim: 256 } },
    ]) {
      await expect((async () => native.loadModel({ ...good, ...lie }))()).rejects.toMatchObject({
        code: expect.stringMatching(/^ERR_(TENSOR_TABLE|CONFIG)$/),
      })
    }
    for (const lie of [{ tensors: shifted }, { file_bytes: header.fileBytes + 1 }]) {
      await expect(native.loadModel({ ...good, ...lie })).rejects.toMatchObject({
        code: expect.stringMatching(/^ERR_(CHECKSUM|TENSOR_TABLE|TRUNCATED|FILE_SIZE|NOT_FINITE)$/),
      })
    }
    const wrong: object[] = [
      { path: 7 },
      { path: 'a\0b' },
      { file_bytes: -1 },
      { file_bytes: 1.5 },
      { config: null },
      { config: { ...config, dim: 2 ** 40 } },
      { config: { ...config, vocab_size: Number.NaN } },
      { config: { ...config, activation: 5 } },
      { config: { ...config, rope_scaling: { ...config.rope_scaling, factors: new Float64Array(3) } } },
      { kinds: { ...kinds, kinds: [] } },
      { tensors: { ...tensors, crc32c: [1, 2, 3] } },
      { tensors: { ...tensors, names: '' } },
      { tensors: { ...tensors, types: tensors.types.map(() => 9) } },
      { tensors: { ...tensors, offsets: tensors.offsets.map(() => Number.POSITIVE_INFINITY) } },
      { cancel: {} },
      { threads: 1e9 },
    ]
    for (const lie of wrong) {
      await expect((async () => native.loadModel({ ...good, ...lie } as never))()).rejects.toMatchObject({
        code: expect.stringMatching(/^ERR_(BAD_ARGUMENT|CONFIG|READ|FILE_NOT_FOUND)$/),
      })
    }
  })

  it.each([
    ['threads', 0],
    ['threads', 1.5],
    ['context', -1],
    ['context', 2 ** 53],
    ['context', 100_000],
    ['activations', 'int2'],
    ['activations', 4],
    ['kv', null],
    ['memoryLimit', Number.NaN],
    ['onProgress', 3],
    ['signal', {}],
    ['colour', 'red'],
  ])('option %s = %s', async (name, value) => {
    const options = { [name]: value } as object
    await expect(Model.load(tiny, options)).rejects.toMatchObject({
      code: 'ERR_BAD_OPTION',
      message: expect.stringContaining(name),
    })
  })

  it('passes on what onProgress throws', async () => {
    const failure = new Error('no more')
    const onProgress = () => {
      throw failure
    }
    await expect(Model.load(tiny, { onProgress })).rejects.toBe(failure)
  })
})

describe('memory', () => {
  it('of weights and sessions stays below memoryLimit', async () => {
    const model = await Model.load(tiny)
    const one = model.createSession().bytes
    const { weightBytes, fileBytes } = model.info
    await model.dispose()
    const memoryLimit = Math.max(weightBytes, fileBytes) + 2 * one
    const limited = await Model.load(tiny, { memoryLimit })
    const sessions = [limited.createSession(), limited.createSession()]
    const room = memoryLimit - weightBytes - 2 * one
    if (room < one) {
      expect(() => limited.createSession()).toThrow(expect.objectContaining({ code: 'ERR_MEMORY_LIMIT' }))
      await expect(sessions[0]!.fork()).rejects.toMatchObject({ code: 'ERR_MEMORY_LIMIT' })
      sessions[1]!.dispose()
    }
    expect(limited.createSession().bytes).toBe(one)
    await limited.dispose()
  })

  it('of a session is taken as it is used', async () => {
    const model = await Model.load(tiny)
    const session = model.createSession()
    expect([session.usedBytes, session.bytes > 0]).toEqual([0, true])
    await session.append(PROMPT)
    expect(session.usedBytes).toBeGreaterThan(0)
    expect(session.usedBytes).toBeLessThanOrEqual(session.bytes)
    const fork = await session.fork()
    expect(fork.usedBytes).toBe(session.usedBytes)
    await model.dispose()
    expect([session.usedBytes, session.bytes]).toEqual([0, 0])
  })

  it('is given back by models and sessions that nobody disposes', async () => {
    setFlagsFromString('--expose-gc')
    const gc = runInNewContext('gc') as () => void
    let collected = 0
    const registry = new FinalizationRegistry(() => collected++)
    const drop = async () => {
      const model = await Model.load(tiny)
      const session = model.createSession()
      await session.append(PROMPT)
      registry.register(model, 'model')
      registry.register(session, 'session')
    }
    for (let i = 0; i < 5; i++) await drop()
    for (let i = 0; i < 50 && collected < 8; i++) {
      gc()
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    expect(collected).toBeGreaterThanOrEqual(8) // the last ones may still be in registers
  })
})
