/**
 * The crossing of a model's header to the native loader: numbers instead of words, names where order could lie. What
 * crosses, as types and as values, is here and nowhere else; binding/napi/config.cpp reads it.
 */
import type { ModelConfig } from './config.js'
import type { LinearKind } from './kinds.js'
import { kindOf, modelParts, type TensorDtype, type TensorSpec } from './tensors.js'

/** The fields of a config, features included, by their own names. Words are their place in WORDS. */
export interface NativeConfig
  extends Omit<
    ModelConfig,
    'architecture' | 'embedding' | 'head' | 'linears' | 'rope_scaling' | 'delta_layers' | keyof typeof WORDS
  > {
  delta_layers: Int32Array
  delta_head_order: number
  rope_style: number
  norm: number
  positions: number
  feed_forward: number
  activation: number
  rope_scaling: {
    type: number
    factor: number
    low_freq_factor: number
    high_freq_factor: number
    original_context: number
    beta_fast: number
    beta_slow: number
    attention_factor: number
    factors: Float32Array
  }
}

/** The kind of every matrix. */
export interface NativeKinds {
  /** one a line: layers.0.wq */
  names: string
  kinds: NativeLinearKind[]
}

export interface NativeLinearKind {
  form: 0 | 1 | 2 | 3 // dense, sign, grouped (q1_0), ternary
  dtype: 0 | 1 | 2 | 3 // f32 f16 bf16 q8
  /** ternary: columns of a scale; 0: the row has one */
  group: number
  rank: number
  mid_scale: boolean
  layernorm: boolean
  column: boolean
  half: boolean
  bias: boolean
  norm_in: boolean
  /** the block; 0: not rotated */
  rotation: number
  rotation_signs: boolean
}

/** Where the weights are in a file, blobs left out. The engine asks for each by its name. */
export interface NativeTensors {
  /** one a line: layers.0.wq.sign */
  names: string
  types: Int32Array
  /** from the start of the file */
  offsets: Float64Array
  bytes: Float64Array
  crc32c: Uint32Array
}

/** In the order of the native enumerations. */
const WORDS = {
  rope_style: ['half', 'interleaved'],
  norm: ['rms', 'layer'],
  positions: ['rotary', 'learned'],
  feed_forward: ['gated', 'plain'],
  activation: ['silu', 'relu', 'relu2', 'gelu', 'gelu_tanh'],
  delta_head_order: ['grouped', 'tiled'],
} as const
const SCALINGS = ['none', 'linear', 'llama3', 'yarn', 'factors'] as const
const DTYPES = { f32: 0, f16: 1, bf16: 2, q8: 3 } as const
const FILE_TYPES: readonly TensorDtype[] = ['F32', 'F16', 'BF16', 'I8', 'U8']

function nativeKind(kind: LinearKind): NativeLinearKind {
  const front = {
    norm_in: kind.norm_in === true,
    rotation: kind.rotation?.block ?? 0,
    rotation_signs: kind.rotation?.signs === true,
  }
  const numbers = {
    form: 0,
    dtype: 0,
    group: 0,
    rank: 0,
    mid_scale: false,
    layernorm: false,
    column: false,
    half: false,
  } as const
  const plain = { ...numbers, bias: kind.bias, ...front }
  switch (kind.kind) {
    case 'dense':
      return { ...plain, dtype: DTYPES[kind.dtype] }
    case 'sign':
      return {
        ...plain,
        form: 1,
        rank: kind.rank,
        mid_scale: kind.mid_scale,
        layernorm: kind.layernorm,
        column: kind.column === true,
        half: kind.half === true,
      }
    case 'q1_0':
      return { ...plain, form: 2 }
    case 'ternary':
      return { ...plain, form: 3, group: kind.group }
  }
}

function nativeScaling({ rope_scaling: scaling }: ModelConfig): NativeConfig['rope_scaling'] {
  return {
    type: SCALINGS.indexOf(scaling.type),
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
  const { architecture: _source, embedding: _e, head: _h, linears: _l, ...numbers } = config
  const word = <K extends keyof typeof WORDS>(name: K) => (WORDS[name] as readonly string[]).indexOf(config[name])
  return {
    ...numbers,
    rope_style: word('rope_style'),
    norm: word('norm'),
    positions: word('positions'),
    feed_forward: word('feed_forward'),
    activation: word('activation'),
    delta_layers: Int32Array.from(config.delta_layers),
    delta_head_order: word('delta_head_order'),
    rope_scaling: nativeScaling(config),
  }
}

export function nativeKinds(config: ModelConfig): NativeKinds {
  const names: string[] = []
  const kinds: NativeLinearKind[] = []
  for (const part of modelParts(config)) {
    const kind = kindOf(config, part)
    if (kind === undefined) continue
    names.push(part.name)
    kinds.push(nativeKind(kind))
  }
  return { names: names.join('\n'), kinds }
}

export function nativeTensors(
  tensors: readonly { spec: TensorSpec; offset: number; bytes: number; crc32c: number }[],
): NativeTensors {
  const weights = tensors.filter(({ spec }) => spec.part !== 'blob')
  return {
    names: weights.map(({ spec }) => spec.name).join('\n'),
    types: Int32Array.from(weights, ({ spec }) => FILE_TYPES.indexOf(spec.dtype)),
    offsets: Float64Array.from(weights, ({ offset }) => offset),
    bytes: Float64Array.from(weights, ({ bytes }) => bytes),
    crc32c: Uint32Array.from(weights, ({ crc32c }) => crc32c),
  }
}
