/**
 * What sources say of their models' computation, and the features that this becomes. What would change the computation
 * and is not one of our features is an error by its name.
 */
import { writeFileSync } from 'node:fs'
import { afterAll, describe, expect, it, test } from 'vitest'
import { theirName } from '../dist/architectures/architecture.js'
import { ARCHITECTURES } from '../dist/architectures/list.js'
import { modelParts } from '../dist/config/tensors.js'
import { convert } from '../dist/convert/convert.js'
import { openGguf } from '../dist/import/gguf.js'
import { GgufKeys } from '../dist/import/gguf-keys.js'
import { readHfConfig } from '../dist/import/hf.js'
import { HfFields } from '../dist/import/hf-fields.js'
import { failure } from './expect-code.js'
import { encodeTensor, type GgufTensor, ggufFile, type MetadataValue } from './gguf-writer.js'
import { TINY_METADATA, tinyGgufTensors } from './tiny-gguf.js'
import { temporaryFolder } from './tiny-model.js'
import { safetensorsFile, TINY, tinyHfConfig, tinyTensors, writeFolder } from './tiny-source.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

describe('every description', () => {
  it.each(ARCHITECTURES.map((architecture) => [architecture.title, architecture] as const))(
    '%s names all parts of its models, in both formats',
    (_, { name, huggingFace, gguf }) => {
      const config = new HfFields(
        tinyHfConfig({
          model_type: huggingFace.modelTypes[0],
          ffn_dim: TINY.hidden,
          hidden_act: undefined,
          full_attention_interval: 2,
        }),
      )
      const { structure } = huggingFace.read(config)
      expect(structure.architecture).toBe(name)
      const parts = [...modelParts(structure)]
      const theirs = parts.map(
        (part) => theirName(huggingFace.names, part) + (part.name.endsWith('.bias') ? ' bias' : ''),
      )
      const fused = huggingFace.fused?.roles.length ?? 1
      expect(new Set(theirs).size).toBe(parts.length - (fused - 1) * structure.n_layers)
      if (gguf === undefined) return
      const [architecture] = gguf.architectures as [string]
      const metadata = Object.entries(TINY_METADATA).flatMap(([key, value]) => {
        const plain = 'u32' in value ? value.u32 : 'f32' in value ? value.f32 : ''
        return [[key.replace('llama', architecture), plain] as const]
      })
      // What a family has that others have not, or have otherwise.
      metadata.push([`${architecture}.attention.layer_norm_epsilon`, 1e-5])
      metadata.push([`${architecture}.attention.head_count_kv`, structure.n_kv_heads])
      metadata.push([`${architecture}.full_attention_interval`, 2])
      metadata.push([`${architecture}.ssm.group_count`, structure.delta_k_heads])
      metadata.push([`${architecture}.ssm.time_step_rank`, structure.delta_v_heads])
      metadata.push([`${architecture}.ssm.state_size`, structure.delta_k_dim])
      metadata.push([`${architecture}.ssm.inner_size`, structure.delta_v_heads * structure.delta_v_dim])
      metadata.push([`${architecture}.ssm.conv_kernel`, structure.delta_conv])
      const facts = { vocab_size: TINY.vocab, tied_head: false, rope_factors: undefined, plain_layers: TINY.layers }
      const read = gguf.read(new GgufKeys(new Map(metadata), architecture), facts).structure
      // The same model: only rotation, rounding of f32 and what a format leaves open differ.
      const { rope_style, norm_eps, head_dim, rope_dims, context_length, window, delta_head_order, ...same } = structure
      expect(read).toMatchObject(same)
      expect([...modelParts(read)].map((part) => theirName(gguf.names, part))).not.toContain(undefined)
    },
  )

  it('has its own model types and names of GGUF architectures', () => {
    const types = ARCHITECTURES.flatMap(({ huggingFace }) => huggingFace.modelTypes)
    const names = ARCHITECTURES.flatMap(({ gguf }) => gguf?.architectures ?? [])
    expect(types).toEqual([
      'bitnet',
      'gpt_neox',
      'llama',
      'bitllama',
      'mistral',
      'opt',
      'qwen2',
      'qwen3',
      'qwen3_5',
      'qwen3_5_text',
    ])
    expect(names).toEqual(['bitnet-b1.58', 'bitnet-25', 'bitnet', 'gptneox', 'llama', 'qwen2', 'qwen3', 'qwen35'])
  })

  it('is listed where something else is found', async () => {
    const { code, hint } = await failure(() => readHfConfig(tinyHfConfig({ model_type: 'gpt2' })))
    expect([code, hint]).toEqual([
      'ERR_UNSUPPORTED_ARCHITECTURE',
      'BitNet, GPT-NeoX, Llama, Mistral, OPT, Qwen2, Qwen3 and Qwen3.5 models can be converted.',
    ])
  })
})

