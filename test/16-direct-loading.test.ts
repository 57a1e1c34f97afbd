/** GGUF files and folders that are run as they are: the same model as the `.obt` file that `convert` makes of them. */
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { convert } from '../dist/convert/convert.js'
import { Chat, Model, Session } from '../dist/index.js'
import { addon } from '../dist/native/addon.js'
import { readObtHeader } from '../dist/obt/obt.js'
import { nativeModelOptions } from '../dist/run/loaded-model.js'
import { program } from './command.js'
import { dataFile, golden, missing } from './data.js'
import { codeOf, failure } from './expect-code.js'
import { TINY_QWEN3, tinyQwen3 } from './fixtures/tiny-qwen3.js'
import { encodeTensor, type GgufTensor, ggufFile } from './gguf-writer.js'
import { TINY_METADATA, tinyGgufTensors } from './tiny-gguf.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'
import { safetensorsFile, TINY, tinyHfConfig, tinyTensors, writeFolder } from './tiny-source.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

const ids = (count: number, vocab: number) => Int32Array.from({ length: count }, (_, i) => (i * 37 + (i % 7)) % vocab)

async function logitsOf(path: string, options = {}): Promise<Float32Array> {
  const model = await Model.load(path, options)
  try {
    return (await model.createSession().logits(ids(20, model.config.vocab_size), { all: true })).data
  } finally {
    await model.dispose()
  }
}

const paths: Record<string, () => string> = {
  'a GGUF file in f32': () => gguf('f32', tinyGgufTensors()),
  'a GGUF file with biases and a head of its own': () => gguf('bias', tinyGgufTensors({ bias: true, tied: false })),
  'a GGUF file in Q1_0': () => {
    const path = folder.path('q1.gguf')
    writeFileSync(path, tinyQwen3())
    return path
  },
  'a GGUF file in f16': () => {
    const halves = ({ name, shape, data }: GgufTensor): GgufTensor => {
      const values = new Float32Array(Uint8Array.from(data).buffer)
      return { name, type: 'f16', shape, data: encodeTensor('f16', values) }
    }
    return gguf('f16', tinyGgufTensors().map(halves))
  },
  'a folder in two files': () => {
    const tensors = tinyTensors()
    const shards = { 'a.safetensors': tensors.slice(0, 9), 'b.safetensors': tensors.slice(9) }
    const map = Object.entries(shards).flatMap(([file, list]) => list.map(({ name }) => [name, file]))
    return writeFolder(folder.path('shards'), tinyHfConfig(), {
      ...Object.fromEntries(Object.entries(shards).map(([file, list]) => [file, safetensorsFile(list, 'F16')])),
      'model.safetensors.index.json': JSON.stringify({ weight_map: Object.fromEntries(map) }),
    })
  },
  'a folder in BF16': () =>
    writeFolder(folder.path('bf16'), tinyHfConfig(), { 'model.safetensors': safetensorsFile(tinyTensors(), 'BF16') }),
  'a packed checkpoint of signs': () => golden('onebit-en10/packed'),
}

function gguf(name: string, tensors: GgufTensor[]): string {
  const path = folder.path(`${name}.gguf`)
  writeFileSync(path, ggufFile(TINY_METADATA, tensors))
  return path
}

