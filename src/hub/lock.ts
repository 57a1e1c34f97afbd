/**
 * One process at a time downloads a file. A lock saves work and is not what keeps files right: bytes are written where they
 * belong and are hashed before they get their name, so two writers that both think they are alone do no harm.
 *
 * A lock is a file that says whose it is and whose time of change is renewed. Whoever finds one of a process that is gone, or one
 * that was not renewed for long, takes it away.
 */
import { randomBytes } from 'node:crypto'
import { open, readFile, rm, stat, utimes } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { cacheError } from './cache-errors.js'
import { makeFolder } from './cache-folder.js'

const RENEW_MS = 5_000
const DEAD_MS = 60_000
const LOOK_AGAIN_MS = 150

interface Holder {
  pid: number
  host: string
  key: string
}

async function readHolder(path: string): Promise<Partial<Holder> | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(path, 'utf8'))
    return typeof value === 'object' && value !== null ? (value as Partial<Holder>) : {}
  } catch (error) {
    // Not written yet, or cut: its age decides.
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? undefined : {}
  }
}

function isGone({ pid, host }: Partial<Holder>): boolean {
  if (host !== hostname() || !Number.isInteger(pid) || pid! < 1) return false
  try {
    process.kill(pid!, 0)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH'
  }
}

async function removeDead(path: string): Promise<void> {
  const holder = await readHolder(path)
  const found = await stat(path).catch(() => undefined)
  if (holder === undefined || found === undefined) return
  if (!isGone(holder) && Date.now() - found.mtimeMs < DEAD_MS) return
  // Somebody else may have put a new one there meanwhile; that one stays.
  if ((await readHolder(path))?.key === holder.key) await rm(path, { force: true })
}

async function take(path: string): Promise<string | undefined> {
  const key = randomBytes(8).toString('hex')
  try {
    const file = await open(path, 'wx')
    await file.writeFile(JSON.stringify({ pid: process.pid, host: hostname(), key } satisfies Holder))
    await file.close()
    return key
  } catch (cause) {
    // Windows says EPERM or EBUSY of a file that is just being taken away.
    const isThere = ['EEXIST', ...(process.platform === 'win32' ? ['EPERM', 'EBUSY'] : [])]
    if (isThere.includes((cause as NodeJS.ErrnoException).code ?? '')) return undefined
    throw cacheError(cause, path)
  }
}

/**
 * Does `work` alone among the processes of this machine, and of others that see the same folder.
 * @param waiting called now and then while another one has the lock
 * @throws what `work` throws, the signal's reason, OnebitError those of writing files
 */
export async function withLock<T>(
  path: string,
  { signal, waiting }: { signal?: AbortSignal | undefined; waiting?: () => void | Promise<void> },
  work: () => Promise<T>,
): Promise<T> {
  await makeFolder(dirname(path))
  let key = await take(path)
  while (key === undefined) {
    signal?.throwIfAborted()
    await waiting?.()
    await removeDead(path)
    key = await take(path)
    if (key === undefined) await sleep(LOOK_AGAIN_MS)
  }
  const renew = setInterval(() => void utimes(path, new Date(), new Date()).catch(() => {}), RENEW_MS)
  renew.unref()
  try {
    return await work()
  } finally {
    clearInterval(renew)
    if ((await readHolder(path))?.key === key) await rm(path, { force: true }).catch(() => {})
  }
}
