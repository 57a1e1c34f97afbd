/** Tensors of a source in pieces of rows, and how what is wrong with one is said. */
import { OnebitError } from '../errors.js'
import { floatRows } from '../import/float-rows.js'
import { located } from '../import/located.js'
import { type RowRange, rowRanges } from '../import/row-ranges.js'
import type { SourceTensor } from '../import/source.js'
import { addon } from '../native/addon.js'

export type Pieces = AsyncIterable<Uint8Array>

/** How to make the tensors of one matrix, by suffix. They are asked for in the order of the table. */
export type Encoding = Record<string, () => Pieces>

export function bytesOf(values: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
}

export async function* once(bytes: Uint8Array): Pieces {
  yield bytes
}

export interface Piece extends RowRange {
  source: Uint8Array
}

export async function* readPieces(tensor: SourceTensor): AsyncIterable<Piece> {
  for (const { first, count } of rowRanges(tensor)) yield { first, count, source: await tensor.read(first, count) }
}

/** What each row is multiplied by. */
export async function scalesOf({ rows, scale }: SourceTensor): Promise<Float32Array> {
  if (scale === undefined) return new Float32Array(rows).fill(1)
  const given = await floatRows(scale, 0, scale.rows)
  return given.length === 1 ? new Float32Array(rows).fill(given[0]!) : given
}

/** Codes four to a byte, the first in the lowest bits; a weight is its code - 1. */
function codesToF32(codes: Uint8Array): Float32Array {
  return Float32Array.from({ length: codes.length * 4 }, (_, i) => ((codes[i >> 2]! >> ((i & 3) * 2)) & 3) - 1)
}

function pieceToF32(tensor: SourceTensor, { first, count, source }: Piece): Float32Array {
  const { type, cols } = tensor
  if (type === 'packed') throw new OnebitError('ERR_BAD_SOURCE', `Tensor ${tensor.name} is packed signs, not numbers`)
  if (type === 'codes') return codesToF32(source)
  return located(tensor.name, first, () => addon().toF32(source, type, count, cols))
}

export async function* f32Pieces(tensor: SourceTensor): AsyncIterable<Piece & { rows: Float32Array }> {
  const scales = tensor.scale && (await scalesOf(tensor))
  for await (const piece of readPieces(tensor)) {
    const rows = pieceToF32(tensor, piece)
    if (scales) for (let i = 0; i < rows.length; i++) rows[i]! *= scales[piece.first + Math.floor(i / tensor.cols)]!
    yield { ...piece, rows }
  }
}

export async function wholeF32(tensor: SourceTensor): Promise<Float32Array> {
  const whole = new Float32Array(tensor.rows * tensor.cols)
  for await (const { first, rows } of f32Pieces(tensor)) whole.set(rows, first * tensor.cols)
  return whole
}

export async function* f32Bytes(tensor: SourceTensor): Pieces {
  for await (const { rows } of f32Pieces(tensor)) yield bytesOf(rows)
}
