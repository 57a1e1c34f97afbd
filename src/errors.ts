/**
 * Every error a caller can meet: a stable `code` for programs, a message that says what was found where, and a
 * `hint` that says what to do. Command-line programs print `message` and `hint`, never a stack.
 */
export class OnebitError extends Error {
  override readonly name = 'OnebitError'
  readonly code: string
  readonly hint: string | undefined

  constructor(code: string, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.hint = options.hint
  }
}

/** A value that is not a usable option; `ERR_BAD_OPTION` names the field. */
export function badOption(field: string, problem: string): OnebitError {
  return new OnebitError('ERR_BAD_OPTION', `${field}: ${problem}`)
}
