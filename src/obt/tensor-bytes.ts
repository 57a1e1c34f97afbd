/** The bytes of tensors on their way to and from files, in pieces, with their checksums. */
import type { FileHandle } from 'node:fs/promises'
import { OnebitError } from '../errors.js'
import { writeFully } from '../files/atomic-file.js'
import { readFully } from '../files/file-reading.js'
import { addon } from '../native/addon.js'

/** The checksum of a piece this long takes well below a millisecond, so the event loop hardly notices. */
const PIECE = 4 << 20

export interface WriteOptions {
  /** after each piece, with its bytes */
  onProgress?: ((bytes: number) => void) | undefined
  signal?: AbortSignal | undefined
}

function wrongLength(name: string, bytes: number, found: 'more' | 'fewer'): OnebitError {
  return new OnebitError('ERR_TENSOR_SIZE', `Tensor ${name} must have ${bytes} bytes, its source gave ${found}`)
}

/** Writes tensors one after the other and finds their checksums. */
export class TensorStream {
  readonly #file: FileHandle
  readonly #options: WriteOptions
  #at: number

  constructor(file: FileHandle, start: number, options: WriteOptions) {
    this.#file = file
    this.#at = start
    this.#options = options
  }

  /** Writes one tensor of exactly `bytes` bytes; resolves to its checksum. */
  async write(name: string, bytes: number, pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<number> {
    const end = this.#at + bytes
    let crc = 0
    for await (const piece of pieces) {
      if (this.#at + piece.length > end) throw wrongLength(name, bytes, 'more')
      for (let from = 0; from < piece.length; from += PIECE) {
        this.#options.signal?.throwIfAborted()
        const part = piece.subarray(from, from + PIECE)
        crc = addon().crc32c(part, crc)
        await writeFully(this.#file, part, this.#at)
        this.#at += part.length
        this.#options.onProgress?.(part.length)
      }
    }
    if (this.#at < end) throw wrongLength(name, bytes, 'fewer')
    return crc
  }
}

export interface StoredTensor {
  name: string
  /** from the start of the file */
  offset: number
  bytes: number
  crc32c: number
}

/**
 * All bytes of a tensor. Its size must have been compared with the file's.
 * @throws OnebitError ERR_TRUNCATED, ERR_CHECKSUM; the signal's reason
 */
export async function readTensor(file: FileHandle, tensor: StoredTensor, signal?: AbortSignal): Promise<Uint8Array> {
  const { name, offset, bytes, crc32c } = tensor
  const all = new Uint8Array(bytes)
  let crc = 0
  for (let from = 0; from < bytes; from += PIECE) {
    signal?.throwIfAborted()
    const wanted = Math.min(PIECE, bytes - from)
    const piece = await readFully(file, offset + from, wanted)
    if (piece.length < wanted) {
      throw new OnebitError('ERR_TRUNCATED', `${name} ends after ${from + piece.length} of ${bytes} bytes`)
    }
    crc = addon().crc32c(piece, crc)
    all.set(piece, from)
  }
  if (crc === crc32c) return all
  throw new OnebitError('ERR_CHECKSUM', `${name} is damaged: its checksum is wrong`, {
    hint: 'Copy the file again, or make it again.',
  })
}
