/** Opening files for reading, and reading at a position until everything is there. */
import { type FileHandle, open, stat } from 'node:fs/promises'
import { OnebitError } from '../errors.js'
import { fileError } from './file-errors.js'
import { refuseLfsPointer } from './lfs-pointer.js'

/** Fills `length` bytes from `position`; fewer only when the file ends there. */
export async function readFully(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(length)
  let done = 0
  while (done < length) {
    const { bytesRead } = await file.read(bytes, done, length - done, position + done)
    if (bytesRead === 0) return bytes.subarray(0, done)
    done += bytesRead
  }
  return bytes
}

/** Opens an ordinary file; a pipe would block, a folder and a Git LFS pointer would fail later. */
export async function openFile(path: string): Promise<{ file: FileHandle; bytes: number }> {
  try {
    const found = await stat(path)
    if (found.isDirectory()) {
      throw new OnebitError('ERR_IS_DIRECTORY', `${path} is a folder, not a file`, { hint: 'Give the path of a file.' })
    }
    if (!found.isFile()) throw new OnebitError('ERR_NOT_A_FILE', `${path} is not an ordinary file`)
    const file = await open(path, 'r')
    try {
      const bytes = (await file.stat()).size
      await refuseLfsPointer(path, file, bytes)
      return { file, bytes }
    } catch (cause) {
      await file.close()
      throw cause
    }
  } catch (cause) {
    throw fileError(cause, path, 'reading')
  }
}

/** Exactly `length` bytes from `position`; files that end before them are an error. */
export async function readExactly(path: string, file: FileHandle, position: number, length: number): Promise<Buffer> {
  const bytes = await readFully(file, position, length).catch((cause) => {
    throw fileError(cause, path, 'reading')
  })
  if (bytes.length === length) return bytes
  throw new OnebitError('ERR_TRUNCATED', `${path} became shorter while it was read`)
}
