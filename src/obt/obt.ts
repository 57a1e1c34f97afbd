/** Reading `.obt` files: the header whole and checked, the blobs on demand. Native code reads the weights. */
import { createRequire } from 'node:module'
import type { Blobs } from '../config/tensors.js'
import { OnebitError } from '../errors.js'
import { fileError } from '../files/file-errors.js'
import { openFile } from '../files/file-reading.js'
import { addon } from '../native/addon.js'
import { MAX_HEADER_BYTES, type ObtHeader, parseHeader } from './obt-header.js'
import { type RefuseHeader, readHeaderText } from './sealed-header.js'
import { readTensor } from './tensor-bytes.js'

export type { Json, ObtHeader, ObtTensor, Provenance } from './obt-header.js'
export { type ObtContent, writeObt } from './obt-writer.js'

const CONVERT = 'Models in other formats become .obt files with `onebit convert`.'

const AGAIN = 'The copy or download stopped early; get the file again.'

const refuse: RefuseHeader = (wrong, problem) => {
  if (wrong === 'truncated') throw new OnebitError('ERR_TRUNCATED', problem, { hint: AGAIN })
  if (wrong === 'too long') throw new OnebitError('ERR_HEADER', problem, { hint: CONVERT })
  throw new OnebitError('ERR_NOT_OBT', 'This is not a .obt file', { hint: CONVERT })
}

/** A header, where it was found, and what tells this model from all others. */
export type FoundHeader = ObtHeader & {
  /** as it was given */
  path: string
  /** SHA-256 of the first `headerBytes` bytes, which hold the config and the checksum of every tensor */
  identity: string
}

function identityOf(text: Buffer): string {
  // Loaded when somebody asks: it takes 4 ms, and most starts do not.
  const { createHash } = createRequire(import.meta.url)('node:crypto') as typeof import('node:crypto')
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  return createHash('sha256').update(length).update(text).digest('hex')
}

/** The same error, with the path in front of its sentence. */
export function withPath(cause: unknown, path: string): unknown {
  if (!(cause instanceof OnebitError) || cause.message.startsWith(path)) return cause
  return new OnebitError(cause.code, `${path}: ${cause.message}`, { ...(cause.hint && { hint: cause.hint }), cause })
}

/** A `.obt` file that is open, with its header read. */
export interface OpenObt {
  readonly header: FoundHeader
  /**
   * The bytes of a blob, checksum verified; undefined when the file has none of that name.
   * @throws OnebitError ERR_TRUNCATED, ERR_CHECKSUM, ERR_IO
   */
  blob(name: keyof Blobs): Promise<Uint8Array | undefined>
  close(): Promise<void>
}

/**
 * Opens a `.obt` file and reads its header. Nothing is allocated from what the file says before it was compared with what it must be.
 * @throws OnebitError as readObtHeader
 */
export async function openObt(path: string): Promise<OpenObt> {
  addon() // it computes the checksums; that it is missing is not the file's fault
  const { file, bytes } = await openFile(path)
  const failed = (cause: unknown) => withPath(fileError(cause, path, 'reading'), path)
  try {
    const text = await readHeaderText(file, bytes, MAX_HEADER_BYTES, refuse)
    const header = foundHeader(path, text, bytes)
    return {
      header,
      blob: async (name) => {
        const tensor = header.tensors.find(({ spec }) => spec.part === 'blob' && spec.name === name)
        return tensor && readTensor(file, { ...tensor, name }).catch((cause) => Promise.reject(failed(cause)))
      },
      close: () => file.close(),
    }
  } catch (cause) {
    await file.close()
    throw failed(cause)
  }
}

function foundHeader(path: string, text: Buffer, fileBytes: number): FoundHeader {
  let identity: string | undefined
  return {
    path,
    ...parseHeader(text, fileBytes),
    get identity() {
      identity ??= identityOf(text)
      return identity
    },
  }
}

/**
 * The header of a `.obt` file; of the weights nothing is read.
 * @throws OnebitError ERR_FILE_NOT_FOUND, ERR_IS_DIRECTORY, ERR_NOT_A_FILE, ERR_ACCESS, ERR_IO, ERR_NOT_OBT,
 *   ERR_VERSION, ERR_HEADER, ERR_CHECKSUM, ERR_CONFIG, ERR_TENSOR_TABLE, ERR_TRUNCATED, ERR_FILE_SIZE, ERR_ADDON
 */
export async function readObtHeader(path: string): Promise<FoundHeader> {
  const obt = await openObt(path)
  await obt.close()
  return obt.header
}
