/** What Llama and the models that descend from it share: their names, and most of what their configs say. */
import type { Features, ModelStructure } from '../config/config.js'
import { withDefaults } from '../config/fields.js'
import { LIMITS } from '../config/limits.js'
import { ROLES, type Role } from '../config/tensors.js'
import { type GgufKeys, shortest } from '../import/gguf-keys.js'
import { readGgufRope } from '../import/gguf-rope.js'
import type { HfFields } from '../import/hf-fields.js'
import { readHfRope, unsupportedRope } from '../import/hf-rope.js'
import { unsupportedArchitecture } from '../import/source.js'
import { shown } from '../shown-value.js'
import type { BiasRules, GgufFacts, HuggingFaceDescription, TensorNames } from './architecture.js'

export const ATTENTION: readonly Role[] = ['wq', 'wk', 'wv', 'wo']
export const QKV: readonly Role[] = ['wq', 'wk', 'wv']
export const FEED_FORWARD: readonly Role[] = ['w1', 'w2', 'w3']

/** Biases that must be there; the other linears have none, or may have one. */
export function biasesOf(required: readonly Role[], others: 'none' | 'optional' = 'none'): BiasRules {
  const rules = ROLES.map((role) => [role, required.includes(role) ? 'required' : others])
  return Object.fromEntries(rules)
}

/** As llama.cpp loads them: whatever bias is there is added. */
export const OPTIONAL_BIASES = biasesOf([], 'optional')

export const HF_NAMES: TensorNames = {
  tok_embeddings: 'model.embed_tokens',
  'layers.*.attention_norm': 'model.layers.*.input_layernorm',
  'layers.*.wq': 'model.layers.*.self_attn.q_proj',
  'layers.*.wk': 'model.layers.*.self_attn.k_proj',
  'layers.*.wv': 'model.layers.*.self_attn.v_proj',
  'layers.*.q_norm': 'model.layers.*.self_attn.q_norm',
  'layers.*.k_norm': 'model.layers.*.self_attn.k_norm',
  'layers.*.wo': 'model.layers.*.self_attn.o_proj',
  'layers.*.ffn_norm': 'model.layers.*.post_attention_layernorm',
  'layers.*.w1': 'model.layers.*.mlp.gate_proj',
  'layers.*.w2': 'model.layers.*.mlp.down_proj',
  'layers.*.w3': 'model.layers.*.mlp.up_proj',
  norm: 'model.norm',
  output: 'lm_head',
}

export const GGUF_NAMES: TensorNames = {
  tok_embeddings: 'token_embd',
  'layers.*.attention_norm': 'blk.*.attn_norm',
  'layers.*.wq': 'blk.*.attn_q',
  'layers.*.wk': 'blk.*.attn_k',
  'layers.*.wv': 'blk.*.attn_v',
  'layers.*.q_norm': 'blk.*.attn_q_norm',
  'layers.*.k_norm': 'blk.*.attn_k_norm',
  'layers.*.wo': 'blk.*.attn_output',
  'layers.*.ffn_norm': 'blk.*.ffn_norm',
  'layers.*.w1': 'blk.*.ffn_gate',
  'layers.*.w2': 'blk.*.ffn_down',
  'layers.*.w3': 'blk.*.ffn_up',
  norm: 'output_norm',
  output: 'output',
}

/** Names of a Hugging Face checkpoint of the family. */
export const HF_CHECKPOINT = {
  names: HF_NAMES,
  basePrefix: 'model.',
  // A table that follows from the config, as old checkpoints have it.
  isIgnored: (name) => name.endsWith('.rotary_emb.inv_freq'),
} as const satisfies Partial<HuggingFaceDescription>

type Described = Partial<Features> & Pick<ModelStructure, 'architecture'>

/** What a model type takes when its config.json leaves a key out. */
export interface HfDefaults {
  max_position_embeddings: number
  /** default: num_attention_heads, which null means in any case */
  num_key_value_heads?: number
  /** default: hidden_size / num_attention_heads */
  head_dim?: number
}

/** Things that change the computation but not the tensors: taking no notice of them would be silently wrong. */
export function checkHf(config: HfFields, { activation }: Partial<Features> = {}): void {
  const act = config.get('hidden_act') ?? 'silu'
  if (activation === undefined && act !== 'silu' && act !== 'swish') {
    throw unsupportedArchitecture(`${config.get('model_type')} with hidden_act ${shown(act)}`)
  }
}

/** Sizes and rotation of a config.json of the family; `described` is what this architecture adds. */
export function readHf(config: HfFields, described: Described, defaults: HfDefaults): ModelStructure {
  checkHf(config, described)
  const dim = config.size('hidden_size', LIMITS.dim)
  const n_heads = config.size('num_attention_heads', LIMITS.heads)
  const kvHeads = config.has('num_key_value_heads') ? n_heads : (defaults.num_key_value_heads ?? n_heads)
  const context_length = config.size('max_position_embeddings', LIMITS.context, defaults.max_position_embeddings)
  const { theta, scaling, partial } = readHfRope(config, context_length)
  if (partial !== 1) throw unsupportedRope(`partial_rotary_factor ${partial}`)
  return withDefaults({
    vocab_size: config.size('vocab_size', LIMITS.vocab),
    dim,
    hidden_dim: config.size('intermediate_size', LIMITS.dim),
    n_layers: config.size('num_hidden_layers', LIMITS.layers),
    n_heads,
    n_kv_heads: config.size('num_key_value_heads', LIMITS.heads, kvHeads),
    head_dim: config.size('head_dim', LIMITS.head_dim, defaults.head_dim ?? Math.floor(dim / n_heads)),
    context_length,
    norm_eps: config.number('rms_norm_eps', 1e-6),
    rope_theta: theta,
    rope_style: 'half',
    rope_scaling: scaling,
    tied_head: config.flag('tie_word_embeddings'),
    ...described,
  })
}

