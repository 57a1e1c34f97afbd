/** GGUF files, quantised blocks included. What their metadata and names mean is in src/architectures. */

import type { GgufFacts, TensorNames } from '../architectures/architecture.js'
import { ggufDescription } from '../architectures/list.js'
import { LIMITS } from '../config/limits.js'
import { OnebitError } from '../errors.js'
import { readExactly } from '../files/file-reading.js'
import { floatRows } from './float-rows.js'
import { GgufKeys, shortest } from './gguf-keys.js'
import { readGgufLinear } from './gguf-linear.js'
import { closeParts, type GgufPart, openGgufParts } from './gguf-parts.js'
import type { GgufHeader, GgufTensorInfo } from './gguf-reader.js'
import { ggufText } from './gguf-text.js'
import { type GgufType, GgufTypes, tensorBytes } from './gguf-types.js'
import { i2sTensor } from './i2-s.js'
import { mapTensors, Taker } from './map-tensors.js'
import { readPrismHadamard, rotationsOf } from './prism-hadamard.js'
import { badSource, checkDimension, type SourceModel, type SourceTensor, storedRows, wrongShape } from './source.js'
import { groupValueHeads } from './value-heads.js'

interface PlacedTensor extends GgufTensorInfo {
  format: GgufType
}

type TensorMap = Map<string, PlacedTensor>

/** Every tensor's type known, its bytes inside the file, no two sharing any. */
function checkTensors(path: string, header: GgufHeader): TensorMap {
  const byName: TensorMap = new Map()
  const tensors = [...header.tensors].sort((a, b) => a.offset - b.offset)
  const types = new GgufTypes(path, header, tensors)
  let end = 0
  let before = ''
  for (const tensor of tensors) {
    const { name, dimensions, offset } = tensor
    const format = types.of(tensor)
    if (dimensions[0]! % format.elements !== 0) {
      throw badSource(`${path}: tensor ${name} has rows of ${dimensions[0]}, not a multiple of ${format.elements}`)
    }
    if (byName.has(name)) throw badSource(`${path}: tensor ${name} is there twice`)
    if (offset < end) throw badSource(`${path}: tensors ${before} and ${name} overlap at byte ${offset}`)
    end = offset + tensorBytes(tensor, format)
    before = name
    if (end > header.fileBytes) {
      const message = `${path}: tensor ${name} ends at byte ${end}, the file has ${header.fileBytes}`
      throw new OnebitError('ERR_TRUNCATED', message, { hint: 'The download stopped early; get the file again.' })
    }
    byName.set(name, { ...tensor, format })
  }
  return byName
}

interface JoinedTensors {
  tensors: TensorMap
  read: ReadAt
  /** of the file that a tensor is in */
  pathOf: (name: string) => string
}

/** Of the tensors of all parts, each of which counts from its own start. */
function joinTensors(parts: readonly GgufPart[]): JoinedTensors {
  const tensors: TensorMap = new Map()
  const partOf = new Map<string, GgufPart>()
  for (const part of parts) {
    for (const [name, tensor] of checkTensors(part.path, part.header)) {
      if (tensors.has(name)) throw badSource(`${part.path}: tensor ${name} is in an earlier part too`)
      tensors.set(name, tensor)
      partOf.set(name, part)
    }
  }
  return {
    tensors,
    pathOf: (name) => partOf.get(name)!.path,
    read: (name, position, length) => {
      const { path, file } = partOf.get(name)!
      return readExactly(path, file, position, length)
    },
  }
}

type ReadAt = (name: string, position: number, length: number) => Promise<Uint8Array>

class GgufTaker extends Taker<PlacedTensor> {
  readonly #read: ReadAt
  readonly #pathOf: (name: string) => string

  constructor({ tensors, read, pathOf }: JoinedTensors) {
    super(tensors)
    this.#read = read
    this.#pathOf = pathOf
  }

