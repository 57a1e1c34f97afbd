/** Downloads through bad networks: cut, killed, answered wrongly, by two at once, through a proxy. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type FetchOptions, fetchModel } from '../dist/hub/fetch-model.js'
import { programWords } from './command.js'
import { codeOf, failure } from './expect-code.js'
import { onebitBeside, sha256, status, useFakeHub } from './fake-hub.js'
import { SeededRandom } from './gguf-writer.js'
import { until } from './serving.js'
import { tinyGguf } from './tiny-gguf.js'
import { temporaryFolder } from './tiny-model.js'

const folder = temporaryFolder()
const { hub, home } = useFakeHub(folder)
const KIB = 1024

/** A model that is large enough to be cut: what lies behind its tensors is nobody's. */
function large(kib: number): Buffer {
  const random = new SeededRandom(5)
  const block = Buffer.from(Array.from({ length: 64 * KIB }, () => random.integer(256)))
  const filler = Buffer.alloc(kib * KIB, block)
  // Every part of it is another, so that none can stand in another's place.
  for (let at = 0; at < filler.length; at += 4 * KIB) filler.writeUInt32LE(at, at)
  return Buffer.concat([tinyGguf(), filler])
}

const blob = (bytes: Buffer) => join(home(), 'blobs', sha256(bytes))
const fetched = (options?: FetchOptions, name = 'hf:me/tiny') => fetchModel(name, options)

/** Bytes of files that were sent beyond the looking at headers, which takes the file's first MiB at most. */
async function sentFor(bytes: Buffer, action: () => Promise<unknown>): Promise<number> {
  const looked = Math.min(bytes.length, 1 << 20)
  hub.sentBytes = 0
  await action()
  return hub.sentBytes - looked
}

