/**
 * What every importer yields: a model's config without the kinds of its matrices, and its tensors under our names, to
 * be read row by row. convert.ts makes a `.obt` file of it and knows nothing of formats.
 */
import type { ModelStructure } from '../config/config.js'
import type { Rotation } from '../config/front.js'
import { OnebitError } from '../errors.js'
import type { SourceType } from '../native/native.js'
import { shown } from '../shown-value.js'
import type { SourceText } from './source-text.js'

/**
 * packed: 8 signs a byte in the official layout, which is also ours; `cols` still counts signs. codes: ternary weights,
 * four to a byte as in our files (weight + 1, the first in the lowest bits), worth what `scale` says.
 */
export type TensorForm = SourceType | 'packed' | 'codes'

export interface SourceTensor {
  /** its name in the source, for messages */
  name: string
  type: TensorForm
  /** 1 for vectors */
  rows: number
  cols: number
  /** the bytes of `count` rows from `first` on */
  readonly read: ReadRows
  /** f32, one number or one a row: multiplies what the rows say */
  scale?: SourceTensor | undefined
}

/**
 * It may know that the rows lie in a file one after another, in the form of the tensor's type, so that whoever can read files
 * need not ask for them. That belongs to the function: whoever gives a tensor another one makes other rows of it.
 */
export interface ReadRows {
  (first: number, count: number): Promise<Uint8Array>
  readonly stored?: StoredRows | undefined
}

export interface StoredRows {
  path: string
  /** of the first row, in bytes */
  offset: number
}

export function storedRows(
  stored: StoredRows | undefined,
  read: (first: number, count: number) => Promise<Uint8Array>,
): ReadRows {
  return Object.assign(read, { stored })
}

export interface SourceModel {
  format: 'huggingface' | 'gguf' | 'llama2c' | 'onebit-packed' | 'onebit-training'
  /** what it calls itself, where it does */
  name?: string | undefined
  config: ModelStructure
  /**
   * By our matrix name and part: `tok_embeddings.weight`, `layers.0.wq.weight`, `layers.0.wq.bias`, `norm`,
   * `layers.0.attention_norm`; a sign matrix has `.g` and `.h` beside `.weight`, which is packed or latent. `.norm_in` of a
   * matrix is the norm in front of it; `rotation_signs.64` are the signs of rotated matrices of 64 columns, packed.
   */
  tensors: Map<string, SourceTensor>
  text: SourceText
  /** sign layers have the paper's LayerNorm */
  layernorm: boolean
  /** the matrices that are stored rotated, by our names: layers.0.wq, tok_embeddings */
  rotations?: ReadonlyMap<string, Rotation> | undefined
  /** every file that was read, for the provenance */
  files: string[]
  close(): Promise<void>
}

const NOT_THE_SAME = 'Without that the model would compute something else, so it is not converted.'

/** A model that computes something that we do not. */
export function unsupportedArchitecture(found: string, hint = NOT_THE_SAME): OnebitError {
  return new OnebitError('ERR_UNSUPPORTED_ARCHITECTURE', `The model has architecture ${found}`, { hint })
}

export function badSource(message: string, hint?: string): OnebitError {
  return new OnebitError('ERR_BAD_SOURCE', message, hint === undefined ? {} : { hint })
}

export function missingTensor(name: string): OnebitError {
  return new OnebitError('ERR_MISSING_TENSOR', `The source has no tensor ${name}`, {
    hint: 'The download may be incomplete, or the model only looks like one of its architecture.',
  })
}

export function wrongShape(name: string, found: readonly number[], expected: readonly number[]): OnebitError {
  const [is, should] = [found.join(' x '), expected.join(' x ')]
  return new OnebitError('ERR_TENSOR_SHAPE', `Tensor ${name} has shape ${is}, its config makes it ${should}`)
}

export function unusedTensor(name: string): OnebitError {
  return badSource(
    `The source has a tensor ${name}, which a model of its config does not use`,
    'It probably only looks like a model of its architecture.',
  )
}

/** Everything we allocate or loop over follows from these, so they are checked before anything else. */
export function checkDimension(field: string, value: unknown, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > max) {
    throw badSource(`${field} must be a whole number from 1 to ${max}, found ${shown(value)}`)
  }
  return value
}
