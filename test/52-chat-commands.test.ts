/** Commands of the chat in a terminal, and what a conversation can do behind them. */
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { chatCommand, type Desk, runChatCommand } from '../dist/cli/chat-commands.js'
import { History, historyPath, MOST_REMEMBERED } from '../dist/cli/history.js'
import { startTalk, type Talk } from '../dist/cli/talk.js'
import { Chat, Model, type OnebitError, Session } from '../dist/index.js'
import { codeOf, failure } from './expect-code.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const file = folder.path('a.session')
let [model, plain, other] = [] as unknown as [Model, Model, Model]
beforeAll(async () => {
  const path = folder.path('chat.obt')
  await writeTinyModel(path, { context: 512 })
  model = await Model.load(path)
  await writeTinyModel(folder.path('plain.obt'), { chat: false, context: 512 })
  plain = await Model.load(folder.path('plain.obt'))
  await writeTinyModel(folder.path('other.obt'), { context: 512, dim: 64 })
  other = await Model.load(folder.path('other.obt'))
})
const chats: Chat[] = []
afterEach(() => {
  for (const chat of chats.splice(0)) chat.dispose()
})
afterAll(async () => {
  await Promise.all([model, plain, other].map((one) => one.dispose()))
  folder.remove()
})

const GREEDY = { temperature: 0, maxTokens: 8, ignoreEos: true }

function newChat(system?: string): Chat {
  const chat = new Chat(model, system === undefined ? {} : { system })
  chats.push(chat)
  return chat
}

async function read(pieces: AsyncIterable<{ text: string }>): Promise<string> {
  let text = ''
  for await (const piece of pieces) text += piece.text
  return text
}

const say = (chat: Chat, text: string, options = {}) => read(chat.send(text, { ...GREEDY, ...options }))
const computed = (chat: Chat) => chat.last!.usage.promptTokens - chat.last!.usage.cachedTokens

describe('undo', () => {
  it('takes the last question back with its answer, and what follows is as if it had never been', async () => {
    const [chat, fresh] = [newChat('Be short.'), newChat('Be short.')]
    for (const one of [chat, fresh]) await say(one, 'one')
    await say(chat, 'two')
    expect(chat.undo()).toEqual({ role: 'user', content: 'two' })
    expect(chat.messages).toEqual(fresh.messages)
    expect(await say(chat, 'three')).toBe(await say(fresh, 'three'))
    // The first answer's own ids are in the cache still.
    expect(computed(chat)).toBeLessThanOrEqual(computed(fresh) + 1)
    expect([chat.undo()?.content, chat.undo()?.content, chat.undo()]).toEqual(['three', 'one', undefined])
    expect(chat.messages).toEqual([{ role: 'system', content: 'Be short.' }])
  })

  it('waits for the answer under way', async () => {
    const chat = newChat()
    const answer = chat.send('go', GREEDY)
    await answer.next()
    expect(await codeOf(() => chat.undo())).toBe('ERR_BUSY')
    expect(await codeOf(() => chat.setSystem('x'))).toBe('ERR_BUSY')
    expect(await codeOf(() => chat.save(file))).toBe('ERR_BUSY')
    expect(await codeOf(() => read(chat.regenerate(GREEDY)))).toBe('ERR_BUSY')
    await answer.return()
    expect(chat.undo()?.content).toBe('go')
  })
})

describe('regenerate', () => {
  it('answers the last question again, and computes next to nothing of the conversation', async () => {
    const chat = newChat()
    await say(chat, 'one')
    const first = await say(chat, 'two', { temperature: 1, seed: 1 })
    const before = chat.messages.length
    const second = await read(chat.regenerate({ ...GREEDY, temperature: 1, seed: 2 }))
    expect(second).not.toBe(first)
    expect(computed(chat)).toBe(1)
    expect(chat.messages.length).toBe(before)
    expect(chat.messages.at(-1)!.content).toBe(second)
    expect(await read(chat.regenerate({ ...GREEDY, temperature: 1, seed: 1 }))).toBe(first)
  })

  it('leaves the old answer when no new one comes', async () => {
    const chat = newChat()
    expect(await codeOf(() => read(chat.regenerate(GREEDY)))).toBe('ERR_NO_QUESTION')
    await say(chat, 'one')
    const before = chat.messages
    expect(await codeOf(() => read(chat.regenerate({ temperature: -1 })))).toBe('ERR_BAD_OPTION')
    const signal = AbortSignal.abort()
    await expect(read(chat.regenerate({ ...GREEDY, signal }))).rejects.toThrow()
    expect(chat.messages).toBe(before)
    await say(chat, 'two')
    expect(computed(chat)).toBeLessThan(chat.last!.usage.promptTokens / 2)
  })
})

