/**
 * OPT (Zhang et al. 2022, arXiv 2205.01068), which the OneBit paper trains from 1.3B on: LayerNorm with a bias before each
 * part, learned positions from row 2 of their table on, ReLU between two matrices, biases everywhere.
 */
import type { ModelStructure } from '../config/config.js'
import { withDefaults } from '../config/fields.js'
import { LIMITS } from '../config/limits.js'
import type { HfFields } from '../import/hf-fields.js'
import { unsupportedArchitecture } from '../import/source.js'
import { shown } from '../shown-value.js'
import type { Architecture, Reading, TensorNames } from './architecture.js'
import { ATTENTION, biasesOf } from './llama-family.js'

const NAMES: TensorNames = {
  tok_embeddings: 'model.decoder.embed_tokens',
  position_embeddings: 'model.decoder.embed_positions',
  'layers.*.attention_norm': 'model.decoder.layers.*.self_attn_layer_norm',
  'layers.*.wq': 'model.decoder.layers.*.self_attn.q_proj',
  'layers.*.wk': 'model.decoder.layers.*.self_attn.k_proj',
  'layers.*.wv': 'model.decoder.layers.*.self_attn.v_proj',
  'layers.*.wo': 'model.decoder.layers.*.self_attn.out_proj',
  'layers.*.ffn_norm': 'model.decoder.layers.*.final_layer_norm',
  'layers.*.w1': 'model.decoder.layers.*.fc1',
  'layers.*.w2': 'model.decoder.layers.*.fc2',
  norm: 'model.decoder.final_layer_norm',
  output: 'lm_head',
}

/** Of the table of positions: the first rows were meant for padding. */
const POSITION_OFFSET = 2
/** Of torch's LayerNorm; the config has no key for it. */
const NORM_EPS = 1e-5

/** Keys of models that compute something else: OPT-350M has its norms behind each part and a narrower embedding. */
function checkComputation(config: HfFields, dim: number): void {
  const wrong = (key: string) => unsupportedArchitecture(`opt with ${key} ${shown(config.get(key))}`)
  if (config.get('do_layer_norm_before') === false) throw wrong('do_layer_norm_before')
  if (config.get('_remove_final_layer_norm') === true) throw wrong('_remove_final_layer_norm')
  if (config.get('layer_norm_elementwise_affine') === false) throw wrong('layer_norm_elementwise_affine')
  if ((config.get('word_embed_proj_dim') ?? dim) !== dim) throw wrong('word_embed_proj_dim')
}

function readActivation(config: HfFields): 'relu' | 'gelu' {
  const found = config.get('activation_function') ?? 'relu'
  if (found === 'relu' || found === 'gelu') return found
  throw unsupportedArchitecture(`opt with activation_function ${shown(found)}`)
}

function read(config: HfFields): Reading {
  const dim = config.size('hidden_size', LIMITS.dim)
  checkComputation(config, dim)
  const n_heads = config.size('num_attention_heads', LIMITS.heads)
  const structure: ModelStructure = withDefaults({
    architecture: 'opt',
    vocab_size: config.size('vocab_size', LIMITS.vocab),
    dim,
    hidden_dim: config.size('ffn_dim', LIMITS.dim),
    n_layers: config.size('num_hidden_layers', LIMITS.layers),
    n_heads,
    n_kv_heads: n_heads,
    head_dim: Math.floor(dim / n_heads),
    context_length: config.size('max_position_embeddings', LIMITS.context, 2048),
    norm_eps: NORM_EPS,
    norm: 'layer',
    norm_bias: true,
    positions: 'learned',
    position_offset: POSITION_OFFSET,
    feed_forward: 'plain',
    activation: readActivation(config),
    rope_theta: 10000,
    rope_style: 'half',
    rope_scaling: { type: 'none' },
    tied_head: config.has('tie_word_embeddings') ? config.flag('tie_word_embeddings') : true,
  })
  const hasBias = config.get('enable_bias') === undefined || config.flag('enable_bias')
  return { structure, biases: biasesOf(hasBias ? [...ATTENTION, 'w1', 'w2'] : []) }
}

export const opt: Architecture = {
  name: 'opt',
  title: 'OPT',
  huggingFace: {
    modelTypes: ['opt'],
    names: NAMES,
    basePrefix: 'model.',
    // A number that fairseq, from which the first checkpoints were converted, kept in its decoders.
    isIgnored: (name) => /^(model\.)?decoder\.version$/.test(name),
    read,
  },
}
