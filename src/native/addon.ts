/** Finds and loads the native addon, once per Node environment. Nothing else loads it. */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { OnebitError } from '../errors.js'
import { NATIVE_HINTS } from './hints.js'
import type { NativeAddon } from './native.js'

const BUILD_HERE = 'Build it with `npm run build` in the folder of onebit-run (needs CMake and a C++20 compiler).'
/** A package as npm installs it: without sources, and without a binary for this machine. */
const BUILD_ELSEWHERE =
  'This package has no binary for this machine and no sources to build one. Clone the project, run `npm ci` there (needs CMake and a C++20 compiler), and install the folder: `npm install PATH/TO/THE/CLONE`.'

let loaded: NativeAddon | undefined

function describe(cause: unknown): string {
  const text = cause instanceof Error ? cause.message : String(cause)
  return text.split('\n')[0] ?? text
}

/**
 * node-gyp-build takes only /etc/alpine-release as a sign of musl; other musl systems exist. All have its loader, and so
 * may others; a report knows for sure, but takes 4 ms.
 */
function onMusl(): boolean {
  const loader = `/lib/ld-musl-${process.arch === 'x64' ? 'x86_64' : 'aarch64'}.so.1`
  if (process.platform !== 'linux' || !process.report || !existsSync(loader)) return false
  const report = process.report as typeof process.report & { excludeNetwork?: boolean }
  const before = report.excludeNetwork
  report.excludeNetwork = true // looking up the names of open sockets takes seconds on some networks
  const { header } = report.getReport() as { header?: { glibcVersionRuntime?: string } }
  if (before !== undefined) report.excludeNetwork = before
  return header !== undefined && !header.glibcVersionRuntime
}

/**
 * The native addon.
 * @throws OnebitError ERR_ADDON when there is none for this machine or it cannot be loaded
 */
export function addon(): NativeAddon {
  if (loaded) return loaded
  const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
  const require = createRequire(import.meta.url)
  try {
    if (process.env.LIBC === undefined && onMusl()) process.env.LIBC = 'musl'
    const load = require('node-gyp-build') as (folder: string) => NativeAddon
    loaded = load(root)
  } catch (cause) {
    throw new OnebitError('ERR_ADDON', `The native addon could not be loaded: ${describe(cause)}`, {
      hint: existsSync(join(root, 'CMakeLists.txt')) ? BUILD_HERE : BUILD_ELSEWHERE,
      cause,
    })
  }
  loaded.useErrors((code, message) => {
    return new OnebitError(code, message, { hint: NATIVE_HINTS[code] })
  })
  return loaded
}
