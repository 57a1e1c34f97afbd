/**
 * Requests to the hub and to where it sends us. Redirects are followed here and not by a library, because the token must not go
 * along with them, and because the hub's own answers say what a file has to be.
 *
 * node:http and two small packages rather than undici: its newest release needs Node 22, a version for Node 20 would be larger
 * than all of dist/, and Node's own fetch knows no proxies before Node 24.
 */
import { type IncomingMessage, request as plainRequest, type RequestOptions } from 'node:http'
import { request as secureRequest } from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'
import { OnebitError } from '../errors.js'
import { packageVersion } from '../package-version.js'
import { shown } from '../shown-value.js'
import { hubEndpoint } from './model-address.js'
import { hubToken } from './token.js'

export interface Answer {
  status: number
  headers: IncomingMessage['headers']
  /** of the first server's answer, if it sent us elsewhere: the hub says there what the file is */
  firstHeaders: IncomingMessage['headers']
  body: IncomingMessage
  /** where it came from in the end */
  url: URL
}

export interface RequestSettings {
  headers?: Record<string, string>
  signal?: AbortSignal | undefined
}

const MOST_REDIRECTS = 10
/** A server that sends nothing for so long is taken for dead. */
const IDLE_MS = 20_000
const MOST_TRIES = 6
const FIRST_DELAY_MS = 250
/** Longer waits are the user's to decide. */
const MOST_DELAY_MS = 120_000
const REDIRECTS = [301, 302, 303, 307, 308]
const WORTH_ANOTHER_TRY = [408, 425, 429, 500, 502, 503, 504]

/** No answer, or one that broke off. */
export class NetworkError extends Error {
  readonly code: string

  constructor(url: URL, cause: unknown) {
    const { code, message } = cause as NodeJS.ErrnoException
    super(`${url.host}: ${code ?? message}`, { cause })
    this.code = code ?? ''
  }
}

/** Milliseconds; HF_HUB_DOWNLOAD_TIMEOUT is in seconds, as Hugging Face's own tools read it. */
function idleMs(): number {
  const seconds = Number(process.env.HF_HUB_DOWNLOAD_TIMEOUT || Number.NaN)
  return seconds > 0 && seconds < 86_400 ? seconds * 1000 : IDLE_MS
}

function isLoopback({ hostname }: URL): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(hostname)
}

/**
 * Only https leaves this machine, unless HF_ENDPOINT itself is something else; and what came by https does not lead to servers of
 * this machine.
 * @param from what sent us there
 * @throws OnebitError ERR_HUB_REDIRECT
 */
function checkProtocol(url: URL, from: URL): void {
  if (url.protocol === 'https:') return
  const isOwn = isLoopback(url) && isLoopback(from) && from.protocol === 'http:'
  if (url.protocol === 'http:' && (isOwn || hubEndpoint().protocol === 'http:')) return
  throw new OnebitError('ERR_HUB_REDIRECT', `${shown(url.origin)} is not https`, {
    hint: 'Only https is used beyond this machine; a mirror without it has to be named by HF_ENDPOINT.',
  })
}

