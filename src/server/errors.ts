/** Errors as OpenAI's clients read them: a status, and `{error: {message, type, param, code}}`. */
import { OnebitError, OptionError } from '../errors.js'

export interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string | null }
}

export class HttpError extends Error {
  readonly status: number
  readonly code: string | null
  readonly param: string | null
  readonly headers: Readonly<Record<string, string>>

  constructor(
    status: number,
    message: string,
    { code = null, param = null, headers = {} }: Partial<Pick<HttpError, 'code' | 'param' | 'headers'>> = {},
  ) {
    super(message)
    this.status = status
    this.code = code
    this.param = param
    this.headers = headers
  }

  body(): ErrorBody {
    const { message, param, code } = this
    return {
      error: { message, type: TYPES[this.status] ?? (this.status < 500 ? REQUEST : 'server_error'), param, code },
    }
  }
}

const REQUEST = 'invalid_request_error'
const TYPES: Readonly<Record<number, string>> = {
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  429: 'rate_limit_error',
  503: 'server_stopping',
}

/** A field of the request is wrong. */
export function badField(param: string, problem: string): HttpError {
  return new HttpError(400, `${param}: ${problem}`, { param, code: 'invalid_value' })
}

interface Known {
  status: number
  code?: string
  param?: string
  headers?: Record<string, string>
}

/** What of our own errors is the client's doing, and what it is called there. All others are ours: 500. */
const KNOWN: Readonly<Record<string, Known>> = {
  ERR_TOKEN_RANGE: { status: 400, code: 'invalid_value' },
  ERR_CONTEXT_FULL: { status: 400, code: 'context_length_exceeded' },
  ERR_EMPTY_PROMPT: { status: 400, code: 'empty_prompt' },
  ERR_NO_CHAT_TEMPLATE: { status: 400, code: 'no_chat_template' },
  ERR_NO_TOOLS: { status: 400, code: 'no_tools', param: 'tools' },
  ERR_NO_TOKENIZER: { status: 400, code: 'no_tokenizer' },
  ERR_TEMPLATE: { status: 400, code: 'template_error' },
  ERR_SCHEMA: { status: 400, code: 'invalid_schema' },
  ERR_REGEX: { status: 400, code: 'invalid_regex' },
  ERR_GRAMMAR: { status: 400, code: 'invalid_grammar' },
  ERR_GRAMMAR_LIMIT: { status: 400, code: 'grammar_too_large' },
  ERR_GRAMMAR_TIMEOUT: { status: 400, code: 'grammar_too_slow' },
  ERR_QUEUE_FULL: { status: 429, code: 'queue_full', headers: { 'retry-after': '1' } },
  ERR_STOPPING: { status: 503, code: 'stopping', headers: { 'retry-after': '5' } },
  ERR_DISPOSED: { status: 503, code: 'stopping', headers: { 'retry-after': '5' } },
}

/** Whatever was thrown, as an answer. Neither paths nor stacks of the server leave it. */
export function httpError(error: unknown): HttpError {
  if (error instanceof HttpError) return error
  if (error instanceof OptionError) return badField(snakeCase(error.option), error.problem)
  if (!(error instanceof OnebitError)) return new HttpError(500, 'Something went wrong in the server.', INTERNAL)
  const known = KNOWN[error.code]
  if (!known) return new HttpError(500, `The model could not answer (${error.code}).`, { code: error.code })
  const { status, code = null, param = null, headers = {} } = known
  const hint = status === 400 && error.code !== 'ERR_CONTEXT_FULL' && error.hint ? ` ${error.hint}` : ''
  return new HttpError(status, `${error.message}${hint}`, { code, param, headers })
}

const INTERNAL = { code: 'internal_error' }

/** The API says topP, requests say top_p. */
function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}