describe('setSystem', () => {
  it('changes what stands before all, also after a reset', async () => {
    const [chat, fresh] = [newChat(), newChat('Be kind.')]
    for (const one of [chat, fresh]) await say(one, 'one')
    const [question, answer] = chat.messages
    chat.setSystem('Be kind.')
    expect(chat.messages).toEqual([{ role: 'system', content: 'Be kind.' }, question, answer])
    chat.setSystem('Be short.')
    chat.setSystem('Be kind.')
    chat.undo()
    expect(await say(chat, 'one')).toBe(fresh.messages.at(-1)!.content)
    chat.reset()
    expect(chat.messages).toEqual([{ role: 'system', content: 'Be kind.' }])
    chat.setSystem(undefined)
    expect(chat.messages).toEqual([])
    expect(await codeOf(() => chat.setSystem(5 as never))).toBe('ERR_BAD_OPTION')
  })
})

describe('a saved chat', () => {
  it('goes on with the same bytes and computes only what is new', async () => {
    const chat = newChat('Be short.')
    for (const text of ['one', 'two', 'three']) await say(chat, text)
    await chat.save(file)
    const restored = await Chat.restore(model, file)
    chats.push(restored)
    expect(restored.messages).toEqual(chat.messages)
    for (const text of ['four', 'five']) {
      expect(await say(restored, text)).toBe(await say(chat, text))
      expect(restored.last!.usage).toEqual(chat.last!.usage)
      expect(computed(restored)).toBeLessThan(restored.last!.usage.promptTokens / 3)
    }
    restored.undo()
    restored.reset()
    expect(restored.messages).toEqual([{ role: 'system', content: 'Be short.' }])
  })

  it('may be empty, and may end with an answer that was taken back', async () => {
    const chat = newChat()
    await chat.save(file)
    expect((await Chat.restore(model, file)).messages).toEqual([])
    await say(chat, 'one')
    await say(chat, 'two')
    chat.undo()
    await chat.save(file)
    const restored = await Chat.restore(model, file)
    chats.push(restored)
    expect(restored.messages.length).toBe(2)
    expect(await say(restored, 'three')).toBe(await say(chat, 'three'))
  })

  it('is refused by another model, and when it is no chat', async () => {
    const chat = newChat()
    await say(chat, 'one')
    await chat.save(file)
    expect(await codeOf(() => Chat.restore(other, file))).toBe('ERR_SESSION_MODEL')
    expect(await codeOf(() => Chat.restore(plain, file))).toBe('ERR_SESSION_MODEL')
    await chat.session.save(file)
    expect(await codeOf(() => Chat.restore(model, file))).toBe('ERR_SESSION_FILE')
    const session = await Session.restore(model, file)
    expect(session.extra).toBeUndefined()
    const message = { role: 'assistant', content: 'x' }
    for (const extra of [
      '',
      'null',
      '{"chat":2,"messages":[],"answers":[]}',
      '{"chat":1,"messages":{},"answers":[]}',
      '{"chat":1,"messages":[5],"answers":[]}',
      '{"chat":1,"messages":[]}',
      JSON.stringify({ chat: 1, messages: [message], answers: [[0, 0, 9999]] }),
      JSON.stringify({ chat: 1, messages: [message], answers: [[1, 0, 1]] }),
      JSON.stringify({ chat: 1, messages: [message], answers: [[0, -1, 1]] }),
      JSON.stringify({
        chat: 1,
        messages: [message],
        answers: [
          [0, 0, 1],
          [0, 1, 1],
        ],
      }),
      JSON.stringify({ chat: 1, messages: [message], answers: [[0, 0]] }),
      `{"chat":1,"messages":${'['.repeat(100)}${']'.repeat(100)},"answers":[]}`,
    ]) {
      await session.save(file, { extra })
      expect((await Session.restore(model, file)).extra).toBe(extra)
      const error = await failure(() => Chat.restore(model, file))
      expect([extra, error.code]).toEqual([extra, 'ERR_SESSION_FILE'])
      expect(error.message).toContain(file)
    }
    expect(await codeOf(() => session.save(file, { extra: 'x'.repeat((1 << 19) + 1) }))).toBe('ERR_BAD_OPTION')
    await session.save(file, { extra: '\u0001"\\\ud800'.repeat(1 << 17) })
    expect((await Session.restore(model, file)).extra?.length).toBe(1 << 19)
  })
})

