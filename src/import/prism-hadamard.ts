/**
 * `prism.hadamard.*` in GGUF files: matrices that are stored rotated (Bonsai 2). The keys say which, and how what they
 * multiply has to be rotated; without that a model talks fluent nonsense, so whatever is not understood here is an error
 * by its name.
 */
import { type TensorNames, theirName } from '../architectures/architecture.js'
import type { ModelStructure } from '../config/config.js'
import type { Rotation } from '../config/front.js'
import { LIMITS } from '../config/limits.js'
import { modelParts, rotationSigns } from '../config/tensors.js'
import type { OnebitError } from '../errors.js'
import { shown } from '../shown-value.js'
import type { GgufTensorInfo, GgufValue } from './gguf-reader.js'
import { badSource, type SourceTensor, unsupportedArchitecture } from './source.js'

const PREFIX = 'prism.hadamard.'
const EMBEDDING = 'token_embd.weight'
const HEAD = 'output.weight'

export interface PrismHadamard {
  block: number
  /** by input width, of +1 and -1; empty: nothing but +1 */
  signs: ReadonlyMap<number, Int8Array>
  /** the files' names of the matrices that are stored rotated, without the embedding */
  weights: ReadonlySet<string>
  /** the embedding's rows are stored rotated; where it is the head too, that is as well */
  embedding: boolean
  /** rotated matrices behind a DeltaNet have their columns in the order of heads that Hugging Face's folders have */
  gdnGrouped: boolean
}

type Tensors = ReadonlyMap<string, Pick<GgufTensorInfo, 'name' | 'dimensions'>>

/** The keys, each of which must be asked for, and of the type that the contract names. */
class Keys {
  readonly #metadata: ReadonlyMap<string, GgufValue>
  readonly #asked = new Set<string>()

  constructor(metadata: ReadonlyMap<string, GgufValue>) {
    this.#metadata = metadata
  }

  get(key: string): GgufValue | undefined {
    this.#asked.add(PREFIX + key)
    return this.#metadata.get(PREFIX + key)
  }

  bad(key: string, problem: string): OnebitError {
    return badSource(`${PREFIX}${key} ${problem}`, 'Its weights are rotated, and this is needed to turn them back.')
  }

  /** What the file says is something that we do not compute. */
  unsupported(key: string): OnebitError {
    const value = this.#metadata.get(PREFIX + key)
    const found = value === undefined ? `without ${PREFIX}${key}` : `with ${PREFIX}${key} ${shown(value)}`
    return unsupportedArchitecture(`rotated ${found}`)
  }

  flag(key: string): boolean {
    const value = this.get(key) ?? false
    if (typeof value !== 'boolean') throw this.bad(key, `must be true or false, found ${shown(value)}`)
    return value
  }

  /** The one word that is known. */
  word<T extends string>(key: string, known: readonly T[]): T {
    const value = this.get(key)
    if (!known.includes(value as T)) throw this.unsupported(key)
    return value as T
  }

  names(key: string): Set<string> {
    const list = this.get(key) ?? []
    if (!Array.isArray(list)) throw this.bad(key, `must be a list of names, found ${shown(list)}`)
    const names = new Set<string>()
    for (const name of list) {
      if (typeof name !== 'string') throw this.bad(key, `must hold names, found ${shown(name)}`)
      if (names.has(name)) throw this.bad(key, `has ${shown(name)} twice`)
      names.add(name)
    }
    return names
  }

  integers(key: string): number[] {
    const list = this.get(key)
    if (!Array.isArray(list) || list.length === 0)
      throw this.bad(key, `must be a list of numbers, found ${shown(list)}`)
    const wrong = list.find((value) => typeof value !== 'number' || !Number.isInteger(value))
    if (wrong !== undefined) throw this.bad(key, `must hold whole numbers, found ${shown(wrong)}`)
    return list as number[]
  }

  checkNothingLeft(): void {
    for (const name of this.#metadata.keys()) {
      if (name.startsWith('prism.') && !this.#asked.has(name)) {
        throw unsupportedArchitecture(`rotated with the unknown key ${shown(name)}`)
      }
    }
  }
}

function readBlock(keys: Keys): number {
  const block = keys.get('block_size')
  const isPower = typeof block === 'number' && block >= 2 && block <= LIMITS.dim && (block & (block - 1)) === 0
  if (!isPower) throw keys.bad('block_size', `must be a power of two from 2 to ${LIMITS.dim}, found ${shown(block)}`)
  return block
}

function readSigns(keys: Keys, block: number): Map<number, Int8Array> {
  const mode = keys.word('sign_mode', ['identity', 'explicit'])
  if (mode === 'identity') {
    // Whatever they hold, they are not used then.
    keys.get('sign_widths')
    keys.get('sign_values')
    return new Map()
  }
  const widths = keys.integers('sign_widths')
  const values = keys.integers('sign_values')
  const signs = new Map<number, Int8Array>()
  let at = 0
  for (const width of widths) {
    if (width < 1 || width > LIMITS.dim || width % block !== 0) {
      throw keys.bad('sign_widths', `has ${width}, not a multiple of the block ${block} up to ${LIMITS.dim}`)
    }
    if (signs.has(width)) throw keys.bad('sign_widths', `has ${width} twice`)
    signs.set(width, Int8Array.from(values.slice(at, at + width)))
    at += width
  }
  if (values.length !== at)
    throw keys.bad('sign_values', `must have ${at} values for these widths, found ${values.length}`)
  const wrong = values.find((value) => value !== 1 && value !== -1)
  if (wrong !== undefined) throw keys.bad('sign_values', `must hold 1 and -1, found ${wrong}`)
  return signs
}

