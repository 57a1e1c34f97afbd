/**
 * A server that answers as the hub does: names, lists of files with their hashes, small files at once, large ones by a redirect to
 * another host. And one that misbehaves as servers and networks do.
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest'
import type { Ended } from './command.js'
import { programWords } from './command.js'

export interface FakeRepository {
  commit: string
  files: Map<string, Buffer>
  /** who has this token may have it */
  token?: string
}

export interface Seen {
  /** of the two servers */
  at: 'hub' | 'cdn'
  path: string
  range: string | undefined
  ifRange: string | undefined
  authorization: string | undefined
}

export const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
export const gitBlob = (bytes: Buffer) =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex')
const isLarge = (path: string) => /\.(gguf|obt|safetensors|bin)$/.test(path)

/** Something else than the bytes that were asked for; false: nothing was done. */
export type Trouble = (request: IncomingMessage, response: ServerResponse, seen: Seen) => boolean

export class FakeHub {
  readonly repositories = new Map<string, FakeRepository>()
  readonly seen: Seen[] = []
  /** each is asked in turn, and taken away when it has done something */
  readonly troubles: Trouble[] = []
  /** of files, from the second server, on all requests together */
  sentBytes = 0
  /** the connection ends after so many bytes of a file, one number for each request */
  readonly cuts: number[] = []
  /** as the second server has them: others than the list says */
  readonly replaced = new Map<string, Buffer>()
  /** what is said of the length of a file, where that is not what it has */
  readonly claimedBytes = new Map<string, number>()
  /** answers to ranges are the whole file */
  knowsRanges = true
  pageSize = 1000
  /** pieces of 64 kB are sent that far apart */
  pauseMs = 0
  readonly #hub: Server
  readonly #cdn: Server

  constructor() {
    this.#hub = createServer((request, response) => this.#answer('hub', request, response))
    this.#cdn = createServer((request, response) => this.#answer('cdn', request, response))
  }

  async start(): Promise<void> {
    for (const server of [this.#hub, this.#cdn]) {
      server.listen(0, '127.0.0.1')
      await once(server, 'listening')
    }
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#hub.address() as AddressInfo).port}`
  }

  /** of the same machine, and for a client another host */
  get cdnUrl(): string {
    return `http://localhost:${(this.#cdn.address() as AddressInfo).port}`
  }

  async stop(): Promise<void> {
    for (const server of [this.#hub, this.#cdn]) {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    }
  }

  add(name: string, files: Record<string, Buffer | string>, more: Partial<FakeRepository> = {}): FakeRepository {
    const all = new Map(Object.entries(files).map(([path, content]) => [path, Buffer.from(content)]))
    const hash = createHash('sha1')
    for (const [path, bytes] of all) hash.update(path).update(bytes)
    const made = { commit: hash.digest('hex'), files: all, ...more }
    this.repositories.set(name, made)
    return made
  }

  /** Forgets what was seen and every trouble. */
  reset(): void {
    this.seen.length = 0
    this.troubles.length = 0
    this.cuts.length = 0
    this.replaced.clear()
    this.claimedBytes.clear()
    this.sentBytes = 0
    this.pauseMs = 0
    this.knowsRanges = true
    this.pageSize = 1000
  }

  #answer(at: Seen['at'], request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url!, this.url)
    const { range, authorization, 'if-range': ifRange } = request.headers as Record<string, string | undefined>
    const seen: Seen = { at, path: decodeURIComponent(url.pathname), range, ifRange, authorization }
    this.seen.push(seen)
    const trouble = this.troubles.findIndex((one) => one(request, response, seen))
    if (trouble >= 0) {
      this.troubles.splice(trouble, 1)
      return
    }
    if (at === 'cdn') return void this.#sendFile(seen, response)
    this.#answerOfHub(seen, url, response)
  }

  #answerOfHub({ path, authorization, range }: Seen, url: URL, response: ServerResponse): unknown {
    const api = /^\/api\/models\/([^/]+\/[^/]+)\/(revision|tree)\/([^/]+)$/.exec(path)
    const file = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(path)
    const name = (api ?? file)?.[1]
    const found = name === undefined ? undefined : this.repositories.get(name)
    if (found === undefined) return fail(response, 401, 'RepoNotFound')
    const revision = (api?.[3] ?? file?.[2])!
    if (revision !== 'main' && revision !== found.commit) return fail(response, 404, 'RevisionNotFound')
    if (file) return this.#resolve(name!, found, file[3]!, { authorization, range }, response)
    if (api![2] === 'revision') return json(response, { id: name, sha: found.commit })
    const from = Number(url.searchParams.get('cursor') ?? 0)
    const entries = [...found.files].slice(from, from + this.pageSize)
    if (from + this.pageSize < found.files.size) {
      const next = `${this.url}${url.pathname}?recursive=true&cursor=${from + this.pageSize}`
      response.setHeader('link', `<${next}>; rel="next"`)
    }
    json(response, [
      { type: 'directory', path: 'sub', size: 0, oid: '0'.repeat(40) },
      ...entries.map(([path, bytes]) => entry(path, bytes, this.claimedBytes.get(path) ?? bytes.length)),
    ])
  }

  #resolve(
    name: string,
    { commit, files, token }: FakeRepository,
    path: string,
    { authorization, range }: Pick<Seen, 'authorization' | 'range'>,
    response: ServerResponse,
  ): unknown {
    const bytes = files.get(path)
    if (bytes === undefined) return fail(response, 404, 'EntryNotFound')
    if (token !== undefined && authorization !== `Bearer ${token}`) {
      return fail(response, authorization === undefined ? 401 : 403, 'GatedRepo')
    }
    response.setHeader('x-repo-commit', commit)
    if (!isLarge(path)) {
      response.setHeader('etag', `"${gitBlob(bytes)}"`)
      return void this.#send(this.replaced.get(path) ?? bytes, range, response, Number.POSITIVE_INFINITY)
    }
    response.setHeader('x-linked-etag', `"${sha256(bytes)}"`)
    response.setHeader('x-linked-size', bytes.length)
    response.writeHead(302, { location: `${this.cdnUrl}/${name}/${path}` }).end()
  }

