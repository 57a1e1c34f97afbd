/**
 * The one table of tensors: which a model consists of, under which names, dtypes and shapes, and in which order. The
 * writer lays a file out by it, the reader compares a file with it, importers take their tensors by it, and the native
 * loader (binding/model/bind.cpp) asks for each by its name, computing its size again from the config.
 */
import { OnebitError } from '../errors.js'
import type { ModelConfig, ModelStructure } from './config.js'
import type { LinearKind } from './kinds.js'

/** The linears of layers: of attention, of the feed-forward, and (from w_qkv on) of the delta rule. */
export const ROLES = ['wq', 'wk', 'wv', 'wo', 'w1', 'w2', 'w3', 'w_qkv', 'w_z', 'w_beta', 'w_alpha', 'w_out'] as const
export type Role = (typeof ROLES)[number]

/** What a tensor of one part of the computation belongs to. */
type PartOf = Exclude<TensorPart, 'rotation' | 'blob'>

/** Signs of the rotation in front of matrices that have so many columns. */
export const rotationSigns = (cols: number) => `rotation_signs.${cols}`

/** Numbers of a tensor, as safetensors names them. Signs and codes are U8: several in a byte. */
export type TensorDtype = 'F32' | 'F16' | 'BF16' | 'I8' | 'U8'

/**
 * What a tensor belongs to. `rotation`: signs of a rotation in front of matrices; `blob`: JSON of the tokenizer or the chat
 * template.
 */
export type TensorPart = 'embedding' | 'positions' | 'norm' | 'linear' | 'recurrence' | 'head' | 'rotation' | 'blob'

/** A tensor of a file, without where it lies. */
export interface TensorSpec {
  /** such as layers.3.wq.sign */
  name: string
  /** what its numbers are */
  dtype: TensorDtype
  /** rows first; of signs and codes the last size counts bytes */
  shape: number[]
  /** what the numbers are, for `info` and for bits per weight */
  part: TensorPart
}

