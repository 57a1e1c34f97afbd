/** Reading `.obt` files: the header whole and checked, the blobs on demand. Native code reads the weights. */
import type { FileHandle } from 'node:fs/promises'
import type { Blobs } from '../config/tensors.js'
import { OnebitError } from '../errors.js'
import { fileError } from '../files/file-errors.js'
import { openFile, readFully } from '../files/file-reading.js'
import { addon } from '../native/addon.js'
import { MAX_HEADER_BYTES, type ObtHeader, parseHeader } from './obt-header.js'

export type { Json, ObtHeader, ObtTensor, Provenance } from './obt-header.js'
export { type ObtContent, writeObt } from './obt-writer.js'

const CONVERT = 'Models in other formats become .obt files with `onebit convert`.'

async function readHeaderText(file: FileHandle, fileBytes: number): Promise<Buffer> {
  const start = await readFully(file, 0, 9)
  if (start.length < 9) {
    throw new OnebitError('ERR_TRUNCATED', `The file has only ${start.length} bytes`, {
      hint: 'The copy or download stopped early; get the file again.',
    })
  }
  if (start[8] !== 0x7b /* { */) throw new OnebitError('ERR_NOT_OBT', 'This is not a .obt file', { hint: CONVERT })
  const length = start.readBigUInt64LE()
  if (length > MAX_HEADER_BYTES) {
    throw new OnebitError(
      'ERR_HEADER',
      `The header says it has ${length} bytes; at most ${MAX_HEADER_BYTES} are read`,
      {
        hint: CONVERT,
      },
    )
  }
  const text = await readFully(file, 8, Math.min(Number(length), Math.max(0, fileBytes - 8)))
  if (text.length < Number(length)) {
    throw new OnebitError(
      'ERR_TRUNCATED',
      `The header has ${length} bytes, the file ends ${text.length} bytes into it`,
      {
        hint: 'The copy or download stopped early; get the file again.',
      },
    )
  }
  return text
}

/** The same error, with the path in front of its sentence. */
export function withPath(cause: unknown, path: string): unknown {
  if (!(cause instanceof OnebitError) || cause.message.startsWith(path)) return cause
  return new OnebitError(cause.code, `${path}: ${cause.message}`, { ...(cause.hint && { hint: cause.hint }), cause })
}

/**
 * The header of a `.obt` file. Nothing is allocated from what the file says before it was compared with what it
 * must be.
 * @throws OnebitError ERR_FILE_NOT_FOUND, ERR_IS_DIRECTORY, ERR_NOT_A_FILE, ERR_ACCESS, ERR_IO, ERR_NOT_OBT,
 *   ERR_VERSION, ERR_HEADER, ERR_CHECKSUM, ERR_CONFIG, ERR_TENSOR_TABLE, ERR_TRUNCATED, ERR_FILE_SIZE, ERR_ADDON
 */
export async function readObtHeader(path: string): Promise<ObtHeader & { path: string }> {
  addon() // it computes the checksums; that it is missing is not the file's fault
  const { file, bytes } = await openFile(path)
  try {
    return { path, ...parseHeader(await readHeaderText(file, bytes), bytes) }
  } catch (cause) {
    throw withPath(fileError(cause, path, 'reading'), path)
  } finally {
    await file.close()
  }
}

/**
 * The bytes of a blob, checksum verified; undefined when the file has none of that name.
 * @throws OnebitError ERR_TRUNCATED, ERR_CHECKSUM, and those of opening a file
 */
export async function readBlob(
  header: ObtHeader & { path: string },
  name: keyof Blobs,
): Promise<Uint8Array | undefined> {
  const tensor = header.tensors.find(({ spec }) => spec.part === 'blob' && spec.name === name)
  if (tensor === undefined) return undefined
  const { file } = await openFile(header.path)
  try {
    const bytes = await readFully(file, tensor.offset, tensor.bytes)
    if (bytes.length < tensor.bytes) {
      throw new OnebitError(
        'ERR_TRUNCATED',
        `${header.path}: ${name} ends after ${bytes.length} of ${tensor.bytes} bytes`,
      )
    }
    if (addon().crc32c(bytes, 0) !== tensor.crc32c) {
      throw new OnebitError('ERR_CHECKSUM', `${header.path}: ${name} is damaged: its checksum is wrong`, {
        hint: 'Copy or convert the file again.',
      })
    }
    return bytes
  } catch (cause) {
    throw fileError(cause, header.path, 'reading')
  } finally {
    await file.close()
  }
}
