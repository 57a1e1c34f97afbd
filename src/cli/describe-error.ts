/** Errors as people read them. */
import { OnebitError } from '../errors.js'
import { UsageError } from './arguments.js'

/** One sentence for people, never a stack; the code in brackets is what to search for. */
export function describeError(error: unknown): string {
  if (error instanceof OnebitError) {
    const code = error instanceof UsageError ? '' : ` [${error.code}]`
    return `onebit: ${error.message}${code}${error.hint ? `\n        ${error.hint}` : ''}`
  }
  const message = error instanceof Error ? error.message : String(error)
  return `onebit: ${message} [ERR_INTERNAL]\n        This is a bug of ours; please report it with the command that caused it.`
}
