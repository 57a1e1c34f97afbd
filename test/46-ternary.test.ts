/** Ternary weights of every layout: the same model as one with their values as numbers, and what cannot be is refused. */
import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import { convert } from '../dist/convert/convert.js'
import { GgufTypes } from '../dist/import/gguf-types.js'
import { Model } from '../dist/index.js'
import { addon } from '../dist/native/addon.js'
import { dataFile, missing } from './data.js'
import { failure } from './expect-code.js'
import { encodeTensor, type GgufTensor, ggufFile, halfBits, halfValue, SeededRandom } from './gguf-writer.js'
import { i2sBytes, LAYOUTS, ternaryBytes } from './ternary-blocks.js'
import { TINY_METADATA, tinyGgufTensors } from './tiny-gguf.js'
import { temporaryFolder } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

const EXACT = { activations: 'f32', kv: 'f32' } as const
const SIZES = { dim: 256, hidden: 512, layers: 2, heads: 4, kvHeads: 2, vocab: 96 }
const ids = Int32Array.from({ length: 24 }, (_, i) => (i * 37 + (i % 7)) % SIZES.vocab)

const METADATA = {
  ...TINY_METADATA,
  'llama.embedding_length': { u32: SIZES.dim },
  'llama.block_count': { u32: SIZES.layers },
  'llama.feed_forward_length': { u32: SIZES.hidden },
  'llama.attention.head_count': { u32: SIZES.heads },
  'llama.attention.head_count_kv': { u32: SIZES.kvHeads },
}

interface TernaryMatrix {
  rows: number
  cols: number
  codes: Uint8Array
}

function matrix(random: SeededRandom, rows: number, cols: number): TernaryMatrix {
  return { rows, cols, codes: Uint8Array.from({ length: rows * cols }, () => random.integer(3)) }
}

/** A small Llama; write: the bytes and the type of each matrix. */
function file(name: string, write: (matrix: TernaryMatrix, name: string) => Partial<GgufTensor>[]): string {
  const random = new SeededRandom(7)
  const { dim, hidden, layers, kvHeads, heads, vocab } = SIZES
  const tensors: GgufTensor[] = []
  const norm = (own: string) => {
    const values = Float32Array.from({ length: dim }, () => random.uniform(0.5, 1.5))
    tensors.push({ name: own, type: 'f32', shape: [dim], data: encodeTensor('f32', values) })
  }
  const add = (own: string, rows: number, cols: number) => {
    for (const part of write(matrix(random, rows, cols), own)) {
      tensors.push({ name: `${own}.weight`, shape: [rows, cols], ...part } as GgufTensor)
    }
  }
  add('token_embd', vocab, dim)
  for (let layer = 0; layer < layers; layer++) {
    const kv = (dim / heads) * kvHeads
    norm(`blk.${layer}.attn_norm.weight`)
    norm(`blk.${layer}.ffn_norm.weight`)
    for (const [part, rows, cols] of [
      ['attn_q', dim, dim],
      ['attn_k', kv, dim],
      ['attn_v', kv, dim],
      ['attn_output', dim, dim],
      ['ffn_gate', hidden, dim],
      ['ffn_up', hidden, dim],
      ['ffn_down', dim, hidden],
    ] as const) {
      add(`blk.${layer}.${part}`, rows, cols)
    }
  }
  norm('output_norm.weight')
  const path = folder.path(`${name}.gguf`)
  writeFileSync(path, ggufFile(METADATA, tensors))
  return path
}

/** Scales of the blocks of a matrix: like numbers of a trained one, negative here and there. */
function scalesOf({ codes, cols }: TernaryMatrix, columns: number): number[] {
  const random = new SeededRandom(codes.length)
  return Array.from({ length: codes.length / columns }, () => {
    const sign = random.integer(9) === 0 ? -1 : 1
    return halfValue(halfBits((sign * random.uniform(0.5, 1.5)) / Math.sqrt(cols)))
  })
}

function values({ codes }: TernaryMatrix, columns: number, scales: readonly number[]): Partial<GgufTensor> {
  const numbers = Float32Array.from(codes, (code, i) => (code - 1) * scales[Math.floor(i / columns)]!)
  return { type: 'f32', data: encodeTensor('f32', numbers) }
}

async function logitsOf(path: string, options = {}): Promise<Float32Array> {
  const model = await Model.load(path, options)
  try {
    return (await model.createSession().logits(ids, { all: true })).data
  } finally {
    await model.dispose()
  }
}

async function expectSame(path: string, numbers: string): Promise<void> {
  const [found, expected] = [await logitsOf(path, EXACT), await logitsOf(numbers, EXACT)]
  const size = Math.sqrt(expected.reduce((sum, x) => sum + x * x, 0) / expected.length)
  const gap = found.reduce((most, x, i) => Math.max(most, Math.abs(x - expected[i]!)), 0)
  expect(gap / size).toBeLessThan(1e-4)
}

const isas = () =>
  addon()
    .info()
    .isas.filter(({ state }) => state === 'usable')
    .map(({ name }) => name)

