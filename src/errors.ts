interface ErrorOptions {
  hint?: string | undefined
  cause?: unknown
}

/**
 * Every error a caller can meet: a stable `code` for programs, a message that says what was found where, and a
 * `hint` that says what to do. Command-line programs print `message` and `hint`, never a stack.
 *
 * ```ts
 * try {
 *   await Model.load(path)
 * } catch (error) {
 *   if (!(error instanceof OnebitError)) throw error
 *   console.error(error.code, error.message, error.hint ?? '')
 * }
 * ```
 */
export class OnebitError extends Error {
  /** tells it apart from other errors where `instanceof` cannot: when a program has two copies of the package */
  override readonly name = 'OnebitError'
  /** stable between versions, such as ERR_FILE_NOT_FOUND; each function names its own */
  readonly code: string
  /** what to do about it, in a sentence; undefined where there is nothing to say */
  readonly hint: string | undefined

  /** @internal These errors are made here alone. */
  constructor(code: string, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.hint = options.hint
  }
}

/** An option is wrong. Whoever knows it by another name, as a command line does, can tell the same under that name. */
export class OptionError extends OnebitError {
  readonly option: string
  /** the sentence without its subject: "must be a string, not 5" */
  readonly problem: string

  constructor(option: string, problem: string, options: ErrorOptions = {}) {
    super('ERR_BAD_OPTION', `${option}: ${problem}`, options)
    this.option = option
    this.problem = problem
  }

  called(option: string): OptionError {
    return new OptionError(option, this.problem, { hint: this.hint, cause: this })
  }
}

/** A value that is not a usable option; `ERR_BAD_OPTION` names the field. */
export function badOption(field: string, problem: string): OptionError {
  return new OptionError(field, problem)
}
