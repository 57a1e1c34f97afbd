/**
 * The header of a `.obt` file, which is a safetensors file (sealed-header.ts has its outer form). Given the config, the
 * sizes of the blobs, the provenance and the checksums, every byte of it has one legal value: `headerBytes` writes it, and
 * `parseHeader` accepts a header only when writing it again gives the same bytes. So duplicate keys, odd escapes and other
 * orders cannot mean anything to anybody.
 */

import type { ModelConfig } from '../config/config.js'
import { validateConfig } from '../config/config-check.js'
import { writtenConfig } from '../config/fields.js'
import { type Blobs, type TensorSpec, tensorBytes, tensorTable } from '../config/tensors.js'
import { OnebitError } from '../errors.js'
import { isNestedDeeperThan } from '../files/json-depth.js'
import {
  crcPosition,
  type HeaderTensor,
  headerCrc,
  headerEntry,
  hex8,
  NO_CRC,
  parseHeaderJson,
  sealedHeader,
  unsealedHeader,
} from './sealed-header.js'

export const OBT_VERSION = '1'

/** 1,024 layers with every linear a chain of signs need more; real models need less than a tenth. */
export const MAX_HEADER_BYTES = 4 << 20
/** A vocabulary of 2^20 long tokens with its merges fits. */
export const MAX_TOKENIZER_BYTES = 128 << 20
export const MAX_CHAT_TEMPLATE_BYTES = 4 << 20
/** Of the header, and of each JSON text in it. */
const MAX_DEPTH = 5

/** What JSON can hold. */
export type Json = string | number | boolean | null | Json[] | { [key: string]: Json }

/** Where a model came from and how it was made; free fields that no computation depends on. */
export type Provenance = { [key: string]: Json }

/** A tensor of a file and where it lies. */
export interface ObtTensor {
  /** its name, type and shape */
  spec: TensorSpec
  /** from the start of the file */
  offset: number
  /** how many it has, without padding */
  bytes: number
  /** CRC-32C of its bytes (polynomial 0x1EDC6F41), an unsigned integer */
  crc32c: number
}

/** What the header of a `.obt` file says. */
export interface ObtHeader {
  /** what the model is */
  config: ModelConfig
  /** where it came from */
  provenance: Provenance
  /** sizes of the tokenizer and the chat template inside */
  blobs: Blobs
  /** in the order of the file */
  tensors: ObtTensor[]
  /** of the whole file */
  fileBytes: number
  /** where the data starts */
  headerBytes: number
}

/** What a header says, without the checksums and with offsets from the start of the data. */
interface Content {
  config: ModelConfig
  provenance: Provenance
  blobs: Blobs
}

interface Placed extends HeaderTensor {
  spec: TensorSpec
}

/** The only place where an offset is computed: tensors follow one another in the table's order. */
function place(config: ModelConfig, blobs: Blobs): Placed[] {
  let at = 0
  return tensorTable(config, blobs).map((spec) => {
    const from = at
    at += tensorBytes(spec)
    return { name: spec.name, dtype: spec.dtype, shape: spec.shape, spec, from, to: at }
  })
}

function headerText(content: Content, placed: Placed[], crcs: readonly number[]): Buffer {
  const metadata = {
    format: 'obt',
    version: OBT_VERSION,
    config: JSON.stringify(writtenConfig(content.config)),
    provenance: JSON.stringify(content.provenance),
  }
  return unsealedHeader(metadata, placed, crcs)
}

/** The finished header, length included, for tensors with these checksums (in the table's order). */
export function headerBytes(content: Content, crcs: readonly number[]): Buffer {
  const text = headerText(content, place(content.config, content.blobs), crcs)
  if (text.length > MAX_HEADER_BYTES) {
    throw new OnebitError(
      'ERR_HEADER',
      `The header would have ${text.length} bytes, at most ${MAX_HEADER_BYTES} are read`,
    )
  }
  return sealedHeader(text)
}

