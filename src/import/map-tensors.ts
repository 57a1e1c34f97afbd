/** Takes a model's tensors out of a source, by the one table of parts and an architecture's names. */
import {
  type Adjust,
  type BiasRules,
  type FusedLinears,
  type TensorNames,
  theirName,
} from '../architectures/architecture.js'
import type { ModelStructure } from '../config/config.js'
import { modelParts } from '../config/tensors.js'
import { adjusted } from './adjusted-tensor.js'
import { ofFused } from './fused-linears.js'
import { missingTensor, type SourceTensor, unusedTensor } from './source.js'

/** Tensors of a source by their own names. What is left at the end is what nobody asked for. */
export abstract class Taker<Raw> {
  readonly #raw: ReadonlyMap<string, Raw>
  readonly #left: Set<string>

  constructor(raw: ReadonlyMap<string, Raw>, isIgnored: (name: string) => boolean = () => false) {
    this.#raw = raw
    this.#left = new Set([...raw.keys()].filter((name) => !isIgnored(name)))
  }

  /** A tensor of this shape, [rows, cols] or [length]. @throws OnebitError ERR_TENSOR_SHAPE and what the format adds */
  protected abstract open(raw: Raw, shape: readonly number[]): SourceTensor

  /** The name in this source of a tensor that has this name usually. */
  protected nameOf(usual: string): string {
    return usual
  }

  raw(usual: string): Raw | undefined {
    const name = this.nameOf(usual)
    this.#left.delete(name)
    return this.#raw.get(name)
  }

  optional(name: string, ...shape: number[]): SourceTensor | undefined {
    const raw = this.raw(name)
    return raw === undefined ? undefined : this.open(raw, shape)
  }

  required(name: string, ...shape: number[]): SourceTensor {
    const found = this.optional(name, ...shape)
    if (found === undefined) throw missingTensor(this.nameOf(name))
    return found
  }

  /** Tensors that nobody has to ask for. */
  ignore(isIgnored: (name: string) => boolean): void {
    for (const name of this.#left) if (isIgnored(name)) this.#left.delete(name)
  }

  checkNothingLeft(): void {
    const [name] = this.#left
    if (name !== undefined) throw unusedTensor(name)
  }
}

function vectorSuffix(name: string): string {
  if (name.endsWith('.bias')) return '.bias'
  return name.endsWith('.decay') || name.endsWith('.time_bias') ? '' : '.weight'
}

/** The tensors of one linear but its bias, by what comes behind our name of it. */
export type ReadLinear = (theirs: string, rows: number, cols: number) => Iterable<[string, SourceTensor]>

/**
 * All tensors of a model under our names, as SourceModel has them. The source has to have each of them, and no other.
 * @throws OnebitError ERR_MISSING_TENSOR, ERR_TENSOR_SHAPE, ERR_BAD_SOURCE
 */
export function mapTensors(
  model: {
    structure: ModelStructure
    biases: BiasRules
    names: TensorNames
    fused?: FusedLinears | undefined
    adjust?: Adjust | undefined
  },
  take: Taker<unknown>,
  readLinear: ReadLinear = (theirs, rows, cols) => [['weight', take.required(`${theirs}.weight`, rows, cols)]],
): Map<string, SourceTensor> {
  const out = new Map<string, SourceTensor>()
  const { fused, structure } = model
  const count = fused?.roles.length ?? 1
  for (const part of modelParts(model.structure)) {
    const theirs = theirName(model.names, part)
    const [rows, cols] = part.shape
    if (part.linear === undefined) {
      const isTable = part.part === 'embedding' || part.part === 'head'
      const tensor = take.required(`${theirs}${vectorSuffix(part.name)}`, ...part.shape)
      const adjust = model.adjust?.(part)
      out.set(isTable ? `${part.name}.weight` : part.name, adjust === undefined ? tensor : adjusted(tensor, adjust))
      continue
    }
    const { role } = part.linear
    const rule = model.biases[role]
    const index = fused?.roles.indexOf(role) ?? -1
    const unit = fused?.by === 'matrix' ? rows : structure.head_dim
    const own = (tensor: SourceTensor) => (index < 0 ? tensor : ofFused(tensor, unit, index, count))
    const all = index < 0 ? rows : rows * count
    for (const [suffix, tensor] of readLinear(theirs, all, cols!)) {
      // What stands in front is the same for all that lie in one tensor.
      out.set(`${part.name}.${suffix}`, suffix === 'norm_in' ? tensor : own(tensor))
    }
    const bias = rule === 'none' ? undefined : take[rule](`${theirs}.bias`, all)
    if (bias !== undefined) out.set(`${part.name}.bias`, own(bias))
  }
  take.checkNothingLeft()
  return out
}
