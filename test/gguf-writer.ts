/**
 * Writes GGUF v3 files for tests: metadata and tensors in f32, f16, q8_0 and q1_0, byte for byte the same on every
 * machine. It is written from the format's description and shares nothing with the importer it tests.
 */

/** ggml's type ids, and the columns and bytes of one block. */
export const GGML_TYPES = {
  f32: { id: 0, columns: 1, bytes: 4 },
  f16: { id: 1, columns: 1, bytes: 2 },
  q8_0: { id: 8, columns: 32, bytes: 34 },
  q1_0: { id: 41, columns: 128, bytes: 18 },
} as const

export type GgmlType = keyof typeof GGML_TYPES

export type MetadataValue =
  | { u32: number }
  | { f32: number }
  | { bool: boolean }
  | { string: string }
  | { strings: readonly string[] }
  | { i32s: readonly number[] }
  | { f32s: readonly number[] }

export interface GgufTensor {
  name: string
  /** or ggml's id of a type that encodeTensor does not write */
  type: GgmlType | number
  /** [rows, cols], or [length]; GGUF itself stores the fastest dimension first */
  shape: number[]
  /** already in the form of `type`: see encodeTensor */
  data: Buffer
}

/** Value type ids of GGUF metadata. */
const VALUE = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 } as const

/**
 * xorshift32 (Marsaglia 2003, shifts 13, 17, 5): integers only, so that a seed means the same file everywhere.
 */
export class SeededRandom {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0 || 1
  }

  /** 32 random bits */
  next(): number {
    let state = this.#state
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    this.#state = state >>> 0
    return this.#state
  }

  /** in [low, high), a multiple of (high - low) / 2^24 */
  uniform(low: number, high: number): number {
    return low + ((this.next() >>> 8) / 2 ** 24) * (high - low)
  }

  integer(below: number): number {
    return this.next() % below
  }
}

/** IEEE binary16 bits of a finite number, rounded to nearest, ties to even. */
export function halfBits(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0
  const magnitude = Math.abs(value)
  if (magnitude >= 65520) return sign | 0x7c00
  // Below 2^-14 the step no longer shrinks: these are the subnormal numbers.
  const exponent = magnitude < 2 ** -14 ? -14 : Math.floor(Math.log2(magnitude))
  const steps = magnitude / 2 ** (exponent - 10)
  const floor = Math.floor(steps)
  const up = steps - floor > 0.5 || (steps - floor === 0.5 && floor % 2 === 1)
  const rounded = floor + (up ? 1 : 0)
  // A normal number's steps start at 1024; carrying out of the mantissa raises the exponent by itself.
  return sign | ((exponent + 14) * 1024 + rounded)
}

/** The value that binary16 bits stand for. */
export function halfValue(bits: number): number {
  const exponent = (bits >> 10) & 31
  const mantissa = bits & 1023
  const magnitude = exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25)
  return bits & 0x8000 ? -magnitude : magnitude
}

/** 34 bytes per 32 columns: f16 scale, then int8. */
function encodeQ8Block(values: Float32Array, out: Buffer, at: number): void {
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  const scale = largest / 127
  out.writeUInt16LE(halfBits(scale), at)
  values.forEach((value, i) => {
    out.writeInt8(scale === 0 ? 0 : Math.max(-127, Math.min(127, Math.round(value / scale))), at + 2 + i)
  })
}

/** 18 bytes per 128 columns: f16 scale d, then the signs, least significant bit first; 1 means +d. */
function encodeQ1Block(values: Float32Array, out: Buffer, at: number): void {
  const scale = values.reduce((sum, value) => sum + Math.abs(value), 0) / values.length
  out.writeUInt16LE(halfBits(scale), at)
  values.forEach((value, i) => {
    if (value >= 0) out[at + 2 + (i >> 3)]! |= 1 << (i & 7)
  })
}

