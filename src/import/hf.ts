/**
 * Hugging Face folders, with weights in safetensors or PyTorch files; among them the OneBit authors' own checkpoints,
 * whose linears are signs in one of two layouts. What their configs and names mean is in src/architectures.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { HuggingFaceDescription, Reading } from '../architectures/architecture.js'
import { huggingFaceDescription } from '../architectures/list.js'
import { shown } from '../shown-value.js'
import { type BitnetQuantization, readBitnet, readBitnetQuantization } from './bitnet-packed.js'
import { type Fields, HfFields, isObject } from './hf-fields.js'
import { folderText, noConfig, readJson } from './hf-text.js'
import { mapTensors, type ReadLinear, Taker } from './map-tensors.js'
import { floatTensor, packedTensor, type RawTensor, type RawTensors } from './raw-tensors.js'
import { openSafetensors } from './safetensors.js'
import { badSource, missingTensor, type SourceModel, type SourceTensor, wrongShape } from './source.js'
import { openTorchCheckpoint } from './torch-checkpoint.js'

/** What a config.json says. @throws OnebitError as HuggingFaceDescription.read */
export function readHfConfig(json: Fields): HfReading {
  const usual = huggingFaceDescription(json.model_type, json.architectures)
  const config = new HfFields(json)
  const reading = usual.read(config)
  const description = { ...usual, names: reading.names ?? usual.names }
  const hasSigns = description.signs?.modelTypes.includes(json.model_type as string) ?? false
  return { ...reading, description, hasSigns, quantization: readBitnetQuantization(config) }
}

interface HfReading extends Reading {
  description: HuggingFaceDescription
  /** its linears are signs */
  hasSigns: boolean
  /** its linears are ternary */
  quantization: BitnetQuantization | undefined
}

class HfTaker extends Taker<RawTensor> {
  readonly #basePrefix: string
  /** what names of this checkpoint begin with in its place */
  readonly #prefix: string

  constructor(raw: RawTensors['tensors'], { names, basePrefix, nestedPrefix, isIgnored }: HuggingFaceDescription) {
    super(raw, isIgnored)
    const embedding = `${names.tok_embeddings!.slice(basePrefix.length)}.weight`
    const prefixes = [basePrefix, ...(nestedPrefix === undefined ? [] : [nestedPrefix])]
    this.#basePrefix = basePrefix
    this.#prefix = prefixes.find((prefix) => raw.has(prefix + embedding)) ?? ''
  }

  protected override open(raw: RawTensor, shape: readonly number[]): SourceTensor {
    // A convolution of each channel by itself has a 1 between channels and taps.
    const { shape: found } = raw
    const isOfChannels = shape.length === 2 && found.length === 3 && found[1] === 1
    return floatTensor(isOfChannels ? { ...raw, shape: [found[0]!, found[2]!] } : raw, shape)
  }

  protected override nameOf(usual: string): string {
    return usual.startsWith(this.#basePrefix) ? this.#prefix + usual.slice(this.#basePrefix.length) : usual
  }
}

type SignLayout = 'packed' | 'training'

/** int8 weights are packed signs; floats with a scale at each end are the training layout's latent weights. */
function signLayout(take: HfTaker, { names }: HuggingFaceDescription): SignLayout {
  const weight = take.raw(`${names['layers.*.wq']?.replace('*', '0')}.weight`)
  return weight?.type === 'I8' || weight?.type === 'U8' ? 'packed' : 'training'
}

function packedSigns(take: HfTaker, name: string, rows: number, cols: number): SourceTensor {
  const raw = take.raw(name)
  if (raw === undefined) throw missingTensor(name)
  if (raw.type !== 'I8' && raw.type !== 'U8') {
    throw badSource(`Tensor ${raw.name} has type ${raw.type}, others are packed`)
  }
  if (cols % 8 !== 0) throw wrongShape(raw.name, raw.shape, [rows, cols / 8])
  return packedTensor(raw, rows, cols)
}

function readSigns(take: HfTaker, { signs }: HuggingFaceDescription, layout: SignLayout): ReadLinear {
  return function* (theirs, rows, cols) {
    const weight = `${theirs}.weight`
    yield ['g', take.required(`${theirs}.${signs!.g}`, cols)]
    yield ['weight', layout === 'packed' ? packedSigns(take, weight, rows, cols) : take.required(weight, rows, cols)]
    yield ['h', take.required(`${theirs}.${signs!.h}`, rows)]
  }
}

/** The file names in an index, which must be names and nothing more: an index can say anything. */
function shardNames(index: Fields, file: string): string[] {
  const map = index.weight_map
  const names = isObject(map) ? [...new Set(Object.values(map))] : []
  if (names.length === 0) throw badSource(`${file} has no weight_map`)
  return names.map((name) => {
    if (typeof name === 'string' && /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name)) return name
    throw badSource(`${file} names a file ${shown(name)}, which is not a plain file name`)
  })
}

const WEIGHT_FILES = [
  { single: 'model.safetensors', open: openSafetensors },
  { single: 'pytorch_model.bin', open: openTorchCheckpoint },
] as const

async function openWeights(folder: string): Promise<RawTensors> {
  for (const { single, open } of WEIGHT_FILES) {
    if (existsSync(join(folder, single))) return open(folder, [single])
    const index = await readJson(join(folder, `${single}.index.json`))
    if (index !== undefined) return open(folder, shardNames(index, `${single}.index.json`))
  }
  throw badSource(`${folder} has no model.safetensors, no pytorch_model.bin and no index of such files`)
}

/** On the hub `_name_or_path` is who and what; in a folder that somebody saved it may be any path. */
function nameOf({ _name_or_path: name }: Fields): string | undefined {
  return typeof name === 'string' && /^[\w.-]+\/[\w.-]+$/.test(name) ? name.split('/')[1] : undefined
}

/**
 * Opens a model folder.
 * @throws OnebitError ERR_UNKNOWN_FORMAT, ERR_UNSUPPORTED_ARCHITECTURE, ERR_UNSUPPORTED_ROPE,
 *   ERR_UNSUPPORTED_TENSOR_TYPE, ERR_MISSING_TENSOR, ERR_TENSOR_SHAPE, ERR_BAD_SOURCE, ERR_PICKLE_FORBIDDEN,
 *   ERR_TRUNCATED, and those of reading files
 */
export async function openHuggingFace(folder: string): Promise<SourceModel> {
  const json = await readJson(join(folder, 'config.json'))
  if (json === undefined) throw await noConfig(folder)
  const { description, hasSigns, structure, biases, quantization } = readHfConfig(json)
  const raw = await openWeights(folder)
  try {
    const { names } = description
    const take = new HfTaker(raw.tensors, description)
    const layout = hasSigns ? signLayout(take, description) : undefined
    // Some checkpoints hold a head that is tied all the same, and then it is not used.
    if (structure.tied_head) take.optional(`${names.output}.weight`, structure.vocab_size, structure.dim)
    const ternary = quantization && readBitnet(take, quantization)
    const readLinear = layout === undefined ? ternary : readSigns(take, description, layout)
    const { fused, adjust } = description
    const tensors = mapTensors({ structure, biases, names, fused, adjust }, take, readLinear)
    return {
      format: layout === undefined ? 'huggingface' : `onebit-${layout}`,
      name: nameOf(json),
      config: structure,
      tensors,
      text: folderText(folder, json),
      layernorm: layout !== undefined,
      files: raw.files,
      close: () => raw.close(),
    }
  } catch (cause) {
    await raw.close()
    throw cause
  }
}