describe('a GGUF file', () => {
  it.each(Object.entries(LAYOUTS))('in %s is the model of its values', async (name, layout) => {
    const path = file(name, (one) => [
      { type: layout.id, data: ternaryBytes(layout, one.codes, scalesOf(one, layout.columns)) },
    ])
    await expectSame(
      path,
      file(`${name} numbers`, (one) => [values(one, layout.columns, scalesOf(one, layout.columns))]),
    )
    const target = folder.path('ternary.obt')
    await convert(path, target)
    const model = await Model.load(path)
    expect(model.config.linears.wq).toEqual({ kind: 'ternary', group: layout.columns, bias: false })
    expect(model.config.embedding).toEqual({ kind: 'ternary', group: layout.columns, bias: false })
    await model.dispose()
    const expected = await logitsOf(target, { isa: 'scalar', threads: 1 })
    for (const isa of isas()) {
      expect(await logitsOf(path, { isa })).toEqual(expected)
      expect(await logitsOf(target, { isa })).toEqual(expected)
    }
  })

  it('in I2_S, rows beginning within its blocks too, is the model of its values', async () => {
    const all = [1 / 16]
    const isMatrix = (own: string) => own.startsWith('blk')
    const path = file('i2s', (one, own) =>
      isMatrix(own) ? [{ type: 36, data: i2sBytes(one.codes, all[0]!) }] : [values(one, one.codes.length, all)],
    )
    await expectSame(
      path,
      file('i2s numbers', (one) => [values(one, one.codes.length, all)]),
    )
    const target = folder.path('i2s.obt')
    await convert(path, target)
    expect(await logitsOf(path)).toEqual(await logitsOf(target))
    // 24 columns: five rows and a third lie in a block.
    const codes = matrix(new SeededRandom(3), 64, 24).codes
    const bytes = i2sBytes(codes, 1)
    for (const [first, count] of [
      [0, 64],
      [7, 11],
      [63, 1],
    ] as const) {
      const block = Math.floor((first * 24) / 128)
      const blocks = Math.ceil(((first + count) * 24) / 128) - block
      const part = bytes.subarray(block * 32, (block + blocks) * 32)
      const found = addon().i2sCodes(part, first * 24 - block * 128, count, 24)
      const wanted = codes.subarray(first * 24, (first + count) * 24)
      expect([...wanted.keys()].map((i) => (found[i >> 2]! >> (2 * (i & 3))) & 3)).toEqual([...wanted])
    }
  })

  it('with numbers beside its matrices keeps codes and multiplies the rows', async () => {
    const layout = LAYOUTS.TQ2_0!
    const ones = (one: TernaryMatrix) => Array(one.codes.length / layout.columns).fill(2)
    const scale = (own: string, value: number) => {
      return {
        name: `${own}.scale`,
        type: 'f32' as const,
        shape: [1],
        data: encodeTensor('f32', Float32Array.of(value)),
      }
    }
    const isMatrix = (own: string) => own.startsWith('blk')
    const path = file('scaled', (one, own) => [
      { type: layout.id, data: ternaryBytes(layout, one.codes, ones(one)) },
      ...(isMatrix(own) ? [scale(own, 0.03)] : []),
    ])
    await expectSame(
      path,
      file('scaled numbers', (one, own) => [values(one, one.codes.length, [isMatrix(own) ? 0.06 : 2])]),
    )
    const model = await Model.load(path)
    expect(model.config.linears.wq).toEqual({ kind: 'ternary', group: 0, bias: false })
    await model.dispose()
    const several = file('several', (one, own) => [
      { type: layout.id, data: ternaryBytes(layout, one.codes, scalesOf(one, layout.columns)) },
      ...(isMatrix(own) ? [scale(own, 0.03)] : []),
    ])
    expect(await failure(() => Model.load(several))).toMatchObject({
      code: 'ERR_BAD_SOURCE',
      message: expect.stringContaining('its blocks have several scales'),
    })
  })

  it.each(['Q2_0', 'TQ2_0', 'PQ2_0'])(
    'with a code that stands for nothing in %s is refused, by its place',
    async (name) => {
      const layout = LAYOUTS[name]!
      const path = file('three', (one, own) => {
        if (own === 'blk.1.ffn_up') one.codes[3 * one.cols + 5] = 3
        return [{ type: layout.id, data: ternaryBytes(layout, one.codes, scalesOf(one, layout.columns)) }]
      })
      for (const load of [() => Model.load(path), () => convert(path, folder.path('three.obt'))]) {
        const { code, message } = await failure(load)
        expect([code, message]).toEqual(['ERR_TERNARY_CODE', expect.stringMatching(/blk\.1\.ffn_up.*row 3, column 5/s)])
      }
    },
  )

  it('in I2_S whose codes mean something else is refused', async () => {
    const wrong = (name: string, code: number) =>
      file(name, (one, own) => {
        if (own === 'blk.0.attn_k') one.codes.fill(code)
        return own.startsWith('blk')
          ? [{ type: 36, data: i2sBytes(one.codes, 1) }]
          : [values(one, 256, scalesOf(one, 256))]
      })
    for (const [name, code, expected, words] of [
      ['i2s-zeros', 1, 'ERR_BAD_SOURCE', '100.0 % of its weights would be zero'],
      ['i2s-none', 2, 'ERR_BAD_SOURCE', '0.0 % of its weights would be zero'],
      ['i2s-three', 3, 'ERR_TERNARY_CODE', 'blk.0.attn_k'],
    ] as const) {
      const path = wrong(name, code)
      expect(await failure(() => Model.load(path))).toMatchObject({
        code: expected,
        message: expect.stringContaining(words),
      })
    }
  })
})

