/**
 * Models without a file: the shapes of well-known models, what their matrices may be stored as, and how many bytes
 * decoding one token reads. What `onebit bench --shape … --type …` needs; random-model.ts fills them with noise.
 */

import type { Features, ModelConfig, WrittenConfig } from '../config/config.js'
import { withDefaults } from '../config/fields.js'
import { columnUnit, type LinearKind, TERNARY_GROUPS, type TernaryGroup } from '../config/kinds.js'
import { GATE_ROLES, linearShape, type Role, rolesOf, tensorBytes, tensorTable } from '../config/tensors.js'
import { badOption, OnebitError } from '../errors.js'
import type { KvType } from '../run/session.js'

/** The numbers of a model and what its computation has beside a Llama's, without how its matrices are stored. */
export type Shape = Pick<
  ModelConfig,
  'vocab_size' | 'dim' | 'hidden_dim' | 'n_layers' | 'n_heads' | 'n_kv_heads' | 'head_dim' | 'context_length'
> &
  Pick<ModelConfig, 'rope_theta' | 'norm_eps' | 'tied_head'> &
  Partial<Features> & {
    /** how the published ternary models of this shape are stored */
    ternary?: TernaryForm
  }

/** rotation: the block of the transform in front of every matrix; tables: whether embedding and head are ternary too */
interface TernaryForm {
  group: TernaryGroup
  rotation?: number
  tables: boolean
}

function llama(sizes: Partial<Shape> & Pick<Shape, 'dim' | 'hidden_dim' | 'n_layers' | 'n_heads'>): Shape {
  return {
    vocab_size: 32000,
    n_kv_heads: sizes.n_heads,
    head_dim: sizes.dim / sizes.n_heads,
    // Longer than any of these was trained for: a benchmark's context is not a promise of sense.
    context_length: 32768,
    rope_theta: 10000,
    norm_eps: 1e-5,
    tied_head: false,
    ...sizes,
  }
}

function qwen3(sizes: Parameters<typeof llama>[0]): Shape {
  return llama({
    vocab_size: 151936,
    n_kv_heads: 8,
    head_dim: 128,
    rope_theta: 1e6,
    norm_eps: 1e-6,
    qk_norm: true,
    ...sizes,
  })
}

/** Three layers of the delta rule, then one of attention; the sizes of the 2B's heads follow from its others. */
function qwen35(sizes: Parameters<typeof llama>[0] & Pick<Shape, 'delta_v_heads'>, block: number): Shape {
  return llama({
    vocab_size: 248320,
    head_dim: 256,
    rope_dims: 64,
    rope_theta: 1e7,
    norm_eps: 1e-6,
    qk_norm: true,
    output_gate: true,
    delta_layers: Array.from({ length: sizes.n_layers }, (_, layer) => layer).filter((layer) => layer % 4 !== 3),
    delta_k_heads: 16,
    delta_k_dim: 128,
    delta_v_dim: 128,
    delta_conv: 4,
    delta_head_order: 'tiled',
    ternary: { group: 64, rotation: block, tables: true },
    ...sizes,
  })
}

