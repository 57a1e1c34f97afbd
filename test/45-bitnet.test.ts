/** BitNet and other ternary folders against transformers, by every way to the same logits; and GGUF files of them. */
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { convert } from '../dist/convert/convert.js'
import { Model } from '../dist/index.js'
import { type BitnetGgufOptions, bitnetGguf } from './bitnet-gguf.js'
import { dataFile, missing } from './data.js'
import { failure } from './expect-code.js'
import { expectClose, goldenRuns, loadExactly, WAYS } from './family.js'
import { temporaryFolder } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(folder.remove)

const BITNET = 'golden/bitnet'
const EXACT = { activations: 'f32', kv: 'f32' } as const

/** As the golden files' README says. */
const TOLERANCE = { max: 5e-4, rms: 5e-5 }

const CASES = {
  'offline-2b4t': { architecture: 'bitnet', activation: 'relu2', attention_inner_norm: true, ffn_inner_norm: true },
  'online-master': { architecture: 'bitnet', activation: 'relu2', attention_inner_norm: true, ffn_inner_norm: true },
  'silu-arch-bitnet': { architecture: 'bitnet', activation: 'silu', attention_inner_norm: true, ffn_inner_norm: true },
  'falcon-style': { architecture: 'llama', activation: 'silu', attention_inner_norm: false, ffn_inner_norm: false },
} as const

const isMissing = missing(...Object.keys(CASES).map((name) => `${BITNET}/${name}/logits-float-a.npy`))

describe.skipIf(isMissing).each(Object.entries(CASES))('%s', (name, features) => {
  const source = dataFile(`${BITNET}/${name}/hf`)
  let model: Model
  beforeAll(async () => {
    model = await loadExactly(source, folder.path(`${name}.obt`))
  })
  afterAll(() => model?.dispose())

  it('is what its config says', () => {
    expect(model.config).toMatchObject(features)
  })

  it('is ternary, with a scale of the matrix, unless something else is asked for', async () => {
    const target = folder.path(`${name}-ternary.obt`)
    const { config } = await convert(source, target)
    const ternary = { kind: 'ternary', group: 0, bias: false }
    expect(Object.values(config.linears)).toEqual(Object.keys(config.linears).map(() => ternary))
    expect(Object.values(model.config.linears).every(({ kind }) => kind === 'dense')).toBe(true)
    const kept = await Model.load(target, EXACT)
    for (const { ids, logits } of goldenRuns(`${BITNET}/${name}`, 'logits-float')) {
      expectClose(await WAYS['in calls of 7']!(kept, ids), logits, TOLERANCE)
    }
    await kept.dispose()
  })

  it.each(Object.keys(WAYS))('gives its logits %s', async (way) => {
    for (const { ids, logits } of goldenRuns(`${BITNET}/${name}`, 'logits-float')) {
      expectClose(await WAYS[way]!(model, ids), logits, TOLERANCE)
    }
  })

  it('was made for activations of 8 bits: its first logits are those that it gives with them, the others near', async () => {
    const rounds = await Model.load(source, { activations: 'int8', kv: 'f32' })
    for (const { ids, logits } of goldenRuns(`${BITNET}/${name}`, 'logits-a8')) {
      const found = await WAYS['at once']!(rounds, ids)
      const vocabulary = logits.length / ids.length
      expectClose(found.subarray(0, vocabulary), logits.subarray(0, vocabulary), { max: 1e-3, rms: 1e-3 })
      // Once two implementations round one activation to different sides, later positions differ.
      expectClose(found, logits, { max: 1.5, rms: 0.15 })
    }
    await rounds.dispose()
  })

  it('runs from its folder as it is', async () => {
    const direct = await Model.load(source, EXACT)
    for (const { ids, logits } of goldenRuns(`${BITNET}/${name}`, 'logits-float')) {
      expectClose(await WAYS['at once']!(direct, ids), logits, TOLERANCE)
    }
    await direct.dispose()
  })
})

/** A golden folder with other fields in its config.json. */
function changed(name: string, change: (config: Record<string, unknown>) => void): string {
  const target = folder.path(`changed-${files++}`)
  cpSync(dataFile(`${BITNET}/${name}/hf`), target, { recursive: true })
  const config = JSON.parse(readFileSync(`${target}/config.json`, 'utf8'))
  change(config)
  writeFileSync(`${target}/config.json`, JSON.stringify(config))
  return target
}
let files = 0