describe('config.json', () => {
  const read = (more: Record<string, unknown>) => readHfConfig(tinyHfConfig(more))

  it.each([
    ['mistral', {}, 4096],
    ['mistral', { sliding_window: null }, 0],
    ['mistral', { sliding_window: 7 }, 7],
    ['llama', { sliding_window: 7 }, 0],
    ['qwen2', { sliding_window: 7 }, 0],
    ['qwen2', { sliding_window: 7, use_sliding_window: false, max_window_layers: 0 }, 0],
    ['qwen2', { sliding_window: 7, use_sliding_window: true, max_window_layers: 0 }, 7],
    ['qwen2', { use_sliding_window: true, max_window_layers: 0 }, 4096],
    ['qwen2', { sliding_window: null, use_sliding_window: true, max_window_layers: 0 }, 0],
    ['qwen2', { sliding_window: 7, use_sliding_window: true, max_window_layers: 2 }, 0],
    ['qwen3', { sliding_window: 7, use_sliding_window: true }, 0], // from layer 28 on, and there are 2
    ['qwen3', { sliding_window: 7, use_sliding_window: true, layer_types: Array(2).fill('sliding_attention') }, 7],
    ['qwen3', { sliding_window: 7, layer_types: Array(2).fill('full_attention') }, 0],
  ])('the window of a %s with %j is %i', (model_type, more, window) => {
    expect(read({ model_type, ...more }).structure.window).toBe(window)
  })

  it.each([
    ['qwen2', { use_sliding_window: true, max_window_layers: 1 }, 'max_window_layers'],
    ['qwen3', { use_sliding_window: true, layer_types: ['full_attention', 'sliding_attention'] }, 'layer_types'],
    ['qwen3', { layer_types: ['sliding_attention', 'sliding_attention'] }, 'layer_types'],
    ['qwen3', { layer_types: ['full_attention'] }, 'layer_types'],
    ['qwen3', { layer_types: 'full_attention' }, 'layer_types'],
    ['mistral', { layer_types: ['full_attention', 'sliding_attention'] }, 'layer_types'],
    ['llama', { hidden_act: 'relu' }, 'hidden_act'],
  ])('a %s with %j is an error that names %s', async (model_type, more, key) => {
    const { code, message } = await failure(() => read({ model_type, ...more }))
    expect([code, message]).toEqual(['ERR_UNSUPPORTED_ARCHITECTURE', expect.stringContaining(key)])
  })

  it.each([
    ['mistral', { sliding_window: 0 }, 'sliding_window'],
    ['mistral', { sliding_window: 2 ** 23 }, 'sliding_window'],
    ['qwen2', { use_sliding_window: 'yes' }, 'use_sliding_window'],
    ['llama', { attention_bias: 1 }, 'attention_bias'],
    ['llama', { tie_word_embeddings: 'true' }, 'tie_word_embeddings'],
  ])('a %s with %j makes no sense', async (model_type, more, key) => {
    const { code, message } = await failure(() => read({ model_type, ...more }))
    expect([code, message]).toEqual(['ERR_BAD_SOURCE', expect.stringContaining(key)])
  })

  it('has the heads of keys and values of its family where it names none', () => {
    const heads = (model_type: string, more = {}) => {
      const config = { ...tinyHfConfig({ model_type, num_attention_heads: 32, head_dim: 4 }), ...more }
      return readHfConfig(config).structure.n_kv_heads
    }
    const { num_key_value_heads: _, ...without } = tinyHfConfig({ num_attention_heads: 64, head_dim: 4 })
    const left = (model_type: string) => readHfConfig({ ...without, model_type }).structure.n_kv_heads
    expect(['llama', 'mistral', 'qwen2', 'qwen3'].map(left)).toEqual([64, 8, 32, 32])
    expect(heads('mistral', { num_key_value_heads: null })).toBe(32)
    expect(heads('qwen2', { num_key_value_heads: 4 })).toBe(4)
  })

  it('YaRN that stretches nothing has a magnitude of 1, whatever mscale says', () => {
    const yarn = (more: object) =>
      read({ rope_scaling: { type: 'yarn', factor: 0.5, original_max_position_embeddings: 8, ...more } }).structure
        .rope_scaling
    expect(yarn({})).toMatchObject({ factor: 0.5, attention_factor: 0 })
    expect(yarn({ mscale: 1, mscale_all_dim: 0.5 })).toMatchObject({ attention_factor: 1 })
    expect(yarn({ attention_factor: 1.5, mscale: 1, mscale_all_dim: 0.5 })).toMatchObject({ attention_factor: 1.5 })
  })

  it.each([0, -1])('an attention_factor of %i is an error', async (attention_factor) => {
    const rope_scaling = { type: 'yarn', factor: 4, attention_factor }
    expect((await failure(() => read({ rope_scaling }))).code).toBe('ERR_UNSUPPORTED_ROPE')
  })
})

