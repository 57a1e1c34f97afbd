/**
 * GGUF headers: metadata and the places of tensors (format description: ggml's docs/gguf.md). Every number from the
 * file is compared with a limit or with the size of the file before anything is allocated or looped over by it.
 */
import { readSync } from 'node:fs'
import { OnebitError } from '../errors.js'
import { shown } from '../shown-value.js'
import { badSource } from './source.js'

/** Real vocabularies have at most 300,000 entries with a few tokenizer arrays beside it. */
const MAX_ARRAY = 1 << 22
/** Chat templates are the longest strings in use, and have some 20,000 bytes. */
const MAX_STRING_BYTES = 16 << 20
const MAX_METADATA = 1 << 16
const MAX_TENSORS = 1 << 18
const MAX_DIMENSIONS = 4
const MAX_HEADER_BYTES = 512 << 20
/** Element counts stay exact, and their products with block sizes too. */
const MAX_ELEMENTS = 2 ** 45
const DEFAULT_ALIGNMENT = 32
const MAX_ALIGNMENT = 1 << 20

export type GgufValue = number | bigint | boolean | string | GgufValue[]

export interface GgufTensorInfo {
  name: string
  /** ggml's type id */
  type: number
  /** as ggml counts: the fastest dimension first */
  dimensions: number[]
  /** from the start of the file */
  offset: number
}

export interface GgufHeader {
  metadata: Map<string, GgufValue>
  tensors: GgufTensorInfo[]
  fileBytes: number
}

/** The header goes on where there is nothing yet, of a file that is not here whole. */
export class HeaderGoesOn extends Error {
  /** bytes from the start of the file that are needed at least */
  readonly neededBytes: number

  constructor(neededBytes: number) {
    super(`the header has more than ${neededBytes} bytes`)
    this.neededBytes = neededBytes
  }
}

/** Reads forward through a file in windows. Synchronous: a header has hundreds of thousands of tiny values. */
class Cursor {
  static readonly #WINDOW = 1 << 20
  readonly #fd: number
  readonly #fileBytes: number
  readonly #readableBytes: number
  readonly #path: string
  #window = Buffer.alloc(0)
  #windowAt = 0
  at = 0

  constructor(path: string, fd: number, fileBytes: number, readableBytes: number) {
    this.#path = path
    this.#fd = fd
    this.#fileBytes = fileBytes
    this.#readableBytes = readableBytes
  }

  get left(): number {
    return this.#fileBytes - this.at
  }