async function proxied(url: URL, options: RequestOptions): Promise<RequestOptions> {
  const { getProxyForUrl } = await import('proxy-from-env')
  const found = getProxyForUrl(url.href)
  if (found === '') return options
  const proxy = URL.canParse(found) ? new URL(found) : undefined
  if (proxy === undefined || !/^https?:$/.test(proxy.protocol)) {
    throw new OnebitError('ERR_HUB_PROXY', `The proxy ${shown(found)} of the environment is none that can be used`, {
      hint: 'HTTPS_PROXY and HTTP_PROXY are http://HOST:PORT, NO_PROXY lists hosts without one.',
    })
  }
  if (url.protocol === 'https:') {
    const { HttpsProxyAgent } = await import('https-proxy-agent')
    return { ...options, agent: new HttpsProxyAgent(proxy) }
  }
  const credentials = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`
  const authorization =
    proxy.username === '' ? {} : { 'Proxy-Authorization': `Basic ${Buffer.from(credentials).toString('base64')}` }
  return {
    ...options,
    host: proxy.hostname,
    port: proxy.port || 80,
    path: url.href,
    headers: { ...options.headers, Host: url.host, ...authorization },
  }
}

async function once(url: URL, from: URL, { headers, signal }: RequestSettings): Promise<Answer> {
  checkProtocol(url, from)
  const ours = url.origin === hubEndpoint().origin ? hubToken() : undefined
  const usual: RequestOptions = {
    method: 'GET',
    headers: {
      'User-Agent': `onebit-run/${packageVersion()}; node/${process.versions.node}`,
      'Accept-Encoding': 'identity', // a range is of the bytes that are hashed
      ...headers,
      ...(ours === undefined ? {} : { Authorization: `Bearer ${ours}` }),
    },
    ...(signal ? { signal } : {}),
  }
  const options = await proxied(url, usual)
  const viaPlainProxy = options.path !== undefined
  const start = url.protocol === 'https:' && !viaPlainProxy ? secureRequest : plainRequest
  return new Promise<Answer>((resolve, reject) => {
    const done = (body: IncomingMessage) => {
      const { headers } = body
      resolve({ status: body.statusCode!, headers, firstHeaders: headers, body, url })
    }
    const request = viaPlainProxy ? start(options, done) : start(url, options, done)
    request.setTimeout(idleMs(), () => request.destroy(Object.assign(new Error('timeout'), { code: 'ETIMEDOUT' })))
    request.on('error', (cause) => reject(signal?.aborted ? signal.reason : new NetworkError(url, cause)))
    request.end()
  })
}

async function followed(url: URL, settings: RequestSettings): Promise<Answer> {
  let first: Answer['firstHeaders'] | undefined
  let at = url
  let from = url
  for (let steps = 0; steps <= MOST_REDIRECTS; steps++) {
    const answer = await once(at, from, settings)
    first ??= answer.headers
    const { location } = answer.headers
    if (!REDIRECTS.includes(answer.status) || location === undefined) return { ...answer, firstHeaders: first }
    discard(answer)
    if (!URL.canParse(location, at.href)) break
    from = at
    at = new URL(location, at)
  }
  throw new OnebitError(
    'ERR_HUB_REDIRECT',
    `${url.origin}${url.pathname} leads from one place to the next without an end`,
    {
      hint: 'Is HF_ENDPOINT right? Some networks answer so until somebody has logged in.',
    },
  )
}

/** Leaves a body that nobody reads. */
export function discard({ body }: Pick<Answer, 'body'>): void {
  body.on('error', () => {})
  body.destroy()
}

/** How long to wait before the next try. @param tries those that failed, 1 or more */
function delayMs(tries: number, answer: Pick<Answer, 'headers'> | undefined): number {
  const asked = answer?.headers['retry-after']
  const seconds = asked === undefined ? Number.NaN : Number(asked)
  const date = asked === undefined ? Number.NaN : Date.parse(asked) - Date.now()
  const usual = FIRST_DELAY_MS * 2 ** (tries - 1)
  return Math.max(0, Number.isFinite(seconds) ? seconds * 1000 : Number.isFinite(date) ? date : usual)
}

/** Counts failures since something last went well, and waits between them. */
export class Patience {
  readonly #signal: AbortSignal | undefined
  #failures = 0

  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal
  }

  /** Something came: what fails next is a new story. */
  progress(): void {
    this.#failures = 0
  }

  /** Waits before another try; false when there should be none. The first after some progress follows at once. */
  async again(answer?: Pick<Answer, 'headers'>, most = MOST_TRIES): Promise<boolean> {
    if (++this.#failures >= most) return false
    const ms = delayMs(this.#failures, answer)
    if (ms > MOST_DELAY_MS) return false
    await sleep(ms, undefined, this.#signal ? { signal: this.#signal } : {}).catch((error) => {
      throw this.#signal?.aborted ? this.#signal.reason : error
    })
    return true
  }
}

/** What will not change within seconds: no name server, nothing that listens, a certificate that nobody knows. */
const FINAL = /^(?:ENOTFOUND|ECONNREFUSED|ENETUNREACH|EHOSTUNREACH|CERT_|DEPTH_|UNABLE_|SELF_SIGNED|ERR_TLS)/

/**
 * Asks until there is an answer that is worth looking at; busy servers are asked again, when they say so.
 * @throws NetworkError; OnebitError ERR_HUB_REDIRECT, ERR_HUB_PROXY; the signal's reason
 */
export async function ask(url: URL, settings: RequestSettings, patience: Patience): Promise<Answer> {
  for (;;) {
    settings.signal?.throwIfAborted()
    try {
      const answer = await followed(url, settings)
      if (!WORTH_ANOTHER_TRY.includes(answer.status) || !(await patience.again(answer))) return answer
      discard(answer)
    } catch (error) {
      if (
        !(error instanceof NetworkError) ||
        !(await patience.again(undefined, FINAL.test(error.code) ? 2 : undefined))
      )
        throw error
    }
  }
}

/** All of a body that is known to be small. @throws NetworkError; OnebitError ERR_HUB_ANSWER; the signal's reason */
export async function readBody(answer: Answer, mostBytes: number, signal?: AbortSignal): Promise<Buffer> {
  const pieces: Buffer[] = []
  let bytes = 0
  try {
    for await (const piece of answer.body as AsyncIterable<Buffer>) {
      bytes += piece.length
      if (bytes > mostBytes) break
      pieces.push(piece)
    }
  } catch (cause) {
    throw signal?.aborted ? signal.reason : new NetworkError(answer.url, cause)
  }
  if (bytes <= mostBytes) return Buffer.concat(pieces)
  throw new OnebitError('ERR_HUB_ANSWER', `${answer.url.host} answered with more than ${mostBytes} bytes`)
}
