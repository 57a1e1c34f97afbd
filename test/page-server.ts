/** The chat page with a made-up model behind it, which answers what a test wants at the pace that it wants. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { pageFile, pageHeaders } from '../dist/server/page.js'

export interface MadeAnswer {
  status?: number
  error?: { message: string; code: string }
  reasoning?: string
  /** told in so many parts, `pauseMs` between them */
  text?: string
  parts?: number
  pauseMs?: number
}

export interface PageServer {
  url: string
  /** what is answered next, one after another; the last one again and again */
  answers: MadeAnswer[]
  /** bodies of the requests for answers */
  asked: { path: string; body: { messages?: { role: string; content: string }[]; prompt?: string } }[]
  /** requests that ended before their answer was complete */
  left: number
  key: string | undefined
  models: { id: string; has_chat_template: boolean }[]
  close(): Promise<void>
}

export async function servePage(): Promise<PageServer> {
  const state: PageServer = {
    url: '',
    answers: [{ text: 'Yes.' }],
    asked: [],
    left: 0,
    key: undefined,
    models: [{ id: 'made', has_chat_template: true }],
    close: () => new Promise((resolve) => server.close(() => resolve())),
  }
  const server = createServer((request, response) => void answer(state, request, response))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  state.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return state
}

function json(response: ServerResponse, status: number, value: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers })
  response.end(JSON.stringify(value))
}

async function answer(state: PageServer, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = request.url!
  const file = pageFile(path)
  if (file) {
    response.writeHead(200, pageHeaders(file))
    return void response.end(file.bytes)
  }
  if (state.key !== undefined && request.headers.authorization !== `Bearer ${state.key}`) {
    return json(response, 401, { error: { message: 'An API key is needed.', code: 'invalid_api_key' } })
  }
  if (path === '/v1/models') return json(response, 200, { data: state.models })
  let text = ''
  for await (const part of request) text += part
  state.asked.push({ path, body: JSON.parse(text) })
  const made = state.answers.length > 1 ? state.answers.shift()! : state.answers[0]!
  if (made.error) return json(response, made.status ?? 400, { error: made.error }, { 'retry-after': '3' })
  await stream(state, response, path.includes('chat'), made)
}

async function stream(state: PageServer, response: ServerResponse, isChat: boolean, made: MadeAnswer): Promise<void> {
  const { reasoning = '', text = '', parts = 3, pauseMs = 0 } = made
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  const send = (choice: object) => response.write(`data: ${JSON.stringify({ choices: [{ index: 0, ...choice }] })}\n\n`)
  const pieces = (whole: string) =>
    whole === '' ? [] : (whole.match(new RegExp(`[\\s\\S]{1,${Math.ceil(whole.length / parts)}}`, 'g')) ?? [])
  const told = [
    ...pieces(reasoning).map((reasoning_content) => ({ reasoning_content })),
    ...pieces(text).map((content) => ({ content })),
  ]
  for (const delta of told) {
    if (response.destroyed) break
    send(isChat ? { delta } : { text: 'content' in delta ? delta.content : '' })
    if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs))
  }
  if (response.destroyed) {
    state.left++
    return
  }
  send(isChat ? { delta: {}, finish_reason: 'stop' } : { text: '', finish_reason: 'stop' })
  const usage = { prompt_tokens: 10, completion_tokens: told.length, prompt_tokens_details: { cached_tokens: 4 } }
  response.write(`data: ${JSON.stringify({ choices: [], usage, timings: { predicted_per_second: 12.34 } })}\n\n`)
  response.end('data: [DONE]\n\n')
}