describe('biases of a folder', () => {
  const convertFolder = (config: Record<string, unknown>, keep: (name: string) => boolean) => {
    const tensors = tinyTensors({ bias: true }).filter(({ name }) => !name.endsWith('.bias') || keep(name))
    const source = writeFolder(folder.path('biases'), tinyHfConfig(config), {
      'model.safetensors': safetensorsFile(tensors),
    })
    return convert(source, folder.path('biases.obt'))
  }
  const isQkv = (name: string) => /[qkv]_proj/.test(name)

  it.each([
    ['llama', { attention_bias: true }, (name: string) => name.includes('self_attn'), ['wq', 'wk', 'wv', 'wo']],
    ['llama', { mlp_bias: true }, (name: string) => name.includes('mlp'), ['w1', 'w2', 'w3']],
    ['qwen2', {}, isQkv, ['wq', 'wk', 'wv']],
    ['mistral', { sliding_window: null }, () => false, []],
  ])('%s with %j', async (model_type, more, keep, roles) => {
    const { config } = await convertFolder({ model_type, ...more }, keep)
    const found = Object.entries(config.linears).filter(([, { bias }]) => bias)
    expect(found.map(([role]) => role)).toEqual(roles)
  })

  it.each([
    ['one that its config does not tell of', 'llama', {}, isQkv, 'ERR_BAD_SOURCE', 'q_proj.bias'],
    ['one of an output', 'qwen2', {}, (name: string) => isQkv(name) || name.includes('o_proj'), 'ERR_BAD_SOURCE', 'o_'],
    ['one that is missing', 'qwen2', {}, (name: string) => /[qk]_proj/.test(name), 'ERR_MISSING_TENSOR', 'v_proj.bias'],
    ['one of a Mistral', 'mistral', { sliding_window: null }, isQkv, 'ERR_BAD_SOURCE', 'q_proj.bias'],
  ])('%s is an error', async (_, model_type, more, keep, code, name) => {
    const error = await failure(() => convertFolder({ model_type, ...more }, keep))
    expect([error.code, error.message]).toEqual([code, expect.stringContaining(name)])
  })
})

