/** The HTTP side: limits, who may ask, which endpoint answers, and errors. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { type Fields, readFields } from './body.js'
import { chatCompletions } from './chat.js'
import { completions } from './completions.js'
import { embeddings } from './embeddings.js'
import { HttpError, httpError } from './errors.js'
import { EventStream } from './events.js'
import type { Endpoint, Exchange } from './exchange.js'
import type { Guard } from './guard.js'
import { type PageFile, pageFile, pageHeaders } from './page.js'
import { responses } from './responses.js'
import type { ServedModels } from './served.js'
import { health, listModels, metrics, oneModel, props } from './status.js'
import { applyTemplate, detokenize, tokenize, tokenizerInfo } from './tokens.js'

export interface HttpOptions {
  models: ServedModels
  guard: Guard
  mostBodyBytes: number
  parseSpecial: boolean
  onError: (error: unknown) => void
}

const HEADERS_MS = 10_000
const REQUEST_MS = 30_000
/**
 * Longer than clients keep a connection that nothing goes over (Python's httpx 5 s, Node's fetch 4, aiohttp's 15): whoever writes into one
 * in the moment when the server closes it gets no answer, and cannot know whether the request was begun.
 */
const IDLE_MS = 75_000
const MOST_CONNECTIONS = 256
const MOST_HEADER_BYTES = 16 << 10

const POSTS: Readonly<Record<string, Endpoint>> = {
  '/v1/completions': completions,
  '/v1/chat/completions': chatCompletions,
  '/v1/responses': responses,
  '/v1/embeddings': embeddings,
  '/tokenize': tokenize,
  '/detokenize': detokenize,
  '/apply-template': applyTemplate,
}
const GETS: Readonly<Record<string, Endpoint>> = {
  '/v1/models': listModels,
  '/health': health,
  '/tokenizer_info': tokenizerInfo,
  '/props': props,
}
const ONE_MODEL = '/v1/models/'

export class HttpSide {
  readonly server: Server
  readonly #options: HttpOptions
  readonly #statuses = new Map<number, number>()

  constructor(options: HttpOptions) {
    this.#options = options
    this.server = createServer(
      {
        headersTimeout: HEADERS_MS,
        requestTimeout: REQUEST_MS,
        keepAliveTimeout: IDLE_MS,
        connectionsCheckingInterval: 1000,
        maxHeaderSize: MOST_HEADER_BYTES,
      },
      (request, response) => void this.#answer(request, response),
    )
    this.server.maxConnections = MOST_CONNECTIONS
    this.server.on('clientError', refuseBrokenRequest)
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController()
    response.on('close', () => {
      this.#count(response.statusCode)
      if (!response.writableFinished) gone.abort(new HttpError(499, 'The client has gone.'))
    })
    let headers: Record<string, string> = {}
    try {
      const { guard } = this.#options
      guard.checkHost(request.headers)
      headers = guard.checkOrigin(request.headers)
      if (request.method === 'OPTIONS') return preflight(request, response, headers)
      await this.#route(request, response, gone.signal, headers)
    } catch (error) {
      this.#refuse(response, error, gone.signal, headers)
    }
  }

