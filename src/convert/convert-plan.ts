/** Which kind each matrix of a converted model gets. */
import type { ModelConfig } from '../config/config.js'
import type { Front } from '../config/front.js'
import type { DenseType, LinearKind } from '../config/kinds.js'
import { GATE_ROLES, layerRoles, linearKind, linearShape, type Role, rolesOf } from '../config/tensors.js'
import { badOption } from '../errors.js'
import type { SourceModel, SourceTensor } from '../import/source.js'
import { ternaryGroup } from './ternary.js'

export type ConvertType = DenseType | 'onebit'

export interface PlanOptions {
  /** of the linear layers; absent: signs stay signs, small models stay f32, everything else becomes q8 */
  type?: ConvertType | undefined
  /** of the embedding and the head */
  embed?: 'f32' | 'f16' | 'q8' | undefined
  /** with type onebit: the paper's LayerNorm behind every linear */
  layernorm?: boolean | undefined
}

export interface Plan {
  config: ModelConfig
  /** what a user should know, one sentence each */
  notes: string[]
}

/** Up to here f32 costs nothing that anybody would notice, and keeps every bit of the source. */
const SMALL_MODEL_BYTES = 50e6

const FLOATS = new Set(['f32', 'f16', 'bf16'])

function isSmall(source: SourceModel): boolean {
  let bytes = 0
  for (const { type, rows, cols } of source.tensors.values()) if (type !== 'packed') bytes += rows * cols * 4
  return bytes <= SMALL_MODEL_BYTES
}

function dense(dtype: DenseType, bias = false): LinearKind {
  return { kind: 'dense', dtype, bias }
}

interface Choice {
  source: SourceModel
  options: PlanOptions
  small: boolean
  notes: Set<string>
}

function newKind(choice: Choice, type: ConvertType, role: Role, cols: number, bias: boolean): LinearKind {
  if (type !== 'onebit') return dense(type, bias)
  if (cols % 8 === 0)
    return { kind: 'sign', rank: 0, mid_scale: false, layernorm: choice.options.layernorm ?? false, bias }
  choice.notes.add(`${role} has ${cols} columns, not a multiple of 8, so it becomes q8 instead of signs.`)
  return dense('q8', bias)
}

/** Whatever a matrix is stored as, what stands in front of it stays. */
function frontOf({ tensors, rotations }: SourceModel, name: string): Front {
  const rotation = rotations?.get(name)
  return { ...(tensors.has(`${name}.norm_in`) && { norm_in: true as const }), ...(rotation && { rotation }) }
}

function chooseKind(choice: Choice, layer: number, role: Role): LinearKind {
  return { ...matrixKind(choice, layer, role), ...frontOf(choice.source, `layers.${layer}.${role}`) }
}

function matrixKind(choice: Choice, layer: number, role: Role): LinearKind {
  const { source, options, small } = choice
  const name = `layers.${layer}.${role}`
  const weight = source.tensors.get(`${name}.weight`)!
  const { type, cols } = weight
  const bias = source.tensors.has(`${name}.bias`)
  if (source.tensors.has(`${name}.g`)) {
    if (options.type !== undefined) {
      throw badOption('type', 'this checkpoint is 1-bit already and keeps its signs; leave --type out')
    }
    return { kind: 'sign', rank: 0, mid_scale: false, layernorm: source.layernorm, bias }
  }
  const isRounded = (options.type === undefined && !small) || options.type === 'q8' || options.type === 'onebit'
  if (GATE_ROLES.includes(role) && FLOATS.has(type) && isRounded) return dense(type as DenseType, bias)
  if (options.type !== undefined) return newKind(choice, options.type, role, cols, bias)
  if (type === 'q1_0') return { kind: 'q1_0', bias }
  const group = ternaryGroup(weight)
  if (group !== undefined) return { kind: 'ternary', group, bias }
  return dense(small && FLOATS.has(type) ? 'f32' : 'q8', bias)
}

function tableKind({ source, options, small }: Choice, config: ModelConfig, tensor: SourceTensor): LinearKind {
  if (options.embed !== undefined) return dense(options.embed)
  if (options.type === 'onebit') return dense('q8')
  if (options.type !== undefined) return dense(options.type)
  if (tensor.type === 'q1_0') return { kind: 'q1_0', bias: false }
  const group = ternaryGroup(tensor)
  if (group !== undefined) return { kind: 'ternary', group, bias: false }
  const quantised = Object.values(config.linears).some((kind) => kind.kind === 'dense' && kind.dtype === 'q8')
  return dense(small && !quantised && FLOATS.has(source.tensors.get('tok_embeddings.weight')!.type) ? 'f32' : 'q8')
}

/** The config of the file that `source` becomes. @throws OnebitError ERR_BAD_OPTION */
export function planConversion(source: SourceModel, options: PlanOptions): Plan {
  const choice: Choice = { source, options, small: isSmall(source), notes: new Set() }
  const unset = dense('q8')
  const config: ModelConfig = { ...source.config, embedding: unset, head: unset, linears: {} }
  const first = (role: Role) => {
    let layer = 0
    while (!layerRoles(config, layer).includes(role)) layer++
    return layer
  }
  for (const role of rolesOf(config)) config.linears[role] = chooseKind(choice, first(role), role)
  for (let layer = 1; layer < config.n_layers; layer++) {
    for (const role of layerRoles(config, layer)) {
      const kind = chooseKind(choice, layer, role)
      if (JSON.stringify(kind) !== JSON.stringify(linearKind(config, layer, role)))
        config.linears[`${layer}.${role}`] = kind
    }
  }
  const embedding = source.tensors.get('tok_embeddings.weight')!
  config.embedding = { ...tableKind(choice, config, embedding), ...frontOf(source, 'tok_embeddings') }
  config.head = config.tied_head
    ? config.embedding
    : { ...tableKind(choice, config, source.tensors.get('output.weight')!), ...frontOf(source, 'output') }
  return { config, notes: [...choice.notes] }
}

/** The kind, rows and columns of a matrix by its name in the file, such as `layers.3.wq`. */
export function matrixOf(config: ModelConfig, name: string): { kind: LinearKind; rows: number; cols: number } {
  if (name === 'tok_embeddings') return { kind: config.embedding, rows: config.vocab_size, cols: config.dim }
  if (name === 'output') return { kind: config.head, rows: config.vocab_size, cols: config.dim }
  const [, layer, role] = name.split('.') as [string, string, Role]
  const [rows, cols] = linearShape(config, role)
  return { kind: linearKind(config, Number(layer), role), rows, cols }
}