describe('metadata of a GGUF file', () => {
  const structureOf = async (more: Record<string, MetadataValue>, tensors: GgufTensor[] = tinyGgufTensors()) => {
    const path = folder.path('model.gguf')
    const named = Object.entries(more).map(([key, value]) => [
      /^(prism|llama)\./.test(key) ? key : `llama.${key}`,
      value,
    ])
    writeFileSync(path, ggufFile({ ...TINY_METADATA, ...Object.fromEntries(named) }, tensors))
    const source = await openGguf(path)
    await source.close()
    return source.config
  }

  it('a window is a feature; of 0 it is none', async () => {
    expect((await structureOf({ 'attention.sliding_window': { u32: 8 } })).window).toBe(8)
    expect((await structureOf({ 'attention.sliding_window': { u32: 0 } })).window).toBe(0)
    expect((await structureOf({})).window).toBe(0)
    const { code } = await failure(() => structureOf({ 'attention.sliding_window': { u32: 2 ** 23 } }))
    expect(code).toBe('ERR_BAD_SOURCE')
  })

  it.each<[string, MetadataValue]>([
    ['attention.causal', { bool: true }],
    ['attention.scale', { f32: 1 / Math.sqrt(TINY.headDim) }],
    ['attention.key_length', { u32: TINY.headDim }],
    ['attention.value_length', { u32: TINY.headDim }],
    ['rope.dimension_count', { u32: TINY.headDim }],
    ['expert_count', { u32: 0 }],
    ['logit_scale', { f32: 1 }],
    ['vocab_size', { u32: TINY.vocab }],
    ['tensor_data_layout', { string: 'Meta AI original pth' }],
    ['rope.scaling.finetuned', { bool: true }],
    ['rope.scaling.attn_factor', { f32: 1 }],
    ['pooling_type', { u32: 3 }],
  ])('%s as it usually is changes nothing', async (key, value) => {
    expect(await structureOf({ [key]: value })).toEqual(await structureOf({}))
  })

  it.each<[string, MetadataValue]>([
    ['attention.causal', { bool: false }],
    ['attention.scale', { f32: 1 }],
    ['attention.value_length', { u32: 4 }],
    ['rope.dimension_count', { u32: 4 }],
    ['rope.dimension_sections', { i32s: [1, 1, 2, 0] }],
    ['rope.freq_base_swa', { f32: 1000 }],
    ['attention.sliding_window_pattern', { u32: 6 }],
    ['attention.clamp_kqv', { f32: 8 }],
    ['attention.max_alibi_bias', { f32: 8 }],
    ['attention.temperature_scale', { f32: 0.1 }],
    ['attention.layer_norm_epsilon', { f32: 1e-5 }],
    ['expert_count', { u32: 8 }],
    ['nextn_predict_layers', { u32: 1 }],
    ['use_parallel_residual', { bool: true }],
    ['attn_logit_softcapping', { f32: 50 }],
    ['final_logit_softcapping', { f32: 30 }],
    ['logit_scale', { f32: 0.0625 }],
    ['residual_scale', { f32: 0.22 }],
    ['embedding_scale', { f32: 12 }],
    ['rope.scaling.alpha', { f32: 1000 }],
    ['rope.scaling.attn_factor', { f32: 1.2 }],
    ['hidden_activation', { string: 'gelu' }],
    ['something_new', { u32: 1 }],
    ['prism.hadamard.version', { u32: 3 }],
  ])('%s = %j changes the computation and is an error that names it', async (key, value) => {
    const { code, message } = await failure(() => structureOf({ [key]: value }))
    expect([code, message]).toEqual(['ERR_UNSUPPORTED_ARCHITECTURE', expect.stringContaining(key)])
  })

  it('a window in a qwen2 file has no agreed meaning', async () => {
    const metadata = Object.entries({ ...TINY_METADATA, 'llama.attention.sliding_window': { u32: 8 } })
    const qwen2 = metadata.map(([key, value]) => [key.replace('llama', 'qwen2'), value])
    const path = folder.path('qwen2.gguf')
    const all = { ...Object.fromEntries(qwen2), 'general.architecture': { string: 'qwen2' } }
    writeFileSync(path, ggufFile(all, tinyGgufTensors({ bias: true })))
    const { code, message } = await failure(() => openGguf(path))
    expect([code, message]).toEqual(['ERR_UNSUPPORTED_ARCHITECTURE', expect.stringContaining('sliding_window')])
  })

  const factors: GgufTensor = {
    name: 'rope_freqs.weight',
    type: 'f32',
    shape: [4],
    data: encodeTensor('f32', Float32Array.of(1, 1.5, 8, 8.25)),
  }
  const scaling = async (more: Record<string, MetadataValue>, ...tensors: GgufTensor[]) => {
    const named = Object.entries(more).map(([key, value]) => [`rope.scaling.${key}`, value])
    return (await structureOf(Object.fromEntries(named), [...tinyGgufTensors(), ...tensors])).rope_scaling
  }

  it('a factor without a type is linear, as llama.cpp reads it', async () => {
    expect(await scaling({ factor: { f32: 4 } })).toEqual({ type: 'linear', factor: 4 })
    expect(await scaling({ factor: { f32: 1 } })).toEqual({ type: 'none' })
    expect(await scaling({ factor: { f32: 4 }, type: { string: 'none' } })).toEqual({ type: 'none' })
    expect((await structureOf({ 'rope.scale_linear': { f32: 4 } })).rope_scaling).toEqual({ type: 'linear', factor: 4 })
  })

  it('factors of frequencies and a factor of all multiply', async () => {
    expect(await scaling({}, factors)).toEqual({ type: 'factors', factors: [1, 1.5, 8, 8.25] })
    expect(await scaling({ factor: { f32: 2 } }, factors)).toEqual({ type: 'factors', factors: [2, 3, 16, 16.5] })
    const none = { factor: { f32: 2 }, type: { string: 'none' } }
    expect(await scaling(none, factors)).toEqual({ type: 'factors', factors: [1, 1.5, 8, 8.25] })
    expect((await failure(() => scaling({ type: { string: 'yarn' } }, factors))).code).toBe('ERR_BAD_SOURCE')
    const short = { ...factors, shape: [2], data: factors.data.subarray(0, 8) }
    expect((await failure(() => scaling({}, short))).code).toBe('ERR_TENSOR_SHAPE')
    const table = { ...factors, shape: [2, 2] }
    expect((await failure(() => scaling({}, table))).code).toBe('ERR_BAD_SOURCE')
  })

  test('YaRN: attn_factor multiplies the usual magnitude, which is 1 where nothing is stretched', async () => {
    const yarn = (factor: number, more = {}) =>
      scaling({ type: { string: 'yarn' }, factor: { f32: factor }, ...more }) as Promise<{ attention_factor: number }>
    expect((await yarn(4)).attention_factor).toBe(0)
    expect((await yarn(4, { attn_factor: { f32: 1.5 } })).attention_factor).toBeCloseTo(1.5 * 1.138629436, 8)
    expect((await yarn(0.5)).attention_factor).toBe(0)
    expect((await yarn(0.5, { attn_factor: { f32: 1.5 } })).attention_factor).toBe(1.5)
    for (const key of ['yarn_ext_factor', 'yarn_attn_factor', 'yarn_log_multiplier']) {
      const { code, message } = await failure(() => yarn(4, { [key]: { f32: 0.5 } }))
      expect([code, message]).toEqual(['ERR_UNSUPPORTED_ARCHITECTURE', expect.stringContaining(key)])
    }
  })
})
