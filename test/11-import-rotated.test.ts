/** GGUF files with rotated weights (prism.hadamard.*): their logits are those of the weights before the rotation. */
import { openSync, readdirSync, writeFileSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import { ggufDescription } from '../dist/architectures/list.js'
import { withDefaults } from '../dist/config/fields.js'
import { convert } from '../dist/convert/convert.js'
import { openGguf } from '../dist/import/gguf.js'
import { readGgufHeader } from '../dist/import/gguf-reader.js'
import { readPrismHadamard, rotationsOf } from '../dist/import/prism-hadamard.js'
import { Model } from '../dist/index.js'
import { dataFile, missing, readJson } from './data.js'
import { failure } from './expect-code.js'
import { type GgufTensor, ggufFile, type MetadataValue } from './gguf-writer.js'
import { type RotationOptions, rotateTensors, someSigns } from './rotated-gguf.js'
import { TINY_METADATA, tinyGgufTensors } from './tiny-gguf.js'
import { temporaryFolder, tinyConfig } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(folder.remove)

const IDS = [1, 5, 9, 2, 23, 0, 7, 7, 14, 3, 11]
const EXACT = { activations: 'f32', kv: 'f32' } as const

let files = 0
function write(tensors: readonly GgufTensor[], more: Record<string, MetadataValue> = {}): string {
  const path = folder.path(`${files++}.gguf`)
  writeFileSync(path, ggufFile({ ...TINY_METADATA, ...more }, tensors))
  return path
}

async function logitsOf(path: string): Promise<Float32Array> {
  const model = await Model.load(path, EXACT)
  const { data } = await model.createSession().logits(IDS, { all: true })
  await model.dispose()
  return data
}

const furthest = (a: Float32Array, b: Float32Array) => a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i]!)), 0)

it('may have rotated matrices in layers that the model does not use', () => {
  const weights = new Set(['blk.0.attn_q.weight', 'blk.9.attn_q.weight'])
  const found = { block: 8, signs: new Map(), weights, embedding: false, gdnGrouped: false }
  const structure = withDefaults(tinyConfig())
  const rotations = (isIgnored?: (name: string) => boolean) =>
    rotationsOf(found, ggufDescription('llama').names, structure, isIgnored)
  expect([...rotations((name) => name.startsWith('blk.9.')).byMatrix.keys()]).toEqual(['layers.0.wq'])
  expect(() => rotations()).toThrow('"blk.9.attn_q.weight", which cannot be rotated')
})

describe('a rotated model', () => {
  const plain = new Map<boolean, Promise<Float32Array>>()
  const expected = (tied: boolean) => {
    if (!plain.has(tied)) plain.set(tied, logitsOf(write(tinyGgufTensors({ tied }))))
    return plain.get(tied)!
  }

  it.each<[string, boolean, RotationOptions]>([
    ['blocks of 8, signs, own head', false, { block: 8 }],
    ['blocks of 8, signs, the embedding is the head', true, { block: 8 }],
    ['blocks of 2, no signs, own head', false, { block: 2, signs: false }],
    ['blocks of 4, no signs, the embedding is the head', true, { block: 4, signs: false }],
    ['some of its matrices', false, { block: 8, only: /blk\.1\.(attn_[qv]|ffn_gate|ffn_down)/ }],
    ['the head alone', false, { block: 8, only: /^output\.weight/ }],
    ['the linears, not the tied embedding', true, { block: 8, only: /^blk/ }],
  ])('%s', async (_, tied, options) => {
    const { tensors, metadata } = rotateTensors(tinyGgufTensors({ tied }), options)
    const path = write(tensors, metadata)
    expect(furthest(await logitsOf(path), await expected(tied))).toBeLessThan(2e-5)
    // By way of a file it is the same to the bit.
    const target = folder.path(`${files++}.obt`)
    await convert(path, target, { type: 'f32', embed: 'f32' })
    expect(await logitsOf(target)).toEqual(await logitsOf(path))
  })

  it('whose keys are left out computes something else', async () => {
    const { tensors } = rotateTensors(tinyGgufTensors(), { block: 8 })
    expect(furthest(await logitsOf(write(tensors)), await expected(false))).toBeGreaterThan(0.5)
  })

  it('with one sign turned computes something else', async () => {
    const { tensors, metadata } = rotateTensors(tinyGgufTensors(), { block: 8 })
    const values = [...someSigns(16), ...someSigns(24)]
    values[3] = -values[3]!
    const path = write(tensors, { ...metadata, 'prism.hadamard.sign_values': { i32s: values } })
    expect(furthest(await logitsOf(path), await expected(false))).toBeGreaterThan(0.05)
  })

  it('is a Qwen3 as well', async () => {
    const rename = (record: Record<string, MetadataValue>) => ({
      ...Object.fromEntries(Object.entries(record).map(([key, value]) => [key.replace('llama', 'qwen3'), value])),
      'general.architecture': { string: 'qwen3' },
      'qwen3.attention.key_length': { u32: 8 },
    })
    const norms = [0, 1].flatMap((layer) => {
      return ['q', 'k'].map((which): GgufTensor => {
        const data = Buffer.alloc(32)
        for (let i = 0; i < 8; i++) data.writeFloatLE(1 + i / 8, 4 * i)
        return { name: `blk.${layer}.attn_${which}_norm.weight`, type: 'f32', shape: [8], data }
      })
    })
    const all = [...tinyGgufTensors(), ...norms]
    const { tensors, metadata } = rotateTensors(all, { block: 8 })
    const before = await logitsOf(write(all, rename(TINY_METADATA)))
    expect(furthest(await logitsOf(write(tensors, { ...rename(TINY_METADATA), ...metadata })), before)).toBeLessThan(
      2e-5,
    )
  })

  it('says in its config which matrices are rotated, and keeps one set of signs for each width', async () => {
    const only = /attn_q|ffn_down|token_embd|output/
    const { tensors, metadata } = rotateTensors(tinyGgufTensors(), { block: 8, only })
    const model = await Model.load(write(tensors, metadata), EXACT)
    const rotation = { block: 8, signs: true }
    const { linears, embedding, head } = model.config
    expect([linears.wq!.rotation, linears.w2!.rotation, embedding.rotation, head.rotation]).toEqual([
      rotation,
      rotation,
      rotation,
      rotation,
    ])
    expect([linears.wk, linears.wv, linears.w1].some((kind) => 'rotation' in kind!)).toBe(false)
    await model.dispose()
    const source = await openGguf(write(tensors, metadata))
    expect([...source.tensors.keys()].filter((name) => name.startsWith('rotation'))).toEqual([
      'rotation_signs.16',
      'rotation_signs.24',
    ])
    await source.close()
  })

  it('becomes signs like any other, rotated all the same', async () => {
    const { tensors, metadata } = rotateTensors(tinyGgufTensors(), { block: 8 })
    const target = folder.path('onebit.obt')
    const { config } = await convert(write(tensors, metadata), target, { type: 'onebit' })
    expect(config.linears.wq).toMatchObject({ kind: 'sign', rotation: { block: 8, signs: true } })
    expect((await logitsOf(target)).every(Number.isFinite)).toBe(true)
  })
})

