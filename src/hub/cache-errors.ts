/** What is said when the cache cannot be written to. */
import { OnebitError } from '../errors.js'
import { fileError } from '../files/file-errors.js'

export const RESUMES = 'What is there is kept: run the same again, and it goes on behind it.'

/** As fileError of writing, with what helps here: the folder was chosen by variables, and parts of files are kept. */
export function cacheError(cause: unknown, path: string): unknown {
  const error = fileError(cause, path, 'writing')
  if (!(error instanceof OnebitError) || error === cause) return error
  const isFull = error.code === 'ERR_DISK_FULL'
  const hint = isFull ? `Free some space. ${RESUMES}` : 'HF_HUB_CACHE names another folder for models.'
  return new OnebitError(error.code, error.message, { hint, cause })
}