/** attention_bias and mlp_bias: tensors that must be there, and must not without them. */
export function readHfBiases(config: HfFields): BiasRules {
  const attention = config.flag('attention_bias') ? ATTENTION : []
  return biasesOf([...attention, ...(config.flag('mlp_bias') ? FEED_FORWARD : [])])
}

/** A window that is left out has 4096 positions; null means that there is none. */
export function readHfWindow(config: HfFields): number {
  const isNull = config.has('sliding_window') && config.get('sliding_window') === undefined
  return isNull ? 0 : config.size('sliding_window', LIMITS.context, 4096)
}

/**
 * The window of a Qwen: used if use_sliding_window says so, in the layers from max_window_layers on (28, if it is left
 * out) or as layer_types says. A model in which only some layers have one is another computation.
 */
export function readQwenWindow(config: HfFields): number {
  const window = config.flag('use_sliding_window') ? readHfWindow(config) : 0
  const n_layers = config.size('num_hidden_layers', LIMITS.layers)
  const first = window > 0 ? config.number('max_window_layers', 28) : n_layers
  const given = config.get('layer_types')
  const types =
    given ?? Array.from({ length: n_layers }, (_, i) => (i < first ? 'full_attention' : 'sliding_attention'))
  const isEvery = (type: string) => Array.isArray(types) && types.length === n_layers && types.every((t) => t === type)
  if (isEvery('full_attention')) return 0
  if (window > 0 && isEvery('sliding_attention')) return window
  const key = given === undefined ? 'max_window_layers' : 'layer_types'
  throw unsupportedArchitecture(
    `${config.get('model_type')} with a sliding window in some of its layers (${key})`,
    'A window of all layers, or of none, can be converted.',
  )
}

/** Switches of llama.cpp's loader that must be as they are in every model of the family. */
function checkGgufSwitches(keys: GgufKeys, head_dim: number): void {
  keys.mustBe('attention.value_length', head_dim)
  keys.mustBe('attention.causal', true)
  keys.mustBe('attention.scale', 0, Math.fround(1 / Math.sqrt(head_dim)))
  keys.mustBe('attention.clamp_kqv', 0)
  keys.mustBe('attention.max_alibi_bias', 0)
  keys.mustBe('expert_count', 0)
  keys.mustBe('expert_used_count', 0)
  keys.mustBe('use_parallel_residual', false)
  for (const softcap of ['attn_logit_softcapping', 'final_logit_softcapping']) keys.mustBe(softcap, 0)
  for (const scale of ['logit_scale', 'residual_scale', 'embedding_scale']) keys.mustBe(scale, 0, 1)
}

function readGgufHeads(keys: GgufKeys): Pick<ModelStructure, 'dim' | 'n_heads' | 'head_dim'> {
  const n_heads = keys.size('attention.head_count', LIMITS.heads)
  const dim = keys.size('embedding_length', LIMITS.dim)
  return { dim, n_heads, head_dim: keys.size('attention.key_length', LIMITS.head_dim, Math.floor(dim / n_heads)) }
}

type GgufDescribed = Described & Pick<ModelStructure, 'rope_style'>

/** Sizes and rotation of a GGUF file of the family; `described` is what this architecture adds. */
export function readGguf(keys: GgufKeys, facts: GgufFacts, described: GgufDescribed): ModelStructure {
  keys.mustBe('rope.dimension_count', readGgufHeads(keys).head_dim)
  keys.mustBe('nextn_predict_layers', 0)
  return readGgufSizes(keys, facts, { ...described, n_layers: keys.size('block_count', LIMITS.layers) })
}

/** Also of files that rotate a part of each head, or have layers beside those of the model: `described` says how many. */
export function readGgufSizes(
  keys: GgufKeys,
  facts: GgufFacts,
  described: GgufDescribed & Pick<ModelStructure, 'n_layers'>,
): ModelStructure {
  const { dim, n_heads, head_dim } = readGgufHeads(keys)
  checkGgufSwitches(keys, head_dim)
  const rope_dims = keys.size('rope.dimension_count', LIMITS.head_dim, head_dim)
  const context_length = keys.size('context_length', LIMITS.context)
  return withDefaults({
    vocab_size: facts.vocab_size,
    dim,
    hidden_dim: keys.size('feed_forward_length', LIMITS.dim),
    n_heads,
    n_kv_heads: keys.size('attention.head_count_kv', LIMITS.heads, n_heads),
    head_dim,
    context_length,
    norm_eps: shortest(keys.number('attention.layer_norm_rms_epsilon')),
    rope_theta: shortest(keys.number('rope.freq_base', 10000)),
    rope_dims,
    rope_scaling: readGgufRope(keys, facts.rope_factors, { rope_dims, context: context_length }),
    tied_head: facts.tied_head,
    ...described,
  })
}
