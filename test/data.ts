/** Where tests find real weights, tokenizers and golden files: small ones in test/goldens, the others in a data folder. */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const PROJECT = join(dirname(fileURLToPath(import.meta.url)), '..')
export const DATA = process.env.ONEBIT_DATA ?? join(PROJECT, '..', 'shared', 'data')

export function dataFile(name: string): string {
  return join(DATA, name)
}

/** A file or folder of test/goldens (its README.md says what is there), which every checkout has. */
export function golden(name: string): string {
  return join(PROJECT, 'test', 'goldens', name)
}

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T
}

/** For `describe.skipIf(missing(...))`: true when one of the files is not there; says so once. */
export function missing(...names: string[]): boolean {
  const absent = names.filter((name) => !existsSync(dataFile(name)))
  if (absent.length > 0) console.warn(`skipped: ${absent.join(', ')} not found below ${DATA}`)
  return absent.length > 0
}