describe('a download', () => {
  it('that is cut at 50 random places is right, and nearly nothing comes twice', async () => {
    const bytes = large(2048)
    hub.add('me/tiny', { 'tiny.gguf': bytes })
    const random = new SeededRandom(11)
    // The first request is for the header.
    hub.cuts.push(
      Number.POSITIVE_INFINITY,
      ...Array.from({ length: 50 }, () => 1 + random.integer((bytes.length / 30) | 0)),
    )
    const told: number[] = []
    let path = ''
    const sent = await sentFor(bytes, async () => {
      path = await fetched({ onProgress: (done) => told.push(done) })
    })
    expect(sha256(readFileSync(path))).toBe(sha256(bytes))
    expect(hub.seen.filter(({ range }) => /-$/.test(range ?? '')).length).toBeGreaterThan(40)
    // What the server had given to its network when that broke off was not received.
    expect(sent - bytes.length).toBeLessThan(51 * 64 * KIB)
    expect(told).toEqual([...told].sort((a, b) => a - b))
    expect(existsSync(`${blob(bytes)}.incomplete`)).toBe(false)
  })

  it('goes on behind what an earlier try left', async () => {
    const bytes = large(512)
    hub.add('me/tiny', { 'tiny.gguf': bytes })
    mkdirSync(join(home(), 'blobs'), { recursive: true })
    const half = bytes.subarray(0, 300_001)
    writeFileSync(`${blob(bytes)}.incomplete`, half)
    const sent = await sentFor(bytes, fetched)
    expect(sent).toBe(bytes.length - half.length)
    expect(sha256(readFileSync(blob(bytes)))).toBe(sha256(bytes))
    expect(hub.seen.at(-1)!.range).toBe('bytes=300001-')
  })

  it.each([
    ['other bytes', (bytes: Buffer) => Buffer.alloc(1000, bytes[0]! + 1)],
    ['too many', (bytes: Buffer) => Buffer.concat([bytes, bytes])],
    ['all, and wrong ones', (bytes: Buffer) => Buffer.alloc(bytes.length)],
    ['all of it', (bytes: Buffer) => bytes],
  ])('is right whatever is left: %s', async (_, left) => {
    const bytes = large(64)
    hub.add('me/tiny', { 'tiny.gguf': bytes })
    mkdirSync(join(home(), 'blobs'), { recursive: true })
    writeFileSync(`${blob(bytes)}.incomplete`, left(bytes))
    expect(sha256(readFileSync(await fetched()))).toBe(sha256(bytes))
  })

  it('stops when it is told to, and keeps what is there', async () => {
    const bytes = large(2048)
    hub.add('me/tiny', { 'tiny.gguf': bytes })
    hub.pauseMs = 5
    const stop = new AbortController()
    const reason = new Error('enough')
    const onProgress = (done: number) => {
      if (done > 300_000) stop.abort(reason)
    }
    await expect(fetched({ signal: stop.signal, onProgress })).rejects.toBe(reason)
    expect(statSync(`${blob(bytes)}.incomplete`).size).toBeGreaterThan(300_000)
    expect(existsSync(join(home(), 'refs'))).toBe(false)
    hub.pauseMs = 0
    expect(await sentFor(bytes, fetched)).toBeLessThan(bytes.length - 300_000)
    expect(sha256(readFileSync(blob(bytes)))).toBe(sha256(bytes))
  })

  it('from another server begins again when the file there is another now', async () => {
    const [old, neu] = [large(2048), large(2048)]
    neu[neu.length - 1]! ^= 1
    hub.add('me/tiny', { 'tiny.gguf': old })
    const name = `${hub.cdnUrl}/me/tiny/tiny.gguf`
    const stop = new AbortController()
    const onProgress = (done: number) => {
      if (done > 500_000) stop.abort()
    }
    await expect(fetched({ signal: stop.signal, onProgress }, name)).rejects.toThrow()
    hub.add('me/tiny', { 'tiny.gguf': neu })
    expect(sha256(readFileSync(await fetched({}, name)))).toBe(sha256(neu))
    // While its bytes come: the server then sends the whole file in place of the rest.
    process.env.HF_HOME = folder.path('again')
    hub.cuts.push(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, 700_000)
    hub.troubles.push((_request, _response, { range }) => {
      if (range?.endsWith('-')) hub.replaced.set('tiny.gguf', old)
      return false
    })
    const both = sha256(readFileSync(await fetched({}, name)))
    expect(both).toBe(sha256(old))
  })

  it('passes on what onProgress throws', async () => {
    hub.add('me/tiny', { 'tiny.gguf': large(64) })
    const broken = new Error('mine')
    const onProgress = () => {
      throw broken
    }
    await expect(fetched({ onProgress })).rejects.toBe(broken)
    expect(readFileSync(await fetched()).length).toBeGreaterThan(0)
  })

  it('survives kill -9 in the middle, and goes on where it was', async () => {
    const bytes = large(4096)
    hub.add('me/tiny', { 'tiny.gguf': bytes })
    hub.pauseMs = 20
    const [command, script] = programWords()
    const child = spawn(command!, [script!, 'pull', 'hf:me/tiny'], { env: process.env, stdio: 'ignore' })
    const left = `${blob(bytes)}.incomplete`
    await until(() => existsSync(left) && statSync(left).size > 500_000)
    child.kill('SIGKILL')
    await once(child, 'close')
    const size = statSync(left).size
    expect(size).toBeLessThan(bytes.length)
    hub.pauseMs = 0
    let ended: Awaited<ReturnType<typeof onebitBeside>> | undefined
    const sent = await sentFor(bytes, async () => {
      ended = await onebitBeside(['pull', 'hf:me/tiny'], {})
    })
    expect(ended).toMatchObject({ status: 0 })
    expect(sha256(readFileSync(ended!.stdout.trim()))).toBe(sha256(bytes))
    expect(sent).toBe(bytes.length - size)
  })

  it('by two processes at once is done by one, and both have it', async () => {
    const bytes = large(2048)
    hub.add('me/tiny', { 'tiny.gguf': bytes })
    hub.pauseMs = 10
    const sent = await sentFor(bytes, async () => {
      const both = await Promise.all([1, 2].map(() => onebitBeside(['pull', 'hf:me/tiny'], {})))
      for (const { status, stdout, stderr } of both) {
        expect(status, stderr).toBe(0)
        expect(sha256(readFileSync(stdout.trim()))).toBe(sha256(bytes))
      }
    })
    // Both looked at the header, and one fetched the file.
    expect(sent).toBe(bytes.length + (1 << 20))
    expect(readdirSync(join(home(), 'blobs'))).toEqual([sha256(bytes)])
  })

  it('within one process twice at once is done once', async () => {
    const bytes = large(1024)
    hub.add('me/tiny', { 'tiny.gguf': bytes })
    hub.pauseMs = 5
    const [a, b] = await Promise.all([fetched(), fetched()])
    expect(a).toBe(b)
    expect(hub.seen.filter(({ at, range }) => at === 'cdn' && range === undefined)).toHaveLength(1)
  })

  it.each([
    ['of a process that is gone', { pid: 2 ** 22 + 1 }],
    ['that nobody can read', undefined],
  ])('takes away a lock %s', async (_, holder) => {
    const bytes = large(16)
    hub.add('me/tiny', { 'tiny.gguf': bytes })
    const locks = join(home(), '..', '.locks', 'models--me--tiny')
    mkdirSync(locks, { recursive: true })
    const lock = join(locks, `${sha256(bytes)}.onebit`)
    const { hostname } = await import('node:os')
    writeFileSync(lock, holder ? JSON.stringify({ ...holder, host: hostname(), key: 'x' }) : '{')
    if (!holder) (await import('node:fs')).utimesSync(lock, new Date(0), new Date(0))
    expect(sha256(readFileSync(await fetched()))).toBe(sha256(bytes))
    expect(existsSync(lock)).toBe(false)
  })
})

