/**
 * Qwen3.5: most layers mix by a gated delta rule (Gated DeltaNet), every fourth by attention whose output has a gate and of
 * whose heads a part is rotated. Bonsai 27B and Bonsai 2 are of this kind. Only the text model is read: a vision tower and
 * the layers that predict several tokens ahead are passed over.
 */
import type { Features, ModelStructure } from '../config/config.js'
import { withDefaults } from '../config/fields.js'
import { LIMITS } from '../config/limits.js'
import type { GgufKeys } from '../import/gguf-keys.js'
import { type HfFields, isObject } from '../import/hf-fields.js'
import { readHfRope } from '../import/hf-rope.js'
import { badSource, checkDimension, unsupportedArchitecture } from '../import/source.js'
import { shown } from '../shown-value.js'
import type { Adjust, Architecture, GgufFacts, Reading, TensorNames } from './architecture.js'
import {
  checkHf,
  GGUF_NAMES,
  HF_CHECKPOINT,
  HF_NAMES,
  OPTIONAL_BIASES,
  readGgufSizes,
  readHfBiases,
} from './llama-family.js'

const NAMES: TensorNames = {
  ...HF_NAMES,
  'layers.*.w_qkv': 'model.layers.*.linear_attn.in_proj_qkv',
  'layers.*.w_z': 'model.layers.*.linear_attn.in_proj_z',
  'layers.*.w_beta': 'model.layers.*.linear_attn.in_proj_b',
  'layers.*.w_alpha': 'model.layers.*.linear_attn.in_proj_a',
  'layers.*.conv': 'model.layers.*.linear_attn.conv1d',
  'layers.*.decay': 'model.layers.*.linear_attn.A_log',
  'layers.*.time_bias': 'model.layers.*.linear_attn.dt_bias',
  'layers.*.delta_norm': 'model.layers.*.linear_attn.norm',
  'layers.*.w_out': 'model.layers.*.linear_attn.out_proj',
}

const NAMES_OF_GGUF: TensorNames = {
  ...GGUF_NAMES,
  'layers.*.ffn_norm': 'blk.*.post_attention_norm',
  'layers.*.w_qkv': 'blk.*.attn_qkv',
  'layers.*.w_z': 'blk.*.attn_gate',
  'layers.*.w_beta': 'blk.*.ssm_beta',
  'layers.*.w_alpha': 'blk.*.ssm_alpha',
  'layers.*.conv': 'blk.*.ssm_conv1d',
  'layers.*.decay': 'blk.*.ssm_a',
  'layers.*.time_bias': 'blk.*.ssm_dt.bias',
  'layers.*.delta_norm': 'blk.*.ssm_norm',
  'layers.*.w_out': 'blk.*.ssm_out',
}

const FEATURES = {
  architecture: 'qwen35',
  qk_norm: true,
  output_gate: true,
  rope_style: 'half',
} as const satisfies Partial<ModelStructure>

/** Layers 0 .. n - 1 but every `interval`th. */
function byInterval(n_layers: number, interval: number): number[] {
  return Array.from({ length: n_layers }, (_, layer) => layer).filter((layer) => (layer + 1) % interval !== 0)
}

/** A model without such layers has none of their numbers either. */
function deltaFeatures(features: Partial<Features> & Pick<Features, 'delta_layers'>): Partial<Features> {
  return features.delta_layers.length > 0 ? features : {}
}

/** Folders have the norms' distance from 1, and the logarithm of the decay. */
const adjust: Adjust = ({ name, part }) => {
  if (name.endsWith('.decay')) return (logarithm) => -Math.exp(logarithm)
  return part === 'norm' && !name.endsWith('.delta_norm') ? (distance) => 1 + distance : undefined
}

function readLayerTypes(config: HfFields, n_layers: number): number[] {
  const types = config.get('layer_types')
  if (types === undefined) return byInterval(n_layers, config.size('full_attention_interval', LIMITS.layers, 4))
  if (!Array.isArray(types) || types.length !== n_layers) {
    throw badSource(`config.json: layer_types must name the type of each of ${n_layers} layers`)
  }
  const unknown = types.find((type) => type !== 'linear_attention' && type !== 'full_attention')
  if (unknown !== undefined) throw unsupportedArchitecture(`qwen3_5 with layers of type ${shown(unknown)}`)
  return types.flatMap((type, layer) => (type === 'linear_attention' ? [layer] : []))
}

