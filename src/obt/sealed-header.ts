/**
 * What the headers of our safetensors files have in common: 8 bytes of length, then JSON padded with spaces so that the
 * data starts at a multiple of 64. `__metadata__` ends with `crc32c`, which holds the checksum of every tensor and, last
 * of all, that of the header itself. Each file has one legal header for what it says, which whoever reads it writes again
 * and compares.
 */
import type { FileHandle } from 'node:fs/promises'
import { readFully } from '../files/file-reading.js'
import { weighJson } from '../files/json-depth.js'
import { addon } from '../native/addon.js'

export const hex8 = (crc: number): string => crc.toString(16).padStart(8, '0')
export const NO_CRC = '00000000'

/** The 8 digits of the header's own checksum follow this, and this follows them. */
const CRC_BEFORE = '\\"header\\":\\"'
const CRC_AFTER = '\\"}"}'

export interface HeaderTensor {
  name: string
  dtype: string
  shape: readonly number[]
  /** from the start of the data */
  from: number
  to: number
}

export const headerEntry = ({ dtype, shape, from, to }: Omit<HeaderTensor, 'name'>): string =>
  JSON.stringify({ dtype, shape, data_offsets: [from, to] })

/** The JSON, padded; the header's own checksum is zeros. `metadata`: without its checksums. */
export function unsealedHeader(
  metadata: Record<string, string>,
  tensors: readonly HeaderTensor[],
  crcs: readonly number[],
): Buffer {
  const crc32c = JSON.stringify({ tensors: crcs.map(hex8).join(''), header: NO_CRC })
  const entries = tensors.map((tensor) => `,${JSON.stringify(tensor.name)}:${headerEntry(tensor)}`)
  const text = `{"__metadata__":${JSON.stringify({ ...metadata, crc32c })}${entries.join('')}}`
  const length = Buffer.byteLength(text)
  const bytes = Buffer.alloc(Math.ceil((8 + length) / 64) * 64 - 8, ' ')
  bytes.write(text)
  return bytes
}

/**
 * Where the header's own checksum stands, if it has these digits; -1: it is not there. Other fields may contain the same
 * text, but escaped once more.
 */
export function crcPosition(text: Buffer, digits: string): number {
  const at = text.indexOf(CRC_BEFORE + digits + CRC_AFTER)
  return at < 0 ? -1 : at + CRC_BEFORE.length
}

/** The checksum of the JSON with its own digits taken as zeros. */
export function headerCrc(text: Buffer, digitsAt: number): number {
  const copy = Buffer.from(text)
  copy.write(NO_CRC, digitsAt)
  return addon().crc32c(copy, 0)
}

/** The finished header: its checksum put in its place, the length before it. */
export function sealedHeader(text: Buffer): Buffer {
  const digitsAt = crcPosition(text, NO_CRC)
  text.write(hex8(headerCrc(text, digitsAt)), digitsAt)
  const out = Buffer.alloc(8 + text.length)
  out.writeBigUInt64LE(BigInt(text.length))
  text.copy(out, 8)
  return out
}

/** Makes an error of what is wrong with a header. */
export type RefuseHeader = (wrong: 'another format' | 'truncated' | 'too long', problem: string) => never

/** The JSON part of the header of a file with `fileBytes` bytes. Nothing is read that the file does not have. */
export async function readHeaderText(
  file: FileHandle,
  fileBytes: number,
  most: number,
  refuse: RefuseHeader,
): Promise<Buffer> {
  const start = await readFully(file, 0, 9)
  if (start.length < 9) refuse('truncated', `The file has only ${start.length} bytes`)
  if (start[8] !== 0x7b /* { */) refuse('another format', 'It does not begin as a safetensors file')
  const length = start.readBigUInt64LE()
  if (length > most) refuse('too long', `The header says it has ${length} bytes; at most ${most} are read`)
  const text = await readFully(file, 8, Math.min(Number(length), Math.max(0, fileBytes - 8)))
  if (text.length < Number(length)) {
    refuse('truncated', `The header has ${length} bytes, the file ends ${text.length} bytes into it`)
  }
  return text
}

/** Every list and object of a real header has more bytes of its own than this. */
const MIN_CONTAINER_BYTES = 16
const FREE_CONTAINERS = 64

/** Parses JSON that came from a file, at most `depth` levels of it. */
export function parseHeaderJson(
  bytes: Uint8Array,
  what: string,
  depth: number,
  refuse: (problem: string) => never,
): unknown {
  const weight = weighJson(bytes)
  if (weight.depth > depth) refuse(`${what} is nested deeper than ${depth} levels`)
  if (weight.containers > FREE_CONTAINERS + bytes.length / MIN_CONTAINER_BYTES) {
    refuse(`${what} has ${weight.containers} lists and objects in ${bytes.length} bytes`)
  }
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return refuse(`${what} is not valid UTF-8`)
  }
  try {
    return JSON.parse(text)
  } catch {
    return refuse(`${what} is not valid JSON`)
  }
}
