/** Safetensors files of others: one file, or shards with `model.safetensors.index.json`. Strict about the layout. */
import type { FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { OnebitError } from '../errors.js'
import { openFile, readExactly, readFully } from '../files/file-reading.js'
import { isNestedDeeperThan } from '../files/json-depth.js'
import { RAW_TYPE_BYTES, type RawTensor, type RawTensors, type RawType } from './raw-tensors.js'
import { badSource } from './source.js'

/** The limit of the safetensors library itself. */
const MAX_HEADER_BYTES = 100_000_000
const MAX_DIMENSIONS = 8

interface Entry {
  name: string
  type: RawType
  shape: number[]
  from: number
  to: number
}

type Fields = Record<string, unknown>

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isSize(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function parseEntry(file: string, name: string, value: unknown): Entry {
  const bad = (problem: string) => badSource(`${file}: tensor ${name.slice(0, 100)} ${problem}`)
  if (!isObject(value)) throw bad('is not described by an object')
  const { dtype, shape, data_offsets } = value
  if (!Array.isArray(shape) || shape.length > MAX_DIMENSIONS || !shape.every(isSize)) throw bad('has no valid shape')
  if (!Array.isArray(data_offsets) || data_offsets.length !== 2 || !data_offsets.every(isSize)) {
    throw bad('has no valid data_offsets')
  }
  if (typeof dtype !== 'string' || !Object.hasOwn(RAW_TYPE_BYTES, dtype)) {
    throw new OnebitError(
      'ERR_UNSUPPORTED_TENSOR_TYPE',
      `${file}: tensor ${name} has type ${String(dtype).slice(0, 20)}`,
      {
        hint: 'F32, F16 and BF16 can be converted; use the original model, not a quantised one.',
      },
    )
  }
  const type = dtype as RawType
  const [from, to] = data_offsets as [number, number]
  const bytes = shape.reduce((product: number, size: number) => product * size, RAW_TYPE_BYTES[type])
  if (!Number.isSafeInteger(bytes) || to - from !== bytes) {
    throw bad(`has ${to - from} bytes at ${from}, its shape and type make ${bytes}`)
  }
  return { name, type, shape: shape as number[], from, to }
}

/** As the format demands: in some order, the tensors cover the data without a hole and without sharing a byte. */
function checkCover(file: string, entries: Entry[], dataBytes: number): void {
  let at = 0
  for (const { name, from, to } of [...entries].sort((a, b) => a.from - b.from || a.to - b.to)) {
    if (from !== at) throw badSource(`${file}: tensor ${name} starts at ${from}, the one before it ends at ${at}`)
    at = to
  }
  if (at === dataBytes) return
  const sizes = `${file}: the tensors end at byte ${at} of the data, the file has ${dataBytes} bytes of data`
  throw new OnebitError(at > dataBytes ? 'ERR_TRUNCATED' : 'ERR_FILE_SIZE', sizes, {
    hint: 'Download the file again.',
  })
}

function parseHeader(file: string, text: Buffer): Entry[] {
  let root: unknown
  try {
    root = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(text))
  } catch {
    throw badSource(`${file}: its header is not valid JSON`)
  }
  // A tensor is an object with lists in it, so three levels are enough.
  if (!isObject(root) || isNestedDeeperThan(root, 3)) throw badSource(`${file}: its header does not describe tensors`)
  const named = Object.entries(root).filter(([name]) => name !== '__metadata__')
  return named.map(([name, value]) => parseEntry(file, name, value))
}

async function readEntries(
  path: string,
  file: FileHandle,
  bytes: number,
): Promise<{ start: number; entries: Entry[] }> {
  const prefix = await readFully(file, 0, 8)
  const length = prefix.length === 8 ? Number(prefix.readBigUInt64LE()) : Number.POSITIVE_INFINITY
  if (length > MAX_HEADER_BYTES) throw badSource(`${path} is not a safetensors file: its header would be too long`)
  if (8 + length > bytes) {
    throw new OnebitError('ERR_TRUNCATED', `${path} ends inside its header`, { hint: 'Download the file again.' })
  }
  const entries = parseHeader(path, await readFully(file, 8, length))
  checkCover(path, entries, bytes - 8 - length)
  return { start: 8 + length, entries }
}

async function openShard(path: string): Promise<{ file: FileHandle; tensors: RawTensor[] }> {
  const { file, bytes } = await openFile(path)
  try {
    const { start, entries } = await readEntries(path, file, bytes)
    const tensors = entries.map(({ name, type, shape, from }) => {
      const read = (at: number, length: number) => readExactly(path, file, start + from + at, length)
      return { name, type, shape, read, stored: { path, offset: start + from } }
    })
    return { file, tensors }
  } catch (cause) {
    await file.close()
    throw cause
  }
}

/** Opens these files and puts their tensors together; a name in two of them is an error. */
export async function openSafetensors(folder: string, names: readonly string[]): Promise<RawTensors> {
  const files: FileHandle[] = []
  const tensors = new Map<string, RawTensor>()
  const close = async () => {
    for (const file of files.splice(0)) await file.close()
  }
  try {
    for (const name of names) {
      const shard = await openShard(join(folder, name))
      files.push(shard.file)
      for (const tensor of shard.tensors) {
        if (tensors.has(tensor.name)) throw badSource(`${name}: tensor ${tensor.name} is in another file too`)
        tensors.set(tensor.name, tensor)
      }
    }
  } catch (cause) {
    await close()
    throw cause
  }
  return { tensors, files: names.map((name) => join(folder, name)), close }
}
