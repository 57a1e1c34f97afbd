/** Folders with ternary linears, made here: what their numbers become; and norms in front of linears in both formats. */
import { writeFileSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import { convert } from '../dist/convert/convert.js'
import { readObtHeader } from '../dist/obt/obt.js'
import { codeOf } from './expect-code.js'
import { encodeTensor, type GgufTensor, ggufFile } from './gguf-writer.js'
import { floats, readTensors } from './read-tensors.js'
import { ggufName, TINY_METADATA, tinyGgufTensors } from './tiny-gguf.js'
import { temporaryFolder } from './tiny-model.js'
import {
  type NamedTensor,
  ourName,
  safetensorsFile,
  TINY,
  TINY_LINEARS,
  tinyHfConfig,
  tinyTensors,
  writeFolder,
} from './tiny-source.js'

const folder = temporaryFolder()
afterAll(folder.remove)

let files = 0
const ONLINE = { quant_method: 'bitnet', linear_class: 'autobitlinear', quantization_mode: 'online' }

/** A norm for each linear: 1, 1 + 1/64, ... and another start for each. */
function normsOf(name: (layer: number, linear: string) => string): NamedTensor[] {
  return Array.from({ length: TINY.layers }, (_, layer) =>
    TINY_LINEARS.map(([linear, , cols], i): NamedTensor => {
      const values = Float32Array.from({ length: cols }, (_, c) => 1 + (c + i) / 64)
      return { name: name(layer, linear), shape: [cols], values }
    }),
  ).flat()
}

async function converted(quantization: object, tensors: readonly NamedTensor[], more: object = {}) {
  const config = { ...tinyHfConfig({ quantization_config: quantization, ...more }) }
  const source = writeFolder(folder.path(`${files++}`), config, { 'model.safetensors': safetensorsFile(tensors) })
  const target = folder.path(`${files++}.obt`)
  await convert(source, target, { type: 'f32', embed: 'f32' })
  return target
}

describe('masters in floats', () => {
  it('are rounded to -1, 0 and 1 times the mean of their magnitudes', async () => {
    const tensors = tinyTensors()
    const found = await readTensors(await converted(ONLINE, tensors))
    for (const { name, values } of tensors) {
      const ours = ourName(name).replace(/\.weight$/, '')
      const isLinear = /_proj/.test(name)
      const mean = values.reduce((sum, value) => sum + Math.abs(value), 0) / values.length
      const expected = isLinear
        ? values.map((value) => Math.max(-1, Math.min(1, Math.round(value / mean))) * mean)
        : values
      const stored = floats(found.get(`${ours}.weight`) ?? found.get(ours))
      stored.forEach((value, i) => {
        expect(value).toBeCloseTo(expected[i]!, 6)
      })
      if (isLinear) expect(new Set(stored).size).toBe(3)
    }
  })

  it('that are named as untouched stay as they are', async () => {
    const tensors = tinyTensors()
    const target = await converted({ ...ONLINE, modules_to_not_convert: ['1.mlp.down_proj', 'lm_head'] }, tensors)
    const found = await readTensors(target)
    const { values } = tensors.find(({ name }) => name === 'model.layers.1.mlp.down_proj.weight')!
    expect(floats(found.get('layers.1.w2.weight'))).toEqual(values)
    expect(new Set(floats(found.get('layers.0.w2.weight'))).size).toBe(3)
  })

  it('have norms in front of all of them, or none', async () => {
    const norms = normsOf((layer, linear) => `model.layers.${layer}.${linear}.rms_norm.weight`)
    const fields = { ...ONLINE, use_rms_norm: true, rms_norm_eps: 1e-6 }
    const target = await converted(fields, [...tinyTensors(), ...norms])
    const found = await readTensors(target)
    for (const { name, values } of norms) {
      expect(floats(found.get(ourName(name).replace('.rms_norm.weight', '.norm_in')))).toEqual(values)
    }
    const { config } = await readObtHeader(target)
    expect(Object.values(config.linears).every(({ norm_in }) => norm_in === true)).toBe(true)
    expect(await codeOf(() => converted(fields, [...tinyTensors(), ...norms.slice(1)]))).toBe('ERR_MISSING_TENSOR')
    expect(await codeOf(() => converted(ONLINE, [...tinyTensors(), ...norms]))).toBe('ERR_BAD_SOURCE')
  })
})

describe('a GGUF file with norms in front of linears', () => {
  const vectors = (tensors: NamedTensor[]) =>
    tensors.map(({ name, shape, values }): GgufTensor => {
      return { name, type: 'f32', shape, data: encodeTensor('f32', values) }
    })
  const norms = normsOf((layer, linear) => `blk.${layer}.${ggufName(linear)}_norm_in.weight`)
  const heads = [0, 1].flatMap((layer) =>
    ['q', 'k'].map((which) => {
      return { name: `blk.${layer}.attn_${which}_norm.weight`, shape: [8], values: new Float32Array(8).fill(1) }
    }),
  )
  const metadata = Object.fromEntries(
    Object.entries(TINY_METADATA).map(([key, value]) => [key.replace('llama', 'qwen3'), value]),
  )
  async function written(tensors: GgufTensor[]): Promise<string> {
    const source = folder.path(`${files++}.gguf`)
    const more = { 'general.architecture': { string: 'qwen3' }, 'qwen3.attention.key_length': { u32: 8 } }
    writeFileSync(source, ggufFile({ ...metadata, ...more }, tensors))
    const target = folder.path(`${files++}.obt`)
    await convert(source, target, { type: 'f32', embed: 'f32' })
    return target
  }

  it('is a Qwen3 with them, as BitNet’s embedding models are', async () => {
    const target = await written([...tinyGgufTensors(), ...vectors(heads), ...vectors(norms)])
    const found = await readTensors(target)
    const roles = ['wq', 'wk', 'wv', 'wo', 'w1', 'w3', 'w2']
    for (const [i, { values }] of norms.entries()) {
      expect(floats(found.get(`layers.${Math.floor(i / 7)}.${roles[i % 7]}.norm_in`))).toEqual(values)
    }
  })

  it('may have them in front of some', async () => {
    const { config } = await readObtHeader(
      await written([...tinyGgufTensors(), ...vectors(heads), ...vectors(norms.slice(0, 1))]),
    )
    expect(config.linears.wq!.norm_in).toBe(true)
    expect(config.linears['1.wq']!.norm_in).toBeUndefined()
    expect(config.linears.wk!.norm_in).toBeUndefined()
  })

  it('of another length is refused', async () => {
    const short = { ...norms[0]!, shape: [8], values: norms[0]!.values.slice(8) }
    const all = [...tinyGgufTensors(), ...vectors(heads), ...vectors([short])]
    expect(await codeOf(() => written(all))).toBe('ERR_TENSOR_SHAPE')
  })
})
