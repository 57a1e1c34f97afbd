/** How one matrix is stored. */
import { type Fields, fail, fieldsOf, flag, integer, oneOf } from './field-check.js'
import { checkFront, FRONT_KEYS, type Front } from './front.js'
import { LIMITS } from './limits.js'

export const DENSE_TYPES = ['f32', 'f16', 'bf16', 'q8'] as const
export type DenseType = (typeof DENSE_TYPES)[number]

export const TERNARY_GROUPS = [0, 64, 128, 256] as const
export type TernaryGroup = (typeof TERNARY_GROUPS)[number]

/**
 * What a matrix is, with what stands in front of it:
 * - dense: rows of f32, f16, bf16, or int8 with one f32 scale a row (q8).
 * - sign: (x * g) signᵀ * h, LayerNorm without weights if `layernorm`; with `rank` > 0 two sign matrices
 *   chained through a vector of that length (scaled by `mid` if `mid_scale`).
 * - q1_0: signs with one f16 scale per row and 128 columns (GGUF's Q1_0).
 * - ternary: weights of -1, 0 and 1 as codes of two bits, with one f16 scale per row and `group` columns; group 0: one f32
 *   scale a row.
 */
export type LinearKind = MatrixKind & Front

type MatrixKind =
  | { kind: 'dense'; dtype: DenseType; bias: boolean }
  | { kind: 'sign'; rank: number; mid_scale: boolean; layernorm: boolean; bias: boolean }
  | { kind: 'q1_0'; bias: boolean }
  | { kind: 'ternary'; group: TernaryGroup; bias: boolean }

const KEYS = {
  dense: ['kind', 'dtype', 'bias'],
  sign: ['kind', 'rank', 'mid_scale', 'layernorm', 'bias'],
  q1_0: ['kind', 'bias'],
  ternary: ['kind', 'group', 'bias'],
} as const

const FRONT = new Set<string>(FRONT_KEYS)

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
  const fields = fieldsOf(path, value, [...KEYS[kind], ...FRONT_KEYS], FRONT)
  const bias = flag(`${path}.bias`, fields.bias)
  if (kind === 'dense') return { kind, dtype: oneOf(`${path}.dtype`, fields.dtype, DENSE_TYPES), bias }
  if (kind === 'q1_0') return { kind, bias }
  if (kind === 'ternary') return { kind, group: ternaryGroup(`${path}.group`, fields.group), bias }
  const rank = integer(`${path}.rank`, fields.rank, 0, LIMITS.dim)
  if (rank % 8 !== 0) fail(`${path}.rank`, `must be a multiple of 8, found ${rank}`)
  const mid_scale = flag(`${path}.mid_scale`, fields.mid_scale)
  if (mid_scale && rank === 0) fail(`${path}.mid_scale`, 'needs a rank above 0')
  return { kind, rank, mid_scale, layernorm: flag(`${path}.layernorm`, fields.layernorm), bias }
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
