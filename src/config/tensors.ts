/**
 * What a model is (ModelConfig) and which tensors that implies (tensorTable).
 *
 * This table is the only place that knows names, dtypes, shapes and their order. The writer lays a file out by it,
 * the reader compares a file with it, and the native loader walks its slots in the same order (binding/model/bind.cpp),
 * computing each size again from the config. Nothing else computes an offset.
 */
import { OnebitError } from '../errors.js'

export type DenseType = 'f32' | 'f16' | 'bf16' | 'q8'

/**
 * How one matrix is stored.
 * - dense: rows of f32, f16, bf16, or int8 with one f32 scale a row (q8).
 * - sign: (x * g) signᵀ * h, LayerNorm without weights if `layernorm`; with `rank` > 0 two sign matrices
 *   chained through a vector of that length (scaled by `mid` if `mid_scale`).
 * - q1_0: signs with one f16 scale per row and 128 columns (GGUF's Q1_0).
 */
export type LinearKind =
  | { kind: 'dense'; dtype: DenseType; bias: boolean }
  | { kind: 'sign'; rank: number; mid_scale: boolean; layernorm: boolean; bias: boolean }
  | { kind: 'q1_0'; bias: boolean }

export type RopeScaling =
  | { type: 'none' }
  | { type: 'linear'; factor: number }
  | { type: 'llama3'; factor: number; low_freq_factor: number; high_freq_factor: number; original_context: number }
  | {
      type: 'yarn'
      factor: number
      original_context: number
      beta_fast: number
      beta_slow: number
      /** 0: the usual 0.1 ln(factor) + 1 */
      attention_factor: number
    }
  /** each frequency divided by its factor (GGUF's rope_freqs.weight): head_dim / 2 numbers */
  | { type: 'factors'; factors: number[] }

export const ROLES = ['wq', 'wk', 'wv', 'wo', 'w1', 'w2', 'w3'] as const
export type Role = (typeof ROLES)[number]

export interface ModelConfig {
  architecture: 'llama' | 'qwen3'
  vocab_size: number
  /** width of the residual stream */
  dim: number
  /** feed-forward width */
  hidden_dim: number
  n_layers: number
  n_heads: number
  n_kv_heads: number
  head_dim: number
  context_length: number
  norm_eps: number
  rope_theta: number
  /** half: pairs (i, i + head_dim/2), as Hugging Face stores; interleaved: pairs (2i, 2i+1), as llama2.c and GGUF llama */
  rope_style: 'half' | 'interleaved'
  rope_scaling: RopeScaling
  tied_head: boolean
  embedding: LinearKind
  /** equal to `embedding` when tied */
  head: LinearKind
  /** kinds of the seven linears of every layer; a key "3.wq" overrides "wq" in layer 3 */
  linears: Record<string, LinearKind>
}

/** Caps, the same as binding/model/config.h: with them every product stays below 2^53 and int32 sums cannot overflow. */
export const LIMITS = {
  dim: 1 << 16,
  vocab: 1 << 20,
  layers: 1024,
  heads: 1024,
  head_dim: 1024,
  context: 1 << 22,
} as const

export type TensorDtype = 'F32' | 'F16' | 'BF16' | 'I8' | 'U8'

export interface TensorSpec {
  name: string
  dtype: TensorDtype
  shape: number[]
  /** what the numbers are, for `info` and for bits per weight */
  part: 'embedding' | 'head' | 'linear' | 'norm' | 'blob'
}

/** Sizes in bytes of the U8 tensors that hold JSON; 0: the tensor is not there. */
export interface Blobs {
  tokenizer: number
  chat_template: number
}

const DENSE_DTYPE = { f32: 'F32', f16: 'F16', bf16: 'BF16', q8: 'I8' } as const
const DTYPE_BYTES = { F32: 4, F16: 2, BF16: 2, I8: 1, U8: 1 } as const

export function tensorBytes(spec: Pick<TensorSpec, 'dtype' | 'shape'>): number {
  return spec.shape.reduce((product, size) => product * size, DTYPE_BYTES[spec.dtype])
}

