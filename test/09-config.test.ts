/** What a config may say, what it means where it says nothing, and the tensors that each feature brings. */
import { describe, expect, it, test } from 'vitest'
import type { Features, ModelConfig, WrittenConfig } from '../dist/config/config.js'
import { validateConfig } from '../dist/config/config-check.js'
import { FEATURES, FIELDS, withDefaults, writtenConfig } from '../dist/config/fields.js'
import { linearKindSummary, modelSize } from '../dist/config/model-size.js'
import { nativeConfig } from '../dist/config/native-config.js'
import { yarnMagnitude } from '../dist/config/rope.js'
import { linearShape, rolesOf, tensorTable } from '../dist/config/tensors.js'
import { addon } from '../dist/native/addon.js'
import { failure } from './expect-code.js'
import { deltaFeatures, tinyConfig } from './tiny-model.js'

const NO_BLOBS = { tokenizer: 0, chat_template: 0 }
const PLAIN = tinyConfig({ layers: 1, kind: 'f32', tied: false })

const withFeatures = (features: Partial<Features>): ModelConfig =>
  validateConfig(tinyConfig({ layers: 1, kind: 'f32', tied: false, features }))

test('fields.json is the list of fields, for programs that are not JavaScript (`vitest -u` writes it again)', async () => {
  await expect(`${JSON.stringify(FIELDS, null, 2)}\n`).toMatchFileSnapshot('../src/config/fields.json')
})