// ---- as they are typed -------------------------------------------------------------------------------------------

class TestDesk implements Desk {
  readonly said: string[] = []
  readonly values = {}
  left = false
  readonly talk: Talk

  constructor(of: Model, system?: string) {
    this.talk = startTalk(of, system, (line) => this.said.push(line))
  }

  readonly tell = (line: string) => void this.said.push(line)
  readonly regenerate = async () => {
    this.said.push(await read(this.talk.regenerate(GREEDY)))
  }
  readonly leave = () => {
    this.left = true
  }

  /** What is said to a command. */
  async type(line: string): Promise<string> {
    this.said.length = 0
    const command = chatCommand(line)
    if (!command) return read(this.talk.say(line, GREEDY))
    await runChatCommand(this, command).catch((error: OnebitError) => this.tell(`${error.code}: ${error.message}`))
    return this.said.join('\n')
  }
}

describe('what begins with a slash', () => {
  it('is a command when it looks like one', () => {
    expect(chatCommand('/undo')).toEqual({ name: 'undo', rest: '' })
    expect(chatCommand('  /save  my file ')).toEqual({ name: 'save', rest: 'my file' })
    expect(chatCommand('/system Be\nshort.')).toEqual({ name: 'system', rest: 'Be\nshort.' })
    expect(chatCommand('/what')).toEqual({ name: 'what', rest: '' })
    for (const text of ['/usr/bin is a folder', '/ 2', '//', 'a /undo', '/etc holds what?', '/2']) {
      expect(chatCommand(text)).toBeUndefined()
    }
  })

  it('is explained by /help, all of it', async () => {
    const help = await new TestDesk(model).type('/help')
    for (const name of ['help', 'regen', 'undo', 'system', 'set', 'save', 'load', 'reset', 'exit']) {
      expect(help).toContain(`/${name}`)
    }
    const desk = new TestDesk(model)
    expect(await desk.type('/what')).toContain('There is no /what')
    expect(await desk.type('/toString')).toContain('There is no /toString')
    expect(await desk.type('/undo twice')).toContain('takes nothing')
    await desk.type('/exit')
    expect(desk.left).toBe(true)
  })

  it('works on a conversation by a template', async () => {
    const desk = new TestDesk(model, 'Be short.')
    expect(await desk.type('/undo')).toContain('nothing to take back')
    expect(await desk.type('/regen')).toContain('ERR_NO_QUESTION')
    const answer = await desk.type('hello')
    expect(await desk.type('/regen')).toBe(answer)
    expect(await desk.type(`/save "${file}"`)).toContain('Saved to')
    expect(await desk.type('/undo')).toBe('Taken back: hello')
    expect(await desk.type(`/load ${file}`)).toMatch(/3 messages, \d+ tokens/)
    expect(await desk.type('/regen')).toBe(answer)
    expect(await desk.type('/system')).toContain('Be short.')
    expect(await desk.type('/system none')).toContain('gone')
    expect(await desk.type('/system')).toContain('no system message')
    expect(await desk.type('/system Be kind.')).toContain('changed')
    expect(desk.talk.system).toBe('Be kind.')
    await desk.type('/reset')
    expect(await desk.type('/undo')).toContain('nothing')
  })

  it('keeps the conversation when a file is none', async () => {
    const desk = new TestDesk(model)
    const answer = await desk.type('hello')
    writeFileSync(folder.path('none'), 'none')
    expect(await desk.type(`/load ${folder.path('none')}`)).toContain('ERR_TRUNCATED')
    expect(await desk.type(`/load ${folder.path('missing')}`)).toContain('ERR_FILE_NOT_FOUND')
    expect(await desk.type(`/save ${folder.path('missing/x')}`)).toContain('ERR_NO_FOLDER')
    expect(await desk.type('/save')).toContain('needs the name')
    expect(await desk.type('/regen')).toBe(answer)
  })

  it('works on a text that grows', async () => {
    const desk = new TestDesk(plain)
    const first = await desk.type('Once')
    await desk.type(' upon')
    expect(await desk.type('/undo')).toBe('Taken back:  upon'.replace('  ', ' '))
    expect(await desk.type('/regen')).toBe(first)
    await desk.type(`/save ${file}`)
    const second = await desk.type(' a')
    expect(await desk.type(`/load ${file}`)).toMatch(/Loaded .*: \d+ tokens/)
    expect(await desk.type(' a')).toBe(second)
    expect(await desk.type('/system x')).toContain('ERR_NO_CHAT_TEMPLATE')
    await desk.type('/reset')
    expect(await desk.type('/regen')).toContain('ERR_NO_QUESTION')
    expect(await desk.type('Once')).toBe(first)
  })
})

