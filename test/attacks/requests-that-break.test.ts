/** What clients may send that is wrong, cruel or never ends: each gets its 4xx, and the server serves the next request. */
import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { raw, serveTiny, type TestServer, until } from '../serving.js'

let server: TestServer
beforeAll(async () => {
  server = await serveTiny({ queue: 4, parallel: 2 })
})
afterAll(() => server.stop())

/** The server answers an ordinary request, and nothing is under way any more. */
async function expectWell(): Promise<void> {
  const { status } = await server.json('/v1/completions', { prompt: 'Hi', max_tokens: 2 })
  expect(status).toBe(200)
  await until(async () => (await server.busy()).running === 0)
}

const JSON_TYPE = { 'content-type': 'application/json' }

describe('bodies', () => {
  const chat = (content: unknown) => ({ messages: [{ role: 'user', content }] })
  const cases: [string, string, string | Uint8Array, number][] = [
    ['broken JSON', '/v1/completions', '{"prompt": "x"', 400],
    ['nothing', '/v1/completions', '', 400],
    ['an array', '/v1/completions', '[1]', 400],
    ['a number', '/v1/completions', '5', 400],
    ['null', '/v1/completions', 'null', 400],
    ['NaN', '/v1/completions', '{"prompt": "x", "temperature": NaN}', 400],
    ['an endless number', '/v1/completions', '{"prompt": "x", "temperature": 1e999}', 400],
    ['no prompt', '/v1/completions', '{}', 400],
    ['a prompt of the wrong type', '/v1/completions', '{"prompt": {"a": 1}}', 400],
    ['no prompts', '/v1/completions', '{"prompt": []}', 400],
    ['mixed prompts', '/v1/completions', '{"prompt": ["a", 5]}', 400],
    ['ids that are none', '/v1/completions', '{"prompt": [1, -1]}', 400],
    ['ids beyond the vocabulary', '/v1/completions', '{"prompt": [[1, 99999]]}', 400],
    ['an unknown model', '/v1/completions', '{"prompt": "x", "model": "../../etc/passwd"}', 404],
    ['a model of the wrong type', '/v1/completions', '{"prompt": "x", "model": 5}', 400],
    ['a model called __proto__', '/v1/completions', '{"prompt": "x", "model": "__proto__"}', 404],
    ['bad UTF-8', '/v1/completions', Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d), 400],
    ['65 levels', '/v1/completions', `{"prompt": "x", "a": ${'['.repeat(65)}${']'.repeat(65)}}`, 400],
    ['a million levels', '/v1/completions', `{"prompt": "x", "a": ${'['.repeat(1_000_000 / 2)}`, 400],
    ['100,000 stop texts', '/v1/completions', JSON.stringify({ prompt: 'x', stop: Array(100_000).fill('a') }), 400],
    ['17 stop texts', '/v1/completions', JSON.stringify({ prompt: 'x', stop: Array(17).fill('a') }), 400],
    ['a long stop text', '/v1/completions', JSON.stringify({ prompt: 'x', stop: 'é'.repeat(129) }), 400],
    ['stop numbers', '/v1/completions', '{"prompt": "x", "stop": [5]}', 400],
    ['a suffix', '/v1/completions', '{"prompt": "x", "suffix": "y"}', 400],
    ['several answers', '/v1/completions', '{"prompt": "x", "n": 3}', 400],
    ['the best of several', '/v1/completions', '{"prompt": "x", "best_of": 3}', 400],
    ['no messages', '/v1/chat/completions', '{"messages": []}', 400],
    ['messages of the wrong type', '/v1/chat/completions', '{"messages": "hi"}', 400],
    ['a role that is none', '/v1/chat/completions', '{"messages": [{"role": "toString", "content": "x"}]}', 400],
    ['an image', '/v1/chat/completions', JSON.stringify(chat([{ type: 'image_url', image_url: { url: 'x' } }])), 400],
    ['contents that are objects', '/v1/chat/completions', JSON.stringify(chat({ a: 1 })), 400],
    ['tools that are none', '/v1/chat/completions', JSON.stringify({ ...chat('x'), tools: [{ a: 1 }] }), 400],
    ['a choice without tools', '/v1/chat/completions', JSON.stringify({ ...chat('x'), tool_choice: 'required' }), 400],
    [
      'a format that is none',
      '/v1/chat/completions',
      JSON.stringify({ ...chat('x'), response_format: { type: 'x' } }),
      400,
    ],
    ['stream options that are none', '/v1/chat/completions', JSON.stringify({ ...chat('x'), stream_options: 5 }), 400],
    [
      'template variables that are none',
      '/v1/chat/completions',
      JSON.stringify({ ...chat('x'), chat_template_kwargs: [] }),
      400,
    ],
    ['no input', '/v1/embeddings', '{}', 400],
    ['an empty input', '/v1/embeddings', '{"input": [[]]}', 400],
    ['a format of bytes that is none', '/v1/embeddings', '{"input": "x", "encoding_format": "hex"}', 400],
    ['no text', '/tokenize', '{}', 400],
    ['tokens that are none', '/detokenize', '{"tokens": ["a"]}', 400],
    ['a stored conversation', '/v1/responses', '{"input": "x", "previous_response_id": "r"}', 400],
    ['an item that is none', '/v1/responses', '{"input": [{"type": "computer_call"}]}', 400],
  ]
  it.each(cases)('%s', async (_name, path, body, status) => {
    const response = await fetch(server.url + path, { method: 'POST', headers: JSON_TYPE, body: body as string })
    const { error } = (await response.json()) as { error: { message: string } }
    expect(response.status).toBe(status)
    expect(error.message.length).toBeGreaterThan(5)
    expect(error.message).not.toMatch(/\.(js|ts):\d|\/work|node_modules/)
  })

  it('of 10 MB get 413, at the limit they are read', async () => {
    const body = (bytes: number) => JSON.stringify({ prompt: 'x'.repeat(bytes - '{"prompt":""}'.length) })
    expect((await server.post('/v1/completions', body(10 << 20))).status).toBe(413)
    expect((await server.post('/v1/completions', body((1 << 20) + 1))).status).toBe(413)
    const read = await server.json('/v1/completions', body(1 << 20))
    expect(read.body.error.code).toBe('context_length_exceeded')
    await expectWell()
  })

  it('of another type get 415', async () => {
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/jsonx', '']) {
      const headers: Record<string, string> = type === '' ? {} : { 'content-type': type }
      const { status } = await raw(`${server.url}/v1/completions`, { method: 'POST', headers, body: '{"prompt":"x"}' })
      expect(status).toBe(415)
    }
  })

  it('may have keys that JavaScript knows', async () => {
    const body = '{"__proto__": {"prompt": "x"}, "constructor": 1, "prompt": "x", "max_tokens": 1, "toString": null}'
    expect((await server.post('/v1/completions', body)).status).toBe(200)
    expect(({} as Record<string, unknown>).prompt).toBeUndefined()
  })
})

