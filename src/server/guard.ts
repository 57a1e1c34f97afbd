/**
 * Who may talk to the server. A web page may not, unless it is ours or was allowed: a browser tells where a page comes
 * from (Origin), and a page whose name was bent to this machine (DNS rebinding) still has its own name in Host.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { isIP } from 'node:net'
import { HttpError } from './errors.js'

export interface GuardOptions {
  /** where the server listens */
  host: string
  apiKey?: string | undefined
  /** names besides localhost and the bound one that may stand in Host */
  allowHosts?: readonly string[]
  /** origins of pages that may ask, such as https://app.example; `*`: any */
  allowOrigins?: readonly string[]
}

const LOOPBACK = ['localhost', '127.0.0.1', '[::1]']

export function isLoopback(host: string): boolean {
  return LOOPBACK.includes(bracketed(host.toLowerCase())) || /^127\.\d+\.\d+\.\d+$/.test(host)
}

export class Guard {
  readonly #hosts: ReadonlySet<string>
  readonly #anyAddress: boolean
  readonly #origins: ReadonlySet<string>
  readonly #key: Buffer | undefined

  constructor({ host, apiKey, allowHosts = [], allowOrigins = [] }: GuardOptions) {
    this.#hosts = new Set([...LOOPBACK, bracketed(host), ...allowHosts.map(bracketed)].map((one) => one.toLowerCase()))
    // From other machines it is reached by address. Rebinding needs a name.
    this.#anyAddress = !isLoopback(host)
    this.#origins = new Set(allowOrigins.map((origin) => origin.toLowerCase().replace(/\/$/, '')))
    this.#key = apiKey === undefined ? undefined : digest(apiKey)
  }

  /** @throws HttpError 400, 403 */
  checkHost(headers: IncomingHttpHeaders): void {
    const name = hostName(headers.host)
    if (name === undefined) throw new HttpError(400, 'The Host header is missing or wrong.', { code: 'bad_host' })
    if (this.#hosts.has(name) || (this.#anyAddress && isIP(name.replace(/^\[|\]$/g, '')) > 0)) return
    throw new HttpError(403, 'The server does not know itself by this Host. Start it with --allow-host NAME.', {
      code: 'host_not_allowed',
    })
  }

  /**
   * The headers that let a page of another origin read the answer; none when there is no Origin or it is our own.
   * @throws HttpError 403
   */
  checkOrigin(headers: IncomingHttpHeaders): Record<string, string> {
    const { origin } = headers
    if (origin === undefined) return {}
    const given = origin.toLowerCase()
    if (given === `http://${headers.host?.toLowerCase()}`) return {}
    if (this.#origins.has(given) || this.#origins.has('*')) {
      return { 'access-control-allow-origin': origin, vary: 'origin' }
    }
    throw new HttpError(403, 'Pages of this Origin may not use the server. Start it with --allow-origin ORIGIN.', {
      code: 'origin_not_allowed',
    })
  }

  /** @throws HttpError 401 */
  checkKey({ authorization }: IncomingHttpHeaders): void {
    if (!this.#key) return
    const given = /^bearer +(\S+) *$/i.exec(authorization ?? '')?.[1]
    // Digests have one length, so neither the key's length nor a common beginning shows in the time.
    if (given !== undefined && timingSafeEqual(digest(given), this.#key)) return
    const problem = given === undefined ? 'An API key is needed: Authorization: Bearer KEY.' : 'The API key is wrong.'
    throw new HttpError(401, problem, { code: 'invalid_api_key', headers: { 'www-authenticate': 'Bearer' } })
  }
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

/** A host as it stands in addresses. */
export function bracketed(host: string): string {
  return isIP(host) === 6 ? `[${host}]` : host
}

/** The name in a Host header, without its port; undefined when it is none. */
function hostName(host: string | undefined): string | undefined {
  return /^(\[[\da-f:.]+\]|[\w.-]+)(?::\d{1,5})?$/i.exec(host ?? '')?.[1]?.toLowerCase()
}