/** Numbers in row-major order to the bytes of `type`. */
export function encodeTensor(type: GgmlType, values: Float32Array): Buffer {
  const { columns, bytes } = GGML_TYPES[type]
  if (values.length % columns !== 0) throw new RangeError(`${type} wants a multiple of ${columns} numbers`)
  const blocks = values.length / columns
  const out = Buffer.alloc(blocks * bytes)
  for (let block = 0; block < blocks; block++) {
    const part = values.subarray(block * columns, (block + 1) * columns)
    const at = block * bytes
    if (type === 'q8_0') encodeQ8Block(part, out, at)
    else if (type === 'q1_0') encodeQ1Block(part, out, at)
    else if (type === 'f16') out.writeUInt16LE(halfBits(part[0]!), at)
    else out.writeFloatLE(part[0]!, at)
  }
  return out
}

/** Grows a list of small buffers; GGUF's integers are little-endian and its lengths are u64. */
class ByteList {
  readonly parts: Buffer[] = []
  length = 0

  bytes(part: Buffer): void {
    this.parts.push(part)
    this.length += part.length
  }

  u8(value: number): void {
    this.bytes(Buffer.from([value]))
  }

  u32(value: number): void {
    const part = Buffer.alloc(4)
    part.writeUInt32LE(value >>> 0)
    this.bytes(part)
  }

  f32(value: number): void {
    const part = Buffer.alloc(4)
    part.writeFloatLE(value)
    this.bytes(part)
  }

  u64(value: number): void {
    const part = Buffer.alloc(8)
    part.writeBigUInt64LE(BigInt(value))
    this.bytes(part)
  }

  string(value: string): void {
    const part = Buffer.from(value, 'utf8')
    this.u64(part.length)
    this.bytes(part)
  }

  align(to: number): void {
    this.bytes(Buffer.alloc((to - (this.length % to)) % to))
  }
}

function writeArray<T>(out: ByteList, type: number, items: readonly T[], write: (item: T) => void): void {
  out.u32(VALUE.array)
  out.u32(type)
  out.u64(items.length)
  for (const item of items) write(item)
}

function writeValue(out: ByteList, value: MetadataValue): void {
  if ('strings' in value) {
    writeArray(out, VALUE.string, value.strings, (item) => out.string(item))
  } else if ('i32s' in value) {
    writeArray(out, VALUE.i32, value.i32s, (item) => out.u32(item))
  } else if ('f32s' in value) {
    writeArray(out, VALUE.f32, value.f32s, (item) => out.f32(item))
  } else if ('u32' in value) {
    out.u32(VALUE.u32)
    out.u32(value.u32)
  } else if ('f32' in value) {
    out.u32(VALUE.f32)
    out.f32(value.f32)
  } else if ('bool' in value) {
    out.u32(VALUE.bool)
    out.u8(value.bool ? 1 : 0)
  } else {
    out.u32(VALUE.string)
    out.string(value.string)
  }
}

export const ALIGNMENT = 32

export interface TensorEntry {
  name: string
  /** ggml's */
  typeId: number
  /** [rows, cols], or [length] */
  shape: number[]
  bytes: number
}

/** Everything before the tensors, which lie in the given order, each padded to ALIGNMENT bytes. */
export function ggufHeader(metadata: Record<string, MetadataValue>, tensors: readonly TensorEntry[]): Buffer {
  const out = new ByteList()
  out.bytes(Buffer.from('GGUF'))
  out.u32(3)
  out.u64(tensors.length)
  out.u64(Object.keys(metadata).length)
  for (const [key, value] of Object.entries(metadata)) {
    out.string(key)
    writeValue(out, value)
  }
  let offset = 0
  for (const { name, typeId, shape, bytes } of tensors) {
    out.string(name)
    out.u32(shape.length)
    for (const size of [...shape].reverse()) out.u64(size)
    out.u32(typeId)
    out.u64(offset)
    offset += Math.ceil(bytes / ALIGNMENT) * ALIGNMENT
  }
  out.align(ALIGNMENT)
  return Buffer.concat(out.parts)
}

/** A whole GGUF v3 file. */
export function ggufFile(metadata: Record<string, MetadataValue>, tensors: readonly GgufTensor[]): Buffer {
  const out = new ByteList()
  const entries = tensors.map(({ name, type, shape, data }) => {
    return { name, typeId: typeof type === 'number' ? type : GGML_TYPES[type].id, shape, bytes: data.length }
  })
  out.bytes(ggufHeader(metadata, entries))
  for (const { data } of tensors) {
    out.bytes(data)
    out.align(ALIGNMENT)
  }
  return Buffer.concat(out.parts)
}