describe('a server', () => {
  const add = (kib = 64) => {
    const bytes = large(kib)
    hub.add('me/tiny', { 'tiny.gguf': bytes })
    return bytes
  }

  it('that is busy is asked again when it says', async () => {
    const bytes = add()
    for (const at of ['hub', 'cdn'] as const) {
      hub.troubles.push(status(429, { 'retry-after': '0' }, at), status(503, {}, at))
      hub.troubles.push(status(503, { 'retry-after': new Date(Date.now() + 500).toUTCString() }, at))
    }
    const started = performance.now()
    expect(sha256(readFileSync(await fetched()))).toBe(sha256(bytes))
    expect(performance.now() - started).toBeGreaterThan(500)
    expect(hub.troubles).toEqual([])
  })

  it('that stays busy is an error after some tries, or at once when it says that it takes long', async () => {
    add()
    for (let i = 0; i < 9; i++) hub.troubles.push(status(429, { 'retry-after': '0' }, 'hub'))
    expect(await codeOf(fetched)).toBe('ERR_HUB_BUSY')
    hub.reset()
    hub.troubles.push(status(429, { 'retry-after': '86400' }, 'hub'))
    expect(await codeOf(fetched)).toBe('ERR_HUB_BUSY')
    expect(hub.seen).toHaveLength(1)
  })

  it('that sends wrong bytes: they are thrown away and never used', async () => {
    const bytes = add()
    const wrong = Buffer.from(bytes)
    wrong[wrong.length - 5]! ^= 1
    hub.replaced.set('tiny.gguf', wrong)
    const { code, hint } = await failure(fetched)
    expect(code).toBe('ERR_HUB_CHECKSUM')
    expect(hint).toContain('thrown away')
    expect(readdirSync(join(home(), 'blobs'))).toEqual([])
    expect(existsSync(join(home(), 'snapshots'))).toBe(false)
    hub.replaced.clear()
    expect(sha256(readFileSync(await fetched()))).toBe(sha256(bytes))
  })

  it('whose file changes between two ranges is found out, and what was there is not used', async () => {
    const bytes = add(1024)
    hub.cuts.push(Number.POSITIVE_INFINITY, 500_000)
    const other = Buffer.concat([bytes, Buffer.alloc(64)])
    hub.troubles.push((_request, _response, { at, range }) => {
      if (at === 'cdn' && range?.endsWith('-')) hub.replaced.set('tiny.gguf', other)
      return false
    })
    expect(await codeOf(fetched)).toBe('ERR_HUB_CHANGED')
    hub.reset()
    // The same length, and other bytes: only the checksum can tell, and then all of it comes once more.
    hub.cuts.push(Number.POSITIVE_INFINITY, 100_000)
    expect(sha256(readFileSync(await fetched()))).toBe(sha256(bytes))
  })

  it('that answers with a web page is not believed', async () => {
    const bytes = add()
    const page = (at: 'hub' | 'cdn') =>
      hub.troubles.push((_request, response, seen) => {
        if (seen.at !== at) return false
        response.writeHead(200, { 'content-type': 'text/html' }).end('<html>Please log in</html>')
        return true
      })
    page('hub')
    expect(await codeOf(fetched)).toBe('ERR_HUB_ANSWER')
    page('cdn')
    expect(await codeOf(fetched)).toBe('ERR_HUB_ANSWER')
    expect(sha256(readFileSync(await fetched()))).toBe(sha256(bytes))
  })

  it('that leads in a circle, or away from https, is an error', async () => {
    add()
    const lead = (location: string) => status(302, { location }, 'hub')
    for (let i = 0; i < 20; i++) hub.troubles.push(lead('/api/models/me/tiny/revision/main'))
    expect(await codeOf(fetched)).toBe('ERR_HUB_REDIRECT')
    hub.reset()
    hub.troubles.push(lead('ftp://127.0.0.1/x'))
    expect(await codeOf(fetched)).toBe('ERR_HUB_REDIRECT')
    hub.reset()
    hub.troubles.push(lead('file:///etc/passwd'))
    expect(await codeOf(fetched)).toBe('ERR_HUB_REDIRECT')
  })

  it('beyond this machine is not asked without https, whoever leads there', async () => {
    add()
    const elsewhere = 'http://192.0.2.1/tiny.gguf' // an address that nobody has
    process.env.HF_ENDPOINT = 'https://hub.example'
    expect(await codeOf(() => fetched({}, elsewhere))).toBe('ERR_HUB_REDIRECT')
    hub.troubles.push(status(302, { location: elsewhere }))
    expect(await codeOf(() => fetched({}, `${hub.cdnUrl}/me/tiny/tiny.gguf`))).toBe('ERR_HUB_REDIRECT')
    expect(hub.seen).toHaveLength(1)
  })

  it('that stops talking is left after a while', async () => {
    const bytes = add()
    process.env.HF_HUB_DOWNLOAD_TIMEOUT = '0.3'
    let silent = 0
    hub.troubles.push((_request, response, { at, range }) => {
      if (at !== 'cdn' || range !== undefined) return false
      silent++
      response.writeHead(200, { 'content-length': bytes.length })
      response.write(bytes.subarray(0, 1000))
      return true
    })
    expect(sha256(readFileSync(await fetched()))).toBe(sha256(bytes))
    expect(silent).toBe(1)
    expect(hub.seen.at(-1)!.range).toBe('bytes=1000-')
  })

  it('that is not there is an error, unless the model is', async () => {
    add()
    const there = await fetched()
    process.env.HF_ENDPOINT = 'http://127.0.0.1:1'
    expect(await fetched()).toBe(there)
    const { code, hint } = await failure(() => fetched({}, 'hf:me/other'))
    expect(code).toBe('ERR_HUB_OFFLINE')
    expect(hint).toContain('HTTPS_PROXY')
    expect(await codeOf(() => fetched({ refresh: true }))).toBe('ERR_HUB_OFFLINE')
  })

  it('that names a file larger than the disk: said before anything is downloaded', async () => {
    const bytes = add(1100)
    const { bavail, bsize } = await statfs(folder.path('.'))
    hub.claimedBytes.set('tiny.gguf', bavail * bsize + 2 ** 30)
    const sent = await sentFor(bytes, async () => {
      const { code, hint } = await failure(fetched)
      expect(code).toBe('ERR_DISK_FULL')
      expect(hint).toContain('HF_HUB_CACHE')
    })
    expect(sent).toBe(0)
  })

  it.each(['{}', 'null', '[1]', '{"sha":5}', '{"sha":"main"}', '{', ''])('that answers %s is none', async (text) => {
    add()
    hub.troubles.push((_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' }).end(text)
      return true
    })
    expect(await codeOf(fetched)).toBe('ERR_HUB_ANSWER')
  })
})

