/** A model's header as the native loader wants it: numbers instead of names. */

import type { NativeConfig, NativeLinearKind, NativeSlots } from '../native/native.js'
import type { ObtTensor } from '../obt/obt.js'
import { type LinearKind, linearKind, type ModelConfig, ROLES } from './architecture.js'

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

export function nativeConfig(config: ModelConfig): NativeConfig {
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
    qk_norm: config.architecture === 'qwen3',
    tied_head: config.tied_head,
    rope: nativeRope(config),
    embedding: nativeKind(config.embedding),
    head: nativeKind(config.head),
    linears,
  }
}

/** Where the weights are; blobs are TypeScript's business. */
export function nativeSlots(tensors: readonly ObtTensor[]): NativeSlots {
  const weights = tensors.filter(({ spec }) => spec.part !== 'blob')
  return {
    offsets: Float64Array.from(weights, ({ offset }) => offset),
    bytes: Float64Array.from(weights, ({ bytes }) => bytes),
    crc32c: Uint32Array.from(weights, ({ crc32c }) => crc32c),
  }
}
