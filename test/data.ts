/** Where tests find real weights, tokenizers and golden files; they are not part of the project. */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const PROJECT = join(dirname(fileURLToPath(import.meta.url)), '..')
export const DATA = process.env.ONEBIT_DATA ?? join(PROJECT, '..', 'shared', 'data')

export function dataFile(name: string): string {
  return join(DATA, name)
}

/** For `describe.skipIf(missing(...))`: true when one of the files is not there; says so once. */
export function missing(...names: string[]): boolean {
  const absent = names.filter((name) => !existsSync(dataFile(name)))
  if (absent.length > 0) console.warn(`skipped: ${absent.join(', ')} not found below ${DATA}`)
  return absent.length > 0
}
