/**
 * The check that everything else leans on: a config from a file or an importer is rebuilt field by field, in one fixed
 * order of keys, within caps that keep every size far below 2^53. What comes out is canonical: equal models give equal
 * JSON, so the reader can compare a whole header byte for byte.
 */

import { OnebitError } from '../errors.js'
import {
  type DenseType,
  LIMITS,
  type LinearKind,
  linearShape,
  type ModelConfig,
  ROLES,
  type Role,
  type RopeScaling,
} from './architecture.js'

type Fields = Record<string, unknown>

function fail(path: string, problem: string): never {
  throw new OnebitError('ERR_CONFIG', `config${path === '' ? '' : '.'}${path}: ${problem}`, {
    hint: 'The file was not written by this program or is damaged; convert the model again.',
  })
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}

/** The fields of an object that has exactly these keys. */
function fieldsOf(path: string, value: unknown, keys: readonly string[]): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    fail(path, `must be an object, found ${show(value)}`)
  }
  const present = Object.keys(value)
  const prefix = path === '' ? '' : `${path}.`
  const unknown = present.find((key) => !keys.includes(key))
  if (unknown !== undefined) fail(`${prefix}${unknown.slice(0, 60)}`, 'is not a known field')
  const absent = keys.find((key) => !present.includes(key))
  if (absent !== undefined) fail(`${prefix}${absent}`, 'is missing')
  return value as Fields
}

function integer(path: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    fail(path, `must be a whole number from ${min} to ${max}, found ${show(value)}`)
  }
  return value
}

/** A number that is greater than `above` and at most `max`. */
function positive(path: string, value: unknown, max: number, above = 0): number {
  if (typeof value !== 'number' || !(value > above && value <= max)) {
    fail(path, `must be a number above ${above} and at most ${max}, found ${show(value)}`)
  }
  return value
}

function flag(path: string, value: unknown): boolean {
  if (typeof value !== 'boolean') fail(path, `must be true or false, found ${show(value)}`)
  return value
}

function oneOf<T extends string>(path: string, value: unknown, choices: readonly T[]): T {
  if (!choices.includes(value as T)) fail(path, `must be ${choices.join(' or ')}, found ${show(value)}`)
  return value as T
}

const DENSE_TYPES: readonly DenseType[] = ['f32', 'f16', 'bf16', 'q8']
const KIND_KEYS = {
  dense: ['kind', 'dtype', 'bias'],
  sign: ['kind', 'rank', 'mid_scale', 'layernorm', 'bias'],
  q1_0: ['kind', 'bias'],
} as const

function checkKind(path: string, value: unknown): LinearKind {
  const kind = oneOf(`${path}.kind`, (value as Fields | null | undefined)?.kind, ['dense', 'sign', 'q1_0'])
  const fields = fieldsOf(path, value, KIND_KEYS[kind])
  const bias = flag(`${path}.bias`, fields.bias)
  if (kind === 'dense') return { kind, dtype: oneOf(`${path}.dtype`, fields.dtype, DENSE_TYPES), bias }
  if (kind === 'q1_0') return { kind, bias }
  const rank = integer(`${path}.rank`, fields.rank, 0, LIMITS.dim)
  if (rank % 8 !== 0) fail(`${path}.rank`, `must be a multiple of 8, found ${rank}`)
  const mid_scale = flag(`${path}.mid_scale`, fields.mid_scale)
  if (mid_scale && rank === 0) fail(`${path}.mid_scale`, 'needs a rank above 0')
  return { kind, rank, mid_scale, layernorm: flag(`${path}.layernorm`, fields.layernorm), bias }
}

function checkColumns(path: string, kind: LinearKind, cols: number): void {
  const multiple = kind.kind === 'sign' ? 8 : kind.kind === 'q1_0' ? 128 : 1
  if (cols % multiple !== 0) fail(path, `${kind.kind} needs columns in multiples of ${multiple}, found ${cols}`)
}

const SCALING_KEYS = {
  none: ['type'],
  linear: ['type', 'factor'],
  llama3: ['type', 'factor', 'low_freq_factor', 'high_freq_factor', 'original_context'],
  yarn: ['type', 'factor', 'original_context', 'beta_fast', 'beta_slow', 'attention_factor'],
  factors: ['type', 'factors'],
} as const

/** No model stretches its context by more; the point is that nothing overflows, nor becomes 0 as f32. */
const MAX_ROPE_NUMBER = 1e6
const MIN_ROPE_NUMBER = 1e-6

function checkFactors(path: string, value: unknown, head_dim: number): number[] {
  if (!Array.isArray(value) || value.length !== head_dim / 2) fail(path, `must be ${head_dim / 2} numbers`)
  return value.map((factor, i) => positive(`${path}.${i}`, factor, MAX_ROPE_NUMBER, MIN_ROPE_NUMBER))
}

