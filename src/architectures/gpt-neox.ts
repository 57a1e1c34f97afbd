/**
 * GPT-NeoX (Black et al. 2022), of which Pythia is made: attention and feed-forward read the same x, LayerNorm with a bias
 * before each, a part of every head rotated, and one matrix with the queries, keys and values of each head in turn.
 */
import type { Features, ModelStructure } from '../config/config.js'
import { withDefaults } from '../config/fields.js'
import { LIMITS } from '../config/limits.js'
import { type GgufKeys, shortest } from '../import/gguf-keys.js'
import { readGgufRope } from '../import/gguf-rope.js'
import type { HfFields } from '../import/hf-fields.js'
import { readHfRope } from '../import/hf-rope.js'
import { unsupportedArchitecture } from '../import/source.js'
import { shown } from '../shown-value.js'
import type { Architecture, GgufFacts, Reading, TensorNames } from './architecture.js'
import { ATTENTION, biasesOf, OPTIONAL_BIASES, QKV } from './llama-family.js'

const FUSED = 'gpt_neox.layers.*.attention.query_key_value'

const NAMES: TensorNames = {
  tok_embeddings: 'gpt_neox.embed_in',
  'layers.*.attention_norm': 'gpt_neox.layers.*.input_layernorm',
  'layers.*.wq': FUSED,
  'layers.*.wk': FUSED,
  'layers.*.wv': FUSED,
  'layers.*.wo': 'gpt_neox.layers.*.attention.dense',
  'layers.*.ffn_norm': 'gpt_neox.layers.*.post_attention_layernorm',
  'layers.*.w1': 'gpt_neox.layers.*.mlp.dense_h_to_4h',
  'layers.*.w2': 'gpt_neox.layers.*.mlp.dense_4h_to_h',
  norm: 'gpt_neox.final_layer_norm',
  output: 'embed_out',
}

const ACTIVATIONS: Readonly<Record<string, Features['activation']>> = {
  gelu: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_fast: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  relu: 'relu',
}

function readActivation(config: HfFields): Features['activation'] {
  const found = config.get('hidden_act') ?? 'gelu'
  if (typeof found === 'string' && Object.hasOwn(ACTIVATIONS, found)) return ACTIVATIONS[found]!
  throw unsupportedArchitecture(`gpt_neox with hidden_act ${shown(found)}`)
}

/** `rotary_pct` and `rotary_emb_base` of old configs are `partial_rotary_factor` and `rope_theta` of new ones. */
function readRotation(config: HfFields, head_dim: number, context: number) {
  const { theta, scaling, partial } = readHfRope(
    config.within({
      partial_rotary_factor: config.number('rotary_pct', 0.25),
      rope_theta: config.number('rotary_emb_base', 10000),
    }),
    context,
  )
  return { rope_theta: theta, rope_scaling: scaling, rope_dims: Math.floor(head_dim * partial) }
}

const GGUF_FUSED = 'blk.*.attn_qkv'

const GGUF_NAMES: TensorNames = {
  tok_embeddings: 'token_embd',
  'layers.*.attention_norm': 'blk.*.attn_norm',
  'layers.*.wq': GGUF_FUSED,
  'layers.*.wk': GGUF_FUSED,
  'layers.*.wv': GGUF_FUSED,
  'layers.*.wo': 'blk.*.attn_output',
  'layers.*.ffn_norm': 'blk.*.ffn_norm',
  'layers.*.w1': 'blk.*.ffn_up',
  'layers.*.w2': 'blk.*.ffn_down',
  norm: 'output_norm',
  output: 'output',
}

/** As llama.cpp's converter writes it; the file does not say which form of GELU it is, and Pythia's is the exact one. */
function readGguf(keys: GgufKeys, facts: GgufFacts): Reading {
  const dim = keys.size('embedding_length', LIMITS.dim)
  const n_heads = keys.size('attention.head_count', LIMITS.heads)
  const head_dim = Math.floor(dim / n_heads)
  const context_length = keys.size('context_length', LIMITS.context)
  const rope_dims = keys.size('rope.dimension_count', LIMITS.head_dim, head_dim)
  const parallel = keys.get('use_parallel_residual') ?? true
  if (typeof parallel !== 'boolean') throw keys.unsupported('use_parallel_residual')
  for (const key of ['attention.key_length', 'attention.value_length']) keys.mustBe(key, head_dim)
  keys.mustBe('attention.head_count_kv', n_heads)
  keys.mustBe('attention.causal', true)
  keys.mustBe('attention.clamp_kqv', 0)
  keys.mustBe('attention.max_alibi_bias', 0)
  const structure: ModelStructure = withDefaults({
    architecture: 'gpt_neox',
    vocab_size: facts.vocab_size,
    dim,
    hidden_dim: keys.size('feed_forward_length', LIMITS.dim),
    n_layers: keys.size('block_count', LIMITS.layers),
    n_heads,
    n_kv_heads: n_heads,
    head_dim,
    context_length,
    norm_eps: shortest(keys.number('attention.layer_norm_epsilon')),
    norm: 'layer',
    norm_bias: true,
    feed_forward: 'plain',
    activation: 'gelu',
    parallel_residual: parallel,
    rope_theta: shortest(keys.number('rope.freq_base', 10000)),
    rope_style: 'half',
    rope_dims,
    rope_scaling: readGgufRope(keys, facts.rope_factors, { rope_dims, context: context_length }),
    tied_head: facts.tied_head,
  })
  return { structure, biases: OPTIONAL_BIASES }
}

function isOn(config: HfFields, key: string): boolean {
  return config.get(key) === undefined || config.flag(key)
}

function read(config: HfFields): Reading {
  const dim = config.size('hidden_size', LIMITS.dim)
  const n_heads = config.size('num_attention_heads', LIMITS.heads)
  const head_dim = Math.floor(dim / n_heads)
  const context_length = config.size('max_position_embeddings', LIMITS.context, 2048)
  const structure: ModelStructure = withDefaults({
    architecture: 'gpt_neox',
    vocab_size: config.size('vocab_size', LIMITS.vocab),
    dim,
    hidden_dim: config.size('intermediate_size', LIMITS.dim),
    n_layers: config.size('num_hidden_layers', LIMITS.layers),
    n_heads,
    n_kv_heads: n_heads,
    head_dim,
    context_length,
    norm_eps: config.number('layer_norm_eps', 1e-5),
    norm: 'layer',
    norm_bias: true,
    feed_forward: 'plain',
    activation: readActivation(config),
    parallel_residual: isOn(config, 'use_parallel_residual'),
    rope_style: 'half',
    ...readRotation(config, head_dim, context_length),
    tied_head: config.flag('tie_word_embeddings'),
  })
  return { structure, biases: biasesOf([...(isOn(config, 'attention_bias') ? ATTENTION : []), 'w1', 'w2']) }
}

export const gptNeox: Architecture = {
  name: 'gpt_neox',
  title: 'GPT-NeoX',
  huggingFace: {
    modelTypes: ['gpt_neox'],
    names: NAMES,
    basePrefix: 'gpt_neox.',
    fused: { roles: QKV, by: 'head' },
    // Masks and tables of old checkpoints, which follow from the config.
    isIgnored: (name) => /\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$/.test(name),
    read,
  },
  gguf: {
    architectures: ['gptneox'],
    names: GGUF_NAMES,
    fused: { roles: QKV, by: 'matrix' },
    read: readGguf,
  },
}