/** A matrix of the file whose columns are rotated. */
function checkMatrix(
  keys: Keys,
  key: string,
  name: string,
  tensors: Tensors,
  found: Pick<PrismHadamard, 'block' | 'signs'>,
): void {
  const tensor = tensors.get(name)
  if (tensor === undefined) throw keys.bad(key, `names ${shown(name)}, which is not in the file`)
  const { dimensions } = tensor
  if (dimensions.length !== 2) throw keys.bad(key, `names ${shown(name)}, which is no matrix`)
  const width = dimensions[0]!
  if (width % found.block !== 0) {
    throw keys.bad('block_size', `is ${found.block}, which does not divide the ${width} columns of ${shown(name)}`)
  }
  if (found.signs.size > 0 && !found.signs.has(width)) {
    throw keys.bad('sign_widths', `has no signs for the ${width} columns of ${shown(name)}`)
  }
}

/** The head: its own one, or (version 2, and only there) the rotated embedding. */
function checkHead(keys: Keys, version: 1 | 2, embedding: boolean, tensors: Tensors): void {
  const tied = keys.flag('tied_output')
  if (tied !== (version === 2))
    throw keys.bad('tied_output', `must be ${version === 2} in version ${version}, found ${tied}`)
  if (tied && tensors.has(HEAD)) throw keys.bad('tied_output', `is true, but the file has its own ${HEAD}`)
  if (tied && !embedding) throw keys.bad('inverse_weight_names', `must hold ${EMBEDDING} where it is the head too`)
  if (!tied && embedding && !tensors.has(HEAD)) {
    throw keys.bad('inverse_weight_names', `holds ${EMBEDDING}, which is the head too: that needs version 2`)
  }
}

/**
 * What the keys of a file say, checked against its tensors.
 * @returns undefined if there are none
 * @throws OnebitError ERR_UNSUPPORTED_ARCHITECTURE of what is not computed, ERR_BAD_SOURCE of what contradicts itself
 */
export function readPrismHadamard(
  metadata: ReadonlyMap<string, GgufValue>,
  tensors: Tensors,
): PrismHadamard | undefined {
  if (![...metadata.keys()].some((key) => key.startsWith('prism.'))) return undefined
  const keys = new Keys(metadata)
  const version = keys.get('version')
  if (version !== 1 && version !== 2) throw keys.unsupported('version')
  keys.word('transform', ['normalized-sylvester-walsh-hadamard'])
  keys.word('axis', ['input-last-dimension'])
  const block = readBlock(keys)
  const signs = readSigns(keys, block)
  const weights = keys.names('weight_names')
  if (weights.size === 0) throw keys.bad('weight_names', 'must name the rotated matrices, found none')
  if (weights.has(EMBEDDING))
    throw keys.bad('weight_names', `holds ${EMBEDDING}, which belongs to inverse_weight_names`)
  const inverse = keys.names('inverse_weight_names')
  for (const name of inverse) {
    if (name !== EMBEDDING) throw keys.bad('inverse_weight_names', `names ${shown(name)}; only ${EMBEDDING} can be`)
  }
  for (const name of weights) {
    // They read what is not rotated, by the contract.
    if (/\.ssm_(alpha|beta)\.weight$/.test(name)) throw keys.bad('weight_names', `names ${shown(name)}, which never is`)
    checkMatrix(keys, 'weight_names', name, tensors, { block, signs })
  }
  const embedding = inverse.has(EMBEDDING)
  if (embedding) checkMatrix(keys, 'inverse_weight_names', EMBEDDING, tensors, { block, signs })
  checkHead(keys, version, embedding, tensors)
  const gdnGrouped = keys.flag('gdn_v_grouped')
  keys.checkNothingLeft()
  return { block, signs, weights, embedding, gdnGrouped }
}

export interface Rotations {
  /** by our name of a matrix, such as layers.0.wq or tok_embeddings */
  byMatrix: Map<string, Rotation>
  /** the signs of each width, by our name of them */
  tensors: Map<string, SourceTensor>
}

function packed(name: string, signs: Int8Array): SourceTensor {
  const bytes = new Uint8Array(Math.ceil(signs.length / 8))
  signs.forEach((sign, i) => {
    if (sign < 0) bytes[i >> 3]! |= 1 << (i & 7)
  })
  return { name, type: 'packed', rows: 1, cols: signs.length, read: async () => bytes }
}

/**
 * The same by our names.
 * @param isIgnored whether the tensor of this name, which may be rotated too, is of no use to the model
 * @throws OnebitError ERR_BAD_SOURCE, naming a rotated tensor that is no matrix of this architecture that could be
 */
export function rotationsOf(
  found: PrismHadamard,
  names: TensorNames,
  structure: ModelStructure,
  isIgnored: (name: string) => boolean = () => false,
): Rotations {
  const rotation: Rotation = { block: found.block, signs: found.signs.size > 0 }
  const byMatrix = new Map<string, Rotation>()
  const tensors = new Map<string, SourceTensor>()
  const left = new Set([...found.weights].filter((name) => !isIgnored(name)))
  for (const part of modelParts(structure)) {
    if (part.part !== 'embedding' && part.part !== 'linear' && part.part !== 'head') continue
    const theirs = `${theirName(names, part)}.weight`
    left.delete(theirs)
    if (part.part === 'embedding' ? !found.embedding : !found.weights.has(theirs)) continue
    byMatrix.set(part.name, rotation)
    const cols = part.shape[1]!
    const signs = found.signs.get(cols)
    if (signs !== undefined) tensors.set(rotationSigns(cols), packed(`${PREFIX}sign_values`, signs))
  }
  const [name] = left
  if (name !== undefined) throw badSource(`${PREFIX}weight_names names ${shown(name)}, which cannot be rotated`)
  return { byMatrix, tensors }
}
