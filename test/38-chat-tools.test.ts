/** Tools in a chat: calls are run and answered until the model has said what it has to say. */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Chat, type ChatPiece, type ChatTool, Model } from '../dist/index.js'
import { PROJECT } from './data.js'
import { codeOf } from './expect-code.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
let model: Model
beforeAll(async () => {
  const template = readFileSync(`${PROJECT}/test/fixtures/jinja/templates/thinking.jinja`, 'utf8')
  const special = ['<think>', '</think>', '<tool_call>', '</tool_call>']
  await writeTinyModel(folder.path('tools.obt'), { template, special, context: 2048 })
  model = await Model.load(folder.path('tools.obt'), { threads: 2 })
})
afterAll(async () => {
  await model.dispose()
  folder.remove()
})

const parameters = {
  type: 'object',
  properties: { city: { enum: ['Paris', 'Rome'] } },
  required: ['city'],
  additionalProperties: false,
}
/** The model begins with a call where it may; after its end there is no other. */
const CALLS = { seed: 1, logitBias: { 261: 1000 }, maxTokens: 200 }

async function all(pieces: AsyncIterable<ChatPiece>): Promise<ChatPiece[]> {
  const list: ChatPiece[] = []
  for await (const piece of pieces) list.push(piece)
  return list
}

describe('tools', () => {
  it('are run, and the answer goes on with their results', async () => {
    const asked: unknown[] = []
    const tools: ChatTool[] = [
      {
        name: 'get_weather',
        parameters,
        run: (args, { id }) => {
          asked.push([args, typeof id])
          return { sunny: true }
        },
      },
    ]
    const chat = new Chat(model)
    const pieces = await all(
      chat.send('Weather?', { tools, toolChoice: 'required', maxRounds: 2, parallelCalls: false, ...CALLS }),
    )
    expect(asked[0]).toEqual([{ city: expect.stringMatching(/^(Paris|Rome)$/) }, 'string'])
    const roles = chat.messages.map(({ role }) => role)
    expect(roles.slice(0, 4)).toEqual(['user', 'assistant', 'tool', 'assistant'])
    const [, called, result] = chat.messages
    expect(called!.tool_calls).toMatchObject([
      { type: 'function', function: { name: 'get_weather', arguments: expect.any(Object) } },
    ])
    const [call] = called!.tool_calls as { id: string }[]
    expect(result).toEqual({ role: 'tool', name: 'get_weather', tool_call_id: call!.id, content: '{"sunny":true}' })
    expect(pieces.flatMap(({ parts = [] }) => parts).some(({ type }) => type === 'call-end')).toBe(true)
    // What is meant for the reader has no markup in it.
    expect(pieces.map(({ text }) => text).join('')).not.toContain('<tool_call>')
    chat.dispose()
  })

  it('without a function wait for their results', async () => {
    const chat = new Chat(model)
    const tools: ChatTool[] = [{ name: 'get_weather', parameters }]
    await all(chat.send('Weather?', { tools, toolChoice: { name: 'get_weather' }, ...CALLS }))
    const [call] = chat.toolCalls
    expect(call).toMatchObject({ name: 'get_weather' })
    expect(JSON.parse(call!.arguments)).toHaveProperty('city')
    expect(await codeOf(() => all(chat.sendToolResults([])))).toBe('ERR_BAD_OPTION')
    await all(chat.sendToolResults([{ id: call!.id, content: 'rain' }], { maxTokens: 3, seed: 1 }))
    expect(chat.toolCalls).toEqual([])
    expect(chat.messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'tool', 'assistant'])
    expect(await codeOf(() => all(chat.sendToolResults([])))).toBe('ERR_BAD_OPTION')
    chat.dispose()
  })

  it('that throw tell the model so', async () => {
    const chat = new Chat(model)
    const tools: ChatTool[] = [
      {
        name: 'get_weather',
        parameters,
        run: () => {
          throw new Error('no such city')
        },
      },
    ]
    await all(chat.send('Weather?', { tools, toolChoice: 'required', maxRounds: 2, parallelCalls: false, ...CALLS }))
    expect(chat.messages[2]).toMatchObject({ role: 'tool', content: 'Error: no such city' })
    chat.dispose()
  })

  it('stop when the caller does', async () => {
    const chat = new Chat(model)
    const stop = new AbortController()
    const tools: ChatTool[] = [
      {
        name: 'get_weather',
        parameters,
        run: () => {
          stop.abort(new Error('enough'))
          throw new Error('late')
        },
      },
    ]
    const options = { tools, toolChoice: 'required', ...CALLS, signal: stop.signal } as const
    await expect(all(chat.send('Weather?', options))).rejects.toThrow('enough')
    expect(chat.messages.map(({ role }) => role)).toEqual(['user', 'assistant'])
    chat.dispose()
  })

  it('are errors where they cannot be', async () => {
    await writeTinyModel(folder.path('plain.obt'))
    const plain = await Model.load(folder.path('plain.obt'))
    const chat = new Chat(plain)
    expect(await codeOf(() => all(chat.send('x', { tools: [{ name: 'f' }] })))).toBe('ERR_NO_TOOLS')
    await plain.dispose()
    const good = new Chat(model)
    for (const options of [
      { tools: [] },
      { tools: [{}] },
      { tools: [{ name: 'f', run: 5 }] },
      { toolChoice: 'auto' },
      { tools: [{ name: 'f' }], toolChoice: { name: 'g' } },
      { tools: [{ name: 'f' }], maxRounds: 0 },
      { tools: [{ name: 'f' }], schema: {} },
    ]) {
      expect(await codeOf(() => all(good.send('x', options as never)))).toBe('ERR_BAD_OPTION')
    }
    expect(good.messages).toEqual([])
    good.dispose()
  })
})