function read(whole: HfFields): Reading {
  const text = whole.get('text_config')
  if (text !== undefined && !isObject(text)) throw badSource('config.json: text_config must be an object')
  const config = text === undefined ? whole : whole.within(text)
  checkHf(config)
  if (config.get('attn_output_gate') === false) throw unsupportedArchitecture('qwen3_5 with attn_output_gate false')
  const head_dim = config.size('head_dim', LIMITS.head_dim, 256)
  const context_length = config.size('max_position_embeddings', LIMITS.context, 32768)
  const n_layers = config.size('num_hidden_layers', LIMITS.layers)
  const partialRotation = config.within({ partial_rotary_factor: config.number('partial_rotary_factor', 0.25) })
  const { theta, scaling, partial } = readHfRope(partialRotation, context_length)
  const structure: ModelStructure = withDefaults({
    ...FEATURES,
    vocab_size: config.size('vocab_size', LIMITS.vocab),
    dim: config.size('hidden_size', LIMITS.dim),
    hidden_dim: config.size('intermediate_size', LIMITS.dim),
    n_layers,
    n_heads: config.size('num_attention_heads', LIMITS.heads),
    n_kv_heads: config.size('num_key_value_heads', LIMITS.heads, 4),
    head_dim,
    context_length,
    norm_eps: config.number('rms_norm_eps', 1e-6),
    rope_theta: theta,
    rope_scaling: scaling,
    rope_dims: Math.floor(head_dim * partial),
    tied_head: config.flag('tie_word_embeddings'),
    ...deltaFeatures({
      delta_layers: readLayerTypes(config, n_layers),
      delta_k_heads: config.size('linear_num_key_heads', LIMITS.heads, 16),
      delta_v_heads: config.size('linear_num_value_heads', LIMITS.heads, 32),
      delta_k_dim: config.size('linear_key_head_dim', LIMITS.head_dim, 128),
      delta_v_dim: config.size('linear_value_head_dim', LIMITS.head_dim, 128),
      delta_conv: config.size('linear_conv_kernel_dim', LIMITS.conv, 4),
      delta_head_order: 'grouped',
    }),
  })
  return { structure, biases: readHfBiases(config) }
}

/**
 * block_count counts the layers that predict ahead, which lie behind the others. What they have for it tells them apart: a
 * count that does not hold would otherwise leave the last layers of the model out.
 */
function readLayers(keys: GgufKeys, { plain_layers }: GgufFacts): { n_layers: number; delta_layers: number[] } {
  const all = keys.size('block_count', LIMITS.layers)
  const ahead = keys.number('nextn_predict_layers', 0)
  const n_layers = checkDimension('qwen35.block_count without nextn_predict_layers', all - ahead, LIMITS.layers)
  if (n_layers > all) throw keys.unsupported('nextn_predict_layers')
  if (plain_layers > n_layers) {
    throw badSource(
      `qwen35.block_count ${all} and nextn_predict_layers ${ahead} make ${n_layers} layers; there are ${plain_layers}`,
      'Layers that predict tokens ahead have tensors called nextn; the others are the model.',
    )
  }
  const interval = keys.size('full_attention_interval', LIMITS.layers, 4)
  const listed = keys.get('attention.recurrent_layers')
  if (listed === undefined) return { n_layers, delta_layers: byInterval(n_layers, interval) }
  if (!Array.isArray(listed) || listed.length < n_layers || listed.some((is) => typeof is !== 'boolean')) {
    throw badSource(`qwen35.attention.recurrent_layers must say true or false of each of ${n_layers} layers`)
  }
  return { n_layers, delta_layers: byInterval(n_layers, Number.POSITIVE_INFINITY).filter((layer) => listed[layer]) }
}

function readDelta(keys: GgufKeys, delta_layers: number[]): Partial<Features> {
  const delta_v_heads = keys.size('ssm.time_step_rank', LIMITS.heads)
  const inner = keys.size('ssm.inner_size', LIMITS.dim)
  return deltaFeatures({
    delta_layers,
    delta_k_heads: keys.size('ssm.group_count', LIMITS.heads),
    delta_v_heads,
    delta_k_dim: keys.size('ssm.state_size', LIMITS.head_dim),
    delta_v_dim: checkDimension('qwen35.ssm.inner_size / time_step_rank', inner / delta_v_heads, LIMITS.head_dim),
    delta_conv: keys.size('ssm.conv_kernel', LIMITS.conv),
    delta_head_order: 'tiled',
  })
}

function readGguf(keys: GgufKeys, facts: GgufFacts): Reading {
  // Which of three positions turns which pair: those of a text are all the same.
  keys.get('rope.dimension_sections')
  const { n_layers, delta_layers } = readLayers(keys, facts)
  const structure = readGgufSizes(keys, facts, { ...FEATURES, n_layers, ...readDelta(keys, delta_layers) })
  return { structure, biases: OPTIONAL_BIASES }
}

function isOfAnotherPart(name: string, { n_layers }: ModelStructure): boolean {
  const layer = /^blk\.(\d+)\./.exec(name)?.[1]
  return layer === undefined ? /^(v|mm|mtp)\./.test(name) : Number(layer) >= n_layers
}

export const qwen35: Architecture = {
  name: 'qwen35',
  title: 'Qwen3.5',
  huggingFace: {
    ...HF_CHECKPOINT,
    names: NAMES,
    nestedPrefix: 'model.language_model.',
    modelTypes: ['qwen3_5', 'qwen3_5_text'],
    isIgnored: (name) => HF_CHECKPOINT.isIgnored(name) || /^(model\.visual|visual|mtp)\./.test(name),
    adjust,
    read,
  },
  gguf: { architectures: ['qwen35'], names: NAMES_OF_GGUF, isIgnored: isOfAnotherPart, read: readGguf },
}
