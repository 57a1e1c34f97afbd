/**
 * A server for loaded models that speaks OpenAI's API, with a chat page:
 *
 * ```ts
 * import { Model } from 'onebit-run'
 * import { serve } from 'onebit-run/server'
 *
 * const server = await serve([{ name: 'smol', model: await Model.load('smol.obt') }], { port: 8080 })
 * console.log(server.url)
 * await server.close()
 * ```
 *
 * Endpoints, limits and who may use it: docs/server.md.
 * @module onebit-run/server
 */
import type { AddressInfo } from 'node:net'
import { LIMITS } from '../config/limits.js'
import { badOption, OnebitError } from '../errors.js'
import { booleanOption, functionOption, integerOption, optionFields, stringOption } from '../options.js'
import { Model } from '../run/model.js'
import { bracketed, Guard, isLoopback } from './guard.js'
import { HttpSide } from './http.js'
import { ServedModels } from './served.js'

/** What `serve` is told. */
export interface ServeOptions {
  /** where to listen; default 127.0.0.1. Anything that other machines reach needs an `apiKey`. */
  host?: string
  /** 0 to 65535; 0: one that is free; default 8080 */
  port?: number
  /** requests of one model that are computed together, 1 to 128; default 4 */
  parallel?: number
  /** requests that wait for a place, 0 to 4096; one more is refused with 429; default 16 */
  queue?: number
  /** MiB of keys and values that are kept of requests that have ended, for each model; default 512 */
  cacheMiB?: number
  /** positions of a request; default: the model's own `context` */
  context?: number
  /** clients send it as Authorization: Bearer KEY: letters, digits and signs without spaces; default: none is asked for */
  apiKey?: string
  /** names besides localhost and `host` by which clients may call the server; default: none */
  allowHosts?: readonly string[]
  /** origins of web pages that may use it, such as https://app.example; default: its own page alone */
  allowOrigins?: readonly string[]
  /** special tokens written out in raw prompts are special tokens; default true */
  parseSpecial?: boolean
  /** bytes of a request's body, 1 KiB to 1 GiB; default 1 MiB */
  maxBody?: number
  /** told of errors that are the server's own; default: nobody is */
  onError?: (error: unknown) => void
}

/** A server that listens. */
export interface Serving {
  /** where, such as http://127.0.0.1:8080: the chat page; OpenAI's API is at /v1 below it */
  readonly url: string
  /** the one that was asked for, or that was free */
  readonly port: number
  /**
   * Takes no more requests; those under way may end within `graceMs` (default 10 s), then they are cut off. The models
   * stay loaded.
   */
  close(graceMs?: number): Promise<void>
}

const NAMES = [
  'host',
  'port',
  'parallel',
  'queue',
  'cacheMiB',
  'context',
  'apiKey',
  'allowHosts',
  'allowOrigins',
  'parseSpecial',
  'maxBody',
  'onError',
]
const GRACE_MS = 10_000

/**
 * @internal For the command line, which checks its options before it loads a model.
 * @throws OnebitError ERR_BAD_OPTION, ERR_NO_KEY
 */
