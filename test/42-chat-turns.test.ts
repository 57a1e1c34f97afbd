/**
 * What happens when a chat is aborted, left, reset or asked again while an answer is under way: every action at every
 * moment, and every second action at every later moment, against a model of what the conversation should then be.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Chat, Model, type OnebitError } from '../dist/index.js'
import { codeOf } from './expect-code.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
let model: Model
beforeAll(async () => {
  await writeTinyModel(folder.path('chat.obt'), { context: 256 })
  model = await Model.load(folder.path('chat.obt'), { threads: 1 })
})
afterAll(async () => {
  await model.dispose()
  folder.remove()
})

const PIECES = 3
const OPTIONS = { temperature: 0, maxTokens: PIECES, ignoreEos: true }
const SYSTEM = { role: 'system', content: 'Be short.' }

type Action = 'abort' | 'leave' | 'reset' | 'ask'
const ACTIONS: Action[] = ['abort', 'leave', 'reset', 'ask']
/** -1: before the answer was begun; 0: its first piece is awaited; n: n pieces have come; then: it has ended */
const MOMENTS = Array.from({ length: PIECES + 3 }, (_, i) => i - 1)

interface Step {
  at: number
  action: Action
}

function* scenarios(): Generator<Step[]> {
  for (const at of MOMENTS) {
    for (const action of ACTIONS) {
      yield [{ at, action }]
      for (const later of MOMENTS.filter((moment) => moment >= at)) {
        for (const second of ACTIONS) {
          yield [
            { at, action },
            { at: later, action: second },
          ]
        }
      }
    }
  }
}

/** Plays a scenario with the real chat. */
class Play {
  readonly chat = new Chat(model, { system: SYSTEM.content })
  readonly #stop = new AbortController()
  readonly #answer = this.chat.send('first', { ...OPTIONS, signal: this.#stop.signal })
  readonly texts: string[] = []
  /** how the first answer ended */
  end: 'well' | 'left' | 'aborted' | string | undefined
  /** what the questions that came between became: an error's code, or their answer */
  readonly asked: string[] = []

  async run(steps: readonly Step[]): Promise<void> {
    for (const moment of MOMENTS) {
      const now = steps.filter(({ at }) => at === moment)
      if (moment === 0 && !this.end) {
        const pending = this.#next()
        // Not awaited: this is the moment before the first piece.
        const doing = now.map(({ action }) => this.#do(action))
        await pending
        await Promise.all(doing)
        continue
      }
      if (moment > 1 && !this.end) await this.#next()
      for (const { action } of now) await this.#do(action)
    }
  }

  async #next(): Promise<void> {
    try {
      const { value, done } = await this.#answer.next()
      if (done) this.end ??= 'well'
      else this.texts.push(value.text)
    } catch (error) {
      this.end ??= error === this.#stop.signal.reason ? 'aborted' : (error as OnebitError).code
    }
  }

  async #do(action: Action): Promise<void> {
    if (action === 'abort') this.#stop.abort(new Error('enough'))
    else if (action === 'reset') this.chat.reset()
    else if (action === 'leave') {
      await this.#answer.return()
      this.end ??= 'left'
    } else {
      try {
        let text = ''
        for await (const piece of this.chat.send('between', OPTIONS)) text += piece.text
        this.asked.push(text)
      } catch (error) {
        this.asked.push((error as OnebitError).code)
      }
    }
  }
}

interface Expected {
  /** questions in the conversation, and how many pieces of answer each has */
  turns: [question: string, pieces: number][]
  end: string
  /** for each question between: whether it was answered */
  answered: boolean[]
}

/** The same scenario in words: what a reader of the documentation expects. */
function expectation(steps: readonly Step[]): Expected {
  let turns: [string, number][] = []
  const answered: boolean[] = []
  let state = 'unbegun' as 'unbegun' | 'under way' | 'reset' | 'over'
  let end: string | undefined
  let aborted = false
  /** what stopped it: the first thing counts */
  let reason = ''
  let pieces = 0
  const finish = (how: string) => {
    if (state === 'under way' && pieces > 0) turns.push(['first', pieces])
    state = 'over'
    end ??= how
  }
  for (const moment of MOMENTS) {
    const now = steps.filter(({ at }) => at === moment).map(({ action }) => action)
    // From here on the answer is asked for, unless it was left before.
    if (moment === 0 && state === 'unbegun') {
      state = 'under way'
      if (aborted) finish('aborted')
    }
    // The piece of the moment; the first is on its way while the actions of moment 0 happen.
    const piece = () => {
      if (state === 'reset') finish(reason)
      else if (state === 'under way' && pieces === PIECES) finish('well')
      else if (state === 'under way' && aborted) finish('aborted')
      else if (state === 'under way') pieces++
    }
    if (moment > 1) piece()
    let leaving = false
    for (const action of now) {
      if (action === 'abort') {
        aborted = true
        reason ||= 'aborted'
      } else if (action === 'reset') {
        turns = []
        if (state !== 'under way') continue
        state = 'reset'
        reason ||= 'ERR_CHAT_RESET'
      } else if (action === 'leave') {
        if (moment === 0 && state !== 'over') leaving = true
        else finish('left')
      } else {
        answered.push(state !== 'under way')
        if (state !== 'under way') turns.push(['between', PIECES])
      }
    }
    if (moment === 0) piece()
    if (leaving) finish('left')
  }
  return { turns, end: end!, answered }
}

