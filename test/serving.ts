/** A server with small models for tests, and what asks it. */
import { request as httpRequest } from 'node:http'
import { Model } from '../dist/index.js'
import { type ServeOptions, type Serving, serve } from '../dist/server/serve.js'
import { type TinyOptions, temporaryFolder, writeTinyModel } from './tiny-model.js'

// biome-ignore lint/suspicious/noExplicitAny: answers are looked at in every place that a test is about
export type Json = any

export interface TestServer extends Serving {
  model: Model
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>
  /** the JSON of an answer, whatever its status */
  json(path: string, body: unknown): Promise<{ status: number; body: Json }>
  /** requests that are computed or wait */
  busy(): Promise<{ running: number; waiting: number }>
  stop(): Promise<void>
}

export async function serveTiny(options: ServeOptions = {}, tiny: TinyOptions = {}): Promise<TestServer> {
  const folder = temporaryFolder()
  await writeTinyModel(folder.path('tiny.obt'), tiny)
  const model = await Model.load(folder.path('tiny.obt'), { threads: 2 })
  const server = await serve([{ name: 'tiny', model }], { port: 0, ...options })
  const key = options.apiKey === undefined ? {} : { authorization: `Bearer ${options.apiKey}` }
  const post = (path: string, body: unknown, init: RequestInit = {}) =>
    fetch(server.url + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...key },
      body: typeof body === 'string' ? body : JSON.stringify(body),
      ...init,
    })
  return {
    ...server,
    model,
    post,
    async json(path, body) {
      const response = await post(path, body)
      return { status: response.status, body: await response.json() }
    },
    async busy() {
      const text = await (await fetch(`${server.url}/metrics`, { headers: key })).text()
      const of = (name: string) => Number(new RegExp(`^onebit_${name}\\{.*\\} (\\d+)$`, 'm').exec(text)?.[1])
      return { running: of('requests_running'), waiting: of('requests_waiting') }
    },
    async stop() {
      await server.close(0)
      await model.dispose()
      folder.remove()
    },
  }
}

/** The JSON values of a stream's events; `[DONE]` as it is. */
export function events(text: string): Json[] {
  return text
    .split('\n\n')
    .flatMap((event) => event.split('\n').filter((line) => line.startsWith('data: ')))
    .map((line) => (line === 'data: [DONE]' ? '[DONE]' : JSON.parse(line.slice(6))))
}

export interface RawAnswer {
  status: number
  headers: NodeJS.Dict<string | string[]>
  text: string
}

/** A request with headers that fetch would not send. */
export function raw(
  url: string,
  {
    method = 'GET',
    headers = {},
    body = '',
  }: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<RawAnswer> {
  const { hostname, port, pathname } = new URL(url)
  return new Promise((resolve, reject) => {
    const request = httpRequest({ hostname, port, path: pathname, method, headers, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (part: string) => {
        text += part
      })
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, text }))
      response.on('error', reject)
    })
    request.on('error', reject)
    request.end(body)
  })
}

/** Waits until something holds; it is tried every 10 ms. */
export async function until(holds: () => boolean | Promise<boolean>, limitMs = 20_000): Promise<void> {
  const end = performance.now() + limitMs
  while (!(await holds())) {
    if (performance.now() > end) throw new Error('it did not come to hold')
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