export function linearKind(config: ModelConfig, layer: number, role: Role): LinearKind {
  const kind = config.linears[`${layer}.${role}`] ?? config.linears[role]
  if (!kind) throw new OnebitError('ERR_CONFIG', `config.linears has no kind for ${role}`)
  return kind
}

/** [rows, cols] of a linear: rows are output features. */
export function linearShape(config: ModelConfig, role: Role): [number, number] {
  const { dim, hidden_dim, n_heads, n_kv_heads, head_dim } = config
  switch (role) {
    case 'wq':
      return [n_heads * head_dim, dim]
    case 'wk':
    case 'wv':
      return [n_kv_heads * head_dim, dim]
    case 'wo':
      return [dim, n_heads * head_dim]
    case 'w1':
    case 'w3':
      return [hidden_dim, dim]
    case 'w2':
      return [dim, hidden_dim]
  }
}

/** The tensors of one matrix, in file order. */
export function matrixTensors(
  name: string,
  kind: LinearKind,
  rows: number,
  cols: number,
  part: TensorSpec['part'],
): TensorSpec[] {
  const tensor = (suffix: string, dtype: TensorDtype, ...shape: number[]): TensorSpec => ({
    name: `${name}.${suffix}`,
    dtype,
    shape,
    part,
  })
  const bias = kind.bias ? [tensor('bias', 'F32', rows)] : []
  switch (kind.kind) {
    case 'dense': {
      const scale = kind.dtype === 'q8' ? [tensor('scale', 'F32', rows)] : []
      return [tensor('weight', DENSE_DTYPE[kind.dtype], rows, cols), ...scale, ...bias]
    }
    case 'q1_0':
      return [tensor('sign', 'U8', rows, cols / 8), tensor('scale', 'F16', rows, cols / 128), ...bias]
    case 'sign': {
      if (kind.rank === 0) {
        return [tensor('g', 'F32', cols), tensor('sign', 'U8', rows, cols / 8), tensor('h', 'F32', rows), ...bias]
      }
      const mid = kind.mid_scale ? [tensor('mid', 'F32', kind.rank)] : []
      return [
        tensor('g', 'F32', cols),
        tensor('sign1', 'U8', kind.rank, cols / 8),
        ...mid,
        tensor('sign2', 'U8', rows, kind.rank / 8),
        tensor('h', 'F32', rows),
        ...bias,
      ]
    }
  }
}

/** Every tensor of a model in file order: each has exactly one legal name, dtype and shape. */
export function tensorTable(config: ModelConfig, blobs: Blobs): TensorSpec[] {
  const norm = (name: string, size: number): TensorSpec => ({ name, dtype: 'F32', shape: [size], part: 'norm' })
  const table = matrixTensors('tok_embeddings', config.embedding, config.vocab_size, config.dim, 'embedding')
  for (let layer = 0; layer < config.n_layers; layer++) {
    const prefix = `layers.${layer}`
    const linear = (role: Role) => {
      const [rows, cols] = linearShape(config, role)
      return matrixTensors(`${prefix}.${role}`, linearKind(config, layer, role), rows, cols, 'linear')
    }
    table.push(norm(`${prefix}.attention_norm`, config.dim), ...linear('wq'), ...linear('wk'), ...linear('wv'))
    if (config.architecture === 'qwen3') {
      table.push(norm(`${prefix}.q_norm`, config.head_dim), norm(`${prefix}.k_norm`, config.head_dim))
    }
    table.push(...linear('wo'), norm(`${prefix}.ffn_norm`, config.dim))
    table.push(...linear('w1'), ...linear('w2'), ...linear('w3'))
  }
  table.push(norm('norm', config.dim))
  if (!config.tied_head) {
    table.push(...matrixTensors('output', config.head, config.vocab_size, config.dim, 'head'))
  }
  for (const name of ['tokenizer', 'chat_template'] as const) {
    if (blobs[name] > 0) table.push({ name, dtype: 'U8', shape: [blobs[name]], part: 'blob' })
  }
  return table
}
