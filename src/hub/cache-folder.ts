/** Where Hugging Face's tools keep what they downloaded. */
import { mkdir } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { cacheError } from './cache-errors.js'

function expanded(path: string): string {
  return resolve(path.replace(/^~(?=$|[\\/])/, homedir()))
}

/** HF_HOME, or the folder that it stands for. */
export function hubHome(): string {
  const { HF_HOME, XDG_CACHE_HOME } = process.env
  if (HF_HOME) return expanded(HF_HOME)
  return join(XDG_CACHE_HOME ? expanded(XDG_CACHE_HOME) : join(homedir(), '.cache'), 'huggingface')
}

/** The folder with models--OWNER--NAME in it: HF_HUB_CACHE, or the one in HF_HOME. */
export function hubCacheFolder(): string {
  const given = process.env.HF_HUB_CACHE || process.env.HUGGINGFACE_HUB_CACHE
  return given ? expanded(given) : join(hubHome(), 'hub')
}

/** Files from other servers, which those tools know nothing of. */
export function urlCacheFolder(): string {
  return join(hubHome(), 'onebit-run')
}

/** @throws OnebitError those of writing files, with what helps in a cache */
export async function makeFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true }).catch((cause) => {
    throw cacheError(cause, folder)
  })
}

/** As Hugging Face's tools read their variables. */
export function isSwitchedOn(variable: string): boolean {
  return /^(?:1|true|yes|on)$/i.test(process.env[variable] ?? '')
}

/** No network, whether there is one or not. */
export function isOffline(): boolean {
  return isSwitchedOn('HF_HUB_OFFLINE')
}
