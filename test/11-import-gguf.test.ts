/** GGUF: every block type, both architectures, and the metadata that changes the computation. */
import { writeFileSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import { convert } from '../dist/convert/convert.js'
import { openGguf } from '../dist/import/gguf.js'
import { addon } from '../dist/native/addon.js'
import type { SourceType } from '../dist/native/native.js'
import { readObtHeader } from '../dist/obt/obt.js'
import { dataFile, missing } from './data.js'
import { codeOf } from './expect-code.js'
import { TINY_QWEN3, tinyQwen3 } from './fixtures/tiny-qwen3.js'
import {
  encodeTensor,
  type GgufTensor,
  ggufFile,
  halfBits,
  halfValue,
  type MetadataValue,
  SeededRandom,
} from './gguf-writer.js'
import { readBlob } from './read-blob.js'
import { floats, readTensors } from './read-tensors.js'
import { TINY_METADATA, tinyGgufTensors } from './tiny-gguf.js'
import { temporaryFolder } from './tiny-model.js'
import { tinyTensors } from './tiny-source.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

let files = 0
function write(metadata: Record<string, MetadataValue>, tensors = tinyGgufTensors()): string {
  const path = folder.path(`${files++}.gguf`)
  writeFileSync(path, ggufFile(metadata, tensors))
  return path
}

async function configOf(more: Record<string, MetadataValue>, tensors = tinyGgufTensors()) {
  const source = await openGguf(write({ ...TINY_METADATA, ...more }, tensors))
  await source.close()
  return source.config
}

describe('the numbers of every block type', () => {
  const random = new SeededRandom(41)
  const half = () => random.uniform(-1, 1)
  const halves = (count: number) => Array.from({ length: count }, () => halfBits(half()))
  const bytes = (count: number) => Array.from({ length: count }, () => random.integer(256))

  /** One block from f16 numbers and bytes. */
  function block(scales: number[], rest: number[]): Buffer {
    const out = Buffer.alloc(2 * scales.length)
    scales.forEach((bits, i) => void out.writeUInt16LE(bits, 2 * i))
    return Buffer.concat([out, Buffer.from(rest)])
  }

  const signed = (byte: number) => (byte << 24) >> 24
  /** From the format's description, in doubles; products and sums of f16 with small integers round once to f32. */
  const CASES: {
    type: SourceType
    cols: number
    scales: number
    bytes: number
    value: (s: number[], b: number[], i: number) => number
  }[] = [
    { type: 'q8_0', cols: 32, scales: 1, bytes: 32, value: ([d], b, i) => d! * signed(b[i]!) },
    {
      type: 'q4_0',
      cols: 32,
      scales: 1,
      bytes: 16,
      value: ([d], b, i) => d! * ((i < 16 ? b[i]! & 15 : b[i - 16]! >> 4) - 8),
    },
    {
      type: 'q4_1',
      cols: 32,
      scales: 2,
      bytes: 16,
      value: ([d, m], b, i) => d! * (i < 16 ? b[i]! & 15 : b[i - 16]! >> 4) + m!,
    },
    { type: 'q1_0', cols: 128, scales: 1, bytes: 16, value: ([d], b, i) => ((b[i >> 3]! >> (i & 7)) & 1 ? d! : -d!) },
  ]

  test.each(CASES)('$type', ({ type, cols, scales, bytes: count, value }) => {
    const blocks = Array.from({ length: 12 }, () => ({ s: halves(scales), b: bytes(count) }))
    const source = Buffer.concat(blocks.map(({ s, b }) => block(s, b)))
    const found = addon().toF32(source, type, 4, 3 * cols)
    const expected = blocks.flatMap(({ s, b }) => {
      return Array.from({ length: cols }, (_, i) => Math.fround(value(s.map(halfValue), b, i)))
    })
    const positive = (zero: number) => zero + 0 // the sign of a zero may differ
    expect(Array.from(found, positive)).toEqual(expected.map(positive))
  })

  test('f16 and bf16: all finite patterns', () => {
    const patterns = Array.from({ length: 65536 }, (_, bits) => bits)
    const encode = (list: number[]) => new Uint8Array(Uint16Array.from(list).buffer)
    const finite = patterns.filter((bits) => (bits & 0x7c00) !== 0x7c00)
    expect(Array.from(addon().toF32(encode(finite), 'f16', 1, finite.length))).toEqual(finite.map(halfValue))
    const brain = patterns.filter((bits) => (bits & 0x7f80) !== 0x7f80)
    const view = new DataView(new ArrayBuffer(4))
    const expected = brain.map((bits) => {
      view.setUint32(0, bits * 65536)
      return view.getFloat32(0)
    })
    expect(Array.from(addon().toF32(encode(brain), 'bf16', 1, brain.length))).toEqual(expected)
    expect(() => addon().toF32(encode([0x7c00]), 'f16', 1, 1)).toThrow(
      expect.objectContaining({ code: 'ERR_NOT_FINITE' }),
    )
  })
})

describe('a llama', () => {
  test('arrives with its rows as they are and interleaved rotation', async () => {
    const out = folder.path('llama.obt')
    const report = await convert(write(TINY_METADATA), out)
    expect(report.config).toMatchObject({
      rope_style: 'interleaved',
      norm_eps: 1e-5,
      rope_theta: 10000,
      tied_head: false,
    })
    const written = await readTensors(out)
    for (const { name, values } of tinyTensors()) {
      if (name.endsWith('q_proj.weight'))
        expect(floats(written.get(`layers.${name.split('.')[2]}.wq.weight`))).toEqual(values)
    }
    expect(floats(written.get('output.weight'))).toEqual(tinyTensors().at(-1)!.values)
  })

  test('a head that is not there is tied; rope_freqs and scaling are taken over', async () => {
    expect((await configOf({}, tinyGgufTensors({ tied: true }))).tied_head).toBe(true)
    expect((await configOf({})).rope_scaling).toEqual({ type: 'none' })
    const type = (string: string) => ({ 'llama.rope.scaling.type': { string } })
    expect((await configOf({ ...type('linear'), 'llama.rope.scaling.factor': { f32: 4 } })).rope_scaling).toEqual({
      type: 'linear',
      factor: 4,
    })
    const yarn = {
      ...type('yarn'),
      'llama.rope.scaling.factor': { f32: 4 },
      'llama.rope.scaling.original_context_length': { u32: 8 },
    }
    expect((await configOf(yarn)).rope_scaling).toEqual({
      type: 'yarn',
      factor: 4,
      original_context: 8,
      beta_fast: 32,
      beta_slow: 1,
      attention_factor: 0,
    })
    const values = Float32Array.from([1, 1.5, 8, 8.25])
    const freqs: GgufTensor = { name: 'rope_freqs.weight', type: 'f32', shape: [4], data: encodeTensor('f32', values) }
    expect((await configOf({}, [...tinyGgufTensors(), freqs])).rope_scaling).toEqual({
      type: 'factors',
      factors: [1, 1.5, 8, 8.25],
    })
  })

  const with_ = (key: string, value: MetadataValue) => () => configOf({ [key]: value })
  const without = (name: string) => () =>
    configOf(
      {},
      tinyGgufTensors().filter((tensor) => tensor.name !== name),
    )
  test.each([
    ['another architecture', with_('general.architecture', { string: 'gemma' }), 'ERR_UNSUPPORTED_ARCHITECTURE'],
    ['an architecture without a name', with_('general.architecture', { u32: 1 }), 'ERR_BAD_SOURCE'],
    ['heads of two sizes', with_('llama.attention.value_length', { u32: 4 }), 'ERR_UNSUPPORTED_ARCHITECTURE'],
    ['half of RoPE', with_('llama.rope.dimension_count', { u32: 4 }), 'ERR_UNSUPPORTED_ARCHITECTURE'],
    ['longrope', with_('llama.rope.scaling.type', { string: 'longrope' }), 'ERR_UNSUPPORTED_ROPE'],
    ['a tensor missing', without('blk.1.ffn_up.weight'), 'ERR_MISSING_TENSOR'],
    ['2^20 layers', with_('llama.block_count', { u32: 1 << 20 }), 'ERR_BAD_SOURCE'],
    ['another width', with_('llama.embedding_length', { u32: 32 }), 'ERR_TENSOR_SHAPE'],
    ['no tensors at all', () => configOf({}, []), 'ERR_BAD_SOURCE'],
  ] as const)('%s is an error', async (_, attempt, code) => {
    expect(await codeOf(attempt)).toBe(code)
  })
})

describe('Q1_0', () => {
  test('stays as it is: inverted signs and the same scales', async () => {
    const path = folder.path('qwen3.gguf')
    writeFileSync(path, tinyQwen3())
    const out = folder.path('qwen3.obt')
    const report = await convert(path, out)
    expect(report.config).toMatchObject({
      architecture: 'qwen3',
      rope_style: 'half',
      embedding: { kind: 'q1_0' },
      linears: { wq: { kind: 'q1_0' } },
    })
    const source = await openGguf(path)
    const written = await readTensors(out)
    const q = source.tensors.get('layers.1.w2.weight')!
    const blocks = Buffer.from(await q.read(0, q.rows))
    await source.close()
    const [sign, scale] = [written.get('layers.1.w2.sign')!, written.get('layers.1.w2.scale')!]
    expect(sign.length).toBe((TINY_QWEN3.dim * TINY_QWEN3.hidden) / 8)
    for (let i = 0; i < blocks.length / 18; i++) {
      const block = blocks.subarray(18 * i, 18 * i + 18)
      expect(scale.readUInt16LE(2 * i)).toBe(block.readUInt16LE(0))
      for (let k = 0; k < 16; k++) expect(sign[16 * i + k]).toBe(block[2 + k]! ^ 0xff)
    }
  })

  test('a negative scale moves into the signs; a NaN is an error', () => {
    const block = Buffer.alloc(18, 0b01010101)
    block.writeUInt16LE(halfBits(-0.5), 0)
    const { sign, scale } = addon().splitQ1_0(block, 1, 128)
    expect(scale[0]).toBe(halfBits(0.5))
    expect(sign.every((byte) => byte === 0b01010101)).toBe(true)
    block.writeUInt16LE(0x7e00, 0)
    expect(() => addon().splitQ1_0(block, 1, 128)).toThrow(expect.objectContaining({ code: 'ERR_NOT_FINITE' }))
  })

  test('--type makes numbers or new signs of it', async () => {
    const path = folder.path('qwen3.gguf')
    writeFileSync(path, tinyQwen3())
    for (const type of ['f16', 'q8', 'onebit'] as const) {
      const report = await convert(path, folder.path('other.obt'), { type })
      expect(report.config.linears.wq!.kind).toBe(type === 'onebit' ? 'sign' : 'dense')
    }
  })
})

const TEACHER = 'weights/SmolLM2-135M-Instruct.Q4_1.gguf'

test.skipIf(missing(TEACHER))('the teacher: q8 linears, tokenizer and template inside', async () => {
  const out = folder.path('smol.obt')
  const report = await convert(dataFile(TEACHER), out)
  expect(report.config).toMatchObject({
    n_layers: 30,
    dim: 576,
    rope_theta: 100000,
    vocab_size: 49152,
    tied_head: true,
    context_length: 8192,
  })
  expect(report.config.linears.w1).toMatchObject({ kind: 'dense', dtype: 'q8' })
  const header = await readObtHeader(out)
  const blob = JSON.parse(Buffer.from((await readBlob(header, 'tokenizer'))!).toString()) as {
    tokenizer: { model: { vocab: object } }
  }
  expect(Object.keys(blob.tokenizer.model.vocab).length).toBeGreaterThan(49000)
  expect(header.blobs.chat_template).toBeGreaterThan(100)
  const [file] = header.provenance.files as { sha256: string }[]
  expect(file!.sha256).toBe('b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53')
})
