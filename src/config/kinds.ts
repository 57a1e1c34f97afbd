/** How one matrix is stored. */
import { type Fields, fail, fieldsOf, flag, integer, oneOf, trueOrAbsent } from './field-check.js'
import { checkFront, FRONT_KEYS, type Front } from './front.js'
import { LIMITS } from './limits.js'

export const DENSE_TYPES = ['f32', 'f16', 'bf16', 'q8'] as const satisfies readonly DenseType[]
/** Numbers of a dense matrix: floats, or `q8`: int8 with one f32 scale a row. */
export type DenseType = 'f32' | 'f16' | 'bf16' | 'q8'

export const TERNARY_GROUPS = [0, 64, 128, 256] as const satisfies readonly TernaryGroup[]
/** Columns that share a scale; 0: the whole row does. */
export type TernaryGroup = 0 | 64 | 128 | 256

/** How a matrix is stored, with what stands in front of it. */
export type LinearKind = MatrixKind & Front

/** How a matrix W of y = W x is stored. Its name in the file says which one it is. */
export type MatrixKind = DenseMatrix | SignMatrix | Q1Matrix | TernaryMatrix

/** Rows of floats, or of int8. */
export interface DenseMatrix {
  /** what tells the kinds apart */
  kind: 'dense'
  /** its numbers */
  dtype: DenseType
  /** a vector is added to y */
  bias: boolean
}

/** Signs between two vectors: y = (x * g) signᵀ * h, the layer of OneBit (arXiv 2402.11295, equation 3). */
export interface SignMatrix {
  /** what tells the kinds apart */
  kind: 'sign'
  /** 0: one matrix of signs; above 0 two, chained through a vector of that length, a multiple of 8 */
  rank: number
  /** that vector is multiplied by another, `mid` */
  mid_scale: boolean
  /** LayerNorm of y without weights */
  layernorm: boolean
  /** a vector is added to y */
  bias: boolean
  /** a column of floats beside the signs: y += u (v · x), before LayerNorm */
  column?: true
  /** g, mid, h, u and v are f16 in the file, not f32 */
  half?: true
}

/** Signs with one f16 scale per row and 128 columns: GGUF's Q1_0. */
export interface Q1Matrix {
  /** what tells the kinds apart */
  kind: 'q1_0'
  /** a vector is added to y */
  bias: boolean
}

/** Weights of -1, 0 and 1 as codes of two bits, with one f16 scale per row and `group` columns, or one f32 scale a row. */
export interface TernaryMatrix {
  /** what tells the kinds apart */
  kind: 'ternary'
  /** columns of a scale; 0: the whole row */
  group: TernaryGroup
  /** a vector is added to y */
  bias: boolean
}

const KEYS = {
  dense: ['kind', 'dtype', 'bias'],
  sign: ['kind', 'rank', 'mid_scale', 'layernorm', 'bias', 'column', 'half'],
  q1_0: ['kind', 'bias'],
  ternary: ['kind', 'group', 'bias'],
} as const

/** What a file leaves out where there is none of it. */
const LEFT_OUT = new Set<string>([...FRONT_KEYS, 'column', 'half'])

/** Columns of a matrix come in multiples of this. */
export function columnUnit(kind: LinearKind): number {
  switch (kind.kind) {
    case 'dense':
      return 1
    case 'sign':
      return 8
    case 'q1_0':
      return 128
    case 'ternary':
      return kind.group || 4
  }
}

function ternaryGroup(path: string, value: unknown): TernaryGroup {
  if (TERNARY_GROUPS.includes(value as TernaryGroup)) return value as TernaryGroup
  fail(path, `must be one of ${TERNARY_GROUPS.join(', ')}`)
}

function checkFields(path: string, value: unknown): MatrixKind {
  const kind = oneOf(`${path}.kind`, (value as Fields | null | undefined)?.kind, [
    'dense',
    'sign',
    'q1_0',
    'ternary',
  ] as const)
  const fields = fieldsOf(path, value, [...KEYS[kind], ...FRONT_KEYS], LEFT_OUT)
  const bias = flag(`${path}.bias`, fields.bias)
  if (kind === 'dense') return { kind, dtype: oneOf(`${path}.dtype`, fields.dtype, DENSE_TYPES), bias }
  if (kind === 'q1_0') return { kind, bias }
  if (kind === 'ternary') return { kind, group: ternaryGroup(`${path}.group`, fields.group), bias }
  const rank = integer(`${path}.rank`, fields.rank, 0, LIMITS.dim)
  if (rank % 8 !== 0) fail(`${path}.rank`, `must be a multiple of 8, found ${rank}`)
  const mid_scale = flag(`${path}.mid_scale`, fields.mid_scale)
  if (mid_scale && rank === 0) fail(`${path}.mid_scale`, 'needs a rank above 0')
  const layernorm = flag(`${path}.layernorm`, fields.layernorm)
  const more = { ...trueOrAbsent(path, fields, 'column'), ...trueOrAbsent(path, fields, 'half') }
  return { kind, rank, mid_scale, layernorm, bias, ...more }
}

/** The kind of a matrix with that many columns. @throws OnebitError ERR_CONFIG, naming the field */
export function checkKind(path: string, value: unknown, cols: number): LinearKind {
  const kind = checkFields(path, value)
  const unit = columnUnit(kind)
  if (cols % unit !== 0) fail(path, `${kind.kind} needs columns in multiples of ${unit}, found ${cols}`)
  return { ...kind, ...checkFront(path, value as Fields, cols) }
}

/** The kind of the embedding or the head: they are looked up row by row, so a chain of signs has no place there. */
export function checkTableKind(path: string, value: unknown, dim: number): LinearKind {
  const kind = checkKind(path, value, dim)
  if (kind.kind === 'sign') fail(path, 'must be dense, q1_0 or ternary')
  if (kind.bias) fail(`${path}.bias`, 'must be false')
  if (kind.norm_in) fail(`${path}.norm_in`, 'must be left out')
  return kind
}