/** Where everything will be, before the checksums are known: they have a fixed width. */
export function layout(content: Content): {
  tensors: Omit<ObtTensor, 'crc32c'>[]
  headerBytes: number
  fileBytes: number
} {
  const placed = place(content.config, content.blobs)
  const zeros = placed.map(() => 0)
  const start = headerBytes(content, zeros).length
  const tensors = placed.map(({ spec, from, to }) => ({ spec, offset: start + from, bytes: to - from }))
  return { tensors, headerBytes: start, fileBytes: start + (placed.at(-1)?.to ?? 0) }
}

// ---- reading ----------------------------------------------------------------------------------------

const DAMAGED = 'The file is damaged or was not written by this program; copy or convert it again.'

function reject(code: string, message: string, hint = DAMAGED): never {
  throw new OnebitError(code, message, { hint })
}

function parseJson(bytes: Uint8Array, what: string): unknown {
  return parseHeaderJson(bytes, what, MAX_DEPTH, (problem) => reject('ERR_HEADER', problem))
}

type Fields = Record<string, unknown>

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function metadataText(metadata: Fields, key: string): Buffer {
  const value = metadata[key]
  if (typeof value !== 'string') reject('ERR_HEADER', `__metadata__.${key} must be a string`)
  return Buffer.from(value)
}

function checkFormat(root: unknown): { root: Fields; metadata: Fields } {
  const metadata = isObject(root) ? root.__metadata__ : undefined
  if (!isObject(root) || !isObject(metadata) || metadata.format !== 'obt') {
    reject('ERR_NOT_OBT', 'This is a safetensors file, but not a .obt model', 'Convert it with `onebit convert`.')
  }
  const version = metadata.version
  if (version !== OBT_VERSION) {
    const found = typeof version === 'string' ? version.slice(0, 20) : 'none'
    const hint = 'Use a newer onebit-run, or convert the model again with this one.'
    reject('ERR_VERSION', `The file has format version ${found}; this program reads version ${OBT_VERSION}`, hint)
  }
  return { root, metadata }
}

interface Checksums {
  tensors: string
  header: string
}

function checkHeaderCrc(text: Buffer, metadata: Fields): Checksums {
  const sums = parseJson(metadataText(metadata, 'crc32c'), '__metadata__.crc32c')
  const { tensors, header } = isObject(sums) ? sums : {}
  if (typeof tensors !== 'string' || typeof header !== 'string' || !/^[0-9a-f]{8}$/.test(header)) {
    return reject('ERR_HEADER', '__metadata__.crc32c must hold tensors and header, in lower-case hexadecimal')
  }
  const digitsAt = crcPosition(text, header)
  if (digitsAt < 0) reject('ERR_HEADER', '__metadata__.crc32c is not the last field of __metadata__')
  const found = hex8(headerCrc(text, digitsAt))
  if (found !== header) reject('ERR_CHECKSUM', `The header's checksum is ${found}, it should be ${header}`)
  return { tensors, header }
}

/** A field called __proto__ is a field like any other to JSON, and a trap for code that copies objects. */
function hasPrototypeField(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  return Object.hasOwn(value, '__proto__') || Object.values(value).some(hasPrototypeField)
}

/** @throws OnebitError ERR_HEADER */
export function checkProvenance(value: unknown): Provenance {
  if (isNestedDeeperThan(value, MAX_DEPTH)) reject('ERR_HEADER', `provenance is nested deeper than ${MAX_DEPTH} levels`)
  if (!isObject(value)) reject('ERR_HEADER', 'provenance must be an object')
  if (hasPrototypeField(value)) reject('ERR_HEADER', 'provenance has a field named __proto__')
  return value as Provenance
}

function blobBytes(root: Fields, name: keyof Blobs, max: number): number {
  if (!Object.hasOwn(root, name)) return 0
  const entry = root[name]
  const shape = isObject(entry) ? entry.shape : undefined
  const size = Array.isArray(shape) ? shape[0] : undefined
  if (typeof size !== 'number' || !Number.isInteger(size) || size < 1 || size > max) {
    return reject('ERR_TENSOR_TABLE', `Tensor ${name} must have one dimension of 1 to ${max}`)
  }
  return size
}