describe('a model of another format', () => {
  it.each(Object.keys(paths))('gives the bytes of its .obt file: %s', async (name) => {
    const path = paths[name]!()
    const target = folder.path('same.obt')
    await convert(path, target)
    const direct = await Model.load(path)
    const converted = await Model.load(target)
    expect(direct.config).toEqual(converted.config)
    expect(direct.info.weightBytes).toBe(converted.info.weightBytes)
    for (const model of [direct, converted]) await model.dispose()
    for (const isa of [undefined, ...usable()]) {
      const options = isa === undefined ? { threads: 1 } : { isa }
      expect(await logitsOf(path, options)).toEqual(await logitsOf(target, options))
    }
  })

  const usable = () =>
    addon()
      .info()
      .isas.filter(({ state }) => state === 'usable')
      .map(({ name }) => name)

  it('says where it came from, and has an identity that its weights change', async () => {
    const path = gguf('identity', tinyGgufTensors())
    const first = await Model.load(path)
    expect(first.provenance).toMatchObject({ source: 'identity.gguf', format: 'gguf', method: 'direct' })
    expect(first.info.fileBytes).toBe(readFileSync(path).length)
    const verified = await Model.load(path, { verify: true })
    const sha256 = createHash('sha256').update(readFileSync(path)).digest('hex')
    expect(verified.provenance.files).toEqual([{ name: 'identity.gguf', bytes: first.info.fileBytes, sha256 }])
    expect(verified.info.identity).toBe(first.info.identity)
    await verified.dispose()
    await first.createSession().save(folder.path('saved'))
    const again = await Model.load(path)
    expect(again.info.identity).toBe(first.info.identity)
    expect((await Session.restore(again, folder.path('saved'))).position).toBe(0)
    const changed = readFileSync(path)
    changed[changed.length - 5]! ^= 1
    writeFileSync(path, changed)
    const other = await Model.load(path)
    expect(other.info.identity).not.toBe(first.info.identity)
    expect(await codeOf(() => Session.restore(other, folder.path('saved')))).toBe('ERR_SESSION_MODEL')
    for (const model of [first, again, other]) await model.dispose()
  })

  it('tells its progress, and stops when it is told to', async () => {
    const path = gguf('progress', tinyGgufTensors())
    const told: [number, number][] = []
    await (await Model.load(path, { onProgress: (done, total) => told.push([done, total]) })).dispose()
    expect(told.at(-1)![0]).toBe(told[0]![1])
    const stop = new AbortController()
    const reason = new Error('enough')
    const loading = Model.load(path, { signal: stop.signal, onProgress: () => stop.abort(reason) })
    await expect(loading).rejects.toBe(reason)
    const broken = new Error('from the callback')
    const throwing = () => {
      throw broken
    }
    await expect(Model.load(path, { onProgress: throwing })).rejects.toBe(broken)
  })

  it('that does not fit is refused before anything is read', async () => {
    const path = gguf('large', tinyGgufTensors())
    const error = await failure(() => Model.load(path, { memoryLimit: 1000 }))
    expect([error.code, error.message]).toEqual(['ERR_MEMORY_LIMIT', expect.stringContaining('the limit is 1000')])
  })

  it('that is damaged is named', async () => {
    const tensors = tinyGgufTensors()
    const norm = tensors.findIndex(({ name }) => name === 'blk.0.attn_norm.weight')
    const wrong = encodeTensor('f32', new Float32Array(TINY.dim).fill(Number.NaN))
    const path = gguf('nan', tensors.with(norm, { ...tensors[norm]!, data: wrong }))
    const { code, message } = await failure(() => Model.load(path))
    expect([code, message]).toEqual(['ERR_NOT_FINITE', expect.stringContaining('blk.0.attn_norm.weight')])
    const cut = readFileSync(gguf('cut', tinyGgufTensors()))
    writeFileSync(folder.path('cut.gguf'), cut.subarray(0, cut.length - 100))
    expect(await codeOf(() => Model.load(folder.path('cut.gguf')))).toBe('ERR_TRUNCATED')
    writeFileSync(folder.path('other'), 'neither of them')
    expect(await codeOf(() => Model.load(folder.path('other')))).toBe('ERR_NOT_OBT')
    expect(await codeOf(() => Model.load(folder.path('nowhere')))).toBe('ERR_FILE_NOT_FOUND')
  })

  it('is run without anything being written', () => {
    const [models, others] = [folder.path('models'), folder.path('others')]
    for (const path of [models, others]) mkdirSync(path)
    const path = join(models, 'model.gguf')
    writeFileSync(path, tinyQwen3())
    // Wherever a program may think of putting something; a folder's time tells of files that have gone again, too.
    const homes = ['HOME', 'USERPROFILE', 'APPDATA', 'LOCALAPPDATA', 'HF_HOME', 'TMPDIR', 'TMP', 'TEMP']
    const xdg = ['CACHE', 'CONFIG', 'DATA', 'STATE'].map((name) => `XDG_${name}_HOME`)
    const env = Object.fromEntries([...homes, ...xdg].map((name) => [name, others]))
    const times = () => [models, path, others].map((place) => statSync(place).mtimeMs)
    const before = times()
    const { status, stdout } = program('onebit', ['run', path, '-p', 'abcabc', '-n', '4'], { cwd: others, env })
    expect([status, stdout.length > 0]).toEqual([0, true])
    expect([readdirSync(models), readdirSync(others)]).toEqual([['model.gguf'], []])
    expect(times()).toEqual(before)
  })

  it('chats and is scored by the commands', async () => {
    const path = folder.path('qwen3.gguf')
    writeFileSync(path, tinyQwen3())
    const model = await Model.load(path)
    expect(model.config).toMatchObject({ architecture: 'qwen3', dim: TINY_QWEN3.dim })
    if (model.hasChatTemplate) new Chat(model).dispose()
    await model.dispose()
    const info = program('onebit', ['info', path])
    expect([info.status, info.stdout]).toEqual([0, expect.stringContaining('qwen3')])
  })
})