  async #sendFile({ path, range, ifRange }: Seen, response: ServerResponse): Promise<unknown> {
    const [, owner, name, ...rest] = path.split('/')
    const inside = rest.join('/')
    const bytes = this.replaced.get(inside) ?? this.repositories.get(`${owner}/${name}`)?.files.get(inside)
    if (bytes === undefined) return fail(response, 404)
    const etag = `"${sha256(bytes)}"`
    response.setHeader('etag', etag)
    const isSame = ifRange === undefined || ifRange === etag
    await this.#send(bytes, isSame ? range : undefined, response, this.cuts.shift() ?? Number.POSITIVE_INFINITY, inside)
  }

  async #send(bytes: Buffer, range: string | undefined, response: ServerResponse, most: number, large?: string) {
    const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(range ?? '') ?? []
    const isPart = first !== undefined && this.knowsRanges
    const from = isPart ? Number(first) : 0
    const to = isPart && last !== '' ? Math.min(Number(last) + 1, bytes.length) : bytes.length
    if (isPart && from >= bytes.length) {
      response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end()
      return
    }
    response.setHeader('content-length', to - from)
    const total = this.claimedBytes.get(large ?? '') ?? bytes.length
    if (isPart) response.setHeader('content-range', `bytes ${from}-${to - 1}/${total}`)
    response.writeHead(isPart ? 206 : 200)
    const end = Math.min(to, from + most)
    for (let at = from; at < end; at += 65536) {
      if (response.destroyed) return
      const piece = bytes.subarray(at, Math.min(at + 65536, end))
      // What is written goes out before the connection is cut.
      await new Promise((resolve) => response.write(piece, resolve))
      if (large !== undefined) this.sentBytes += piece.length
      if (this.pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, this.pauseMs))
    }
    if (end < to) response.destroy()
    else response.end()
  }
}

/** What of the environment changes where models come from. */
const VARIABLES = [
  ...['HF_ENDPOINT', 'HF_HOME', 'HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE', 'HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN'],
  ...['HF_TOKEN_PATH', 'HF_HUB_OFFLINE', 'HF_HUB_DISABLE_SYMLINKS', 'HF_HUB_DOWNLOAD_TIMEOUT'],
  ...['http_proxy', 'https_proxy', 'no_proxy', 'all_proxy', 'npm_config_proxy', 'npm_config_http_proxy'],
  ...['npm_config_https_proxy', 'npm_config_no_proxy'],
]
const NAMES = [...VARIABLES, ...VARIABLES.map((name) => name.toUpperCase())]

/** For a test file: a hub without repositories and an empty cache for each test. */
export function useFakeHub(folder: { path(name: string): string; remove(): void }) {
  const hub = new FakeHub()
  const before = NAMES.map((name) => [name, process.env[name]] as const)
  let cache = ''
  let cases = 0
  beforeAll(() => hub.start())
  afterAll(async () => {
    await hub.stop()
    folder.remove()
  })
  beforeEach(() => {
    hub.reset()
    hub.repositories.clear()
    cache = folder.path(`cache-${cases++}`)
    for (const name of NAMES) delete process.env[name]
    process.env.HF_ENDPOINT = hub.url
    process.env.HF_HOME = cache
  })
  afterEach(() => {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name]
      else process.env[name] = value
    }
  })
  return {
    hub,
    cache: () => cache,
    /** of a repository in the cache */
    home: (name = 'models--me--tiny') => join(cache, 'hub', name),
  }
}

function entry(path: string, bytes: Buffer, size: number) {
  const common = { type: 'file', path, size }
  if (!isLarge(path)) return { ...common, oid: gitBlob(bytes) }
  return { ...common, oid: '1'.repeat(40), lfs: { oid: sha256(bytes), size, pointerSize: 134 } }
}

function fail(response: ServerResponse, status: number, code?: string): void {
  if (code) response.setHeader('x-error-code', code)
  response.writeHead(status, { 'content-type': 'application/json' }).end('{"error":"no"}')
}

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value))
}

/** A trouble for requests of the second server, or another part. */
export function status(code: number, headers: Record<string, string> = {}, at: Seen['at'] = 'cdn'): Trouble {
  return (_request, response, seen) => {
    if (seen.at !== at) return false
    response.writeHead(code, headers).end()
    return true
  }
}

/** A command while this process goes on answering. */
export async function onebitBeside(args: string[], env: Record<string, string>): Promise<Ended> {
  const [command, script] = programWords()
  const child = spawn(command!, [script!, ...args], { env: { ...process.env, ONEBIT_ISA: '', ...env } })
  child.stdin.end()
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', (data) => {
    stdout += data
  })
  child.stderr.on('data', (data) => {
    stderr += data
  })
  const [status, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
  return { status, signal, stdout, stderr }
}