/** Sizes in bytes of the U8 tensors that hold JSON; 0: the tensor is not there. */
export interface Blobs {
  /** of a Hugging Face tokenizer.json and what is used of tokenizer_config.json */
  tokenizer: number
  /** of the template and the names of its special tokens */
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

type Layers = Pick<ModelStructure, 'feed_forward'> & Partial<Pick<ModelStructure, 'delta_layers' | 'n_layers'>>

const OF_ATTENTION: readonly Role[] = ['wq', 'wk', 'wv', 'wo']
const OF_DELTA: readonly Role[] = ['w_qkv', 'w_z', 'w_beta', 'w_alpha', 'w_out']

function rolesWithout(absent: readonly Role[], { feed_forward }: Layers): readonly Role[] {
  return ROLES.filter((role) => !absent.includes(role) && (role !== 'w3' || feed_forward === 'gated'))
}

/** The linears that some layer has. */
export function rolesOf(config: Layers): readonly Role[] {
  const deltas = config.delta_layers?.length ?? 0
  return rolesWithout(deltas === 0 ? OF_DELTA : deltas === config.n_layers ? OF_ATTENTION : [], config)
}

/** The linears of one layer. */
export function layerRoles(config: Layers, layer: number): readonly Role[] {
  return rolesWithout(config.delta_layers?.includes(layer) ? OF_ATTENTION : OF_DELTA, config)
}

/** They decide how much a state forgets and learns, for good, and are small: rounded they would save nothing. */
export const GATE_ROLES: readonly Role[] = ['w_beta', 'w_alpha']

/** Queries, keys and values of all heads of a delta rule, one after the other, and the last of them alone. */
export function deltaWidths(config: ModelStructure): { channels: number; inner: number } {
  const inner = config.delta_v_heads * config.delta_v_dim
  return { channels: 2 * config.delta_k_heads * config.delta_k_dim + inner, inner }
}

/** [rows, cols] of a linear: rows are output features. */
export function linearShape(config: ModelStructure, role: Role): [number, number] {
  const { dim, hidden_dim, n_heads, n_kv_heads, head_dim, output_gate } = config
  switch (role) {
    case 'wq':
      return [(output_gate ? 2 : 1) * n_heads * head_dim, dim]
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
    case 'w_qkv':
      return [deltaWidths(config).channels, dim]
    case 'w_z':
      return [deltaWidths(config).inner, dim]
    case 'w_beta':
    case 'w_alpha':
      return [config.delta_v_heads, dim]
    case 'w_out':
      return [dim, deltaWidths(config).inner]
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
  if (kind.norm_in) {
    const { norm_in: _, ...rest } = kind
    return [tensor('norm_in', 'F32', cols), ...matrixTensors(name, rest, rows, cols, part)]
  }
  switch (kind.kind) {
    case 'dense': {
      const scale = kind.dtype === 'q8' ? [tensor('scale', 'F32', rows)] : []
      return [tensor('weight', DENSE_DTYPE[kind.dtype], rows, cols), ...scale, ...bias]
    }
    case 'q1_0':
      return [tensor('sign', 'U8', rows, cols / 8), tensor('scale', 'F16', rows, cols / 128), ...bias]
    case 'ternary': {
      const { group } = kind
      const scale = group === 0 ? tensor('scale', 'F32', rows) : tensor('scale', 'F16', rows, cols / group)
      return [tensor('codes', 'U8', rows, cols / 4), scale, ...bias]
    }
    case 'sign': {
      const floats = (suffix: string, length: number) => tensor(suffix, kind.half ? 'F16' : 'F32', length)
      const behind = [floats('h', rows), ...(kind.column ? [floats('u', rows), floats('v', cols)] : []), ...bias]
      if (kind.rank === 0) return [floats('g', cols), tensor('sign', 'U8', rows, cols / 8), ...behind]
      const mid = kind.mid_scale ? [floats('mid', kind.rank)] : []
      const halves = [tensor('sign1', 'U8', kind.rank, cols / 8), ...mid, tensor('sign2', 'U8', rows, kind.rank / 8)]
      return [floats('g', cols), ...halves, ...behind]
    }
  }
}

/** A matrix or a vector of a model, whatever it is stored as. */
export interface ModelPart {
  /** such as tok_embeddings, layers.0.wq, layers.0.attention_norm or layers.0.attention_norm.bias */
  name: string
  part: PartOf
  /** [rows, cols] of a matrix, [length] of a vector */
  shape: [number, number] | [number]
  /** of a linear */
  linear?: { layer: number; role: Role }
}

function* norm(config: ModelStructure, name: string, length: number): Generator<ModelPart> {
  yield { name, part: 'norm', shape: [length] }
  if (config.norm_bias) yield { name: `${name}.bias`, part: 'norm', shape: [length] }
}

function* layerParts(config: ModelStructure, layer: number): Generator<ModelPart> {
  const prefix = `layers.${layer}`
  const linear = (role: Role): ModelPart => {
    return { name: `${prefix}.${role}`, part: 'linear', shape: linearShape(config, role), linear: { layer, role } }
  }
  yield* norm(config, `${prefix}.attention_norm`, config.dim)
  if (config.delta_layers.includes(layer)) yield* deltaParts(config, prefix, linear)
  else yield* attentionParts(config, prefix, linear)
  yield* norm(config, `${prefix}.ffn_norm`, config.dim)
  yield linear('w1')
  if (config.ffn_inner_norm) yield* norm(config, `${prefix}.ffn_inner_norm`, config.hidden_dim)
  yield linear('w2')
  if (config.feed_forward === 'gated') yield linear('w3')
}

type LinearPart = (role: Role) => ModelPart

function* attentionParts(config: ModelStructure, prefix: string, linear: LinearPart): Generator<ModelPart> {
  yield linear('wq')
  yield linear('wk')
  yield linear('wv')
  if (config.qk_norm) {
    yield { name: `${prefix}.q_norm`, part: 'norm', shape: [config.head_dim] }
    yield { name: `${prefix}.k_norm`, part: 'norm', shape: [config.head_dim] }
  }
  if (config.attention_inner_norm) {
    yield* norm(config, `${prefix}.attention_inner_norm`, config.n_heads * config.head_dim)
  }
  yield linear('wo')
}

/** conv: a filter of each channel, the oldest token first; decay: what softplus is multiplied by, so mostly negative. */
function* deltaParts(config: ModelStructure, prefix: string, linear: LinearPart): Generator<ModelPart> {
  yield linear('w_qkv')
  yield linear('w_z')
  yield linear('w_beta')
  yield linear('w_alpha')
  const { channels } = deltaWidths(config)
  yield { name: `${prefix}.conv`, part: 'recurrence', shape: [channels, config.delta_conv] }
  yield { name: `${prefix}.decay`, part: 'recurrence', shape: [config.delta_v_heads] }
  yield { name: `${prefix}.time_bias`, part: 'recurrence', shape: [config.delta_v_heads] }
  yield { name: `${prefix}.delta_norm`, part: 'norm', shape: [config.delta_v_dim] }
  yield linear('w_out')
}

/** Everything a model consists of, in file order. */
export function* modelParts(config: ModelStructure): Generator<ModelPart> {
  const { vocab_size, dim, context_length, position_offset } = config
  yield { name: 'tok_embeddings', part: 'embedding', shape: [vocab_size, dim] }
  if (config.positions === 'learned') {
    yield { name: 'position_embeddings', part: 'positions', shape: [context_length + position_offset, dim] }
  }
  for (let layer = 0; layer < config.n_layers; layer++) yield* layerParts(config, layer)
  yield* norm(config, 'norm', dim)
  if (!config.tied_head) yield { name: 'output', part: 'head', shape: [vocab_size, dim] }
}

/** The kind of a part that is stored as some kind; everything else is always f32. */
export function kindOf(config: ModelConfig, { part, linear }: ModelPart): LinearKind | undefined {
  if (linear !== undefined) return linearKind(config, linear.layer, linear.role)
  if (part === 'embedding') return config.embedding
  return part === 'head' ? config.head : undefined
}

/** Every tensor of a model in file order: each has exactly one legal name, dtype and shape. */
export function tensorTable(config: ModelConfig, blobs: Blobs): TensorSpec[] {
  const table: TensorSpec[] = []
  const signedWidths = new Set<number>()
  for (const piece of modelParts(config)) {
    const { name, part, shape } = piece
    const kind = kindOf(config, piece)
    if (kind === undefined) table.push({ name, dtype: 'F32', shape, part })
    else table.push(...matrixTensors(name, kind, shape[0], shape[1]!, part))
    if (kind?.rotation?.signs) signedWidths.add(shape[1]!)
  }
  // The matrices of a width share their signs, so one tensor holds them and none can differ from another.
  for (const cols of [...signedWidths].sort((a, b) => a - b)) {
    table.push({ name: rotationSigns(cols), dtype: 'U8', shape: [Math.ceil(cols / 8)], part: 'rotation' })
  }
  for (const name of ['tokenizer', 'chat_template'] as const) {
    if (blobs[name] > 0) table.push({ name, dtype: 'U8', shape: [blobs[name]], part: 'blob' })
  }
  return table
}