describe('/set', () => {
  it('changes how answers are made, by the rules of the options', async () => {
    const desk = new TestDesk(model)
    expect((await desk.type('/set')).split('\n').length).toBe(12)
    expect(await desk.type('/set temp 0.5')).toMatch(/^temp +0.5 /)
    expect(await desk.type('/set n 3')).toMatch(/^n +3 /)
    expect(await desk.type('/set stop the end')).toContain('["the end"]')
    expect(desk.values).toEqual({ temp: 0.5, n: 3, stop: ['the end'] })
    expect(await desk.type('/set temp default')).toMatch(/^temp +default /)
    for (const wrong of ['temp -1', 'temp hot', 'n 1.5', 'top-p 2', 'seed x']) {
      expect(await desk.type(`/set ${wrong}`)).toContain('ERR_BAD_OPTION')
    }
    expect(await desk.type('/set heat 3')).toContain('There is no setting heat')
    expect(await desk.type('/set toString 3')).toContain('There is no setting')
    expect(desk.values).toEqual({ n: 3, stop: ['the end'] })
  })
})

describe('the history', () => {
  it('lies where the system keeps such things, or where it is told', () => {
    expect(historyPath({ ONEBIT_HISTORY: '/x/y' }, 'linux')).toBe('/x/y')
    expect(historyPath({ ONEBIT_HISTORY: '' }, 'linux')).toBeUndefined()
    expect(historyPath({ XDG_STATE_HOME: '/state' }, 'linux')).toBe(join('/state', 'onebit-run', 'history'))
    expect(historyPath({}, 'linux')).toMatch(/\.local.state.onebit-run.history$/)
    expect(historyPath({ LOCALAPPDATA: '/local' }, 'win32')).toBe(join('/local', 'onebit-run', 'history'))
    expect(historyPath({}, 'darwin')).toContain('Application Support')
  })

  it('keeps what was typed, several lines too, for the next chat', async () => {
    const path = folder.path('deep/er/history')
    const history = new History(path)
    expect(await history.read()).toEqual([])
    for (const typed of ['one', 'two\nlines', 'ü "quoted"']) history.add(typed)
    await history.written()
    expect(await new History(path).read()).toEqual(['ü "quoted"', 'two\nlines', 'one'])
    if (process.platform !== 'win32') expect(statSync(path).mode & 0o777).toBe(0o600)
  })

  it('stays small, and survives damage', async () => {
    const path = folder.path('history')
    const lines = Array.from({ length: 5 * MOST_REMEMBERED }, (_, i) => `"line ${i}"`)
    lines.splice(3, 1, 'no json', '{"a":1}')
    writeFileSync(path, `${lines.join('\n')}\n"half of a li`)
    const read = await new History(path).read()
    expect([read.length, read[0]]).toEqual([MOST_REMEMBERED, `line ${5 * MOST_REMEMBERED - 1}`])
    expect(readFileSync(path, 'utf8').split('\n').length).toBe(MOST_REMEMBERED + 1)
    expect(await new History(path).read()).toEqual(read)
  })

  it('is nowhere when it cannot be anywhere', async () => {
    mkdirSync(folder.path('is-a-folder'))
    for (const path of [undefined, folder.path('is-a-folder')]) {
      const history = new History(path)
      history.add('one')
      await history.written()
      expect(await history.read()).toEqual([])
    }
    expect(existsSync(folder.path('is-a-folder'))).toBe(true)
  })
})