describe('features', () => {
  it('that a config does not mention have their defaults, and a file mentions no default', () => {
    const config = validateConfig(PLAIN)
    expect(Object.keys(config)).toEqual(FIELDS.map(({ name }) => name))
    expect(JSON.stringify(writtenConfig(config))).toBe(JSON.stringify(PLAIN))
    expect(validateConfig(config)).toEqual(config)
    expect(withDefaults(PLAIN)).toEqual(config)
  })

  /** A value that is not the default of any config here. */
  const OTHER: Features = {
    norm: 'layer',
    norm_bias: true,
    positions: 'learned',
    position_offset: 2,
    rope_dims: 8,
    qk_norm: true,
    attention_inner_norm: true,
    window: 8,
    output_gate: true,
    feed_forward: 'plain',
    activation: 'relu2',
    ffn_inner_norm: true,
    parallel_residual: true,
    ...deltaFeatures([0]),
    delta_head_order: 'tiled',
  } as Features

  /** Fields of the delta rule go together. */
  function expectDelta(name: keyof Features): void {
    const config = withFeatures({ ...deltaFeatures([0]), delta_head_order: 'tiled' })
    expect(writtenConfig(config)[name]).toEqual(OTHER[name])
    expect(validateConfig(JSON.parse(JSON.stringify(writtenConfig(config))))).toEqual(config)
    expect(() => validateConfig({ ...PLAIN, [name]: OTHER[name] })).toThrow(/delta_/)
  }

  it.each(Object.entries(OTHER))('%s = %s is written, and read again', (name, value) => {
    const needed = name === 'position_offset' ? { positions: 'learned' as const } : {}
    if (name.startsWith('delta_')) return expectDelta(name as keyof Features)
    const config = withFeatures({ ...needed, [name]: value })
    const written = writtenConfig(config)
    expect(Object.keys(written)).toEqual([...Object.keys(PLAIN), ...Object.keys(needed), name])
    expect(validateConfig(JSON.parse(JSON.stringify(written)))).toEqual(config)
  })

  it('are written in one order, whatever the order they were given in', () => {
    const given = { ...PLAIN, ffn_inner_norm: true, norm: 'layer', window: 3 }
    expect(Object.keys(writtenConfig(validateConfig(given))).slice(-3)).toEqual(['norm', 'window', 'ffn_inner_norm'])
  })

  it('qk_norm follows from the name of a Qwen3 alone, and can be told otherwise', () => {
    const qwen3 = { ...PLAIN, architecture: 'qwen3' }
    expect(validateConfig(qwen3).qk_norm).toBe(true)
    expect(writtenConfig(validateConfig(qwen3))).not.toHaveProperty('qk_norm')
    const without = validateConfig({ ...qwen3, qk_norm: false })
    expect(without.qk_norm).toBe(false)
    expect(writtenConfig(without).qk_norm).toBe(false)
    const other = validateConfig({ ...PLAIN, architecture: 'bonsai', qk_norm: true })
    expect(tensorTable(other, NO_BLOBS)).toEqual(tensorTable(validateConfig(qwen3), NO_BLOBS))
  })

  it.each([
    ['architecture', 'Llama'],
    ['architecture', ''],
    ['architecture', 'a'.repeat(61)],
    ['norm', 'batch'],
    ['norm_bias', 1],
    ['norm_bias', null],
    ['positions', 'alibi'],
    ['position_offset', 1025],
    ['rope_dims', 7],
    ['rope_dims', 34],
    ['rope_dims', 0],
    ['window', -1],
    ['window', 2 ** 22 + 1],
    ['window', 0.5],
    ['feed_forward', 'moe'],
    ['activation', 'swish'],
    ['gate', true],
    ['delta_layers', 3],
    ['delta_layers', [0, 0]],
    ['delta_layers', [1024]],
    ['delta_layers', ['0']],
    ['delta_conv', 17],
    ['delta_head_order', 'mixed'],
  ])('%s = %s is an error that names it', async (name, value) => {
    const error = await failure(() => validateConfig({ ...PLAIN, [name]: value }))
    expect([error.code, error.message]).toEqual(['ERR_CONFIG', expect.stringContaining(`config.${name}`)])
  })

  it.each<[string, Partial<Features> & Partial<ModelConfig>, string]>([
    ['an offset of rotary positions', { position_offset: 2 }, 'position_offset'],
    ['a part of a head that is not rotated at all', { positions: 'learned', rope_dims: 8 }, 'rope_dims'],
    [
      'stretched positions that are not rotated',
      { positions: 'learned', rope_scaling: { type: 'linear', factor: 2 } },
      'rope_scaling',
    ],
    ['a third matrix of a plain feed-forward', { feed_forward: 'plain' }, 'linears.w3'],
    [
      'a query matrix of more rows than there may be',
      { output_gate: true, n_heads: 1024, head_dim: 64 },
      'output_gate',
    ],
    ['a layer that is not there', deltaFeatures([1]), 'delta_layers'],
    ['heads of a delta rule without its layers', { delta_k_heads: 2 }, 'delta_k_heads'],
    ['a delta rule without a width', { ...deltaFeatures([0]), delta_v_dim: 0 }, 'delta_v_dim'],
    ['value heads that cannot share key heads', { ...deltaFeatures([0]), delta_v_heads: 3 }, 'delta_v_heads'],
    ['a delta rule too wide', { ...deltaFeatures([0]), delta_v_heads: 1024, delta_v_dim: 1024 }, 'delta_v_heads'],
    [
      'factors for the whole head',
      { rope_dims: 8, rope_scaling: { type: 'factors', factors: [1, 1, 1, 1, 1] } },
      'rope',
    ],
  ])('that do not fit together: %s', async (_, change, name) => {
    const error = await failure(() => validateConfig({ ...PLAIN, ...change }))
    expect([error.code, error.message]).toEqual(['ERR_CONFIG', expect.stringContaining(`config.${name}`)])
  })

  it('factors are as many as pairs are rotated', () => {
    const rope_scaling = { type: 'factors' as const, factors: [1, 2, 3, 4] }
    expect(validateConfig({ ...PLAIN, rope_dims: 8, rope_scaling }).rope_scaling).toEqual(rope_scaling)
  })
})

