/**
 * CVE-2026-7482 (Bleeding Llama), llama.cpp #6774, MLX #4136: a tensor larger than the file is read from whatever lies
 * behind it in memory. Our files must have exactly the computed size; sources must hold every tensor, and no two may
 * share bytes.
 */
import { writeFileSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import { convert } from '../../dist/convert/convert.js'
import { readObtHeader } from '../../dist/obt/obt.js'
import { codeOf, failure } from '../expect-code.js'
import { craftFile, type Entry } from '../obt-crafter.js'
import { temporaryFolder, tinyConfig } from '../tiny-model.js'
import { type SafetensorsEntry, safetensorsFile, tinyHfConfig, tinyTensors, writeFolder } from '../tiny-source.js'
import { stateDictPickle, type TorchTensor, torchFile, zipFile } from '../torch-writer.js'
import { ggufBytes } from './gguf-bytes.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())
const config = tinyConfig({ layers: 1 })
const out = folder.path('out.obt')

describe('.obt', () => {
  const attempt = (bytes: Buffer) => {
    writeFileSync(folder.path('x.obt'), bytes)
    return failure(() => readObtHeader(folder.path('x.obt')))
  }
  const crafted = (entries: (all: Entry[]) => Entry[]) => attempt(craftFile({ config, entries }))
  const good = craftFile({ config })

  test('a file that ends early, or goes on', async () => {
    const short = await attempt(good.subarray(0, good.length - 1))
    expect(short.code).toBe('ERR_TRUNCATED')
    expect(short.message).toContain(String(good.length - 1))
    expect(short.message).toContain(String(good.length))
    expect((await attempt(Buffer.concat([good, Buffer.from('another file')]))).code).toBe('ERR_FILE_SIZE')
  })

  test.each<[string, (all: Entry[]) => Entry[]]>([
    ['a tensor that overlaps the one before', (all) => all.map((e, i) => (i === 2 ? moved(e, -4) : e))],
    ['a hole between tensors', (all) => all.map((e, i) => (i >= 2 ? moved(e, 64) : e))],
    ['a tensor left out', (all) => all.slice(0, -1)],
    ['a tensor too many', (all) => [...all, { ...all[0]!, name: 'extra' }]],
    ['two tensors in each other’s place', (all) => [all[1]!, all[0]!, ...all.slice(2)]],
    ['another name', (all) => [{ ...all[0]!, name: 'tok_embeddings.weights' }, ...all.slice(1)]],
    ['another type', (all) => [{ ...all[0]!, value: { ...all[0]!.value, dtype: 'U8' } }, ...all.slice(1)]],
    [
      'another shape of the same size',
      (all) => [{ ...all[0]!, value: { ...all[0]!.value, shape: [config.dim, config.vocab_size] } }, ...all.slice(1)],
    ],
    ['a shape of another size', (all) => [{ ...all[0]!, value: { ...all[0]!.value, shape: [1, 1] } }, ...all.slice(1)]],
  ])('%s', async (_, entries) => {
    const { code, message } = await crafted(entries)
    expect(code).toBe('ERR_TENSOR_TABLE')
    expect(message).toMatch(/tensor .*(tok_embeddings|layers|norm|extra)/i)
  })

  function moved(entry: Entry, by: number): Entry {
    const [from, to] = entry.value.data_offsets as [number, number]
    return { ...entry, value: { ...entry.value, data_offsets: [from + by, to + by] } }
  }
})

function nest(levels: number): unknown {
  let value: unknown = []
  for (let i = 0; i < levels; i++) value = [value]
  return value
}

describe('safetensors', () => {
  const attempt = (change: (header: Record<string, SafetensorsEntry>) => void, cut = 0) => {
    const bytes = safetensorsFile(tinyTensors(), 'F32', change)
    const files = { 'model.safetensors': bytes.subarray(0, bytes.length - cut) }
    return codeOf(() => convert(writeFolder(folder.path('safe'), tinyHfConfig(), files), out))
  }
  const norm = 'model.norm.weight'

  test.each<[string, (header: Record<string, SafetensorsEntry>) => void, string]>([
    [
      'two tensors on the same bytes',
      (h) => void Object.assign(h[norm]!, { data_offsets: h['model.layers.0.input_layernorm.weight']!.data_offsets }),
      'ERR_BAD_SOURCE',
    ],
    [
      'a tensor with fewer bytes than its shape',
      (h) => void Object.assign(h[norm]!, { shape: [17] }),
      'ERR_BAD_SOURCE',
    ],
    [
      'a tensor whose shape wraps',
      (h) => void Object.assign(h[norm]!, { shape: [2 ** 32, 2 ** 32, 4] }),
      'ERR_BAD_SOURCE',
    ],
    ['offsets in reverse', (h) => void Object.assign(h[norm]!, { data_offsets: [64, 0] }), 'ERR_BAD_SOURCE'],
    ['offsets as text', (h) => void Object.assign(h[norm]!, { data_offsets: ['0', '64'] }), 'ERR_BAD_SOURCE'],
    ['an unknown type', (h) => void Object.assign(h[norm]!, { dtype: 'F8_E4M3' }), 'ERR_UNSUPPORTED_TENSOR_TYPE'],
    ['a type nested deeply', (h) => void Object.assign(h[norm]!, { dtype: nest(1000) }), 'ERR_BAD_SOURCE'],
    [
      'a type from Object.prototype',
      (h) => void Object.assign(h[norm]!, { dtype: 'constructor' }),
      'ERR_UNSUPPORTED_TENSOR_TYPE',
    ],
    ['a hole', (h) => void Reflect.deleteProperty(h, norm), 'ERR_BAD_SOURCE'],
  ])('%s', async (_, change, code) => {
    expect(await attempt(change)).toBe(code)
  })

  test('a file that ends early', async () => {
    expect(await attempt(() => {}, 4)).toBe('ERR_TRUNCATED')
    expect(await attempt(() => {}, 1e9)).toBe('ERR_BAD_SOURCE')
  })
})

describe('GGUF', () => {
  const attempt = (bytes: Buffer) => {
    writeFileSync(folder.path('x.gguf'), bytes)
    return codeOf(() => convert(folder.path('x.gguf'), out))
  }
  const tensor = (name: string, dimensions: bigint[], offset: bigint) => ({ name, dimensions, type: 0, offset })

  test('a tensor that is longer than the file, or starts behind it', async () => {
    const long = [tensor('token_embd.weight', [16n, 1000n], 0n)]
    expect(await attempt(ggufBytes({ tensors: long, data: 4096 }))).toBe('ERR_TRUNCATED')
    const behind = [tensor('token_embd.weight', [16n], 1n << 40n)]
    expect(await attempt(ggufBytes({ tensors: behind, data: 4096 }))).toBe('ERR_TRUNCATED')
  })

  test('two tensors on the same bytes, or of the same name', async () => {
    const overlap = [tensor('a', [16n, 16n], 0n), tensor('b', [16n, 16n], 992n)]
    expect(await attempt(ggufBytes({ tensors: overlap, data: 4096 }))).toBe('ERR_BAD_SOURCE')
    const twice = [tensor('a', [16n], 0n), tensor('a', [16n], 64n)]
    expect(await attempt(ggufBytes({ tensors: twice, data: 4096 }))).toBe('ERR_BAD_SOURCE')
  })

  test('every length of a file', async () => {
    const whole = ggufBytes({ tensors: [tensor('token_embd.weight', [16n], 0n)], data: 64 })
    for (let length = 4; length < whole.length; length++) {
      const code = await attempt(whole.subarray(0, length))
      expect(['ERR_TRUNCATED', 'ERR_BAD_SOURCE'], `${length} bytes`).toContain(code)
    }
  })
})

describe('PyTorch', () => {
  const attempt = (bytes: Buffer) => {
    return codeOf(() => convert(writeFolder(folder.path('torch'), tinyHfConfig(), { 'pytorch_model.bin': bytes }), out))
  }
  const data = Buffer.alloc(64)
  const tensor = (more: Partial<TorchTensor>): TorchTensor => {
    return { name: 'model.norm.weight', type: 'FloatStorage', shape: [16], data, ...more }
  }

  test.each([
    ['a tensor longer than its storage', { shape: [17] }, 'ERR_BAD_SOURCE'],
    ['an offset behind its storage', { offset: 1 }, 'ERR_BAD_SOURCE'],
    ['a shape whose product wraps', { shape: [65536, 65536, 65536, 65536], strides: [1, 1, 1, 1] }, 'ERR_BAD_SOURCE'],
    ['strides that leave the storage', { shape: [4, 4], strides: [1000, 1] }, 'ERR_UNSUPPORTED_TENSOR'],
    ['a transposed view', { shape: [4, 4], strides: [1, 4] }, 'ERR_UNSUPPORTED_TENSOR'],
    ['strides of another number than dimensions', { shape: [16], strides: [1, 1] }, 'ERR_UNSUPPORTED_TENSOR'],
  ])('%s', async (_, more, code) => {
    expect(await attempt(torchFile([tensor(more)]))).toBe(code)
  })

  test('a storage whose entry is shorter than it says, or is not there', async () => {
    const pickle = stateDictPickle([tensor({})])
    const entry: [string, Buffer] = ['m/data.pkl', pickle]
    expect(await attempt(zipFile([entry, ['m/data/0', data.subarray(0, 60)]]))).toBe('ERR_BAD_SOURCE')
    expect(await attempt(zipFile([entry]))).toBe('ERR_BAD_SOURCE')
  })
})