describe('layouts of one id, as the two of Q2_0', () => {
  const layout = (shape: [number, number], bytes: number, type = 42) => {
    const tensors = [
      { name: 'a', type, dimensions: shape, offset: 1024 },
      { name: 'b', type: 0, dimensions: [1], offset: 1024 + bytes },
    ]
    const header = { metadata: new Map(), tensors, fileBytes: 1024 + bytes + 4 }
    return new GgufTypes('x.gguf', header, tensors).of(tensors[0]!).type
  }

  it('are told apart by sizes', () => {
    expect(layout([256, 64], (16384 / 64) * 18)).toBe('q2_0')
    expect(layout([256, 64], (16384 / 128) * 34)).toBe('q2_0_g128')
    expect(layout([192, 64], (12288 / 64) * 18)).toBe('q2_0')
  })

  it.each<[string, [number, number], number, number]>([
    ['could be in several', [128, 1], 64, 42],
    ['fit none', [256, 64], 4000, 42],
    ['fit none', [32, 64], 576, 42],
    // Another fork has a type 143 of its own.
    ['fit none', [256, 64], (16384 / 32) * 34, 143],
  ])('that %s are refused', async (words, shape, bytes, type) => {
    const { code, message } = await failure(async () => layout(shape, bytes, type))
    expect([code, message]).toEqual(['ERR_BAD_SOURCE', expect.stringContaining(words)])
  })

  it.each([
    [42, 18 / 64, 'q2_0'],
    [42, 34 / 128, 'q2_0_g128'],
    [143, 28 / 128, 'ptq1_0'],
  ])(
    'of type %d and %d bytes a weight: the last tensor may be cut off, which is for others to say',
    (type, per, name) => {
      const bytes = 16384 * per
      const tensors = [1024, 1024 + bytes].map((offset) => ({ name: `${offset}`, type, dimensions: [256, 64], offset }))
      const made = (rest: number) => ({ metadata: new Map(), tensors, fileBytes: 1024 + bytes + rest })
      for (const rest of [bytes, bytes - 1, 100]) {
        expect(new GgufTypes('x.gguf', made(rest), tensors).of(tensors[1]!).type).toBe(name)
      }
      expect(() => new GgufTypes('x.gguf', made(bytes + 64), tensors)).toThrow('fit none')
    },
  )
})

describe.skipIf(missing('golden/codecs/index.json'))('codes of other programs', () => {
  const numbers = (name: string) => {
    const bytes = readFileSync(dataFile(`golden/codecs/${name}.npy`))
    const from = 10 + bytes.readUInt16LE(8)
    return new Float32Array(bytes.buffer.slice(bytes.byteOffset + from, bytes.byteOffset + bytes.length))
  }
  const codeAt = (codes: Uint8Array, i: number) => (codes[i >> 2]! >> (2 * (i & 3))) & 3

  it('I2_S', () => {
    const expected = numbers('I2_S')
    const bytes = readFileSync(dataFile('golden/codecs/I2_S.bin'))
    const scale = bytes.readFloatLE(expected.length / 4)
    const codes = addon().i2sCodes(bytes.subarray(0, expected.length / 4), 0, 1, expected.length)
    expect(Float32Array.from(expected, (_, i) => (codeAt(codes, i) - 1) * scale)).toEqual(expected)
  })

  it('packed rows of a folder', () => {
    const expected = numbers('HF-packed')
    const bytes = readFileSync(dataFile('golden/codecs/HF-packed.bin'))
    const found = [0, 2, 4, 6].flatMap((shift) => [...addon().gatherCodes(bytes, shift, 1, bytes.length)])
    expect(Float32Array.from(expected, (_, i) => codeAt(Uint8Array.from(found), i) - 1)).toEqual(expected)
  })
})

describe('a config', () => {
  it.each([
    [{ kind: 'ternary', group: 32, bias: false }, /wq\.group: must be one of 0, 64, 128, 256/],
    [{ kind: 'ternary', bias: false }, /group/],
    [{ kind: 'ternary', group: 256, bias: false }, /ternary needs columns in multiples of 256/],
  ])('with %j is refused', async (kind, words) => {
    const { validateConfig } = await import('../dist/config/config-check.js')
    const model = await Model.load(tiny())
    const config = { ...model.config, linears: { ...model.config.linears, wq: kind } }
    await model.dispose()
    expect(() => validateConfig(config)).toThrow(words)
  })
})

function tiny(): string {
  const path = folder.path('tiny.gguf')
  writeFileSync(path, ggufFile(TINY_METADATA, tinyGgufTensors()))
  return path
}
