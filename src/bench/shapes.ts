/**
 * Models without a file: the shapes of well-known models, what their matrices may be stored as, and how many bytes
 * decoding one token reads. What `onebit bench --shape … --type …` needs; random-model.ts fills them with noise.
 */

import type { ModelConfig, WrittenConfig } from '../config/config.js'
import { withDefaults } from '../config/fields.js'
import type { LinearKind } from '../config/kinds.js'
import { linearShape, rolesOf, tensorBytes, tensorTable } from '../config/tensors.js'
import { badOption, OnebitError } from '../errors.js'
import type { KvType } from '../run/session.js'

/** The numbers of a Llama, without how its matrices are stored. */
export type Shape = Pick<
  ModelConfig,
  'vocab_size' | 'dim' | 'hidden_dim' | 'n_layers' | 'n_heads' | 'n_kv_heads' | 'head_dim' | 'context_length'
> &
  Pick<ModelConfig, 'rope_theta' | 'norm_eps' | 'tied_head'>

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
} as const satisfies Record<string, Shape>

export type ShapeName = keyof typeof SHAPES
export const SHAPE_NAMES = Object.keys(SHAPES) as ShapeName[]

/**
 * What the linears are stored as. onebit: signs, g, h and a LayerNorm, the paper's form. chain:B: two sign stages of
 * about B bits per weight. q1_0: signs with a scale per 128 columns.
 */
export type WeightType = 'onebit' | 'q1_0' | 'f16' | 'q8' | `chain:${number}`

const FEWEST_CHAIN_BITS = 0.5
const MOST_CHAIN_BITS = 4
/** Ranks come in units of a whole vector of every instruction set. */
const RANK_UNIT = 128

/** @throws OnebitError ERR_BAD_OPTION */
export function parseWeightType(text: string): WeightType {
  if (text === 'onebit' || text === 'q1_0' || text === 'f16' || text === 'q8') return text
  const bits = /^chain:(\d+(?:\.\d+)?)$/.exec(text)?.[1]
  if (bits !== undefined && Number(bits) >= FEWEST_CHAIN_BITS && Number(bits) <= MOST_CHAIN_BITS) {
    return `chain:${Number(bits)}`
  }
  throw badOption(
    'type',
    `must be onebit, q1_0, f16, q8, or chain:B with B from ${FEWEST_CHAIN_BITS} to ${MOST_CHAIN_BITS} bits per weight, ` +
      `not ${JSON.stringify(text)}`,
  )
}

const KV_BYTES: Record<KvType, number> = { f16: 2, f32: 4, int8: 1 }

/** The rank whose two sign matrices take about `bits` bits for each of rows x cols weights: r (rows + cols) signs. */
export function chainRank(rows: number, cols: number, bits: number): number {
  const exact = (bits * rows * cols) / (rows + cols)
  return Math.max(RANK_UNIT, Math.round(exact / RANK_UNIT) * RANK_UNIT)
}

function linearKindOf(type: WeightType, rows: number, cols: number): LinearKind {
  if (type === 'onebit') return { kind: 'sign', rank: 0, mid_scale: false, layernorm: true, bias: false }
  if (type === 'q1_0') return { kind: 'q1_0', bias: false }
  if (type === 'f16' || type === 'q8') return { kind: 'dense', dtype: type, bias: false }
  const rank = chainRank(rows, cols, Number(type.slice('chain:'.length)))
  return { kind: 'sign', rank, mid_scale: true, layernorm: false, bias: false }
}

/** Columns have to be a multiple of this. */
function columnUnit(type: WeightType): number {
  if (type === 'q1_0') return 128
  return type === 'f16' || type === 'q8' ? 1 : 8
}

/**
 * The config of a shape whose linears are of a type. Embedding and head are f16 for f16 and int8 rows otherwise, as
 * `onebit convert` makes them.
 * @throws OnebitError ERR_SHAPE when the type does not fit the shape, ERR_BAD_OPTION for an unknown name
 */
export function shapeConfig(shape: ShapeName | Shape, type: WeightType): ModelConfig {
  const known = typeof shape === 'string' ? SHAPES[shape] : shape
  if (known === undefined) throw badOption('shape', `must be one of ${SHAPE_NAMES.join(', ')}, not ${shape}`)
  const table: LinearKind = { kind: 'dense', dtype: type === 'f16' ? 'f16' : 'q8', bias: false }
  const config = withDefaults<WrittenConfig>({
    architecture: 'llama',
    ...known,
    rope_style: 'half',
    rope_scaling: { type: 'none' },
    embedding: table,
    head: table,
    linears: {},
  })
  const unit = columnUnit(parseWeightType(type))
  for (const role of rolesOf(config)) {
    const [rows, cols] = linearShape(config, role)
    if (cols % unit !== 0) {
      const name = typeof shape === 'string' ? shape : 'this shape'
      throw new OnebitError('ERR_SHAPE', `${type} does not fit ${name}: ${role} has ${cols} columns`, {
        hint: `${type} needs columns in multiples of ${unit}. Choose another type, or another shape.`,
      })
    }
    config.linears[role] = linearKindOf(type, rows, cols)
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
