/** Talks to the server this page comes from. */

/** @typedef {{ id: string, has_chat_template: boolean, max_model_len: number }} ServedModel */
/** @typedef {{ role: string, content: string }} Message */
/** @typedef {{ text: string, reasoning: string }} Delta */
/** @typedef {{ tokens: number, perSecond: number, promptTokens: number, cachedTokens: number, finish: string }} Stats */

const KEY = 'onebit.key'

/** What the server refused, with what a person can do about it. */
export class ServerError extends Error {
  /**
   * @param {number} status 0: it could not be reached
   * @param {string} message
   * @param {string | null} code
   */
  constructor(status, message, code) {
    super(message)
    this.status = status
    this.code = code
  }
}

/** Only for as long as this tab is open, and never in an address. @param {string} key */
export function useKey(key) {
  sessionStorage.setItem(KEY, key)
}

/** @param {string} path @param {RequestInit} [init] @returns {Promise<Response>} */
async function ask(path, init = {}) {
  const key = sessionStorage.getItem(KEY)
  /** @type {Record<string, string>} */
  const headers = key === null ? {} : { authorization: `Bearer ${key}` }
  if (init.body) headers['content-type'] = 'application/json'
  let response
  try {
    response = await fetch(path, { ...init, headers })
  } catch (error) {
    if (init.signal?.aborted) throw error
    throw new ServerError(0, 'The server cannot be reached. Is it still running?', null)
  }
  if (response.ok) return response
  const { error } = await response.json().catch(() => ({ error: {} }))
  throw new ServerError(response.status, advice(response, error?.message), error?.code ?? null)
}

/** @param {Response} response @param {string | undefined} message */
function advice(response, message) {
  if (response.status === 429) {
    const wait = response.headers.get('retry-after')
    return `The server is busy with other requests. Try again${wait ? ` in ${wait} s` : ' soon'}.`
  }
  if (response.status === 503) return 'The server is about to stop. Try again when it is back.'
  return message ?? `The server answered with status ${response.status}.`
}

/** @returns {Promise<ServedModel[]>} */
export async function listModels() {
  const { data } = await (await ask('/v1/models')).json()
  return data
}

/**
 * An answer, told while it comes. With a chat template to a conversation, without one as the continuation of its text.
 * @param {ServedModel} model
 * @param {Message[]} messages
 * @param {Record<string, number>} options of sampling
 * @param {AbortSignal} signal
 * @param {(delta: Delta) => void} onDelta
 * @returns {Promise<Stats>}
 */
export async function streamAnswer(model, messages, options, signal, onDelta) {
  const shared = { ...options, model: model.id, stream: true, stream_options: { include_usage: true } }
  const body = model.has_chat_template
    ? { ...shared, messages }
    : { ...shared, prompt: messages.map(({ content }) => content).join('') }
  const path = model.has_chat_template ? '/v1/chat/completions' : '/v1/completions'
  const response = await ask(path, { method: 'POST', body: JSON.stringify(body), signal })
  let finish = ''
  /** @type {Stats | undefined} */
  let stats
  for await (const event of events(response)) {
    if (event.error) throw new ServerError(503, event.error.message, event.error.code)
    const [choice] = event.choices
    if (choice) {
      finish = choice.finish_reason ?? finish
      const { content = '', reasoning_content: reasoning = '' } = choice.delta ?? { content: choice.text }
      if (content || reasoning) onDelta({ text: content ?? '', reasoning: reasoning ?? '' })
    }
    if (event.usage) stats = statsOf(event, finish)
  }
  return stats ?? { tokens: 0, perSecond: 0, promptTokens: 0, cachedTokens: 0, finish }
}

/** @param {any} event @param {string} finish @returns {Stats} */
function statsOf({ usage, timings }, finish) {
  return {
    tokens: usage.completion_tokens,
    perSecond: timings?.predicted_per_second ?? 0,
    promptTokens: usage.prompt_tokens,
    cachedTokens: usage.prompt_tokens_details?.cached_tokens ?? 0,
    finish,
  }
}

/** The JSON of each server-sent event. @param {Response} response @returns {AsyncGenerator<any>} */
async function* events(response) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader()
  const decoder = new TextDecoder()
  let text = ''
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      text += decoder.decode(value, { stream: true })
      const parts = text.split('\n\n')
      text = /** @type {string} */ (parts.pop())
      for (const part of parts) {
        const data = part
          .split('\n')
          .filter((line) => line.startsWith('data: '))
          .map((line) => line.slice(6))
          .join('\n')
        if (data !== '' && data !== '[DONE]') yield JSON.parse(data)
      }
    }
  } finally {
    reader.cancel().catch(() => {})
  }
}
