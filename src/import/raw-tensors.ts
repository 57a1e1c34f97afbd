/**
 * Tensors as Hugging Face and PyTorch files hold them: named, row-major, of a plain type. safetensors.ts and
 * torch-checkpoint.ts both read into this, so what follows does not care which it was.
 */
import { OnebitError } from '../errors.js'
import type { SourceType } from '../native/native.js'
import { type SourceTensor, type StoredRows, storedRows, wrongShape } from './source.js'

export type RawType = 'F64' | 'F32' | 'F16' | 'BF16' | 'I64' | 'I32' | 'I16' | 'I8' | 'U8' | 'BOOL'

export const RAW_TYPE_BYTES: Record<RawType, number> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
}

export interface RawTensor {
  name: string
  type: RawType
  shape: number[]
  /** bytes from `start`, counted from the tensor's first byte */
  read(start: number, length: number): Promise<Uint8Array>
  /** where all of it lies in a file; undefined: not known before it is read */
  stored?: StoredRows
}

export interface RawTensors {
  tensors: Map<string, RawTensor>
  files: string[]
  close(): Promise<void>
}

const FLOATS: Partial<Record<RawType, SourceType>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' }

function sameShape(found: readonly number[], expected: readonly number[]): boolean {
  return found.length === expected.length && found.every((size, i) => size === expected[i])
}

/** A float tensor that must have this shape: [rows, cols], or [cols] of a vector. */
export function floatTensor(raw: RawTensor, shape: readonly number[]): SourceTensor {
  const type = FLOATS[raw.type]
  if (type === undefined) {
    throw new OnebitError('ERR_UNSUPPORTED_TENSOR_TYPE', `Tensor ${raw.name} has type ${raw.type}`, {
      hint: 'F32, F16 and BF16 can be converted; use the original model, not a quantised one.',
    })
  }
  if (!sameShape(raw.shape, shape)) throw wrongShape(raw.name, raw.shape, shape)
  const rows = shape.length === 1 ? 1 : shape[0]!
  const cols = shape.at(-1)!
  const rowBytes = cols * RAW_TYPE_BYTES[raw.type]
  const read = storedRows(raw.stored, (first, count) => raw.read(first * rowBytes, count * rowBytes))
  return { name: raw.name, type, rows, cols, read }
}

/** Rows of bytes [rows, cols], `count` of them from `first` on. */
export function packedRows(raw: RawTensor, rows: number, cols: number) {
  if (!sameShape(raw.shape, [rows, cols])) throw wrongShape(raw.name, raw.shape, [rows, cols])
  return (first: number, count: number) => raw.read(first * cols, count * cols)
}

/** Eight signs a byte, int8 or uint8 [rows, cols / 8]. */
export function packedTensor(raw: RawTensor, rows: number, cols: number): SourceTensor {
  const rowBytes = cols / 8
  if (!sameShape(raw.shape, [rows, rowBytes])) throw wrongShape(raw.name, raw.shape, [rows, rowBytes])
  return {
    name: raw.name,
    type: 'packed',
    rows,
    cols,
    read: (first, count) => raw.read(first * rowBytes, count * rowBytes),
  }
}