  bytes(count: number): Buffer {
    if (count > this.left) {
      throw new OnebitError('ERR_TRUNCATED', `${this.#path} ends inside its header (byte ${this.at})`, {
        hint: 'The download stopped early; get the file again.',
      })
    }
    if (this.at + count > MAX_HEADER_BYTES) throw this.bad(`its header has more than ${MAX_HEADER_BYTES} bytes`)
    if (this.at + count > this.#readableBytes) throw new HeaderGoesOn(this.at + count)
    if (this.at < this.#windowAt || this.at + count > this.#windowAt + this.#window.length) this.#fill(count)
    const start = this.at - this.#windowAt
    this.at += count
    return this.#window.subarray(start, start + count)
  }

  #fill(count: number): void {
    const window = Buffer.allocUnsafeSlow(Math.min(this.#readableBytes - this.at, Math.max(count, Cursor.#WINDOW)))
    let done = 0
    while (done < window.length) {
      const read = readSync(this.#fd, window, done, window.length - done, this.at + done)
      if (read === 0) break
      done += read
    }
    if (done < count) throw new OnebitError('ERR_TRUNCATED', `${this.#path} became shorter while it was read`)
    this.#window = window.subarray(0, done)
    this.#windowAt = this.at
  }

  u32(): number {
    return this.bytes(4).readUInt32LE()
  }

  /** A 64-bit count or offset that must be at most `max`. */
  size(what: string, max: number): number {
    const at = this.at
    const value = this.bytes(8).readBigUInt64LE()
    if (value > BigInt(max)) throw this.bad(`${what} at byte ${at} is ${value}; at most ${max} makes sense`)
    return Number(value)
  }

  string(): string {
    const length = this.size('the length of a string', MAX_STRING_BYTES)
    return this.bytes(length).toString('utf8')
  }

  /** Many strings, as a vocabulary is: only their lengths are looked at. */
  strings(count: number): StringRuns {
    const runs = new StringRuns()
    for (let left = count; left > 0; left--) {
      const start = this.at - this.#windowAt
      const window = this.#window
      const length = start >= 0 && start + 8 <= window.length ? window.readUInt32LE(start) : -1
      const end = start + 8 + length
      const isNear = length >= 0 && length <= MAX_STRING_BYTES && end <= window.length
      if (isNear && window.readUInt32LE(start + 4) === 0) {
        runs.add(window, start)
        this.at = this.#windowAt + end
      } else runs.add(this.string())
    }
    return runs
  }

  bad(problem: string): OnebitError {
    return badSource(`${this.#path}: ${problem}`, 'The file is damaged or not a real GGUF file.')
  }
}

/**
 * Strings that are in memory and not made yet. A vocabulary and its merges are a hundred thousand; making them takes longer
 * than all the rest of a header, and is for whoever wants text.
 */
class StringRuns {
  /** strings that lie one after another, each behind its length; and single ones, which did not */
  readonly #runs: (string | { window: Buffer; start: number; count: number })[] = []

  add(text: string): void
  add(window: Buffer, start: number): void
  add(found: string | Buffer, start = 0): void {
    const last = this.#runs.at(-1)
    if (typeof found === 'string') this.#runs.push(found)
    else if (typeof last === 'object' && last.window === found) last.count++
    else this.#runs.push({ window: found, start, count: 1 })
  }

  make(): string[] {
    return this.#runs.flatMap((run) => (typeof run === 'string' ? [run] : stringsAt(run)))
  }
}

function stringsAt({ window, start, count }: { window: Buffer; start: number; count: number }): string[] {
  const found: string[] = new Array(count)
  for (let i = 0, at = start; i < count; i++) {
    const end = at + 8 + window.readUInt32LE(at)
    found[i] = window.toString('utf8', at + 8, end)
    at = end
  }
  return found
}

/** A map whose arrays of strings are made when they are asked for. */
class LateMetadata extends Map<string, GgufValue> {
  readonly #late = new Map<string, StringRuns>()

  setLate(key: string, strings: StringRuns): void {
    this.set(key, [])
    this.#late.set(key, strings)
  }

  override get(key: string): GgufValue | undefined {
    const late = this.#late.get(key)
    if (late !== undefined) {
      this.#late.delete(key)
      this.set(key, late.make())
    }
    return super.get(key)
  }

  override *entries(): MapIterator<[string, GgufValue]> {
    for (const key of this.keys()) yield [key, this.get(key)!]
  }

  override *values(): MapIterator<GgufValue> {
    for (const key of this.keys()) yield this.get(key)!
  }

  override [Symbol.iterator](): MapIterator<[string, GgufValue]> {
    return this.entries()
  }

  override forEach(action: (value: GgufValue, key: string, map: Map<string, GgufValue>) => void): void {
    for (const [key, value] of this) action(value, key, this)
  }
}

const STRING = 8
const ARRAY = 9

/** By value type id: bytes of one, and how to read it. */
const SCALARS: Record<number, { bytes: number; read: (cursor: Cursor) => GgufValue }> = {
  0: { bytes: 1, read: (c) => c.bytes(1).readUInt8() },
  1: { bytes: 1, read: (c) => c.bytes(1).readInt8() },
  2: { bytes: 2, read: (c) => c.bytes(2).readUInt16LE() },
  3: { bytes: 2, read: (c) => c.bytes(2).readInt16LE() },
  4: { bytes: 4, read: (c) => c.u32() },
  5: { bytes: 4, read: (c) => c.bytes(4).readInt32LE() },
  6: { bytes: 4, read: (c) => c.bytes(4).readFloatLE() },
  7: { bytes: 1, read: readBool },
  8: { bytes: 8, read: (c) => c.string() }, // 8: the length alone
  10: { bytes: 8, read: (c) => c.bytes(8).readBigUInt64LE() },
  11: { bytes: 8, read: (c) => c.bytes(8).readBigInt64LE() },
  12: { bytes: 8, read: (c) => c.bytes(8).readDoubleLE() },
}

function readBool(cursor: Cursor): boolean {
  const value = cursor.bytes(1)[0]!
  if (value > 1) throw cursor.bad(`a truth value at byte ${cursor.at - 1} is ${value}`)
  return value === 1
}

function readArray(cursor: Cursor): GgufValue[] | StringRuns {
  const type = cursor.u32()
  const scalar = SCALARS[type]
  if (scalar === undefined) throw cursor.bad(`an array at byte ${cursor.at - 4} has elements of type ${type}`)
  const count = cursor.size('the length of an array', MAX_ARRAY)
  if (count * scalar.bytes > cursor.left)
    throw cursor.bad(`an array of ${count} at byte ${cursor.at} is longer than the file`)
  if (type === STRING) return cursor.strings(count)
  const values: GgufValue[] = []
  for (let i = 0; i < count; i++) values.push(scalar.read(cursor))
  return values
}

function readMetadata(cursor: Cursor, count: number): Map<string, GgufValue> {
  const metadata = new LateMetadata()
  for (let i = 0; i < count; i++) {
    const key = cursor.string()
    const type = cursor.u32()
    const scalar = SCALARS[type]
    if (scalar === undefined && type !== ARRAY) {
      throw cursor.bad(`the value of ${shown(key)} has the unknown type ${type}`)
    }
    if (metadata.has(key)) throw cursor.bad(`the key ${shown(key)} is there twice`)
    const value = scalar === undefined ? readArray(cursor) : scalar.read(cursor)
    if (value instanceof StringRuns) metadata.setLate(key, value)
    else metadata.set(key, value)
  }
  return metadata
}

function readTensorInfo(cursor: Cursor, alignment: number): GgufTensorInfo {
  const name = cursor.string()
  const quoted = shown(name)
  const n = cursor.u32()
  if (n < 1 || n > MAX_DIMENSIONS) throw cursor.bad(`tensor ${quoted} has ${n} dimensions`)
  const dimensions: number[] = []
  let elements = 1
  for (let i = 0; i < n; i++) {
    const size = cursor.size(`a dimension of tensor ${quoted}`, MAX_ELEMENTS)
    elements *= size
    if (size < 1 || elements > MAX_ELEMENTS)
      throw cursor.bad(`tensor ${quoted} has the dimensions ${[...dimensions, size].join(' x ')}`)
    dimensions.push(size)
  }
  const type = cursor.u32()
  const offset = cursor.size(`the offset of tensor ${quoted}`, Number.MAX_SAFE_INTEGER)
  if (offset % alignment !== 0) throw cursor.bad(`tensor ${quoted} is at ${offset}, not a multiple of ${alignment}`)
  return { name, type, dimensions, offset }
}

function alignmentOf(cursor: Cursor, metadata: Map<string, GgufValue>): number {
  const value = metadata.get('general.alignment') ?? DEFAULT_ALIGNMENT
  if (typeof value === 'number' && value >= 8 && value <= MAX_ALIGNMENT && (value & (value - 1)) === 0) return value
  throw cursor.bad(
    `general.alignment is ${shown(value)}; a power of 2 from 8 to ${MAX_ALIGNMENT} in 32 bits makes sense`,
  )
}

/**
 * Reads the header of an open GGUF file; tensor offsets in the result count from the start of the file.
 * @param readableBytes those that are there, of a file that will have `fileBytes`
 * @throws OnebitError ERR_UNKNOWN_FORMAT, ERR_TRUNCATED, ERR_BAD_SOURCE; HeaderGoesOn
 */
export function readGgufHeader(
  path: string,
  fd: number,
  fileBytes: number,
  readableBytes: number = fileBytes,
): GgufHeader {
  const cursor = new Cursor(path, fd, fileBytes, readableBytes)
  if (cursor.bytes(4).toString('latin1') !== 'GGUF') {
    throw new OnebitError('ERR_UNKNOWN_FORMAT', `${path} is not a GGUF file`)
  }
  const version = cursor.u32()
  if (version !== 2 && version !== 3) {
    throw cursor.bad(
      version >= 1 << 16 ? 'it was written for a big-endian machine' : `GGUF version ${version} is not known`,
    )
  }
  const tensorCount = cursor.size('the number of tensors', MAX_TENSORS)
  const metadata = readMetadata(cursor, cursor.size('the number of metadata entries', MAX_METADATA))
  const alignment = alignmentOf(cursor, metadata)
  const tensors: GgufTensorInfo[] = []
  for (let i = 0; i < tensorCount; i++) tensors.push(readTensorInfo(cursor, alignment))
  const start = Math.ceil(cursor.at / alignment) * alignment
  for (const tensor of tensors) tensor.offset += start
  return { metadata, tensors, fileBytes }
}