describe('the table of tensors', () => {
  const names = (config: ModelConfig) => tensorTable(config, NO_BLOBS).map(({ name }) => name)
  const shapes = (config: ModelConfig) =>
    Object.fromEntries(tensorTable(config, NO_BLOBS).map(({ name, shape, dtype }) => [name, [dtype, ...shape]]))

  it('of a Llama is as it was in version 1', () => {
    expect(names(validateConfig(PLAIN))).toEqual([
      'tok_embeddings.weight',
      'tok_embeddings.scale',
      'layers.0.attention_norm',
      'layers.0.wq.weight',
      'layers.0.wk.weight',
      'layers.0.wv.weight',
      'layers.0.wo.weight',
      'layers.0.ffn_norm',
      'layers.0.w1.weight',
      'layers.0.w2.weight',
      'layers.0.w3.weight',
      'norm',
      'output.weight',
      'output.scale',
    ])
  })

  it('of a model with every feature', () => {
    const config = withFeatures({
      norm_bias: true,
      positions: 'learned',
      position_offset: 2,
      qk_norm: true,
      attention_inner_norm: true,
      output_gate: true,
      ffn_inner_norm: true,
    })
    expect(names(config)).toEqual([
      'tok_embeddings.weight',
      'tok_embeddings.scale',
      'position_embeddings',
      'layers.0.attention_norm',
      'layers.0.attention_norm.bias',
      'layers.0.wq.weight',
      'layers.0.wk.weight',
      'layers.0.wv.weight',
      'layers.0.q_norm',
      'layers.0.k_norm',
      'layers.0.attention_inner_norm',
      'layers.0.attention_inner_norm.bias',
      'layers.0.wo.weight',
      'layers.0.ffn_norm',
      'layers.0.ffn_norm.bias',
      'layers.0.w1.weight',
      'layers.0.ffn_inner_norm',
      'layers.0.ffn_inner_norm.bias',
      'layers.0.w2.weight',
      'layers.0.w3.weight',
      'norm',
      'norm.bias',
      'output.weight',
      'output.scale',
    ])
    // 4 heads of 32 in a width of 128, feed-forward 256, 256 positions and 2 before them
    expect(shapes(config)).toMatchObject({
      position_embeddings: ['F32', 258, 128],
      'layers.0.wq.weight': ['F32', 256, 128],
      'layers.0.q_norm': ['F32', 32],
      'layers.0.attention_inner_norm.bias': ['F32', 128],
      'layers.0.ffn_inner_norm': ['F32', 256],
      'norm.bias': ['F32', 128],
    })
    expect(linearShape(config, 'wo')).toEqual([128, 128])
  })

  it('of layers of two sorts has what each needs', () => {
    const config = validateConfig(
      tinyConfig({ layers: 2, kind: 'f32', features: { ...deltaFeatures([1]), delta_v_dim: 24 } }),
    )
    expect(names(config).filter((name) => name.startsWith('layers.1.'))).toEqual([
      'layers.1.attention_norm',
      'layers.1.w_qkv.weight',
      'layers.1.w_z.weight',
      'layers.1.w_beta.weight',
      'layers.1.w_alpha.weight',
      'layers.1.conv',
      'layers.1.decay',
      'layers.1.time_bias',
      'layers.1.delta_norm',
      'layers.1.w_out.weight',
      'layers.1.ffn_norm',
      'layers.1.w1.weight',
      'layers.1.w2.weight',
      'layers.1.w3.weight',
    ])
    expect(names(config)).toContain('layers.0.wq.weight')
    // 2 key heads of 20 twice, 4 value heads of 24
    expect(shapes(config)).toMatchObject({
      'layers.1.w_qkv.weight': ['F32', 176, 128],
      'layers.1.conv': ['F32', 176, 4],
      'layers.1.decay': ['F32', 4],
      'layers.1.delta_norm': ['F32', 24],
      'layers.1.w_out.weight': ['F32', 128, 96],
    })
    const linears = { ...config.linears, '0.w_qkv': config.linears.w_qkv! }
    expect(() => validateConfig({ ...config, linears })).toThrow('layer 0 has no w_qkv')
  })

  it('of a plain feed-forward has no w3', () => {
    const config = withFeatures({ feed_forward: 'plain' })
    expect(rolesOf(config)).toEqual(['wq', 'wk', 'wv', 'wo', 'w1', 'w2'])
    expect(names(config).filter((name) => name.includes('w3'))).toEqual([])
    expect(linearKindSummary(config)).toEqual([{ kind: 'f32', count: 6 }])
  })

  it('is what sizes count', () => {
    const sizes = (features: Partial<Features>) => modelSize(withFeatures(features), NO_BLOBS, 0)
    const plain = sizes({})
    expect(sizes({ positions: 'learned', position_offset: 2 }).parameters - plain.parameters).toBe(258 * 128)
    expect(sizes({ positions: 'learned' }).bytes.positions).toBe(256 * 128 * 4)
    expect(plain.bytes.positions).toBe(0)
    expect(plain.linearParameters - sizes({ feed_forward: 'plain' }).linearParameters).toBe(256 * 128)
    expect(sizes({ output_gate: true }).linearParameters - plain.linearParameters).toBe(128 * 128)
    expect(sizes({ norm_bias: true }).parameters - plain.parameters).toBe(3 * 128)
  })
})