describe.skipIf(isMissing)('what quantization_config says', () => {
  it.each<[string, string, Record<string, unknown>]>([
    ['the scale of a folder that multiplies', 'offline-2b4t', { linear_class: undefined }],
    ['the scale of a folder that divides', 'falcon-style', { linear_class: 'autobitlinear' }],
    ['linears that are no masters', 'online-master', { modules_to_not_convert: ['self_attn', 'mlp'] }],
  ])('is heeded: %s', async (_, name, fields) => {
    const path = changed(name, (config) => Object.assign(config.quantization_config as object, fields))
    const model = await Model.load(path, EXACT)
    const [run] = goldenRuns(`${BITNET}/${name}`, 'logits-float')
    const found = await WAYS['at once']!(model, run!.ids)
    await model.dispose()
    expect(() => expectClose(found, run!.logits, { max: 0.1, rms: 0.05 })).toThrow()
  })

  it.each<[string, string, unknown, string]>([
    ['offline-2b4t', 'quant_method', 'gptq', 'ERR_UNSUPPORTED_TENSOR_TYPE'],
    ['offline-2b4t', 'quant_method', undefined, 'ERR_UNSUPPORTED_TENSOR_TYPE'],
    ['offline-2b4t', 'linear_class', 'ternary', 'ERR_UNSUPPORTED_ARCHITECTURE'],
    ['offline-2b4t', 'quantization_mode', 'later', 'ERR_UNSUPPORTED_ARCHITECTURE'],
    ['falcon-style', 'quantization_mode', 'online', 'ERR_UNSUPPORTED_ARCHITECTURE'],
    ['falcon-style', 'modules_to_not_convert', 'lm_head', 'ERR_BAD_SOURCE'],
    ['falcon-style', 'modules_to_not_convert', [1], 'ERR_BAD_SOURCE'],
    ['falcon-style', 'use_rms_norm', 'yes', 'ERR_BAD_SOURCE'],
    ['falcon-style', 'use_rms_norm', true, 'ERR_MISSING_TENSOR'],
    ['online-master', 'quantization_mode', 'offline', 'ERR_BAD_SOURCE'], // bf16 is not packed
    ['offline-2b4t', 'quantization_mode', 'online', 'ERR_UNSUPPORTED_TENSOR_TYPE'],
    ['offline-2b4t', 'modules_to_not_convert', ['layers.0.mlp.up_proj'], 'ERR_UNSUPPORTED_TENSOR_TYPE'],
  ])('%s with %s %j is refused', async (name, key, value, code) => {
    const path = changed(name, (config) => Object.assign(config.quantization_config as object, { [key]: value }))
    expect((await failure(() => Model.load(path))).code).toBe(code)
  })

  it('eps of norms in front that is not the model’s is refused by its name', async () => {
    const path = changed('falcon-style', (config) => {
      Object.assign(config.quantization_config as object, { use_rms_norm: true, rms_norm_eps: 1e-3 })
    })
    const { code, message } = await failure(() => Model.load(path))
    expect([code, message]).toEqual(['ERR_UNSUPPORTED_ARCHITECTURE', expect.stringContaining('rms_norm_eps 0.001')])
  })

  it('an activation that is not BitNet’s is refused', async () => {
    const path = changed('offline-2b4t', (config) => Object.assign(config, { hidden_act: 'gelu' }))
    const { code, message } = await failure(() => Model.load(path))
    expect([code, message]).toEqual([
      'ERR_UNSUPPORTED_ARCHITECTURE',
      expect.stringContaining('bitnet with hidden_act "gelu"'),
    ])
  })
})

describe.skipIf(isMissing)('a folder of the older kind', () => {
  const OLDER = { 'self_attn.attn_sub_norm': 'self_attn.inner_attn_ln', 'mlp.ffn_sub_norm': 'mlp.ffn_layernorm' }
  function older(fields: Record<string, unknown> = {}): string {
    const target = changed('online-master', (config) => {
      delete config.quantization_config
      const class_ = { model_type: 'llama', architectures: ['BitnetForCausalLM'], weight_bits: 1, input_bits: 8 }
      Object.assign(config, class_, fields)
    })
    const bytes = readFileSync(`${target}/model.safetensors`)
    const length = Number(bytes.readBigUInt64LE())
    let header = bytes.toString('utf8', 8, 8 + length).trimEnd()
    for (const [name, other] of Object.entries(OLDER)) header = header.replaceAll(name, other)
    const text = Buffer.from(header)
    const count = Buffer.alloc(8)
    count.writeBigUInt64LE(BigInt(text.length))
    writeFileSync(`${target}/model.safetensors`, Buffer.concat([count, text, bytes.subarray(8 + length)]))
    return target
  }

  it('has other names, and the same logits', async () => {
    const model = await Model.load(older(), EXACT)
    for (const { ids, logits } of goldenRuns(`${BITNET}/online-master`, 'logits-float')) {
      expectClose(await WAYS['at once']!(model, ids), logits, TOLERANCE)
    }
    await model.dispose()
  })

  it.each([
    ['weight_bits', 2],
    ['weight_bits', undefined],
    ['input_bits', 4],
  ])('with %s %j is refused by that', async (key, value) => {
    const { code, message } = await failure(() => Model.load(older({ [key]: value })))
    expect([code, message]).toEqual(['ERR_UNSUPPORTED_ARCHITECTURE', expect.stringContaining(key)])
  })
})