  async #route(
    request: IncomingMessage,
    response: ServerResponse,
    signal: AbortSignal,
    headers: Record<string, string>,
  ): Promise<void> {
    const path = pathOf(request.url)
    const method = request.method === 'HEAD' ? 'GET' : request.method
    const page = method === 'GET' ? pageFile(path) : undefined
    if (page) return sendPage(response, page)
    const found = this.#endpoint(path)
    if (path !== '/health') this.#options.guard.checkKey(request.headers)
    if (!found) throw new HttpError(404, 'There is nothing at this path.', { code: 'not_found' })
    if (found.method !== method) {
      const allow = found.method === 'GET' ? 'GET, HEAD' : found.method
      throw new HttpError(405, `This path takes ${allow}.`, { code: 'method_not_allowed', headers: { allow } })
    }
    const fields = method === 'POST' ? await readFields(request, this.#options.mostBodyBytes) : {}
    await found.endpoint(this.#exchange(response, fields, found.rest, signal, headers))
  }

  #endpoint(path: string): { endpoint: Endpoint; method: 'GET' | 'POST'; rest: string } | undefined {
    if (Object.hasOwn(POSTS, path)) return { endpoint: POSTS[path]!, method: 'POST', rest: '' }
    if (Object.hasOwn(GETS, path)) return { endpoint: GETS[path]!, method: 'GET', rest: '' }
    if (path === '/metrics') {
      return { endpoint: (exchange) => metrics(exchange, this.#statuses), method: 'GET', rest: '' }
    }
    if (!path.startsWith(ONE_MODEL)) return undefined
    return { endpoint: oneModel, method: 'GET', rest: path.slice(ONE_MODEL.length) }
  }

  #exchange(
    response: ServerResponse,
    fields: Fields,
    rest: string,
    signal: AbortSignal,
    headers: Record<string, string>,
  ): Exchange {
    const { models, parseSpecial } = this.#options
    const text = (body: string, type: string) => {
      response.writeHead(200, { ...headers, 'content-type': type, 'content-length': Buffer.byteLength(body) })
      response.end(body)
    }
    return {
      fields,
      rest,
      models,
      signal,
      parseSpecial,
      text,
      reply: (value) => text(JSON.stringify(value), 'application/json'),
      events: () => new EventStream(response, headers),
    }
  }

  #refuse(response: ServerResponse, error: unknown, signal: AbortSignal, headers: Record<string, string>): void {
    if (signal.aborted || response.destroyed) return void response.destroy()
    const known = httpError(error)
    if (known.status >= 500 && known.status !== 503) this.#options.onError(error)
    const body = JSON.stringify(known.body())
    if (response.headersSent) {
      // The answer has begun: what is left is to say so in its own form.
      response.end(`data: ${body}\n\n`)
      return
    }
    response.writeHead(known.status, {
      ...headers,
      ...known.headers,
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
    })
    response.end(body)
  }

  #count(status: number): void {
    this.#statuses.set(status, (this.#statuses.get(status) ?? 0) + 1)
  }
}

/** @throws HttpError 400 */
function pathOf(url = '/'): string {
  try {
    return decodeURIComponent(url.replace(/[?#].*$/s, ''))
  } catch {
    throw new HttpError(400, 'The path is not written right.', { code: 'bad_path' })
  }
}

function preflight(request: IncomingMessage, response: ServerResponse, headers: Record<string, string>): void {
  // Libraries add headers of their own (OpenAI's in a browser: x-stainless-os and more). None is obeyed, so all may come.
  const asked = request.headers['access-control-request-headers']
  const allowed =
    Object.keys(headers).length === 0
      ? {}
      : {
          'access-control-allow-methods': 'GET, POST',
          'access-control-allow-headers': asked ?? 'authorization, content-type',
          'access-control-max-age': '600',
        }
  response.writeHead(204, { ...headers, ...allowed })
  response.end()
}

function sendPage(response: ServerResponse, file: PageFile): void {
  response.writeHead(200, pageHeaders(file))
  response.end(file.bytes)
}

const BROKEN: Readonly<Record<string, [number, string]>> = {
  HPE_HEADER_OVERFLOW: [431, 'The headers are too large.'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'The request took too long to arrive.'],
}

/** What is no HTTP gets an answer too, and then its connection ends. */
function refuseBrokenRequest(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy()
  const [status, message] = BROKEN[error.code ?? ''] ?? [400, 'This is not an HTTP request.']
  const body = JSON.stringify(new HttpError(status, message, { code: 'bad_request' }).body())
  const head = `HTTP/1.1 ${status} ${status === 431 ? 'Request Header Fields Too Large' : 'Bad Request'}`
  socket.end(
    `${head}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    () => socket.destroy(),
  )
}
