/** Loads the native addon, once per Node environment. Nothing else loads it. */
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { OnebitError } from '../errors.js'
import { findAddon, whatToDo } from './find-addon.js'
import { NATIVE_HINTS } from './hints.js'
import type { NativeAddon } from './native.js'

let loaded: NativeAddon | undefined

function describe(cause: unknown): string {
  const text = cause instanceof Error ? cause.message : String(cause)
  return text.split('\n')[0] ?? text
}

/**
 * The native addon.
 * @throws OnebitError ERR_ADDON when there is none for this machine or it cannot be loaded
 */
export function addon(): NativeAddon {
  if (loaded) return loaded
  const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
  const path = findAddon(root)
  try {
    loaded = createRequire(import.meta.url)(path) as NativeAddon
  } catch (cause) {
    throw new OnebitError('ERR_ADDON', `The native addon ${path} could not be loaded: ${describe(cause)}`, {
      hint: whatToDo(root),
      cause,
    })
  }
  loaded.useErrors((code, message) => {
    return new OnebitError(code, message, { hint: NATIVE_HINTS[code] })
  })
  return loaded
}
