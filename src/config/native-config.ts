/**
 * The crossing of a model's header to the native loader: numbers instead of names. What crosses, as types and as values,
 * is here and nowhere else; binding/napi/objects.cpp reads it.
 */
import { OnebitError } from '../errors.js'
import type { Features, ModelConfig } from './config.js'
import { withDefaults } from './fields.js'
import type { LinearKind } from './kinds.js'
import { linearKind, ROLES, type TensorSpec } from './tensors.js'

/** One tensor of the file in tensorTable order, blobs left out. */
export interface NativeSlots {
  /** from the start of the file */
  offsets: Float64Array
  bytes: Float64Array
  crc32c: Uint32Array
}

export interface NativeLinearKind {
  form: 0 | 1 | 2 // dense, sign, grouped (q1_0)
  dtype: 0 | 1 | 2 | 3 // f32 f16 bf16 q8
  rank: number
  mid_scale: boolean
  layernorm: boolean
  bias: boolean
}

export interface NativeConfig {
  vocab_size: number
  dim: number
  hidden_dim: number
  n_layers: number
  n_heads: number
  n_kv_heads: number
  head_dim: number
  context_length: number
  norm_eps: number
  qk_norm: boolean
  tied_head: boolean
  rope: {
    interleaved: boolean
    theta: number
    scaling: 0 | 1 | 2 | 3 | 4 // none linear llama3 yarn factors
    factor: number
    low_freq_factor: number
    high_freq_factor: number
    original_context: number
    beta_fast: number
    beta_slow: number
    attention_factor: number
    factors: Float32Array
  }
  embedding: NativeLinearKind
  head: NativeLinearKind
  /** n_layers x 7, roles in the order wq wk wv wo w1 w2 w3 */
  linears: NativeLinearKind[]
}

const DTYPES = { f32: 0, f16: 1, bf16: 2, q8: 3 } as const
const SCALINGS = { none: 0, linear: 1, llama3: 2, yarn: 3, factors: 4 } as const

function nativeKind(kind: LinearKind): NativeLinearKind {
  const plain = { form: 0, dtype: 0, rank: 0, mid_scale: false, layernorm: false, bias: kind.bias } as const
  switch (kind.kind) {
    case 'dense':
      return { ...plain, dtype: DTYPES[kind.dtype] }
    case 'sign':
      return { ...plain, form: 1, rank: kind.rank, mid_scale: kind.mid_scale, layernorm: kind.layernorm }
    case 'q1_0':
      return { ...plain, form: 2 }
  }
}

function nativeRope(config: ModelConfig): NativeConfig['rope'] {
  const { rope_scaling: scaling } = config
  return {
    interleaved: config.rope_style === 'interleaved',
    theta: config.rope_theta,
    scaling: SCALINGS[scaling.type],
    factor: 'factor' in scaling ? scaling.factor : 1,
    low_freq_factor: scaling.type === 'llama3' ? scaling.low_freq_factor : 1,
    high_freq_factor: scaling.type === 'llama3' ? scaling.high_freq_factor : 4,
    original_context: 'original_context' in scaling ? scaling.original_context : 0,
    beta_fast: scaling.type === 'yarn' ? scaling.beta_fast : 32,
    beta_slow: scaling.type === 'yarn' ? scaling.beta_slow : 1,
    attention_factor: scaling.type === 'yarn' ? scaling.attention_factor : 0,
    factors: Float32Array.from(scaling.type === 'factors' ? scaling.factors : []),
  }
}

/** Features that the engine computes only as they are by default. */
const NOT_IN_THE_ENGINE = [
  'norm',
  'norm_bias',
  'positions',
  'position_offset',
  'rope_dims',
  'attention_inner_norm',
  'window',
  'output_gate',
  'feed_forward',
  'activation',
  'ffn_inner_norm',
] as const satisfies readonly (keyof Features)[]

function checkFeatures(config: ModelConfig): void {
  const { architecture, head_dim } = config
  const defaults = withDefaults<{ architecture: string; head_dim: number }>({ architecture, head_dim })
  for (const name of NOT_IN_THE_ENGINE) {
    if (config[name] === defaults[name]) continue
    throw new OnebitError(
      'ERR_UNSUPPORTED_FEATURE',
      `The engine does not compute models with ${name} ${config[name]}`,
      {
        hint: 'A newer onebit-run may.',
      },
    )
  }
}

/** @throws OnebitError ERR_UNSUPPORTED_FEATURE, naming the field that the engine does not know */
export function nativeConfig(config: ModelConfig): NativeConfig {
  checkFeatures(config)
  const linears: NativeLinearKind[] = []
  for (let layer = 0; layer < config.n_layers; layer++) {
    for (const role of ROLES) linears.push(nativeKind(linearKind(config, layer, role)))
  }
  return {
    vocab_size: config.vocab_size,
    dim: config.dim,
    hidden_dim: config.hidden_dim,
    n_layers: config.n_layers,
    n_heads: config.n_heads,
    n_kv_heads: config.n_kv_heads,
    head_dim: config.head_dim,
    context_length: config.context_length,
    norm_eps: config.norm_eps,
    qk_norm: config.qk_norm,
    tied_head: config.tied_head,
    rope: nativeRope(config),
    embedding: nativeKind(config.embedding),
    head: nativeKind(config.head),
    linears,
  }
}

/** Where the weights are; blobs are TypeScript's business. */
export function nativeSlots(
  tensors: readonly { spec: TensorSpec; offset: number; bytes: number; crc32c: number }[],
): NativeSlots {
  const weights = tensors.filter(({ spec }) => spec.part !== 'blob')
  return {
    offsets: Float64Array.from(weights, ({ offset }) => offset),
    bytes: Float64Array.from(weights, ({ bytes }) => bytes),
    crc32c: Uint32Array.from(weights, ({ crc32c }) => crc32c),
  }
}
