/**
 * Files that are there whole or not at all: a sibling temporary file is written, synced and renamed over the target,
 * and the folder is synced. A crash at any moment leaves the old file or the new one, and readers that have the old
 * one open keep it.
 */
import { access, constants, type FileHandle, lstat, open, readdir, realpath, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { OnebitError } from '../errors.js'
import { fileError } from './file-errors.js'
import { renameOver } from './rename-over.js'

/** A temporary file this old belongs to a process that died. */
const LEFTOVER_AGE_MS = 24 * 60 * 60 * 1000

/** Writes all of `bytes` at `position`. */
export async function writeFully(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  let done = 0
  while (done < bytes.length) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done)
    done += bytesWritten
  }
}

/** Where the bytes really go: a link is followed, so that it stays a link; anything but a file is refused. */
async function resolveTarget(path: string): Promise<string> {
  const target = await realpath(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return path
    throw cause
  })
  const found = await lstat(target).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return undefined
    throw cause
  })
  if (found === undefined || found.isFile()) return target
  if (found.isSymbolicLink()) return target // leads nowhere: the new file takes its place
  const kind = found.isDirectory() ? ['ERR_IS_DIRECTORY', 'is a folder'] : ['ERR_NOT_A_FILE', 'is not an ordinary file']
  throw new OnebitError(kind[0]!, `${path} ${kind[1]}`, { hint: 'Give the name of a file to write.' })
}

/** Finds out before hours of work whether `path` can be written at all. */
export async function checkTarget(path: string): Promise<void> {
  try {
    await access(dirname(await resolveTarget(path)), constants.W_OK)
  } catch (cause) {
    throw fileError(cause, path, 'writing')
  }
}

async function removeLeftovers(target: string): Promise<void> {
  const folder = dirname(target)
  const prefix = `${basename(target)}.tmp-`
  for (const name of await readdir(folder)) {
    if (!name.startsWith(prefix) || !/^\d+-[0-9a-f]{12}$/.test(name.slice(prefix.length))) continue
    const path = join(folder, name)
    const found = await lstat(path).catch(() => undefined)
    if (found?.isFile() && Date.now() - found.mtimeMs > LEFTOVER_AGE_MS) await rm(path, { force: true }).catch(() => {})
  }
}

/** A renamed file survives a power cut only when its folder is written too. Windows has no such call and no need. */
async function syncFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } catch (cause) {
    // Some network file systems cannot; there is nothing better to do on them.
    if (!['EINVAL', 'ENOTSUP', 'EPERM', 'EISDIR'].includes((cause as NodeJS.ErrnoException).code ?? '')) throw cause
  } finally {
    await handle.close()
  }
}

/**
 * Lets `write` fill a temporary file beside `path`, then puts it in the place of `path`. When `write` throws, or the
 * system does, the temporary file is removed and `path` is what it was.
 * @throws OnebitError ERR_NO_FOLDER, ERR_IS_DIRECTORY, ERR_NOT_A_FILE, ERR_ACCESS, ERR_READ_ONLY, ERR_DISK_FULL, ERR_IO
 */
export async function writeAtomically(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  try {
    const target = await resolveTarget(path)
    // Unlike any other of this process; that none is there already is seen to by 'wx'.
    const mark = Math.floor(Math.random() * 2 ** 48)
    const temporary = `${target}.tmp-${process.pid}-${mark.toString(16).padStart(12, '0')}`
    const file = await open(temporary, 'wx')
    let open_ = true
    try {
      await removeLeftovers(target).catch(() => {}) // a folder that cannot be listed can still be written to
      await write(file)
      await file.sync()
      open_ = false
      await file.close() // Windows does not rename an open file
      await renameOver(temporary, target)
    } catch (cause) {
      if (open_) await file.close().catch(() => {})
      await rm(temporary, { force: true }).catch(() => {})
      throw cause
    }
    await syncFolder(dirname(target))
  } catch (cause) {
    throw fileError(cause, path, 'writing')
  }
}