function checkScaling(value: unknown, head_dim: number): RopeScaling {
  const path = 'rope_scaling'
  const types = ['none', 'linear', 'llama3', 'yarn', 'factors'] as const
  const type = oneOf(`${path}.type`, (value as Fields | null | undefined)?.type, types)
  const fields = fieldsOf(path, value, SCALING_KEYS[type])
  const number = (name: string) => positive(`${path}.${name}`, fields[name], MAX_ROPE_NUMBER, MIN_ROPE_NUMBER)
  const context = () => integer(`${path}.original_context`, fields.original_context, 1, LIMITS.context)
  switch (type) {
    case 'none':
      return { type }
    case 'linear':
      return { type, factor: number('factor') }
    case 'llama3': {
      const [factor, low_freq_factor, high_freq_factor] = [
        number('factor'),
        number('low_freq_factor'),
        number('high_freq_factor'),
      ]
      if (low_freq_factor >= high_freq_factor) fail(`${path}.low_freq_factor`, 'must be below high_freq_factor')
      return { type, factor, low_freq_factor, high_freq_factor, original_context: context() }
    }
    case 'yarn': {
      const [beta_fast, beta_slow] = [number('beta_fast'), number('beta_slow')]
      if (beta_slow >= beta_fast) fail(`${path}.beta_slow`, 'must be below beta_fast')
      const attention = fields.attention_factor
      const attention_factor = attention === 0 ? 0 : number('attention_factor')
      return {
        type,
        factor: number('factor'),
        original_context: context(),
        beta_fast,
        beta_slow,
        attention_factor,
      }
    }
    case 'factors':
      return { type, factors: checkFactors(`${path}.factors`, fields.factors, head_dim) }
  }
}

/** Role defaults first, then overrides by layer: the one order in which `linears` may be written. */
function checkLinears(config: ModelConfig, value: unknown): Record<string, LinearKind> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) fail('linears', 'must be an object')
  const given = new Map(Object.entries(value))
  const out: Record<string, LinearKind> = {}
  const take = (key: string, role: Role) => {
    const kind = checkKind(`linears.${key}`, given.get(key))
    checkColumns(`linears.${key}`, kind, linearShape(config, role)[1])
    given.delete(key)
    out[key] = kind
  }
  for (const role of ROLES) take(role, role)
  if (given.size > 0) {
    for (let layer = 0; layer < config.n_layers; layer++) {
      for (const role of ROLES) if (given.has(`${layer}.${role}`)) take(`${layer}.${role}`, role)
    }
  }
  for (const key of given.keys()) fail(`linears.${key.slice(0, 60)}`, 'is not a known field')
  return out
}

/** The embedding and the head are looked up row by row, so a chain of signs has no place there. */
function checkTableKind(path: string, value: unknown, dim: number): LinearKind {
  const kind = checkKind(path, value)
  if (kind.kind === 'sign') fail(path, 'must be dense or q1_0')
  if (kind.bias) fail(`${path}.bias`, 'must be false')
  checkColumns(path, kind, dim)
  return kind
}

const KEYS = [
  'architecture',
  'vocab_size',
  'dim',
  'hidden_dim',
  'n_layers',
  'n_heads',
  'n_kv_heads',
  'head_dim',
  'context_length',
  'norm_eps',
  'rope_theta',
  'rope_style',
  'rope_scaling',
  'tied_head',
  'embedding',
  'head',
  'linears',
] as const

function checkShape(config: ModelConfig): void {
  const { n_heads, n_kv_heads, head_dim } = config
  if (head_dim % 2 !== 0) fail('head_dim', `must be even, found ${head_dim}`)
  if (n_heads % n_kv_heads !== 0) fail('n_kv_heads', `must divide n_heads ${n_heads}, found ${n_kv_heads}`)
  if (n_heads * head_dim > LIMITS.dim) {
    fail('n_heads', `n_heads x head_dim must be at most ${LIMITS.dim}, found ${n_heads * head_dim}`)
  }
}

/**
 * A canonical copy of `value`: every field's type, range and relation to the others is right.
 * @throws OnebitError ERR_CONFIG, naming the field
 */
export function validateConfig(value: unknown): ModelConfig {
  const f = fieldsOf('', value, KEYS)
  const head_dim = integer('head_dim', f.head_dim, 2, LIMITS.head_dim)
  const config: ModelConfig = {
    architecture: oneOf('architecture', f.architecture, ['llama', 'qwen3']),
    vocab_size: integer('vocab_size', f.vocab_size, 1, LIMITS.vocab),
    dim: integer('dim', f.dim, 1, LIMITS.dim),
    hidden_dim: integer('hidden_dim', f.hidden_dim, 1, LIMITS.dim),
    n_layers: integer('n_layers', f.n_layers, 1, LIMITS.layers),
    n_heads: integer('n_heads', f.n_heads, 1, LIMITS.heads),
    n_kv_heads: integer('n_kv_heads', f.n_kv_heads, 1, LIMITS.heads),
    head_dim,
    context_length: integer('context_length', f.context_length, 1, LIMITS.context),
    norm_eps: positive('norm_eps', f.norm_eps, 1, 1e-30),
    rope_theta: positive('rope_theta', f.rope_theta, 1e12, 1),
    rope_style: oneOf('rope_style', f.rope_style, ['half', 'interleaved']),
    rope_scaling: checkScaling(f.rope_scaling, head_dim),
    tied_head: flag('tied_head', f.tied_head),
    embedding: { kind: 'q1_0', bias: false },
    head: { kind: 'q1_0', bias: false },
    linears: {},
  }
  checkShape(config)
  config.embedding = checkTableKind('embedding', f.embedding, config.dim)
  config.head = checkTableKind('head', f.head, config.dim)
  if (config.tied_head && JSON.stringify(config.head) !== JSON.stringify(config.embedding)) {
    fail('head', 'must equal embedding when tied_head is true')
  }
  config.linears = checkLinears(config, f.linears)
  return config
}
