/** Streams: many at a time, readers that stop, and a server that is told to stop. */
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { events, type Json, serveTiny, type TestServer, until } from './serving.js'

describe('requests beside each other', () => {
  let server: TestServer
  beforeAll(async () => {
    server = await serveTiny({ parallel: 8, queue: 64 })
  })
  afterAll(() => server.stop())

  it('get the bytes that each gets alone', async () => {
    const requests = Array.from({ length: 8 }, (_, i) => ({
      prompt: `request ${'x'.repeat(7 * i)} ${i}`,
      max_tokens: 40 + 5 * i,
      seed: i,
      temperature: i % 2 === 0 ? 0 : 1.2,
      ignore_eos: true,
      logprobs: 2,
    }))
    const essence = ({ choices }: Json) => JSON.stringify(choices)
    const alone: string[] = []
    for (const request of requests) alone.push(essence((await server.json('/v1/completions', request)).body))
    const together = await Promise.all(requests.map((request) => server.json('/v1/completions', request)))
    expect(together.map(({ body }) => essence(body))).toEqual(alone)
  })
})

describe('a connection without a request', () => {
  it('is kept longer than clients keep theirs', async () => {
    const server = await serveTiny()
    const { headers } = await fetch(`${server.url}/health`)
    // Python's httpx gives one up after 5 seconds, aiohttp after 15.
    expect(Number(/timeout=(\d+)/.exec(headers.get('keep-alive') ?? '')?.[1])).toBeGreaterThan(60)
    await server.stop()
  })
})

describe('a reader that stops', () => {
  it('makes its answer wait, and is dropped after 10 seconds without taking anything', async () => {
    const server = await serveTiny({}, { context: 8192 })
    try {
      const body = JSON.stringify({
        messages: [{ role: 'user', content: 'x' }],
        stream: true,
        ignore_eos: true,
        logprobs: true,
        top_logprobs: 20,
      })
      const socket = connect(server.port, '127.0.0.1', () =>
        socket.write(
          `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        ),
      )
      socket.pause()
      socket.on('error', () => {})
      await until(async () => (await server.busy()).running === 1)
      const made = async () => {
        const text = await (await fetch(`${server.url}/metrics`)).text()
        return Number(/^onebit_generation_tokens_total\{.*\} (\d+)$/m.exec(text)![1])
      }
      // Until the buffers between the two are full.
      let before = -1
      await until(async () => {
        const now = await made()
        const stands = now === before
        before = now
        if (!stands) await new Promise((resolve) => setTimeout(resolve, 500))
        return stands
      })
      expect(before).toBeLessThan(8000)
      await until(async () => (await server.busy()).running === 0, 25_000)
      socket.destroy()
      expect((await server.json('/v1/completions', { prompt: 'x', max_tokens: 1 })).status).toBe(200)
    } finally {
      await server.stop()
    }
  }, 60_000)
})

describe('a server that stops', () => {
  it('lets a stream end, and refuses what comes new', async () => {
    const server = await serveTiny()
    const request = { prompt: 'Once', max_tokens: 150, ignore_eos: true, stream: true }
    const answer = await server.post('/v1/completions', request)
    const closed = server.close(10_000)
    const told = events(await answer.text())
    expect(told.at(-1)).toBe('[DONE]')
    expect(told.at(-2).choices[0].finish_reason).toBe('length')
    await closed
    await expect(server.post('/v1/completions', request)).rejects.toThrow()
    await server.stop()
  })

  it('ends a stream that takes too long with an error', async () => {
    const server = await serveTiny({}, { context: 16_384 })
    const answer = await server.post('/v1/completions', { prompt: 'Once', ignore_eos: true, stream: true })
    const closed = server.close(50)
    const told = events(await answer.text())
    expect(told.at(-1)).toMatchObject({ error: { code: 'stopping', type: 'server_stopping' } })
    await closed
    await server.stop()
  })
})

describe('what is refused before there is an answer', () => {
  let server: TestServer
  beforeAll(async () => {
    server = await serveTiny({ parallel: 1, queue: 0 }, { context: 2048 })
  })
  afterAll(() => server.stop())

  /** The same request by every endpoint that streams. */
  const streams = (text: string): [string, object][] => [
    ['/v1/completions', { prompt: text }],
    ['/v1/completions', { prompt: text, echo: true }],
    ['/v1/chat/completions', { messages: [{ role: 'user', content: text }] }],
    ['/v1/responses', { input: text }],
  ]

  it('has a status of its own, also when the answer would be a stream', async () => {
    for (const [path, fields] of streams('x'.repeat(3000))) {
      const { status, body } = await server.json(path, { ...fields, stream: true })
      expect([path, status, body.error.code]).toEqual([path, 400, 'context_length_exceeded'])
    }
    const gone = new AbortController()
    const long = await server.post(
      '/v1/completions',
      { prompt: 'x', ignore_eos: true, logprobs: 20, stream: true },
      { signal: gone.signal },
    )
    for (const [path, fields] of streams('x')) {
      const answer = await server.post(path, { ...fields, stream: true, max_tokens: 1 })
      expect([path, answer.status, ((await answer.json()) as Json).error.code]).toEqual([path, 429, 'queue_full'])
      expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
    }
    gone.abort()
    await expect(long.text()).rejects.toThrow()
  })
})
