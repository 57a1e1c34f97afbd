/**
 * One file, from wherever it is, into a file that gets its name when all of it is there and right. What was fetched stays in
 * NAME.incomplete (as Hugging Face's tools call it) through cuts, kills and full disks, and the next try goes on behind it.
 */
import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, open, rm, stat, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import { OnebitError } from '../errors.js'
import { writeFully } from '../files/atomic-file.js'
import { renameOver } from '../files/rename-over.js'
import { cacheError, RESUMES } from './cache-errors.js'
import { makeFolder } from './cache-folder.js'
import { withLock } from './lock.js'
import { offline, statusError } from './repository.js'
import { type Answer, ask, discard, NetworkError, Patience } from './requests.js'

export interface Download {
  url: URL
  /** what it is, for messages */
  name: string
  bytes: number
  /** SHA-256 or git's id of the blob; undefined: nobody says */
  hash: string | undefined
  /** where it will be */
  target: string
  lock: string
  /** only of a file that is still the same: its ETag */
  ifRange?: string | undefined
}

export interface DownloadSettings {
  signal?: AbortSignal | undefined
  /** bytes that are there of this file, also while another process fetches them */
  onBytes?: ((bytes: number) => void) | undefined
}

/** @throws OnebitError ERR_HUB_*, ERR_DISK_FULL, ERR_ACCESS, ERR_READ_ONLY, ERR_IO; the signal's reason */
export async function download(file: Download, settings: DownloadSettings): Promise<void> {
  const { target, lock, bytes } = file
  if (await isWhole(file)) return settings.onBytes?.(bytes)
  const incomplete = `${target}.incomplete`
  const waiting = async () => {
    const found = await stat(incomplete).catch(() => undefined)
    if (found) settings.onBytes?.(Math.min(found.size, bytes))
  }
  await withLock(lock, { signal: settings.signal, waiting }, async () => {
    if (await isWhole(file)) return
    await checkRoom(file, incomplete)
    // What an earlier run left may be to blame: then once more from the start.
    if (!(await attempt(file, incomplete, settings))) await attempt(file, incomplete, settings)
  })
  settings.onBytes?.(bytes)
}

async function isWhole({ target, bytes }: Download): Promise<boolean> {
  const found = await stat(target).catch(() => undefined)
  return found?.isFile() === true && found.size === bytes
}

/** Says it before hours of downloading. */
async function checkRoom({ target, bytes, name }: Download, incomplete: string): Promise<void> {
  const folder = dirname(target)
  await makeFolder(folder)
  const there = await stat(incomplete).catch(() => undefined)
  const needed = bytes - Math.min(bytes, there?.size ?? 0)
  const room = await statfs(folder).catch(() => undefined)
  if (room === undefined || room.bavail * room.bsize >= needed) return
  const mib = (count: number) => Math.ceil(count / 2 ** 20)
  const message = `${name} needs ${mib(needed)} MiB more, ${folder} has room for ${mib(room.bavail * room.bsize)}`
  throw new OnebitError('ERR_DISK_FULL', message, {
    hint: 'Free some space (`onebit list`, `onebit rm`), or name another folder by HF_HUB_CACHE.',
  })
}

/** Whether the file is there now; false: it was wrong, is gone, and had not been fetched in one go. */
async function attempt(file: Download, incomplete: string, settings: DownloadSettings): Promise<boolean> {
  const handle = await open(incomplete, 'a+')
    .then((made) => made.close())
    .then(() => open(incomplete, 'r+'))
    .catch((cause) => {
      throw cacheError(cause, incomplete)
    })
  let resumed = 0
  let isRight = false
  try {
    const arrival = new Arrival(file, handle, settings)
    resumed = await arrival.readKept(incomplete)
    await arrival.fetchRest()
    await handle.sync()
    isRight = arrival.isRight() && (await handle.stat()).size === file.bytes
  } catch (cause) {
    throw cacheError(cause, incomplete)
  } finally {
    await handle.close()
  }
  if (isRight) {
    await renameOver(incomplete, file.target).catch((cause) => {
      throw cacheError(cause, file.target)
    })
    return true
  }
  await rm(incomplete, { force: true })
  if (resumed > 0) return false
  throw new OnebitError('ERR_HUB_CHECKSUM', `${file.name}: what came is not what its checksum says`, {
    hint: 'It was thrown away. Try again; if it happens twice, something between here and the server changes bytes.',
  })
}

/** The bytes of a file on their way: how many are there, and their hash. */
class Arrival {
  readonly #file: Download
  readonly #handle: FileHandle
  readonly #settings: DownloadSettings
  readonly #hash: Hash
  #at = 0

