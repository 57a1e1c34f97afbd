/**
 * As much of zip as PyTorch writes: entries stored without compression, zip64 when large. Only the central directory
 * is believed; a local header that tells another story is an error.
 */
import type { FileHandle } from 'node:fs/promises'
import { crc32 } from 'node:zlib'
import { OnebitError } from '../errors.js'
import { readExactly } from '../files/file-reading.js'
import { badSource } from './source.js'

export interface ZipEntry {
  name: string
  bytes: number
  crc32: number
  /** of the local header */
  headerAt: number
}

/** The comment of a zip has at most 65,535 bytes, so its end record is never further from the end. */
const MAX_END_DISTANCE = 22 + 0xffff
/** A checkpoint has one entry a tensor; the limit keeps a directory of tiny entries from filling the memory. */
const MAX_ENTRIES = 1 << 20
const MAX_DIRECTORY_BYTES = 256 << 20

const END = 0x06054b50
const END64_LOCATOR = 0x07064b50
const END64 = 0x06064b50
const CENTRAL = 0x02014b50
const LOCAL = 0x04034b50
const ZIP64_EXTRA = 0x0001

interface Directory {
  at: number
  bytes: number
  entries: number
}

function size64(bytes: Buffer, at: number, path: string): number {
  const value = bytes.readBigUInt64LE(at)
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw badSource(`${path}: a size of ${value} bytes in its zip directory`)
  return Number(value)
}

async function findDirectory(path: string, file: FileHandle, fileBytes: number): Promise<Directory> {
  const from = Math.max(0, fileBytes - MAX_END_DISTANCE)
  const tail = await readExactly(path, file, from, fileBytes - from)
  let end = tail.length - 22
  while (end >= 0 && tail.readUInt32LE(end) !== END) end--
  if (end < 0) {
    throw new OnebitError('ERR_TRUNCATED', `${path} has no zip directory at its end`, { hint: 'Download it again.' })
  }
  const locator = end - 20
  if (locator >= 0 && tail.readUInt32LE(locator) === END64_LOCATOR) {
    const at = size64(tail, locator + 8, path)
    if (at + 56 > fileBytes) throw badSource(`${path}: its zip64 record is outside the file`)
    const record = await readExactly(path, file, at, 56)
    if (record.readUInt32LE(0) !== END64) throw badSource(`${path}: its zip64 record is damaged`)
    return { entries: size64(record, 32, path), bytes: size64(record, 40, path), at: size64(record, 48, path) }
  }
  return { entries: tail.readUInt16LE(end + 10), bytes: tail.readUInt32LE(end + 12), at: tail.readUInt32LE(end + 16) }
}

/** Sizes above 32 bits are in an extra field, in a fixed order, each only when its short field is all ones. */
function zip64Sizes(extra: Buffer, short: number[], path: string): number[] {
  for (let at = 0; at + 4 <= extra.length; ) {
    const [id, length] = [extra.readUInt16LE(at), extra.readUInt16LE(at + 2)]
    const field = extra.subarray(at + 4, at + 4 + length)
    at += 4 + length
    if (id !== ZIP64_EXTRA) continue
    let next = 0
    return short.map((value) => {
      if (value !== 0xffffffff) return value
      if (next + 8 > field.length) throw badSource(`${path}: a zip64 field is too short`)
      next += 8
      return size64(field, next - 8, path)
    })
  }
  return short
}

function parseDirectory(path: string, bytes: Buffer, count: number): Map<string, ZipEntry> {
  const entries = new Map<string, ZipEntry>()
  const damaged = () => badSource(`${path}: its zip directory is damaged`, 'Download it again.')
  let at = 0
  for (let i = 0; i < count; i++) {
    if (at + 46 > bytes.length || bytes.readUInt32LE(at) !== CENTRAL) throw damaged()
    const [flags, method, crc] = [bytes.readUInt16LE(at + 8), bytes.readUInt16LE(at + 10), bytes.readUInt32LE(at + 16)]
    const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map((field) => bytes.readUInt16LE(at + field)) as [
      number,
      number,
      number,
    ]
    const nameEnd = at + 46 + nameBytes
    if (nameEnd + extraBytes + commentBytes > bytes.length) throw damaged()
    const name = bytes.toString('utf8', at + 46, nameEnd)
    const short = [24, 20, 42].map((field) => bytes.readUInt32LE(at + field))
    const [size, stored, headerAt] = zip64Sizes(bytes.subarray(nameEnd, nameEnd + extraBytes), short, path)
    if (method !== 0 || size !== stored || (flags & 1) !== 0) {
      throw badSource(`${path}: entry ${name} is compressed or encrypted; PyTorch stores entries as they are`)
    }
    if (entries.has(name)) throw badSource(`${path}: entry ${name} is there twice`)
    entries.set(name, { name, bytes: size!, crc32: crc, headerAt: headerAt! })
    at = nameEnd + extraBytes + commentBytes
  }
  return entries
}

export async function readZipDirectory(
  path: string,
  file: FileHandle,
  fileBytes: number,
): Promise<Map<string, ZipEntry>> {
  const { at, bytes, entries } = await findDirectory(path, file, fileBytes)
  if (at + bytes > fileBytes || bytes > MAX_DIRECTORY_BYTES || entries > MAX_ENTRIES) {
    throw badSource(`${path}: its zip directory has ${entries} entries in ${bytes} bytes at ${at}, which cannot be`)
  }
  return parseDirectory(path, await readExactly(path, file, at, bytes), entries)
}

/** Where an entry's data starts: after its local header, whose name and extra field may have another length. */
export async function entryStart(path: string, file: FileHandle, entry: ZipEntry, fileBytes: number): Promise<number> {
  const damaged = () => badSource(`${path}: entry ${entry.name} is not where the zip directory says`)
  if (entry.headerAt + 30 > fileBytes) throw damaged()
  const header = await readExactly(path, file, entry.headerAt, 30)
  const start = entry.headerAt + 30 + header.readUInt16LE(26) + header.readUInt16LE(28)
  if (header.readUInt32LE(0) !== LOCAL || start + entry.bytes > fileBytes) throw damaged()
  const name = await readExactly(path, file, entry.headerAt + 30, header.readUInt16LE(26))
  if (name.toString('utf8') !== entry.name) throw damaged()
  return start
}

/** A small entry, whole, with its checksum verified. */
export async function readEntry(
  path: string,
  file: FileHandle,
  entry: ZipEntry,
  fileBytes: number,
  max: number,
): Promise<Buffer> {
  if (entry.bytes > max)
    throw badSource(`${path}: entry ${entry.name} has ${entry.bytes} bytes, at most ${max} are read`)
  const bytes = await readExactly(path, file, await entryStart(path, file, entry, fileBytes), entry.bytes)
  if (crc32(bytes) === entry.crc32) return bytes
  throw new OnebitError('ERR_CHECKSUM', `${path}: the checksum of ${entry.name} is wrong`, {
    hint: 'Download it again.',
  })
}