/** As their config.json on Hugging Face says. */
export const SHAPES = {
  'smollm2-135m': llama({
    dim: 576,
    hidden_dim: 1536,
    n_layers: 30,
    n_heads: 9,
    n_kv_heads: 3,
    vocab_size: 49152,
    rope_theta: 100000,
    tied_head: true,
  }),
  'tinyllama-1.1b': llama({ dim: 2048, hidden_dim: 5632, n_layers: 22, n_heads: 32, n_kv_heads: 4 }),
  'llama-7b': llama({ dim: 4096, hidden_dim: 11008, n_layers: 32, n_heads: 32 }),
  'llama-13b': llama({ dim: 5120, hidden_dim: 13824, n_layers: 40, n_heads: 40 }),
  'qwen3-1.7b': qwen3({ dim: 2048, hidden_dim: 6144, n_layers: 28, n_heads: 16, tied_head: true }),
  'qwen3-8b': qwen3({ dim: 4096, hidden_dim: 12288, n_layers: 36, n_heads: 32 }),
  'bitnet-2b4t': llama({
    dim: 2560,
    hidden_dim: 6912,
    n_layers: 30,
    n_heads: 20,
    n_kv_heads: 5,
    vocab_size: 128256,
    rope_theta: 500000,
    tied_head: true,
    attention_inner_norm: true,
    ffn_inner_norm: true,
    activation: 'relu2',
    ternary: { group: 0, tables: false },
  }),
  'qwen35-2b': qwen35(
    { dim: 2048, hidden_dim: 6144, n_layers: 24, n_heads: 8, n_kv_heads: 2, delta_v_heads: 16, tied_head: true },
    2048,
  ),
  'qwen35-9b': qwen35(
    { dim: 4096, hidden_dim: 12288, n_layers: 32, n_heads: 16, n_kv_heads: 4, delta_v_heads: 32 },
    4096,
  ),
} as const satisfies Record<string, Shape>

export type ShapeName = keyof typeof SHAPES
export const SHAPE_NAMES = Object.keys(SHAPES) as ShapeName[]

/**
 * What the linears are stored as. onebit: signs, g, h and a LayerNorm, the paper's form; column: without it, and with a column
 * of floats beside the signs, as `distill` makes them. chain:B: two sign stages of
 * about B bits per weight. q1_0: signs with a scale per 128 columns. ternary: codes of two bits with a scale per 128 columns,
 * or as the published models of the shape have them; ternary:G: with a scale per G columns, 0 being one a row.
 */
export type WeightType =
  | 'onebit'
  | 'column'
  | 'q1_0'
  | 'ternary'
  | `ternary:${TernaryGroup}`
  | 'f16'
  | 'q8'
  | `chain:${number}`

const PLAIN_TYPES: readonly string[] = ['onebit', 'column', 'q1_0', 'ternary', 'f16', 'q8'] satisfies WeightType[]
const TERNARY_TYPES: readonly string[] = TERNARY_GROUPS.map((group) => `ternary:${group}`)

const FEWEST_CHAIN_BITS = 0.5
const MOST_CHAIN_BITS = 4
/** Ranks come in units of a whole vector of every instruction set. */
const RANK_UNIT = 128

/** @throws OnebitError ERR_BAD_OPTION */
export function parseWeightType(text: string): WeightType {
  if (PLAIN_TYPES.includes(text) || TERNARY_TYPES.includes(text)) return text as WeightType
  const bits = /^chain:(\d+(?:\.\d+)?)$/.exec(text)?.[1]
  if (bits !== undefined && Number(bits) >= FEWEST_CHAIN_BITS && Number(bits) <= MOST_CHAIN_BITS) {
    return `chain:${Number(bits)}`
  }
  throw badOption(
    'type',
    `must be onebit, column, q1_0, ternary, ${TERNARY_TYPES.join(', ')}, f16, q8, or chain:B with B from ${FEWEST_CHAIN_BITS} to ${MOST_CHAIN_BITS} bits per weight, ` +
      `not ${JSON.stringify(text)}`,
  )
}

const KV_BYTES: Record<KvType, number> = { f16: 2, f32: 4, int8: 1 }

/** The rank whose two sign matrices take about `bits` bits for each of rows x cols weights: r (rows + cols) signs. */
export function chainRank(rows: number, cols: number, bits: number): number {
  const exact = (bits * rows * cols) / (rows + cols)
  return Math.max(RANK_UNIT, Math.round(exact / RANK_UNIT) * RANK_UNIT)
}

