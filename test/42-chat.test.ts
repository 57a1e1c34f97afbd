/** Conversations: what is computed again, what is forgotten, and what survives an abort. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Chat, Model } from '../dist/index.js'
import { codeOf } from './expect-code.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
let model: Model
beforeAll(async () => {
  await writeTinyModel(folder.path('chat.obt'), { context: 256 })
  model = await Model.load(folder.path('chat.obt'))
})
afterAll(async () => {
  await model.dispose()
  folder.remove()
})

async function say(chat: Chat, text: string, maxTokens = 8): Promise<number> {
  let pieces = 0
  for await (const _ of chat.send(text, { temperature: 0, maxTokens, ignoreEos: true })) pieces++
  return pieces
}

describe('a conversation', () => {
  it('continues without computing again what the cache holds', async () => {
    const chat = new Chat(model, { system: 'Be short.' })
    await say(chat, 'one')
    const afterFirst = chat.session.tokens.length
    await say(chat, 'two')
    const { usage } = chat.session.last!
    expect(chat.messages.map(({ role }) => role)).toEqual(['system', 'user', 'assistant', 'user', 'assistant'])
    // A random model's bytes are no UTF-8: their text encodes to quite other ids than those in the cache.
    const added = chat.session.tokens.length - afterFirst
    expect(usage.promptTokens - usage.cachedTokens + usage.newTokens).toBeLessThanOrEqual(added + 1)
    expect(usage.cachedTokens).toBeGreaterThanOrEqual(afterFirst - 1)
    chat.dispose()
  })

  it('gives the same answer as a fresh session with the same turns', async () => {
    const chat = new Chat(model)
    await say(chat, 'first')
    const messages = [...chat.messages, { role: 'user', content: 'second' }]
    const options = { temperature: 0, maxTokens: 8, ignoreEos: true }
    const fresh = await model.createSession().complete(messages, options)
    let text = ''
    for await (const piece of chat.send('second', options)) text += piece.text
    expect(text).toBe(fresh.text)
    chat.dispose()
  })

  it('lets the oldest turns go when the context is full, and keeps the system message', async () => {
    const gone: number[] = []
    const chat = new Chat(model, { system: 'SYSTEM', context: 160, onTrim: (messages) => gone.push(messages) })
    for (let turn = 0; turn < 6; turn++) await say(chat, `message number ${turn}`)
    expect(gone.length).toBeGreaterThan(0)
    expect(chat.messages[0]).toEqual({ role: 'system', content: 'SYSTEM' })
    expect(chat.messages.at(-2)!.content).toBe('message number 5')
    expect(chat.messages.some(({ content }) => content === 'message number 0')).toBe(false)
    chat.dispose()
  })

  it('goes on with an answer that is longer than the context', async () => {
    const gone: number[] = []
    const chat = new Chat(model, { context: 96, onTrim: (messages) => gone.push(messages) })
    expect(await say(chat, 'tell', 300)).toBe(300)
    expect(gone.length).toBeGreaterThan(0)
    expect(chat.session.last!.usage.newTokens).toBeLessThan(300)
    expect(chat.last!.usage.newTokens).toBe(300)
    expect(chat.last!.usage.promptTokens).toBeGreaterThan(chat.session.last!.usage.promptTokens)
    expect(chat.last!.timings.decodeMs).toBeGreaterThan(chat.session.last!.timings.decodeMs)
    expect(await say(chat, 'short')).toBe(chat.last!.usage.newTokens)
    chat.dispose()
  })

  it('refuses a message that cannot fit, and goes on without it', async () => {
    const chat = new Chat(model, { context: 96 })
    expect(await codeOf(() => say(chat, 'x'.repeat(200)))).toBe('ERR_CONTEXT_FULL')
    expect(chat.messages).toEqual([])
    expect(await say(chat, 'short')).toBe(8)
    chat.dispose()
  })

  it('keeps an aborted answer as far as it came, and goes on', async () => {
    const chat = new Chat(model)
    const stop = new AbortController()
    let pieces = 0
    const answer = (async () => {
      for await (const _ of chat.send('go', { temperature: 0, maxTokens: 50, ignoreEos: true, signal: stop.signal })) {
        if (++pieces === 3) stop.abort()
      }
    })()
    await expect(answer).rejects.toThrow()
    expect(chat.messages.length).toBe(2)
    expect(await say(chat, 'again', 5)).toBe(5)
    chat.reset()
    expect(chat.messages).toEqual([])
    chat.dispose()
  })

  it('needs a template', async () => {
    await writeTinyModel(folder.path('plain.obt'), { chat: false })
    const plain = await Model.load(folder.path('plain.obt'))
    expect(await codeOf(() => new Chat(plain))).toBe('ERR_NO_CHAT_TEMPLATE')
    await plain.dispose()
  })
})