  constructor(file: Download, handle: FileHandle, settings: DownloadSettings) {
    this.#file = file
    this.#handle = handle
    this.#settings = settings
    const { hash, bytes } = file
    this.#hash = createHash(hash?.length === 40 ? 'sha1' : 'sha256')
    if (hash?.length === 40) this.#hash.update(`blob ${bytes}\0`)
  }

  /** Takes what an earlier run left. @returns its bytes */
  async readKept(path: string): Promise<number> {
    const { size } = await this.#handle.stat()
    if (size > this.#file.bytes) await this.#handle.truncate(0)
    else if (size > 0) {
      for await (const piece of createReadStream(path, { highWaterMark: 1 << 20, end: size - 1 })) {
        this.#settings.signal?.throwIfAborted()
        this.#hash.update(piece as Buffer)
        this.#at += (piece as Buffer).length
      }
    }
    this.#settings.onBytes?.(this.#at)
    return this.#at
  }

  isRight(): boolean {
    const { hash, bytes } = this.#file
    return this.#at === bytes && (hash === undefined || this.#hash.digest('hex') === hash)
  }

  async fetchRest(): Promise<void> {
    const patience = new Patience(this.#settings.signal)
    while (this.#at < this.#file.bytes) {
      const before = this.#at
      try {
        await this.#take(await this.#open(patience))
      } catch (error) {
        if (!(error instanceof NetworkError)) throw error
        if (this.#at > before) patience.progress()
        else if (!(await patience.again())) throw this.#brokenOff(error)
      }
    }
  }

  #brokenOff(error: NetworkError): OnebitError {
    if (this.#at === 0) return offline(this.#file.name, error)
    return new OnebitError(
      'ERR_HUB_OFFLINE',
      `${this.#file.name}: the connection breaks off again and again (${error.message})`,
      {
        hint: RESUMES,
        cause: error,
      },
    )
  }

  /** An answer whose body begins where we are. */
  async #open(patience: Patience): Promise<Answer & { skip: number }> {
    const { url, name, bytes, ifRange } = this.#file
    const { signal } = this.#settings
    const range = this.#at === 0 ? {} : { Range: `bytes=${this.#at}-`, ...(ifRange ? { 'If-Range': ifRange } : {}) }
    const answer = await ask(url, { headers: range, signal }, patience)
    const { status, headers } = answer
    const [, from, , total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(headers['content-range'] ?? '') ?? []
    let problem: OnebitError | undefined
    if (status === 206) {
      if (Number(from) !== this.#at || (total !== '*' && Number(total) !== bytes)) problem = changed(name)
    } else if (status === 416) problem = changed(name)
    else if (status !== 200) problem = statusError(answer, name)
    else if (isPage(answer, name)) problem = webPage(answer, name)
    else if (headers['content-length'] !== undefined && Number(headers['content-length']) !== bytes)
      problem = changed(name)
    // A file that nobody has a hash of must not be put together of two versions.
    else if (this.#at > 0 && this.#file.hash === undefined) await this.#fromStart()
    if (problem) {
      discard(answer)
      throw problem
    }
    return { ...answer, skip: status === 200 ? this.#at : 0 }
  }

  async #fromStart(): Promise<void> {
    await this.#handle.truncate(0)
    this.#at = 0
  }

  async #take({ body, skip, url }: Answer & { skip: number }): Promise<void> {
    const { bytes, name } = this.#file
    const { signal, onBytes } = this.#settings
    let left = skip
    const pieces = body[Symbol.asyncIterator]() as AsyncIterator<Buffer>
    for (;;) {
      const { done, value } = await pieces.next().catch((cause) => {
        throw signal?.aborted ? signal.reason : new NetworkError(url, cause)
      })
      if (done) break
      const piece = value.subarray(Math.min(left, value.length))
      left -= value.length - piece.length
      if (this.#at + piece.length > bytes) {
        body.destroy()
        throw changed(name)
      }
      await writeFully(this.#handle, piece, this.#at)
      this.#hash.update(piece)
      this.#at += piece.length
      onBytes?.(this.#at)
    }
    if (this.#at < bytes) throw new NetworkError(url, new Error('it ends too early'))
  }
}

function changed(name: string): OnebitError {
  return new OnebitError(
    'ERR_HUB_CHANGED',
    `${name} is not the file any more that it was said to be: its size is another`,
    {
      hint: 'It was changed meanwhile. Run the same again.',
    },
  )
}

function isPage({ headers }: Answer, name: string): boolean {
  return /^text\/html/i.test(headers['content-type'] ?? '') && !/\.html?$/i.test(name)
}

function webPage({ url }: Answer, name: string): OnebitError {
  return new OnebitError('ERR_HUB_ANSWER', `${url.host} answers with a web page in place of ${name}`, {
    hint: 'Some networks do so until somebody has logged in.',
  })
}