describe('a proxy of the environment', () => {
  const proxied: string[] = []
  const proxy = createServer((request, response) => {
    proxied.push(`${request.method} ${request.url} ${request.headers['proxy-authorization'] ?? ''}`)
    const url = new URL(request.url!)
    const forwarded = connect(Number(url.port), '127.0.0.1', () => {
      const lines = Object.entries(request.headers).map(([name, value]) => `${name}: ${value}`)
      forwarded.write(`GET ${url.pathname}${url.search} HTTP/1.1\r\n${lines.join('\r\n')}\r\nconnection: close\r\n\r\n`)
      forwarded.pipe(response.socket!)
    })
  })

  it('is asked, with its password, but for hosts that are left out', async () => {
    proxy.listen(0, '127.0.0.1')
    await once(proxy, 'listening')
    const bytes = large(64)
    hub.add('me/tiny', { 'tiny.gguf': bytes })
    process.env.HTTP_PROXY = `http://me:p%40ss@127.0.0.1:${(proxy.address() as AddressInfo).port}`
    process.env.NO_PROXY = 'localhost'
    expect(sha256(readFileSync(await fetched()))).toBe(sha256(bytes))
    expect(proxied.length).toBeGreaterThan(2)
    expect(proxied.every((line) => line.startsWith(`GET ${hub.url}`))).toBe(true)
    expect(proxied[0]).toContain(`Basic ${Buffer.from('me:p@ss').toString('base64')}`)
    proxy.closeAllConnections()
    proxy.close()
  })

  it('is asked to open a tunnel for https, and never sees the token', async () => {
    const asked: string[] = []
    const tunnel = createServer()
    tunnel.on('connect', (request, socket) => {
      asked.push(`${request.url} ${JSON.stringify(request.headers)}`)
      socket.end('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n')
    })
    tunnel.listen(0, '127.0.0.1')
    await once(tunnel, 'listening')
    process.env.HF_ENDPOINT = 'https://hub.example'
    process.env.HF_TOKEN = 'hf_secret'
    process.env.HTTPS_PROXY = `http://127.0.0.1:${(tunnel.address() as AddressInfo).port}`
    expect(await codeOf(fetched)).toBe('ERR_HUB_PROXY')
    expect(asked[0]).toContain('hub.example:443')
    expect(asked.join()).not.toContain('hf_secret')
    tunnel.closeAllConnections()
    tunnel.close()
  })

  it('that is none is an error', async () => {
    process.env.HTTP_PROXY = 'socks5://127.0.0.1:1'
    expect(await codeOf(fetched)).toBe('ERR_HUB_PROXY')
  })
})
