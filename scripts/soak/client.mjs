// One request of a soak over HTTP, and the essence of its answer: what may not depend on what else the server does.
import { createHash } from 'node:crypto'
import { Agent, request as httpRequest } from 'node:http'

/** A request without an answer for so long is stuck. */
const STUCK_MS = 60_000

/** Clients that keep their connections. */
const keeping = new Agent({ keepAlive: true, maxSockets: 64 })

/**
 * @param {{ leaveAfter?: number, leaveAtOnceMs?: number, keep?: boolean }} how `leaveAfter`: goes away after so many parts
 *   of the answer; `leaveAtOnceMs`: after so many milliseconds, whatever has come
 * @returns {Promise<{ status: number, headers: object, text: string } | { left: true } | { lost: string }>} never rejects
 */
export function send(url, path, body, { leaveAfter, leaveAtOnceMs, keep = false } = {}) {
  const { hostname, port } = new URL(url)
  return new Promise((resolve) => {
    let text = ''
    let parts = 0
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }
    const agent = keep ? keeping : false
    const request = httpRequest({ hostname, port, path, method: 'POST', headers, agent }, (response) => {
      response.setEncoding('utf8')
      response.on('data', (part) => {
        text += part
        if (++parts === leaveAfter) leave()
      })
      response.on('end', () => done({ status: response.statusCode, headers: response.headers, text }))
      response.on('error', (error) => done({ lost: `the answer broke off: ${error.message}` }))
    })
    const stuck = setTimeout(() => {
      done({ lost: `no whole answer within ${STUCK_MS / 1000} s` })
      request.destroy()
    }, STUCK_MS)
    const leaving = leaveAtOnceMs === undefined ? undefined : setTimeout(leave, leaveAtOnceMs)
    function done(result) {
      clearTimeout(stuck)
      clearTimeout(leaving)
      resolve(result)
    }
    function leave() {
      done({ left: true })
      request.destroy()
    }
    request.on('error', (error) => done({ lost: error.message }))
    request.end(body)
  })
}

/** What of an answer is the same every time; throws when it is not whole or not JSON. */
function essence(text, isStream) {
  if (!isStream) {
    const { choices, data, output, error, usage } = JSON.parse(text)
    if (error) throw new Error(`an error with status 200: ${error.message}`)
    const said = output?.map(({ type, content }) => ({ type, text: content?.map((part) => part.text) }))
    return { choices, data, said, tokens: usage?.completion_tokens ?? usage?.output_tokens }
  }
  const told = text
    .split('\n')
    .filter((line) => line.startsWith('data: '))
    .map((line) => line.slice(6))
  const isResponse = text.startsWith('event: response')
  const values = told.filter((line) => line !== '[DONE]').map((line) => JSON.parse(line))
  const broken = values.find(({ error }) => error)
  if (broken) throw new Error(`an error in a stream: ${broken.error.message}`)
  if (isResponse) {
    const deltas = values.filter(({ type }) => type === 'response.output_text.delta').map(({ delta }) => delta)
    const { type, response } = values.at(-1)
    if (!/^response\.(completed|incomplete)$/.test(type)) throw new Error(`a stream ended with ${type}`)
    return { text: deltas.join(''), type, tokens: response.usage.output_tokens }
  }
  if (told.at(-1) !== '[DONE]') throw new Error('a stream without its end')
  const choices = values.flatMap((value) => value.choices)
  return {
    text: choices.map(({ delta, text }) => text ?? delta.content ?? '').join(''),
    logprobs: choices.flatMap(({ logprobs }) => logprobs?.content ?? []),
    finish: choices.at(-1).finish_reason,
    tokens: values.at(-1).usage?.completion_tokens,
  }
}

/** A short name of an answer's essence, equal for equal answers. */
export function fingerprint(text, isStream) {
  return createHash('sha256')
    .update(JSON.stringify(essence(text, isStream)))
    .digest('base64')
}

/** The gauges and counters that /metrics tells, each summed over the models. */
export async function metrics(url) {
  const text = await (await fetch(`${url}/metrics`)).text()
  const sums = {}
  for (const [, name, value] of text.matchAll(/^onebit_(\w+)\{[^\n]*\} (\d+)$/gm)) {
    sums[name] = (sums[name] ?? 0) + Number(value)
  }
  return sums
}

export function closeConnections() {
  keeping.destroy()
}
