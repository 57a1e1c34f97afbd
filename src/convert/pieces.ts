/** Tensors of a source in pieces of rows, and how what is wrong with one is said. */
import { OnebitError } from '../errors.js'
import type { SourceTensor } from '../import/source.js'
import { addon } from '../native/addon.js'

export type Pieces = AsyncIterable<Uint8Array>

/** How to make the tensors of one matrix, by suffix. They are asked for in the order of the table. */
export type Encoding = Record<string, () => Pieces>

/** A piece is converted in a few milliseconds, during which nothing else in this thread runs. */
const PIECE_ELEMENTS = 1 << 20

export function bytesOf(values: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
}

export async function* once(bytes: Uint8Array): Pieces {
  yield bytes
}

export interface Piece {
  first: number
  count: number
  source: Uint8Array
}

export async function* readPieces(tensor: SourceTensor): AsyncIterable<Piece> {
  const rows = Math.max(1, Math.floor(PIECE_ELEMENTS / tensor.cols))
  for (let first = 0; first < tensor.rows; first += rows) {
    const count = Math.min(rows, tensor.rows - first)
    yield { first, count, source: await tensor.read(first, count) }
  }
}

/** Native conversions say which row of the piece; this says of which tensor. */
export function located<T>(tensor: SourceTensor, first: number, convert: () => T): T {
  try {
    return convert()
  } catch (cause) {
    if (!(cause instanceof OnebitError)) throw cause
    throw new OnebitError(cause.code, `Tensor ${tensor.name}, counted from row ${first}: ${cause.message}`, {
      hint: 'The source is damaged, or of a kind that cannot be converted to this type.',
      cause,
    })
  }
}

function pieceToF32(tensor: SourceTensor, { first, count, source }: Piece): Float32Array {
  const { type, cols } = tensor
  if (type === 'packed' || type === 'codes') {
    const what = type === 'packed' ? 'packed signs' : 'ternary codes'
    throw new OnebitError('ERR_BAD_SOURCE', `Tensor ${tensor.name} is ${what}, not numbers`)
  }
  return located(tensor, first, () => addon().toF32(source, type, count, cols))
}

export async function* f32Pieces(tensor: SourceTensor): AsyncIterable<Piece & { rows: Float32Array }> {
  for await (const piece of readPieces(tensor)) yield { ...piece, rows: pieceToF32(tensor, piece) }
}

export async function wholeF32(tensor: SourceTensor): Promise<Float32Array> {
  const whole = new Float32Array(tensor.rows * tensor.cols)
  for await (const { first, rows } of f32Pieces(tensor)) whole.set(rows, first * tensor.cols)
  return whole
}

export async function* f32Bytes(tensor: SourceTensor): Pieces {
  for await (const { rows } of f32Pieces(tensor)) yield bytesOf(rows)
}