function shown(steps: readonly Step[]): string {
  return steps.map(({ at, action }) => `${action} at ${at}`).join(', ')
}

describe('an answer under way', () => {
  it('ends with the right conversation, whatever is done when', async () => {
    let played = 0
    for (const steps of scenarios()) {
      const expected = expectation(steps)
      const play = new Play()
      const { chat } = play
      await play.run(steps)
      const what = shown(steps)
      expect([what, play.end]).toEqual([what, expected.end])
      const asked = play.asked.map((outcome) => outcome !== 'ERR_BUSY')
      expect([what, asked]).toEqual([what, expected.answered])
      // A reset forgets earlier ones.
      const between = expected.turns.filter(([question]) => question === 'between').length
      const answers = play.asked.filter((outcome) => outcome !== 'ERR_BUSY').slice(-between)
      const messages = expected.turns.flatMap(([question, pieces]) => [
        { role: 'user', content: question },
        {
          role: 'assistant',
          content: question === 'first' ? play.texts.slice(0, pieces).join('') : answers.shift(),
        },
      ])
      expect([what, chat.messages]).toEqual([what, [SYSTEM, ...messages]])
      await checkGoesOn(what, chat)
      chat.dispose()
      played++
    }
    expect(played).toBeGreaterThan(300)
  })

  /** One more question: it must be computed after exactly the conversation that `messages` shows. */
  async function checkGoesOn(what: string, chat: Chat): Promise<void> {
    const before = [...chat.messages]
    const rendered = await model.chatTemplate!.render([...before, { role: 'user', content: 'and?' }])
    let text = ''
    for await (const piece of chat.send('and?', OPTIONS)) text += piece.text
    const { promptTokens } = chat.last!.usage
    expect([what, model.tokenizer!.decode(chat.session.tokens.slice(0, promptTokens))]).toEqual([what, rendered])
    expect(chat.messages.slice(before.length)).toEqual([
      { role: 'user', content: 'and?' },
      { role: 'assistant', content: text },
    ])
  }

  it('that nobody reads any more is ended by reset()', async () => {
    const chat = new Chat(model)
    const abandoned = chat.send('first', { ...OPTIONS, maxTokens: 100 })
    await abandoned.next()
    expect(await codeOf(() => chat.send('second', OPTIONS).next())).toBe('ERR_BUSY')
    chat.reset()
    let pieces = 0
    for await (const _ of chat.send('third', OPTIONS)) pieces++
    expect(pieces).toBe(PIECES)
    expect(chat.messages.map(({ role }) => role)).toEqual(['user', 'assistant'])
    expect(await codeOf(() => abandoned.next())).toBe('ERR_CHAT_RESET')
    expect(chat.messages.length).toBe(2)
    chat.dispose()
  })

  it('survives resets one after the other', async () => {
    const chat = new Chat(model, { system: SYSTEM.content })
    const ended = []
    for (let i = 0; i < 10; i++) {
      ended.push(codeOf(() => chat.send(`question ${i}`, OPTIONS).next()))
      chat.reset()
    }
    expect(new Set(await Promise.all(ended))).toEqual(new Set(['ERR_CHAT_RESET']))
    expect(chat.messages).toEqual([SYSTEM])
    await checkGoesOn('after ten resets', chat)
    chat.dispose()
  })
})

describe('a question without an answer', () => {
  it('takes no old turns with it', async () => {
    const gone: number[] = []
    const chat = new Chat(model, { context: 128, onTrim: (messages) => gone.push(messages) })
    for await (const _ of chat.send('short', OPTIONS));
    const before = chat.messages
    expect(await codeOf(() => chat.send('x'.repeat(300), OPTIONS).next())).toBe('ERR_CONTEXT_FULL')
    expect(chat.messages).toEqual(before)
    // This one fits only without the turn before it, and is aborted before its first piece.
    const stop = new AbortController()
    const first = chat.send('y'.repeat(50), { ...OPTIONS, signal: stop.signal }).next()
    stop.abort(new Error('enough'))
    await expect(first).rejects.toThrow('enough')
    expect(chat.messages).toEqual(before)
    expect(gone).toEqual([])
    for await (const _ of chat.send('y'.repeat(50), OPTIONS));
    expect(gone).toEqual([2])
    expect(chat.messages.map(({ role }) => role)).toEqual(['user', 'assistant'])
    chat.dispose()
  })
})

describe('options of a chat', () => {
  it.each([
    ['an unknown name', { systm: 'x' }],
    ['a system message that is no text', { system: 5 }],
    ['a context that is none', { context: 0 }],
    ['a callback that is none', { onTrim: 'call me' }],
  ])('%s', async (_, options) => {
    expect(await codeOf(() => new Chat(model, options as object))).toBe('ERR_BAD_OPTION')
  })

  it('of send are checked before anything is done', async () => {
    const chat = new Chat(model)
    for (const options of [{ signal: 5 }, { maxTokens: -1 }, { temperature: 1000 }, null]) {
      const code = await codeOf(() => chat.send('hello', options as object).next())
      expect([options, code]).toEqual([options, 'ERR_BAD_OPTION'])
    }
    expect(await codeOf(() => chat.send(5 as unknown as string, OPTIONS).next())).toBe('ERR_BAD_OPTION')
    expect(chat.messages).toEqual([])
    chat.dispose()
  })
})
