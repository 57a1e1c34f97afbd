/** The bytes of every tensor of a converted model, made from the source's rows in pieces. */

import type { ModelConfig } from '../config/config.js'
import type { DenseType, LinearKind } from '../config/kinds.js'
import type { TensorSpec } from '../config/tensors.js'
import { located } from '../import/located.js'
import { missingTensor, type SourceModel, type SourceTensor } from '../import/source.js'
import { addon } from '../native/addon.js'
import { matrixOf } from './convert-plan.js'
import { bytesOf, type Encoding, f32Bytes, f32Pieces, once, type Pieces, readPieces, wholeF32 } from './pieces.js'
import { encodeTernary } from './ternary.js'

export interface SvidOptions {
  method: 'svd' | 'nmf'
  /** |h| = sigma^split; absent: as the method leaves it (svd: 0.5) */
  split?: number | undefined
}

export interface EncodeOptions {
  svid: SvidOptions
  /** after each matrix that became signs */
  onMatrix?: ((name: string, relativeError: number) => void) | undefined
  signal?: AbortSignal | undefined
}

async function* halfBytes(tensor: SourceTensor, dtype: 'f16' | 'bf16'): Pieces {
  for await (const { rows, first, count } of f32Pieces(tensor)) {
    yield located(tensor.name, first, () => addon().fromF32(rows, dtype, count, tensor.cols)).data
  }
}

async function* packedBytes(tensor: SourceTensor): Pieces {
  if (tensor.type === 'packed') {
    for await (const { source } of readPieces(tensor)) yield source
    return
  }
  for await (const { rows, first, count } of f32Pieces(tensor)) {
    yield located(tensor.name, first, () => addon().packSigns(rows, count, tensor.cols))
  }
}

function encodeDense(weight: SourceTensor, dtype: DenseType): Encoding {
  if (dtype === 'f32') return { weight: () => f32Bytes(weight) }
  if (dtype !== 'q8') return { weight: () => halfBytes(weight, dtype) }
  const scales = new Float32Array(weight.rows) // they follow the rows in the file
  const rows = async function* (): Pieces {
    for await (const { rows, first, count } of f32Pieces(weight)) {
      const made = located(weight.name, first, () => addon().fromF32(rows, 'q8', count, weight.cols))
      scales.set(made.scales!, first)
      yield made.data
    }
  }
  return { weight: rows, scale: () => once(bytesOf(scales)) }
}

function encodeGrouped(weight: SourceTensor): Encoding {
  const perRow = weight.cols / 128
  const scales = new Uint16Array(weight.rows * perRow)
  const signs = async function* (): Pieces {
    for await (const { source, first, count } of readPieces(weight)) {
      const made = located(weight.name, first, () => addon().splitQ1_0(source, count, weight.cols))
      scales.set(made.scale, first * perRow)
      yield made.sign
    }
  }
  return { sign: signs, scale: () => once(bytesOf(scales)) }
}

/** SVID: g comes first in the file, so the whole matrix is factorised when it is asked for. */
function encodeSvid(name: string, weight: SourceTensor, options: EncodeOptions): Encoding {
  let found: { sign: Uint8Array; h: Float32Array } | undefined
  const g = async function* (): Pieces {
    const { method, split } = options.svid
    const how = split === undefined ? { method } : { method, split }
    const { relativeError, ...factors } = await addon().svid(await wholeF32(weight), weight.rows, weight.cols, how)
    found = factors
    options.onMatrix?.(name, relativeError)
    yield bytesOf(factors.g)
  }
  return { g, sign: () => once(found!.sign), h: () => once(bytesOf(found!.h)) }
}

/** Parts that are no matrices of some kind: always f32. */
const PLAIN = new Set<TensorSpec['part']>(['norm', 'positions', 'recurrence'])

/** Makes the bytes of each tensor of a file from a source. */
export class Encoder {
  readonly #source: SourceModel
  readonly #config: ModelConfig
  readonly #options: EncodeOptions
  #matrix = ''
  #encoding: Encoding = {}

  constructor(source: SourceModel, config: ModelConfig, options: EncodeOptions) {
    this.#source = source
    this.#config = config
    this.#options = options
  }

  /** For writeObt, which asks for the tensors in the table's order. */
  produce(spec: TensorSpec): Pieces {
    this.#options.signal?.throwIfAborted()
    if (PLAIN.has(spec.part)) return f32Bytes(this.#tensor(spec.name))
    if (spec.part === 'rotation') return packedBytes(this.#tensor(spec.name))
    const dot = spec.name.lastIndexOf('.')
    const [matrix, part] = [spec.name.slice(0, dot), spec.name.slice(dot + 1)]
    if (matrix !== this.#matrix) {
      this.#encoding = this.#encode(matrix, matrixOf(this.#config, matrix).kind)
      this.#matrix = matrix
    }
    return part === 'bias' || part === 'norm_in' ? f32Bytes(this.#tensor(spec.name)) : this.#encoding[part]!()
  }

  #tensor(name: string): SourceTensor {
    const found = this.#source.tensors.get(name)
    if (found === undefined) throw missingTensor(name)
    return found
  }

  #encode(name: string, kind: LinearKind): Encoding {
    const weight = this.#tensor(`${name}.weight`)
    if (kind.kind === 'ternary') return encodeTernary(weight, kind.group)
    if (kind.kind === 'dense') return encodeDense(weight, kind.dtype)
    if (kind.kind === 'q1_0') return encodeGrouped(weight)
    if (!this.#source.tensors.has(`${name}.g`)) return encodeSvid(name, weight, this.#options)
    return {
      g: () => f32Bytes(this.#tensor(`${name}.g`)),
      sign: () => packedBytes(weight),
      h: () => f32Bytes(this.#tensor(`${name}.h`)),
    }
  }
}