/** The same as the byte comparison that follows, but it says which tensor. */
function checkTable(root: Fields, placed: Placed[]): void {
  const names = Object.keys(root).filter((name) => name !== '__metadata__')
  for (const [i, tensor] of placed.entries()) {
    const { spec } = tensor
    const name = names[i]
    if (name === undefined) reject('ERR_TENSOR_TABLE', `Tensor ${i} should be ${spec.name}, but there are only ${i}`)
    if (name !== spec.name) {
      reject('ERR_TENSOR_TABLE', `Tensor ${i} should be ${spec.name}, found ${JSON.stringify(name.slice(0, 80))}`)
    }
    const [expected, found] = [headerEntry(tensor), JSON.stringify(root[name])]
    if (expected !== found)
      reject('ERR_TENSOR_TABLE', `Tensor ${name} should be ${expected}, found ${found.slice(0, 200)}`)
  }
  const extra = names[placed.length]
  if (extra !== undefined)
    reject('ERR_TENSOR_TABLE', `Tensor ${JSON.stringify(extra.slice(0, 80))} does not belong here`)
}

function checkBytes(text: Buffer, content: Content, placed: Placed[], crcs: number[], headerDigits: string): void {
  const expected = headerText(content, placed, crcs)
  expected.write(headerDigits, crcPosition(expected, NO_CRC))
  if (expected.equals(text)) return
  let at = 0
  while (at < text.length && at < expected.length && text[at] === expected[at]) at++
  reject('ERR_HEADER', `The header differs from its only legal form at byte ${8 + at}`)
}

function checkSize(fileBytes: number, expected: number): void {
  const sizes = `The file has ${fileBytes} bytes, its header describes ${expected}`
  if (fileBytes < expected) reject('ERR_TRUNCATED', sizes, 'The copy or download stopped early; get the file again.')
  if (fileBytes > expected) reject('ERR_FILE_SIZE', sizes)
}

/**
 * Reads the JSON part of a header (`text`: without the 8 bytes of length) of a file with `fileBytes` bytes.
 * @throws OnebitError ERR_NOT_OBT, ERR_VERSION, ERR_CHECKSUM, ERR_HEADER, ERR_CONFIG, ERR_TENSOR_TABLE, ERR_TRUNCATED,
 *   ERR_FILE_SIZE
 */
export function parseHeader(text: Buffer, fileBytes: number): ObtHeader {
  const { root, metadata } = checkFormat(parseJson(text, 'The header'))
  const sums = checkHeaderCrc(text, metadata)
  const config = validateConfig(parseJson(metadataText(metadata, 'config'), 'config'))
  const provenance = checkProvenance(parseJson(metadataText(metadata, 'provenance'), 'provenance'))
  const blobs: Blobs = {
    tokenizer: blobBytes(root, 'tokenizer', MAX_TOKENIZER_BYTES),
    chat_template: blobBytes(root, 'chat_template', MAX_CHAT_TEMPLATE_BYTES),
  }
  const placed = place(config, blobs)
  checkTable(root, placed)
  const crcs = (sums.tensors.match(/.{8}/g) ?? []).map((digits) => Number.parseInt(digits, 16))
  if (sums.tensors.length !== 8 * placed.length || !/^[0-9a-f]*$/.test(sums.tensors)) {
    reject('ERR_HEADER', `__metadata__.crc32c must hold ${placed.length} checksums of 8 hexadecimal digits`)
  }
  checkBytes(text, { config, provenance, blobs }, placed, crcs, sums.header)
  const start = 8 + text.length
  checkSize(fileBytes, start + (placed.at(-1)?.to ?? 0))
  const tensors = placed.map(({ spec, from, to }, i) => {
    return { spec, offset: start + from, bytes: to - from, crc32c: crcs[i]! }
  })
  return { config, provenance, blobs, tensors, fileBytes, headerBytes: start }
}
