/**
 * What sources say of the delta rule: every field that Qwen3.5's description reads, with values of each type. Something comes
 * of it that the config's own check accepts, or an error that says which field is wrong.
 */
import { describe, expect, it } from 'vitest'
import { qwen35 } from '../../dist/architectures/qwen35.js'
import type { ModelStructure } from '../../dist/config/config.js'
import { OnebitError } from '../../dist/errors.js'
import { GgufKeys } from '../../dist/import/gguf-keys.js'
import type { GgufValue } from '../../dist/import/gguf-reader.js'
import { HfFields } from '../../dist/import/hf-fields.js'

const NUMBERS = [0, -1, 1, 2, 3, 1.5, 1e9, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY]
const OTHERS = [true, '', 'x', '4', [], [1], [true], ['full_attention'], Array(5000).fill(true)]

const SOUND: (keyof ModelStructure)[] = ['delta_k_heads', 'delta_v_heads', 'delta_k_dim', 'delta_v_dim', 'delta_conv']

/** A code, or what was read, whose numbers are whole and within what anybody allocates for. */
function outcome(read: () => ModelStructure): string {
  try {
    const structure = read()
    const most = structure.delta_layers.length > 0 ? 1024 : 0
    for (const name of SOUND) {
      const value = structure[name] as number
      expect(Number.isInteger(value) && value >= Math.min(1, most) && value <= most, `${name} ${value}`).toBe(true)
    }
    expect(structure.delta_layers.every((layer) => layer >= 0 && layer < structure.n_layers)).toBe(true)
    return 'works'
  } catch (error) {
    if (!(error instanceof OnebitError)) throw error
    expect(error.message.length).toBeLessThan(600)
    return error.code
  }
}

const CODES = /^(works|ERR_(BAD_SOURCE|UNSUPPORTED_ARCHITECTURE|UNSUPPORTED_ROPE|UNSUPPORTED_TENSOR_TYPE))$/

describe('config.json', () => {
  const good = {
    model_type: 'qwen3_5_text',
    vocab_size: 100,
    hidden_size: 64,
    intermediate_size: 96,
    num_hidden_layers: 4,
    num_attention_heads: 4,
    num_key_value_heads: 1,
    head_dim: 32,
    max_position_embeddings: 128,
    rms_norm_eps: 1e-6,
    tie_word_embeddings: true,
    attn_output_gate: true,
    hidden_act: 'silu',
    layer_types: ['linear_attention', 'linear_attention', 'linear_attention', 'full_attention'],
    full_attention_interval: 4,
    linear_num_key_heads: 2,
    linear_num_value_heads: 4,
    linear_key_head_dim: 16,
    linear_value_head_dim: 16,
    linear_conv_kernel_dim: 4,
    partial_rotary_factor: 0.25,
    rope_parameters: { rope_type: 'default', rope_theta: 1e7, partial_rotary_factor: 0.25 },
  }
  const read = (fields: object) => outcome(() => qwen35.huggingFace.read(new HfFields(fields as never)).structure)

  it('as it should be works, flat and nested', () => {
    expect(read(good)).toBe('works')
    const { model_type, ...text } = good
    expect(read({ model_type: 'qwen3_5', text_config: text })).toBe('works')
  })

  it.each([...Object.keys(good), 'text_config'].filter((key) => key !== 'model_type'))('with any %s', (key) => {
    const found = [...NUMBERS, ...OTHERS, null, {}].map((value) => read({ ...good, [key]: value }))
    for (const code of found) expect(code).toMatch(CODES)
  })
})

describe('metadata of a GGUF file', () => {
  const good: Record<string, GgufValue> = {
    block_count: 5,
    nextn_predict_layers: 1,
    context_length: 128,
    embedding_length: 64,
    feed_forward_length: 96,
    full_attention_interval: 4,
    'attention.head_count': 4,
    'attention.head_count_kv': 1,
    'attention.key_length': 32,
    'attention.value_length': 32,
    'attention.layer_norm_rms_epsilon': 1e-6,
    'attention.recurrent_layers': [true, true, true, false, false],
    'rope.dimension_count': 8,
    'rope.dimension_sections': [2, 1, 1, 0],
    'rope.freq_base': 1e7,
    'ssm.conv_kernel': 4,
    'ssm.state_size': 16,
    'ssm.group_count': 2,
    'ssm.time_step_rank': 4,
    'ssm.inner_size': 64,
  }
  const facts = { vocab_size: 100, tied_head: true, rope_factors: undefined, plain_layers: 4 }
  const structure = (keys: Record<string, GgufValue>, plain_layers = 4) => {
    const metadata = new Map(Object.entries(keys).map(([key, value]) => [`qwen35.${key}`, value]))
    const found = new GgufKeys(metadata, 'qwen35')
    const { structure } = qwen35.gguf!.read(found, { ...facts, plain_layers })
    found.checkNothingLeft()
    return structure
  }

  it('as it should be works: layers that predict ahead are none, and a list is better than an interval', () => {
    expect(structure(good)).toMatchObject({ n_layers: 4, delta_layers: [0, 1, 2], delta_v_dim: 16 })
    const listed = { ...good, 'attention.recurrent_layers': [false, true, true, true, false] }
    expect(structure(listed).delta_layers).toEqual([1, 2, 3])
    const { 'attention.recurrent_layers': _, nextn_predict_layers: _ahead, ...without } = good
    expect(structure({ ...without, block_count: 8 }, 8).delta_layers).toEqual([0, 1, 2, 4, 5, 6])
    expect(structure({ ...good, full_attention_interval: 2 }).delta_layers).toEqual([0, 1, 2])
  })

  it.each(Object.keys(good))('with any %s', (key) => {
    const values: GgufValue[] = [...NUMBERS, 3n, 2n ** 60n, ...OTHERS]
    for (const value of values) expect(outcome(() => structure({ ...good, [key]: value }))).toMatch(CODES)
  })

  it.each(Object.keys(good))('without %s', (key) => {
    const { [key]: _, ...rest } = good
    expect(outcome(() => structure(rest))).toMatch(CODES)
  })

  it.each([
    ['more layers that predict ahead than there are', 5, 2],
    ['a block_count that does not count them', 4, 1],
  ])('with %s: the last layers of the model are not left out', (_, block_count, nextn_predict_layers) => {
    const outcome = () => structure({ ...good, block_count, nextn_predict_layers }, 4)
    expect(outcome).toThrow('nextn_predict_layers')
    expect(outcome).toThrow('there are 4')
  })

  it('with a key that nobody knows is refused by it', () => {
    expect(() => structure({ ...good, 'ssm.other': 1 })).toThrow('ssm.other')
  })
})