describe('numbers', () => {
  const NUMBERS = ['temperature', 'top_p', 'top_k', 'min_p', 'repeat_penalty', 'repeat_last_n', 'presence_penalty']
  const MORE = ['frequency_penalty', 'seed', 'max_tokens', 'logprobs', 'n', 'best_of']
  const VALUES = [-1e6, 0.123, 1e308, 2 ** 31, 2 ** 53 + 2, '1', [], {}, true]

  it.each([...NUMBERS, ...MORE])('%s is checked or means something', async (name) => {
    for (const value of VALUES) {
      const { status, body } = await server.json('/v1/completions', { prompt: 'x', max_tokens: 1, [name]: value })
      if (status === 200) continue
      expect(status).toBe(400)
      expect(body.error.param).toBe(name)
    }
    const wrong = await server.json('/v1/completions', { prompt: 'x', max_tokens: 1, [name]: '1' })
    expect(wrong.status).toBe(400)
    const absent = await server.json('/v1/completions', { prompt: 'x', max_tokens: 1, [name]: null })
    expect(absent.status).toBe(200)
  })

  it.each(['top_logprobs', 'max_completion_tokens'])('%s of a chat too', async (name) => {
    for (const value of VALUES) {
      const body = { messages: [{ role: 'user', content: 'x' }], max_tokens: 1, [name]: value }
      expect([200, 400]).toContain((await server.json('/v1/chat/completions', body)).status)
    }
  })
})

describe('paths and methods', () => {
  it.each([
    '/../etc/passwd',
    '/v1/models/../../x',
    '/%2e%2e/x',
    '/v1/models/%00',
    '//v1/models',
    '/page/../../package.json',
    '/page/%2e%2e/%2e%2e/package.json',
  ])('%s leads nowhere', async (path) => {
    const answer = await rawPath(path)
    expect(answer).toMatch(/^HTTP\/1\.1 (400|404) /)
  })

  it('a path that is not written right is 400', async () => {
    expect(await rawPath('/%ff%')).toMatch(/^HTTP\/1\.1 400 /)
  })

  it('other methods get 405 and are told which there are', async () => {
    for (const [method, path, allow] of [
      ['GET', '/v1/completions', 'POST'],
      ['PUT', '/v1/chat/completions', 'POST'],
      ['DELETE', '/v1/models', 'GET, HEAD'],
      ['POST', '/health', 'GET, HEAD'],
    ] as const) {
      const { status, headers } = await raw(server.url + path, {
        method,
        headers: JSON_TYPE,
        body: method.startsWith('P') ? '{}' : '',
      })
      expect([status, headers.allow]).toEqual([405, allow])
    }
  })

  async function rawPath(path: string): Promise<string> {
    return exchange(`GET ${path} HTTP/1.1\r\nHost: localhost:${server.port}\r\nConnection: close\r\n\r\n`)
  }
})