const METADATA = 'golden/prism-hadamard/metadata'

describe.skipIf(missing(`${METADATA}/index.json`))("each of the golden files' keys", () => {
  const path = (name: string) => dataFile(`${METADATA}/${name}`)
  const index = missing(`${METADATA}/index.json`)
    ? {}
    : readJson<Record<string, Record<string, string>>>(path('index.json'))
  const read = (name: string) => {
    const file = path(`${name}.gguf`)
    const { metadata, tensors } = readGgufHeader(file, openSync(file, 'r'), 1 << 20)
    return readPrismHadamard(metadata, new Map(tensors.map((tensor) => [tensor.name, tensor])))
  }
  // llama.cpp loads it without a rotation.
  const isRight = (name: string) => index[name]!['llama.cpp b11739'] === 'loads' && name !== 'no-version'

  it('there is a file of each', () => {
    const there = readdirSync(path('.')).filter((name) => name.endsWith('.gguf'))
    expect(there.sort()).toEqual(
      Object.keys(index)
        .map((name) => `${name}.gguf`)
        .sort(),
    )
    expect(there.length).toBe(38)
  })

  it.each(Object.keys(index).filter(isRight))('%s is right', (name) => {
    const found = read(name)!
    expect(found).toMatchObject({ block: 8, gdnGrouped: true, embedding: name !== 'ok-v1-no-inverse' })
    expect(found.signs.size).toBe(name.includes('identity') ? 0 : 1)
    expect(found.weights.size).toBe(name.includes('v2') ? 13 : 14)
  })

  it.each(Object.keys(index).filter((name) => !isRight(name)))('%s is refused', async (name) => {
    const { code, message } = await failure(() => read(name))
    expect(['ERR_BAD_SOURCE', 'ERR_UNSUPPORTED_ARCHITECTURE']).toContain(code)
    expect(message).toContain('prism.hadamard.')
  })

  it.each(Object.keys(index).filter(isRight))('%s runs', async (name) => {
    const model = await Model.load(path(`${name}.gguf`), EXACT)
    expect(model.config.delta_head_order).toBe('grouped')
    expect((await model.createSession().logits([1, 2, 3])).data.every(Number.isFinite)).toBe(true)
    await model.dispose()
  })

  it.each(Object.keys(index).filter((name) => !isRight(name)))('%s does not run', async (name) => {
    const { message } = await failure(() => Model.load(path(`${name}.gguf`), EXACT))
    expect(message).toContain('prism.hadamard.')
  })
})
