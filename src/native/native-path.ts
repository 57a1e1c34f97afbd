/** Paths as native code has to be given them: Node's own ways of reading know things that the system does not. */
import { existsSync } from 'node:fs'
import { resolve, toNamespacedPath } from 'node:path'

/**
 * The path of a file that native code opens. In Electron, what lies unpacked beside an archive is found under the archive's
 * name by Node alone; and Windows takes more than 260 characters only in its long form.
 */
export function nativePath(path: string, electron = process.versions.electron !== undefined): string {
  if (electron) {
    const unpacked = path.replace(/\.asar(?=[\\/])/, '.asar.unpacked')
    if (unpacked !== path && existsSync(unpacked)) return toNamespacedPath(resolve(unpacked))
  }
  return process.platform === 'win32' ? toNamespacedPath(resolve(path)) : path
}