/** Weights of the files, by what they are called. */
const FILES = [
  ['offline-2b4t', 'model.i2_s.gguf', 0],
  ['offline-2b4t', 'model.tq1_0.gguf', 256],
  ['offline-2b4t', 'model.tq2_0.gguf', 256],
  ['silu-arch-bitnet', 'model.tq2_0.gguf', 0],
  ['falcon-style', 'model.i2_s.gguf', 0],
] as const

describe.skipIf(isMissing).each(FILES)('%s, %s', (name, file, group) => {
  const source = dataFile(`${BITNET}/${name}/${file}`)
  let loaded: Promise<Model> | undefined
  const model = () => (loaded ??= Model.load(source, EXACT))
  afterAll(async () => (await loaded)?.dispose())

  it('is ternary', async () => {
    const { linears, embedding, architecture, activation } = (await model()).config
    expect(Object.values(linears).every((kind) => kind.kind === 'ternary' && kind.group === group)).toBe(true)
    expect(embedding.kind).toBe('dense')
    expect({ architecture, activation }).toEqual({
      architecture: CASES[name].architecture,
      activation: CASES[name].activation,
    })
  })

  it.each(Object.keys(WAYS))('gives its logits %s', async (way) => {
    for (const { ids, logits } of goldenRuns(`${BITNET}/${name}`, 'logits-float')) {
      expectClose(await WAYS[way]!(await model(), ids), logits, TOLERANCE)
    }
  })
})

describe.skipIf(isMissing)('a GGUF file', () => {
  async function matches(name: string, architecture: string, options: BitnetGgufOptions = {}): Promise<boolean> {
    const path = folder.path(`${files++}.gguf`)
    writeFileSync(path, bitnetGguf(name, architecture, options))
    const model = await Model.load(path, EXACT)
    const runs = goldenRuns(`${BITNET}/${name}`, 'logits-float')
    const found = [await WAYS['at once']!(model, runs[0]!.ids), await WAYS['in calls of 7']!(model, runs[1]!.ids)]
    await model.dispose()
    const gaps = found.flatMap((logits, i) => [...logits].map((value, at) => Math.abs(value - runs[i]!.logits[at]!)))
    return gaps.every((gap) => gap < TOLERANCE.max)
  }

  it.each<[string, string, string, BitnetGgufOptions]>([
    ['bitnet-b1.58', 'offline-2b4t', 'bitnet-b1.58', {}],
    ['bitnet-25, with numbers that multiply', 'offline-2b4t', 'bitnet-25', { scales: true }],
    ['bitnet', 'silu-arch-bitnet', 'bitnet', {}],
    ['bitnet, with numbers that multiply', 'silu-arch-bitnet', 'bitnet', { scales: true }],
    [
      'bitnet that says that it has squares of ReLU',
      'offline-2b4t',
      'bitnet',
      { metadata: { 'bitnet.hidden_act': { string: 'relu2' } } },
    ],
    [
      'bitnet-b1.58 that says that it has SiLU',
      'silu-arch-bitnet',
      'bitnet-b1.58',
      { metadata: { 'bitnet-b1.58.hidden_activation': { string: 'silu' } } },
    ],
    [
      'llama with norms in front of two of its matrices, which is the same',
      'silu-arch-bitnet',
      'llama',
      {
        rename: (name) =>
          name.replace('attn_sub_norm', 'attn_output_norm_in').replace('ffn_sub_norm', 'ffn_down_norm_in'),
      },
    ],
  ])('%s', async (_, name, architecture, options) => {
    expect(await matches(name, architecture, options)).toBe(true)
  })

  it('of the other activation is another model', async () => {
    expect(await matches('silu-arch-bitnet', 'bitnet-b1.58')).toBe(false)
    expect(await matches('offline-2b4t', 'bitnet')).toBe(false)
  })

  it.each([
    ['bitnet-b1.58.hidden_act', { string: 'gelu' }],
    ['bitnet-b1.58.hidden_activation', { u32: 1 }],
  ])('with %s %j is refused by that', async (key, value) => {
    const path = folder.path('other.gguf')
    writeFileSync(path, bitnetGguf('offline-2b4t', 'bitnet-b1.58', { metadata: { [key]: value } }))
    const { code, message } = await failure(() => Model.load(path))
    expect([code, message]).toEqual([
      'ERR_UNSUPPORTED_ARCHITECTURE',
      expect.stringContaining('bitnet-b1.58 with hidden'),
    ])
  })

  it('without its inner norms is incomplete', async () => {
    const path = folder.path('other.gguf')
    writeFileSync(
      path,
      bitnetGguf('offline-2b4t', 'bitnet-b1.58', { rename: (name) => name.replace('ffn_sub_norm', 'x') }),
    )
    const { code, message } = await failure(() => Model.load(path))
    expect([code, message]).toEqual(['ERR_MISSING_TENSOR', expect.stringContaining('ffn_sub_norm')])
  })
})