export function checkServeOptions(options: ServeOptions | undefined) {
  const fields = optionFields('options', options, NAMES)
  const host = stringOption(fields, 'host') ?? '127.0.0.1'
  const apiKey = stringOption(fields, 'apiKey')
  if (apiKey !== undefined && !/^[\x21-\x7e]+$/.test(apiKey)) {
    throw badOption('apiKey', 'must be letters, digits and signs, without spaces')
  }
  if (apiKey === undefined && !isLoopback(host)) {
    throw new OnebitError(
      'ERR_NO_KEY',
      `Without a key nobody beyond this machine is served, and ${host} is beyond it.`,
      {
        hint: 'Give a key (--api-key KEY, or the environment variable ONEBIT_API_KEY), or listen on 127.0.0.1.',
      },
    )
  }
  const context = integerOption(fields, 'context', 1, LIMITS.context)
  return {
    host,
    apiKey,
    port: integerOption(fields, 'port', 0, 65535) ?? 8080,
    batch: {
      parallel: integerOption(fields, 'parallel', 1, 128) ?? 4,
      queue: integerOption(fields, 'queue', 0, 4096) ?? 16,
      cacheMiB: integerOption(fields, 'cacheMiB', 0, 1 << 20) ?? 512,
      ...(context === undefined ? {} : { context }),
    },
    allowHosts: stringList(fields, 'allowHosts'),
    allowOrigins: stringList(fields, 'allowOrigins'),
    parseSpecial: booleanOption(fields, 'parseSpecial') ?? true,
    mostBodyBytes: integerOption(fields, 'maxBody', 1024, 1 << 30) ?? 1 << 20,
    onError: functionOption<(error: unknown) => void>(fields, 'onError') ?? (() => {}),
  }
}

function stringList(fields: Record<string, unknown>, name: string): string[] {
  const value = fields[name] ?? []
  if (Array.isArray(value) && value.every((one) => typeof one === 'string')) return value
  throw badOption(name, 'must be an array of strings')
}

/**
 * Serves loaded models over HTTP. Requests of one model share its steps; each gets the same bytes as alone. The models belong to
 * the caller: whoever loaded them disposes of them, after `close`.
 * @param models at least one `model`, loaded, each under another `name`, by which requests ask for it
 * @throws OnebitError ERR_BAD_OPTION, ERR_NO_KEY (no `apiKey`, and other machines could reach it), ERR_PORT_IN_USE, ERR_LISTEN
 */
export async function serve(
  models: readonly { name: string; model: Model }[],
  options?: ServeOptions,
): Promise<Serving> {
  const checked = checkServeOptions(options)
  checkModels(models)
  const served = new ServedModels(models, checked.batch)
  const { host, port, mostBodyBytes, parseSpecial, onError } = checked
  const http = new HttpSide({ models: served, guard: new Guard(checked), mostBodyBytes, parseSpecial, onError })
  try {
    await listen(http, host, port)
  } catch (error) {
    await served.close(0)
    throw error
  }
  const bound = http.server.address() as AddressInfo
  const name = bracketed(host)
  let closing: Promise<void> | undefined
  const close = async (graceMs: number) => {
    const ended = new Promise<void>((resolve) => {
      http.server.close(() => resolve())
    })
    http.server.closeIdleConnections()
    await served.close(graceMs)
    // Their answers are written; what is still open is idle, or does not read.
    http.server.closeIdleConnections()
    const late = setTimeout(() => http.server.closeAllConnections(), 500)
    await ended
    clearTimeout(late)
  }
  return {
    url: `http://${name}:${bound.port}`,
    port: bound.port,
    close: (graceMs = GRACE_MS) => {
      closing ??= close(graceMs)
      return closing
    },
  }
}

function checkModels(models: unknown): void {
  if (!Array.isArray(models) || models.length === 0) throw badOption('models', 'must have at least one model')
  const names = new Set<string>()
  for (const one of models as { name?: unknown; model?: unknown }[]) {
    if (typeof one?.name !== 'string' || one.name === '') throw badOption('models', 'each must have a name')
    if (!(one.model instanceof Model)) throw badOption('models', 'each must be a loaded Model')
    if (names.has(one.name)) throw badOption('models', `two are called ${JSON.stringify(one.name)}`)
    names.add(one.name)
  }
}

async function listen({ server }: HttpSide, host: string, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      if (cause.code === 'EADDRINUSE') {
        const hint = 'Choose another one (--port N), or 0 for one that is free.'
        return reject(new OnebitError('ERR_PORT_IN_USE', `Port ${port} of ${host} is in use.`, { hint, cause }))
      }
      reject(new OnebitError('ERR_LISTEN', `Listening on ${host}:${port} failed (${cause.code}).`, { cause }))
    })
    server.listen(port, host, resolve)
  })
}
