import { rename } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'

const HELD = new Set(['EPERM', 'EACCES', 'EBUSY'])
/** Windows renames over no file that somebody has open, and virus scanners open every new one for a moment. */
const PATIENCE_MS = process.platform === 'win32' ? 2000 : 0

/**
 * Renames a file over another, which may be held by another program for a while.
 * @throws what the system says, when the file is held for longer or the trouble is another one
 */
export async function renameOver(from: string, to: string, patienceMs = PATIENCE_MS, move = rename): Promise<void> {
  const until = performance.now() + patienceMs
  for (let wait = 10; ; wait *= 2) {
    try {
      await move(from, to)
      return
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException
      if (!HELD.has(code ?? '') || performance.now() + wait > until) throw cause
      await sleep(wait)
    }
  }
}