/** Writes bytes to a new connection and reads until it ends. */
function exchange(bytes: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(server.port, '127.0.0.1', () => socket.write(bytes))
    let text = ''
    socket.on('data', (part) => {
      text += part
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(text))
  })
}

describe('connections', () => {
  it('that are no HTTP get 400', async () => {
    expect(await exchange('hello\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /)
    expect(await exchange('GET / HTTP/1.1\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /)
    await expectWell()
  })

  it('with floods of headers get 431', async () => {
    const flood = Array.from({ length: 5000 }, (_, i) => `X-${i}: ${'a'.repeat(20)}`).join('\r\n')
    expect(await exchange(`GET /health HTTP/1.1\r\nHost: localhost\r\n${flood}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 431 /)
    await expectWell()
  })

  it('with two lengths, or both kinds of length, get 400', async () => {
    const head = 'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
    expect(await exchange(`${head}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}`)).toMatch(/^HTTP\/1\.1 400 /)
    const both = `${head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n`
    expect(await exchange(both)).toMatch(/^HTTP\/1\.1 400 /)
    await expectWell()
  })

  it('that dribble their headers do not keep others from being served, and end', async () => {
    const sockets = await Promise.all(Array.from({ length: 150 }, half))
    const started = performance.now()
    await expectWell()
    expect(performance.now() - started).toBeLessThan(10_000)
    await until(() => sockets.every((socket) => socket.destroyed || socket.readableEnded), 30_000)
  }, 60_000)

  function half(): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const socket = connect(server.port, '127.0.0.1', () => {
        socket.write('GET /health HTTP/1.1\r\nHost: localhost\r\nX: ')
        resolve(socket)
      })
      socket.resume()
      socket.on('error', reject)
      socket.on('end', () => socket.destroy())
    })
  }
})

describe('clients that go away', () => {
  const long = { prompt: 'Once upon a time', max_tokens: 200, ignore_eos: true }

  it.each([true, false])('free their place while their answer is made (stream: %s)', async (stream) => {
    // So long an answer that somebody sees it being made.
    const own = await serveTiny({ parallel: 2 }, { context: 16_384 })
    const running = async () => (await own.busy()).running
    for (let i = 0; i < 6; i++) {
      const gone = new AbortController()
      const body = { ...long, max_tokens: 16_000, stream }
      const answer = own.post('/v1/completions', body, { signal: gone.signal })
      answer.catch(() => {})
      if (stream) await (await answer).body!.getReader().read()
      else await until(async () => (await running()) > 0)
      gone.abort()
      await until(async () => (await running()) === 0)
    }
    const { status } = await own.json('/v1/completions', { prompt: 'Hi', max_tokens: 2 })
    expect(status).toBe(200)
    await own.stop()
  })

  it('leave the queue', async () => {
    const gone = new AbortController()
    const two = [1, 2].map(() => server.post('/v1/completions', { ...long, stream: true }))
    const readers = await Promise.all(two.map(async (answer) => (await answer).body!.getReader()))
    const waiting = server.post('/v1/completions', long, { signal: gone.signal })
    waiting.catch(() => {})
    // The two may end before anybody looks; then there is nothing to see.
    await until(async () => {
      const { running, waiting } = await server.busy()
      return waiting === 1 || running < 2
    })
    gone.abort()
    await until(async () => (await server.busy()).waiting === 0)
    for (const reader of readers) await reader.cancel()
    await expectWell()
  })

  it('more than there is room for get 429 and are told to come again', async () => {
    const all = await Promise.all(Array.from({ length: 30 }, () => server.post('/v1/completions', long)))
    const refused = all.filter(({ status }) => status === 429)
    expect(all.every(({ status }) => status === 200 || status === 429)).toBe(true)
    expect(refused.length).toBeGreaterThan(0)
    for (const answer of refused) expect(answer.headers.get('retry-after')).toMatch(/^[1-9]\d*$/)
    await Promise.all(all.map((answer) => answer.text()))
    await expectWell()
  })
})
