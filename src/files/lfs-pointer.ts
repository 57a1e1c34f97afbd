/** What Git leaves where a large file belongs that was not fetched. */
import type { FileHandle } from 'node:fs/promises'
import { OnebitError } from '../errors.js'

const BEGINNING = 'version https://git-lfs.github.com/spec/'
/** They hold a version, a hash and a size. */
const MOST_BYTES = 1024

/** @throws OnebitError ERR_LFS_POINTER when the file is such a pointer */
export async function refuseLfsPointer(path: string, file: FileHandle, bytes: number): Promise<void> {
  if (bytes > MOST_BYTES || bytes < BEGINNING.length) return
  const start = Buffer.alloc(BEGINNING.length)
  await file.read(start, 0, start.length, 0)
  if (start.toString('latin1') !== BEGINNING) return
  throw new OnebitError('ERR_LFS_POINTER', `${path} is a Git LFS pointer, not the file itself`, {
    hint: 'Fetch the file: run `git lfs pull` in its folder, or download it again.',
  })
}