const TEACHER = 'weights/SmolLM2-135M-Instruct.Q4_1.gguf'
describe.skipIf(missing(TEACHER))('SmolLM2 as it is downloaded', () => {
  it('says the same as its .obt file', async () => {
    const path = dataFile(TEACHER)
    const target = folder.path('smol.obt')
    await convert(path, target)
    const answers = await Promise.all(
      [path, target].map(async (file) => {
        const model = await Model.load(file)
        const messages = [{ role: 'user', content: 'What is the capital of France?' }]
        const { text } = await model.createSession().complete(messages, { temperature: 0, maxTokens: 20 })
        await model.dispose()
        return text
      }),
    )
    expect(answers[0]).toBe(answers[1])
    expect(answers[0]).toContain('Paris')
    expect(await logitsOf(path)).toEqual(await logitsOf(target))
  })
})

describe('weights that native code is to read from files', () => {
  const filling = async () => {
    const config = (await readObtHeader(folder.path('fill.obt'))).config
    return addon().fillModel(nativeModelOptions(config, { activations: 'int8', isa: '', threads: 1 } as never))
  }
  const good = () => ({
    paths: [folder.path('fill.obt')],
    names: 'norm',
    labels: 'their norm',
    types: 'f32',
    files: Int32Array.of(0),
    offsets: Float64Array.of(0),
  })

  it('are refused when the call is wrong, and afterwards when the file is', async () => {
    await writeTinyModel(folder.path('fill.obt'))
    const wrong: [object, string][] = [
      [{ paths: 'x' }, 'paths'],
      [{ paths: [1] }, 'paths'],
      [{ paths: ['a\0b'] }, 'zero'],
      [{ names: 'a\nb' }, 'same length'],
      [{ types: 'q9_9' }, 'known types'],
      [{ files: Int32Array.of(1) }, 'given files'],
      [{ files: Int32Array.of(-1) }, 'given files'],
      [{ offsets: Float64Array.of(-1) }, 'same length'],
      [{ offsets: Float64Array.of(Number.NaN) }, 'same length'],
      [{ offsets: [0] }, 'offsets'],
    ]
    for (const [change, about] of wrong) {
      const made = await filling()
      expect(() => made.convert({ ...good(), ...change } as never), about).toThrow(about)
      made.dispose()
    }
    for (const [change, code] of [
      [{ names: 'none' }, 'ERR_TENSOR_TABLE'],
      [{ paths: [folder.path('nowhere')] }, 'ERR_'],
      [{ offsets: Float64Array.of(1e15) }, 'ERR_TRUNCATED'],
    ] as const) {
      const made = await filling()
      expect(await codeOf(() => made.convert({ ...good(), ...change }))).toContain(code)
      // After an error everything else is one.
      expect(await codeOf(() => made.convert(good()))).toBe('ERR_DISPOSED')
      made.dispose()
      expect(await codeOf(async () => made.convert(good()))).toBe('ERR_DISPOSED')
    }
  })
})
