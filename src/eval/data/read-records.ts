/** Records of data files in the forms in which they are handed around: JSONL, JSON, parquet; .gz and .bz2 of these. */
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import { OnebitError } from '../../errors.js'
import { fileError } from '../../files/file-errors.js'
import { parseJson } from '../../files/json.js'
import { isRecord } from '../../text/tokenizer-json.js'
import type { TaskRecord } from '../tasks/task.js'

/** A record and where it stands, to name it in errors. */
export interface PlacedRecord {
  record: TaskRecord
  /** such as "line 5" */
  place: string
}

export interface ReadFile {
  records: PlacedRecord[]
  bytes: Uint8Array
}

const PARQUET = 'PAR1'

/** @throws OnebitError ERR_FILE_NOT_FOUND and others of reading, ERR_DATA_FILE */
export async function readRecords(path: string): Promise<ReadFile> {
  const bytes = await readBytes(path)
  const name = path.toLowerCase()
  const unpacked = await unpack(path, name, bytes)
  if (Buffer.from(unpacked.subarray(0, 4)).toString('latin1') === PARQUET) {
    return { bytes, records: await parquetRecords(path, unpacked) }
  }
  const text = utf8(path, unpacked)
  if (/\.txt(\.|$)/.test(name)) return { bytes, records: sixLines(path, text) }
  return { bytes, records: jsonRecords(path, text) }
}

async function readBytes(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path)
  } catch (error) {
    throw fileError(error, path, 'reading')
  }
}

function badFile(path: string, problem: string, cause?: unknown): OnebitError {
  return new OnebitError('ERR_DATA_FILE', `${path}: ${problem}`, { cause })
}

async function unpack(path: string, name: string, bytes: Uint8Array): Promise<Uint8Array> {
  try {
    if (name.endsWith('.gz')) return await promisify(gunzip)(bytes)
    if (!name.endsWith('.bz2')) return bytes
    const { default: bzip } = await import('seek-bzip')
    return bzip.decode(Buffer.from(bytes))
  } catch (cause) {
    throw badFile(path, 'it cannot be unpacked; it may be damaged', cause)
  }
}

function utf8(path: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw badFile(path, 'it is not UTF-8', cause)
  }
}

async function parquetRecords(path: string, bytes: Uint8Array): Promise<PlacedRecord[]> {
  const { parquetReadObjects } = await import('hyparquet')
  const file = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer
  try {
    const rows = await parquetReadObjects({ file })
    return rows.map((record, i) => ({ record, place: `row ${i + 1}` }))
  } catch (cause) {
    throw badFile(path, `it is no parquet file that can be read (${(cause as Error).message})`, cause)
  }
}

/** A JSON array, or a JSON object in every line. */
function jsonRecords(path: string, text: string): PlacedRecord[] {
  if (text.trimStart().startsWith('[')) {
    const list = parsed(path, 'the file', text)
    if (!Array.isArray(list)) throw badFile(path, 'it must be a list of records')
    return list.map((value, i) => placed(path, `record ${i + 1}`, value))
  }
  return text.split('\n').flatMap((line, i) => {
    const place = `line ${i + 1}`
    return line.trim() === '' ? [] : [placed(path, place, parsed(path, place, line))]
  })
}

function parsed(path: string, place: string, text: string): unknown {
  try {
    return parseJson(text)
  } catch (cause) {
    throw badFile(path, `${place} is not JSON (${(cause as Error).message})`, cause)
  }
}

function placed(path: string, place: string, record: unknown): PlacedRecord {
  if (!isRecord(record)) throw badFile(path, `${place} must be an object`)
  return { record, place }
}

/** llama.cpp's form of HellaSwag: the context, the number of the right ending, and four endings, a line each. */
function sixLines(path: string, text: string): PlacedRecord[] {
  const lines = text.replace(/\n$/, '').split('\n')
  if (lines.length % 6 !== 0) throw badFile(path, `it has ${lines.length} lines, which is no multiple of 6`)
  return Array.from({ length: lines.length / 6 }, (_, i) => {
    const [query, gold, ...choices] = lines.slice(6 * i, 6 * i + 6)
    return { record: { query, gold, choices }, place: `line ${6 * i + 1}` }
  })
}
