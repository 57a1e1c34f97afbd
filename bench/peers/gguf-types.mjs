// The types of tensors that random files have: how they lie in a file, and noise in their form.
import { importTypeScript } from '../../scripts/import-typescript.mjs'

const { halfBits } = await importTypeScript('test/gguf-writer.ts')

/**
 * ggml's number of a type, the columns and bytes of a block, where its f16 scale lies, and how large the numbers are that
 * the scale multiplies (the root of their mean square, roughly). Layouts: ggml-common.h of llama.cpp and ik_llama.cpp;
 * any bits are a legal block of these types. `codes`: two bits a weight, of which 3 is none of the three values. Of the
 * last two, blocks have no scale: IQ2_BN has an f32 one before each row, I2_S one in 32 bytes behind the whole tensor.
 */
export const TYPES = {
  Q4_0: { id: 2, columns: 32, bytes: 18, scaleAt: 0, size: 5 },
  Q8_0: { id: 8, columns: 32, bytes: 34, scaleAt: 0, size: 74 },
  IQ2_XXS: { id: 16, columns: 256, bytes: 66, scaleAt: 0, size: 50 },
  IQ1_S: { id: 19, columns: 256, bytes: 50, scaleAt: 0, size: 8 },
  IQ4_NL: { id: 20, columns: 32, bytes: 18, scaleAt: 0, size: 70 },
  TQ1_0: { id: 34, columns: 256, bytes: 54, scaleAt: 52, size: 1 },
  TQ2_0: { id: 35, columns: 256, bytes: 66, scaleAt: 64, size: 0.7, codes: true },
  Q1_0: { id: 41, columns: 128, bytes: 18, scaleAt: 0, size: 1 },
  Q2_0: { id: 42, columns: 64, bytes: 18, scaleAt: 0, size: 0.7, codes: true },
  IQ2_BN: { id: 135, columns: 64, bytes: 16, size: 0.7, codes: true, beforeRow: 4 },
  I2_S: { id: 36, columns: 128, bytes: 32, size: 0.7, codes: true, behind: 32 },
}

/** Of vectors and small matrices that no engine packs; `value` is what all their elements are. */
const PLAIN = {
  F32: { id: 0, columns: 1, bytes: 4, element: (value) => Buffer.from(Float32Array.of(value).buffer) },
  // The upper half of an f32: exact for the small numbers that are written here.
  BF16: { id: 30, columns: 1, bytes: 2, element: (value) => Buffer.from(Float32Array.of(value).buffer, 2, 2) },
}

const kindOf = (name) => PLAIN[name] ?? TYPES[name]

export const idOf = (name) => kindOf(name).id

/** Without the few bytes that IQ2_BN and I2_S have for a row or a tensor. */
export const bitsPerWeight = (type) => (8 * TYPES[type].bytes) / TYPES[type].columns

/** Whether every matrix of the shape has whole blocks of the type in its rows. */
export function fits(type, { dim, hidden_dim, n_heads, head_dim }) {
  return [dim, hidden_dim, n_heads * head_dim].every((cols) => cols % TYPES[type].columns === 0)
}

function rowBytes(kind, cols) {
  const { columns, bytes, beforeRow = 0 } = kindOf(kind)
  return beforeRow + (cols / columns) * bytes
}

/** @param tensor { shape: [rows, cols] or [length], kind } */
export function tensorBytes({ shape, kind }) {
  const rows = shape.length === 1 ? 1 : shape[0]
  return rows * rowBytes(kind, shape.at(-1)) + (kindOf(kind).behind ?? 0)
}

/** Two-bit codes without 3: it becomes 1, which is zero, the commonest in ternary models too. */
const legalCodes = (word) => word & ~((word & (word >>> 1) & 0x55555555) << 1)

/** A scale that makes a row's sum about as large as its input. */
const scaleOf = (kind, cols) => 1 / (TYPES[kind].size * Math.sqrt(cols))

const PIECE_BYTES = 1 << 20

/**
 * Whole rows to be written over and over: random bits, with scales that keep activations finite. Speed does not depend
 * on what the weights are.
 */
export function pieceOf({ shape, kind, value = 1 }, random) {
  const cols = shape.at(-1)
  const size = rowBytes(kind, cols)
  const rows = Math.max(1, Math.floor(PIECE_BYTES / size))
  if (PLAIN[kind]) return Buffer.concat(Array.from({ length: rows * cols }, () => PLAIN[kind].element(value)))
  const { columns, bytes, scaleAt, codes, beforeRow = 0 } = TYPES[kind]
  const word = codes ? () => legalCodes(random.next()) : () => random.next()
  const words = Uint32Array.from({ length: Math.ceil((rows * size) / 4) }, word)
  const piece = Buffer.from(words.buffer, 0, rows * size)
  const scale = scaleOf(kind, cols)
  for (let row = 0; row < rows; row++) {
    if (beforeRow > 0) piece.writeFloatLE(scale, row * size)
    if (scaleAt === undefined) continue
    const from = row * size + beforeRow + scaleAt
    for (let block = 0; block < cols / columns; block++) piece.writeUInt16LE(halfBits(scale), from + block * bytes)
  }
  return piece
}

/** What lies behind all rows of a tensor, or nothing. */
export function tailOf({ shape, kind }) {
  const tail = Buffer.alloc(kindOf(kind).behind ?? 0)
  if (tail.length > 0) tail.writeFloatLE(scaleOf(kind, shape.at(-1)))
  return tail
}