function linearKindOf(type: WeightType, shape: Shape, role: Role, rows: number, cols: number): LinearKind {
  if (GATE_ROLES.includes(role) && type !== 'f16') return { kind: 'dense', dtype: 'bf16', bias: false }
  if (type === 'onebit') return { kind: 'sign', rank: 0, mid_scale: false, layernorm: true, bias: false }
  if (type === 'column') {
    return { kind: 'sign', rank: 0, mid_scale: false, layernorm: false, bias: false, column: true, half: true }
  }
  if (type === 'q1_0') return { kind: 'q1_0', bias: false }
  if (type === 'f16' || type === 'q8') return { kind: 'dense', dtype: type, bias: false }
  if (type.startsWith('ternary')) return ternaryKind(type, shape)
  const rank = chainRank(rows, cols, Number(type.slice('chain:'.length)))
  return { kind: 'sign', rank, mid_scale: true, layernorm: false, bias: false }
}

function ternaryKind(type: WeightType, { ternary }: Shape): LinearKind {
  const group = type === 'ternary' ? (ternary?.group ?? 128) : (Number(type.slice('ternary:'.length)) as TernaryGroup)
  const block = ternary?.rotation
  return { kind: 'ternary', group, bias: false, ...(block && { rotation: { block, signs: true } }) }
}

/** Of the embedding and the head: f16 for f16, ternary where the shape's models have them so, and int8 rows otherwise. */
function tableKindOf(type: WeightType, shape: Shape): LinearKind {
  if (type.startsWith('ternary') && shape.ternary?.tables !== false) return ternaryKind(type, shape)
  return { kind: 'dense', dtype: type === 'f16' ? 'f16' : 'q8', bias: false }
}

/**
 * The config of a shape whose linears are of a type. Embedding and head are as tableKindOf says.
 * @throws OnebitError ERR_SHAPE when the type does not fit the shape, ERR_BAD_OPTION for an unknown name
 */
export function shapeConfig(shape: ShapeName | Shape, type: WeightType): ModelConfig {
  const known: Shape = typeof shape === 'string' ? SHAPES[shape] : shape
  if (known === undefined) throw badOption('shape', `must be one of ${SHAPE_NAMES.join(', ')}, not ${shape}`)
  const checked = parseWeightType(type)
  const table = tableKindOf(checked, known)
  const { ternary: _form, ...numbers } = known
  const config = withDefaults<WrittenConfig>({
    architecture: 'llama',
    ...numbers,
    rope_style: 'half',
    rope_scaling: { type: 'none' },
    embedding: table,
    head: table,
    linears: {},
  })
  for (const role of rolesOf(config)) {
    const [rows, cols] = linearShape(config, role)
    const kind = linearKindOf(checked, known, role, rows, cols)
    const unit = columnUnit(kind)
    if (cols % unit !== 0) {
      const name = typeof shape === 'string' ? shape : 'this shape'
      throw new OnebitError('ERR_SHAPE', `${type} does not fit ${name}: ${role} has ${cols} columns`, {
        hint: `${type} needs columns in multiples of ${unit}. Choose another type, or another shape.`,
      })
    }
    config.linears[role] = kind
  }
  return config
}

/**
 * Bytes of weights that decoding one token has to read, as they are stored (signs, scales, biases) and without any
 * layout's padding: all linears and the head. The embedding is one row and the norms are small: neither counts.
 */
export function decodeWeightBytes(config: ModelConfig): number {
  const head = config.tied_head ? 'embedding' : 'head'
  return tensorTable(config, { tokenizer: 0, chat_template: 0 })
    .filter(({ part }) => part === 'linear' || part === head)
    .reduce((sum, spec) => sum + tensorBytes(spec), 0)
}

/** Bytes of keys and values that one position takes in the cache, all layers together, with the scales of int8. */
export function kvBytesPerPosition(config: ModelConfig, kv: KvType): number {
  const scale = kv === 'int8' ? 4 : 0
  return (
    2 * (config.n_layers - config.delta_layers.length) * config.n_kv_heads * (config.head_dim * KV_BYTES[kv] + scale)
  )
}
