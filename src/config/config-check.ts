/**
 * The check that everything else leans on: a config from a file or an importer is rebuilt field by field, in one fixed
 * order of keys, within caps that keep every size far below 2^53. What comes out is canonical: equal models give equal
 * JSON, so the reader can compare a whole header byte for byte.
 */

import type { ModelConfig, ModelStructure } from './config.js'
import { type Fields, fail, fieldsOf, flag, integer, layerNumbers, matching, oneOf, positive } from './field-check.js'
import { FEATURES, FIELDS, withDefaults } from './fields.js'
import { checkKind, checkTableKind, type LinearKind } from './kinds.js'
import { LIMITS } from './limits.js'
import { checkScaling } from './rope.js'
import { deltaWidths, layerRoles, linearShape, ROLES, type Role, rolesOf } from './tensors.js'

const NAMES = FIELDS.map(({ name }) => name)
const OPTIONAL = new Set<string>(FEATURES.map(({ name }) => name))

type Field = (typeof FIELDS)[number]

/** A field that does not depend on others; undefined for those with fields of their own. */
function checkPlain(field: Field, value: unknown): string | number | boolean | readonly number[] | undefined {
  const { name } = field
  switch (field.type) {
    case 'text':
      return matching(name, value, field.pattern)
    case 'integer': {
      const number = integer(name, value, field.min, field.max)
      if ('multiple_of' in field && number % field.multiple_of !== 0) {
        fail(name, `must be a multiple of ${field.multiple_of}, found ${number}`)
      }
      return number
    }
    case 'number':
      return positive(name, value, field.max, field.above)
    case 'boolean':
      return flag(name, value)
    case 'choice':
      return oneOf<string>(name, value, field.values)
    case 'layers':
      return layerNumbers(name, value, LIMITS.layers)
    default:
      return undefined
  }
}

function checkSizes(config: ModelStructure): void {
  const { n_heads, n_kv_heads, head_dim } = config
  if (n_heads % n_kv_heads !== 0) fail('n_kv_heads', `must divide n_heads ${n_heads}, found ${n_kv_heads}`)
  if (n_heads * head_dim > LIMITS.dim) {
    fail('n_heads', `n_heads x head_dim must be at most ${LIMITS.dim}, found ${n_heads * head_dim}`)
  }
  const [gatedRows] = linearShape(config, 'wq')
  if (gatedRows > LIMITS.dim) fail('output_gate', `wq would have ${gatedRows} rows, at most ${LIMITS.dim} are possible`)
}

/** Numbers that belong to positions of the other sort mean nothing, so they must have their defaults. */
function checkPositions(config: ModelStructure): void {
  const { positions, position_offset, rope_dims, head_dim, rope_scaling } = config
  if (positions === 'rotary') {
    if (position_offset !== 0) fail('position_offset', `must be 0 with rotary positions, found ${position_offset}`)
    if (rope_dims > head_dim) fail('rope_dims', `must be at most head_dim ${head_dim}, found ${rope_dims}`)
    return
  }
  if (rope_dims !== head_dim) fail('rope_dims', `must be head_dim ${head_dim} with learned positions`)
  if (rope_scaling.type !== 'none') fail('rope_scaling', 'must be of type none with learned positions')
}

const DELTA_NUMBERS = ['delta_k_heads', 'delta_v_heads', 'delta_k_dim', 'delta_v_dim', 'delta_conv'] as const

function checkDelta(config: ModelStructure): void {
  const { delta_layers, delta_k_heads, delta_v_heads, n_layers } = config
  if (delta_layers.length === 0) {
    const given = DELTA_NUMBERS.find((name) => config[name] !== 0)
    if (given !== undefined) fail(given, `must be 0 without delta_layers, found ${config[given]}`)
    if (config.delta_head_order !== 'grouped') fail('delta_head_order', 'must be grouped without delta_layers')
    return
  }
  const absent = DELTA_NUMBERS.find((name) => config[name] === 0)
  if (absent !== undefined) fail(absent, 'must be at least 1 with delta_layers')
  if (delta_layers.at(-1)! >= n_layers) fail('delta_layers', `names layer ${delta_layers.at(-1)} of ${n_layers}`)
  if (delta_v_heads % delta_k_heads !== 0) {
    fail('delta_v_heads', `must be a multiple of delta_k_heads ${delta_k_heads}, found ${delta_v_heads}`)
  }
  const { channels } = deltaWidths(config)
  if (channels > LIMITS.dim)
    fail('delta_v_heads', `w_qkv would have ${channels} rows, at most ${LIMITS.dim} are possible`)
}

/** Role defaults first, then overrides by layer: the one order in which `linears` may be written. */
function checkLinears(config: ModelStructure, value: unknown): Record<string, LinearKind> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) fail('linears', 'must be an object')
  const given = new Map(Object.entries(value))
  const out: Record<string, LinearKind> = {}
  const take = (key: string, role: Role) => {
    out[key] = checkKind(`linears.${key}`, given.get(key), linearShape(config, role)[1])
    given.delete(key)
  }
  const roles = rolesOf(config)
  for (const role of roles) take(role, role)
  if (given.size > 0) {
    for (let layer = 0; layer < config.n_layers; layer++) {
      for (const role of layerRoles(config, layer)) if (given.has(`${layer}.${role}`)) take(`${layer}.${role}`, role)
    }
  }
  for (const key of given.keys()) {
    const absent = ROLES.find((role) => key === role || key.endsWith(`.${role}`))
    const layer = /^(\d+)\./.exec(key)?.[1]
    const isThere = absent === undefined || roles.includes(absent)
    const elsewhere =
      isThere && layer !== undefined && absent !== undefined && !layerRoles(config, Number(layer)).includes(absent)
    const why = elsewhere
      ? `layer ${layer} has no ${absent}`
      : isThere
        ? 'is not a known field'
        : `this model has no ${absent}`
    fail(`linears.${key.slice(0, 60)}`, why)
  }
  return out
}

/**
 * A canonical copy of `value`, complete: every field's type, range and relation to the others is right, and features
 * that it does not mention have their defaults.
 * @throws OnebitError ERR_CONFIG, naming the field
 */
export function validateConfig(value: unknown): ModelConfig {
  const given = fieldsOf('', value, NAMES, OPTIONAL)
  const checked: Fields = {}
  for (const field of FIELDS) {
    const value = given[field.name]
    const isLeftOut = value === undefined && OPTIONAL.has(field.name)
    checked[field.name] = isLeftOut ? undefined : checkPlain(field, value)
  }
  // In the order of FIELDS; what is undefined is filled in by what follows.
  const config: ModelConfig = withDefaults(checked as unknown as ModelConfig)
  config.rope_scaling = checkScaling('rope_scaling', given.rope_scaling, config.rope_dims)
  checkSizes(config)
  checkPositions(config)
  checkDelta(config)
  config.embedding = checkTableKind('embedding', given.embedding, config.dim)
  config.head = checkTableKind('head', given.head, config.dim)
  if (config.tied_head && JSON.stringify(config.head) !== JSON.stringify(config.embedding)) {
    fail('head', 'must equal embedding when tied_head is true')
  }
  config.linears = checkLinears(config, given.linears)
  return config
}
