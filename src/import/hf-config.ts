/** A Hugging Face `config.json` as our config: which models are the same computation, and which only look like it. */
import { LIMITS, type ModelConfig, type RopeScaling } from '../config/architecture.js'
import { OnebitError } from '../errors.js'
import { shown } from '../shown-value.js'
import { badSource, checkDimension, unsupportedArchitecture } from './source.js'

export type Fields = Record<string, unknown>

export function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export interface HfConfig {
  model_type: 'llama' | 'qwen3' | 'mistral' | 'bitllama'
  config: Omit<ModelConfig, 'embedding' | 'head' | 'linears'>
  /** a bias must be there (not: may be there) on q, k, v and o, and on the three of the feed-forward */
  attention_bias: boolean
  mlp_bias: boolean
}

const MODEL_TYPES = ['llama', 'qwen3', 'mistral', 'bitllama'] as const

/** A field that may be left out or null. */
function optional(fields: Fields, key: string): unknown {
  return fields[key] ?? undefined
}

function number(fields: Fields, key: string, fallback?: number): number {
  const value = optional(fields, key) ?? fallback
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw badSource(`config.json: ${key} must be a number, found ${shown(fields[key])}`)
  }
  return value
}

function unsupportedRope(problem: string): OnebitError {
  return new OnebitError('ERR_UNSUPPORTED_ROPE', `config.json: ${problem}`, {
    hint: 'RoPE scaling of the types linear, llama3 and yarn can be converted.',
  })
}

/** YaRN's 0.1 m ln(factor) + 1 */
function yarnMagnitude(factor: number, mscale: number): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1
}

function yarn(rope: Fields, maxPositions: number): RopeScaling {
  const original_context = number(rope, 'original_max_position_embeddings', maxPositions)
  const factor = number(rope, 'factor', maxPositions / original_context)
  if (optional(rope, 'truncate') === false) throw unsupportedRope('yarn with truncate: false')
  let attention_factor = number(rope, 'attention_factor', 0)
  const [mscale, all] = [number(rope, 'mscale', 0), number(rope, 'mscale_all_dim', 0)]
  if (attention_factor === 0 && mscale !== 0 && all !== 0) {
    attention_factor = yarnMagnitude(factor, mscale) / yarnMagnitude(factor, all)
  }
  const beta_fast = number(rope, 'beta_fast', 32)
  return {
    type: 'yarn',
    factor,
    original_context,
    beta_fast,
    beta_slow: number(rope, 'beta_slow', 1),
    attention_factor,
  }
}

/** `rope_scaling` of old configs and `rope_parameters` of new ones say the same in different places. */
function ropeOf(root: Fields, maxPositions: number): { theta: number; scaling: RopeScaling } {
  const parameters = optional(root, 'rope_parameters')
  const rope = parameters ?? optional(root, 'rope_scaling') ?? {}
  if (!isObject(rope)) throw badSource('config.json: rope_scaling must be an object')
  const theta = number(isObject(parameters) ? { ...root, ...parameters } : root, 'rope_theta', 10000)
  if (number({ ...root, ...rope }, 'partial_rotary_factor', 1) !== 1) throw unsupportedRope('partial_rotary_factor')
  const type = optional(rope, 'rope_type') ?? optional(rope, 'type') ?? 'default'
  const factor = () => number(rope, 'factor')
  switch (type) {
    case 'default':
    case 'none':
      return { theta, scaling: { type: 'none' } }
    case 'linear':
      return { theta, scaling: { type: 'linear', factor: factor() } }
    case 'llama3': {
      const [low_freq_factor, high_freq_factor] = [number(rope, 'low_freq_factor'), number(rope, 'high_freq_factor')]
      const original_context = number(rope, 'original_max_position_embeddings')
      return {
        theta,
        scaling: { type: 'llama3', factor: factor(), low_freq_factor, high_freq_factor, original_context },
      }
    }
    case 'yarn':
      return { theta, scaling: yarn(rope, maxPositions) }
    default:
      throw unsupportedRope(`RoPE scaling of type ${shown(type)}`)
  }
}

/** Things that change the computation but not the tensors: taking no notice of them would be silently wrong. */
function checkComputation(root: Fields, model_type: string): void {
  const act = optional(root, 'hidden_act') ?? 'silu'
  if (act !== 'silu' && act !== 'swish') throw unsupportedArchitecture(`${model_type} with hidden_act ${shown(act)}`)
  if (optional(root, 'quantization_config') !== undefined) {
    throw new OnebitError(
      'ERR_UNSUPPORTED_TENSOR_TYPE',
      'config.json: the weights are quantised (quantization_config)',
      {
        hint: 'Convert the original model instead.',
      },
    )
  }
  const window = optional(root, 'sliding_window')
  const uses = model_type === 'mistral' ? window !== undefined : optional(root, 'use_sliding_window') === true
  if (uses) throw unsupportedArchitecture(`${model_type} with a sliding window of ${shown(window)} tokens`)
}

/**
 * @throws OnebitError ERR_UNSUPPORTED_ARCHITECTURE, ERR_UNSUPPORTED_ROPE, ERR_UNSUPPORTED_TENSOR_TYPE, ERR_BAD_SOURCE
 */
export function parseHfConfig(root: unknown): HfConfig {
  if (!isObject(root)) throw badSource('config.json is not an object')
  const model_type = MODEL_TYPES.find((known) => known === root.model_type)
  if (model_type === undefined)
    throw unsupportedArchitecture(JSON.stringify(root.model_type)?.slice(0, 60) ?? 'unnamed')
  checkComputation(root, model_type)
  const size = (key: string, max: number, fallback?: number) =>
    checkDimension(`config.json: ${key}`, optional(root, key) ?? fallback, max)
  const dim = size('hidden_size', LIMITS.dim)
  const n_heads = size('num_attention_heads', LIMITS.heads)
  const context_length = size('max_position_embeddings', LIMITS.context, model_type === 'qwen3' ? 32768 : 2048)
  const { theta, scaling } = ropeOf(root, context_length)
  return {
    model_type,
    attention_bias: root.attention_bias === true,
    mlp_bias: root.mlp_bias === true,
    config: {
      architecture: model_type === 'qwen3' ? 'qwen3' : 'llama',
      vocab_size: size('vocab_size', LIMITS.vocab),
      dim,
      hidden_dim: size('intermediate_size', LIMITS.dim),
      n_layers: size('num_hidden_layers', LIMITS.layers),
      n_heads,
      n_kv_heads: size('num_key_value_heads', LIMITS.heads, n_heads),
      head_dim: size('head_dim', LIMITS.head_dim, model_type === 'qwen3' ? 128 : Math.floor(dim / n_heads)),
      context_length,
      norm_eps: number(root, 'rms_norm_eps', 1e-6),
      rope_theta: theta,
      rope_style: 'half',
      rope_scaling: scaling,
      tied_head: root.tie_word_embeddings === true,
    },
  }
}