  protected override open({ name, format, dimensions, offset }: PlacedTensor, shape: number[]): SourceTensor {
    const found = [...dimensions].reverse()
    if (found.length !== shape.length || found.some((size, i) => size !== shape[i])) {
      throw wrongShape(name, found, shape)
    }
    const cols = shape.at(-1)!
    const rows = shape.length === 1 ? 1 : shape[0]!
    const { type, elements, bytes } = format
    if (type === 'i2_s') return i2sTensor(name, rows, cols, (at, length) => this.#read(name, offset + at, length))
    const rowBytes = (cols / elements) * bytes
    const read = storedRows({ path: this.#pathOf(name), offset }, (first, count) =>
      this.#read(name, offset + first * rowBytes, count * rowBytes),
    )
    return { name, type, rows, cols, read }
  }
}

async function readRopeFactors(take: GgufTaker): Promise<number[] | undefined> {
  const name = 'rope_freqs.weight'
  const info = take.raw(name)
  if (info === undefined) return undefined
  const { dimensions } = info
  // How many there have to be is known later; this only keeps the reading small.
  if (dimensions.length !== 1 || dimensions[0]! > LIMITS.head_dim) {
    throw badSource(`Tensor ${name} has ${dimensions.join(' x ')} numbers; half of a head's size are used`)
  }
  const tensor = take.required(name, dimensions[0]!)
  return Array.from(await floatRows(tensor, 0, 1), shortest)
}

/** Only a layer that predicts ahead has tensors with such a name; all behind it are of its kind. */
function plainLayers(tensors: TensorMap): number {
  const layerOf = (pattern: RegExp) => {
    return [...tensors.keys()].flatMap((name) => {
      const layer = pattern.exec(name)?.[1]
      return layer === undefined ? [] : [Number(layer)]
    })
  }
  const count = layerOf(/^blk\.(\d+)\./).reduce((most, layer) => Math.max(most, layer + 1), 0)
  return layerOf(/^blk\.(\d+)\.nextn\./).reduce((least, layer) => Math.min(least, layer), count)
}

async function readFacts(names: TensorNames, tensors: TensorMap, take: GgufTaker): Promise<GgufFacts> {
  const embedding = tensors.get(`${names.tok_embeddings}.weight`)
  return {
    vocab_size: checkDimension('the vocabulary', embedding?.dimensions[1], LIMITS.vocab),
    tied_head: !tensors.has(`${names.output}.weight`),
    rope_factors: await readRopeFactors(take),
    plain_layers: plainLayers(tensors),
  }
}

/** The architecture of a file that holds a whole model. */
function checkModel(parts: readonly GgufPart[]): string {
  const { path, header } = parts[0]!
  const { metadata } = header
  const architecture = metadata.get('general.architecture')
  if (typeof architecture !== 'string') {
    throw badSource(
      `${path} does not say its architecture (general.architecture)`,
      'It may be no model, or only a part of one.',
    )
  }
  if (parts.every((part) => part.header.tensors.length === 0)) {
    throw badSource(`${path} has no tensors: it holds only a vocabulary`)
  }
  return architecture
}

/** What the file calls its model; nothing depends on it. */
function nameOf(metadata: GgufHeader['metadata']): string | undefined {
  const names = ['general.name', 'general.basename'].map((key) => metadata.get(key))
  return names.find((name): name is string => typeof name === 'string' && name !== '')
}

/**
 * Opens a GGUF file, and with any part of a model in several all of them.
 * @throws OnebitError ERR_UNSUPPORTED_ARCHITECTURE, ERR_UNSUPPORTED_TENSOR_TYPE, ERR_UNSUPPORTED_ROPE,
 *   ERR_MISSING_TENSOR, ERR_TENSOR_SHAPE, ERR_BAD_SOURCE, ERR_TRUNCATED, ERR_FILE_NOT_FOUND of a part
 */
export async function openGguf(path: string): Promise<SourceModel> {
  const parts = await openGgufParts(path)
  try {
    const { metadata } = parts[0]!.header
    const architecture = checkModel(parts)
    const { names, fused, isIgnored, read } = ggufDescription(architecture)
    const joined = joinTensors(parts)
    const placed = joined.tensors
    const hadamard = readPrismHadamard(metadata, placed)
    const take = new GgufTaker(joined)
    const keys = new GgufKeys(metadata, architecture)
    const { structure, biases } = read(keys, await readFacts(names, placed, take))
    keys.checkNothingLeft()
    const isOfNothing = (name: string) => isIgnored?.(name, structure) ?? false
    take.ignore(isOfNothing)
    const tensors = mapTensors({ structure, biases, names, fused }, take, readGgufLinear(take))
    const rotations = hadamard && rotationsOf(hadamard, names, structure, isOfNothing)
    for (const [name, tensor] of rotations?.tensors ?? []) tensors.set(name, tensor)
    const config = groupValueHeads(tensors, structure, rotations?.byMatrix ?? new Map(), hadamard?.gdnGrouped ?? false)
    return {
      format: 'gguf',
      name: nameOf(metadata),
      config,
      tensors,
      text: ggufText(metadata),
      layernorm: false,
      rotations: rotations?.byMatrix,
      files: parts.map((part) => part.path),
      close: () => closeParts(parts),
    }
  } catch (cause) {
    await closeParts(parts)
    throw cause
  }
}