describe('what crosses to the engine', () => {
  it('is qk_norm by the feature and not by the name', () => {
    const qk = (more: Partial<WrittenConfig>) => nativeConfig(validateConfig({ ...PLAIN, ...more })).qk_norm
    expect([qk({}), qk({ architecture: 'qwen3' }), qk({ qk_norm: true })]).toEqual([false, true, true])
    expect(qk({ architecture: 'qwen3', qk_norm: false })).toBe(false)
  })

  it('has every feature', async () => {
    const delta = deltaFeatures([0])
    const deltas = Object.entries({ ...delta, delta_head_order: 'tiled' }).map(([name, value]) => ({ [name]: value }))
    const others: Partial<Features>[] = [
      { norm: 'layer' },
      { norm_bias: true },
      { positions: 'learned' },
      { positions: 'learned', position_offset: 2 },
      { rope_dims: 8 },
      { qk_norm: true },
      { attention_inner_norm: true },
      { window: 8 },
      { output_gate: true },
      { feed_forward: 'plain' },
      { activation: 'gelu' },
      { ffn_inner_norm: true },
      { parallel_residual: true },
      ...deltas,
    ]
    expect(new Set(others.flatMap((features) => Object.keys(features)))).toEqual(
      new Set(FEATURES.map(({ name }) => name)),
    )
    for (const features of others) {
      // Whatever the form in which it crosses: a feature that made no difference would be computed as if it were absent.
      const config = { ...validateConfig(PLAIN), ...features }
      expect(JSON.stringify(nativeConfig(config)), JSON.stringify(features)).not.toBe(
        JSON.stringify(nativeConfig(validateConfig(PLAIN))),
      )
    }
  })

  it('is every field of the list, read by the engine under the same name', () => {
    const elsewhere = ['architecture', 'embedding', 'head', 'linears'] // provenance, and the kinds of matrices
    const wanted = FIELDS.map(({ name }) => name).filter((name) => !elsewhere.includes(name))
    expect(Object.keys(nativeConfig(validateConfig(PLAIN))).sort()).toEqual([...wanted].sort())
    expect(addon().configFields().sort()).toEqual([...wanted].sort())
  })
})

test("YaRN's magnitude is that of transformers: 1 where nothing is stretched", () => {
  expect([0.25, 0.5, 1].map((factor) => yarnMagnitude(factor))).toEqual([1, 1, 1])
  expect(yarnMagnitude(4)).toBeCloseTo(1.138629436111989, 12)
  expect(yarnMagnitude(4, 0.5)).toBeCloseTo(1.0693147180559945, 12)
})
