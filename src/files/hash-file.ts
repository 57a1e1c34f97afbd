import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { fileError } from './file-errors.js'

/**
 * Reads a file whole. `onBytes` is told of each piece, and may throw.
 * @throws OnebitError those of reading files
 */
export async function hashFile(
  path: string,
  onBytes: (bytes: number) => void,
): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash('sha256')
  let bytes = 0
  try {
    for await (const piece of createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
      hash.update(piece)
      bytes += piece.length
      onBytes(piece.length)
    }
  } catch (cause) {
    throw fileError(cause, path, 'reading')
  }
  return { bytes, sha256: hash.digest('hex') }
}
