/** Long chats whose whole history is sent again at every turn: only what is new is computed, however they are told. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Session } from '../dist/index.js'
import { events, type Json, serveTiny, type TestServer } from './serving.js'
import { temporaryFolder } from './tiny-model.js'

const TURNS = 20
/** After a turn the session lacks the token that was chosen last; one more is chosen and taken back at a stop text. */
const MOST_LOST = 2
/** Answers of letters only: any other byte would not come back as the same token when the answer is sent again. */
const LETTERS = Object.fromEntries([...'abcdefghijklmnopqrstuvwxyz '].map((letter) => [letter.charCodeAt(0), 100]))
const SYSTEM = { role: 'system', content: 'You answer whoever asks with letters, and with nothing but letters.' }

interface Turn {
  text: string
  promptTokens: number
  cachedTokens: number
  newTokens: number
}

let server: TestServer
beforeAll(async () => {
  server = await serveTiny({ parallel: 4, queue: 64 }, { context: 4096, dim: 64 })
})
afterAll(() => server.stop())

/** A turn as a client asks for it: now at once, now as a stream, and sometimes up to a stop text. */
async function ask(messages: readonly object[], turn: number, seed: number): Promise<Turn> {
  const request = {
    messages,
    max_tokens: 8 + (turn % 5),
    seed: seed + turn,
    temperature: turn % 2 === 0 ? 0 : 1,
    ignore_eos: true,
    logit_bias: LETTERS,
    ...(turn % 4 === 3 ? { stop: ['e', 'a'] } : {}),
  }
  if (turn % 3 !== 1) {
    const { status, body } = await server.json('/v1/chat/completions', request)
    expect(status).toBe(200)
    return turnOf(body.choices[0].message.content, body.usage)
  }
  const told = events(
    await (
      await server.post('/v1/chat/completions', { ...request, stream: true, stream_options: { include_usage: true } })
    ).text(),
  )
  const text = told.slice(0, -2).map((chunk) => chunk.choices[0].delta.content ?? '')
  return turnOf(text.join(''), told.at(-2).usage)
}

function turnOf(text: string, { prompt_tokens, completion_tokens, prompt_tokens_details }: Json): Turn {
  return {
    text,
    promptTokens: prompt_tokens,
    newTokens: completion_tokens,
    cachedTokens: prompt_tokens_details.cached_tokens,
  }
}

/** A chat that somebody carries on turn by turn. */
class Talk {
  readonly #name: string
  readonly #seed: number
  readonly messages: { role: string; content: string }[]
  readonly turns: Turn[] = []

  constructor(name: string, seed: number, system = false) {
    this.#name = name
    this.#seed = seed
    this.messages = system ? [SYSTEM] : []
  }

  async turn(): Promise<void> {
    const turn = this.turns.length
    this.messages.push({
      role: 'user',
      content: `${this.#name} asks for the ${turn}th time: ${'why? '.repeat(turn % 4)}`,
    })
    const answer = await ask(this.messages, turn, this.#seed)
    this.turns.push(answer)
    this.messages.push({ role: 'assistant', content: answer.text })
  }

  /** Of every turn but the first: it found all that the turn before it knew. */
  check(): void {
    expect(this.turns).toHaveLength(TURNS)
    for (const [i, { promptTokens, cachedTokens }] of this.turns.entries()) {
      if (i === 0) continue
      const before = this.turns[i - 1]!
      const known = before.promptTokens + before.newTokens - MOST_LOST
      expect([this.#name, i, cachedTokens >= known, cachedTokens < promptTokens]).toEqual([this.#name, i, true, true])
    }
  }
}

async function carryOn(...talks: Talk[]): Promise<void> {
  for (let turn = 0; turn < TURNS; turn++) for (const talk of talks) await talk.turn()
}

describe('20 turns through /v1/chat/completions', () => {
  it('compute only what is new', async () => {
    const talk = new Talk('Ada', 1)
    await carryOn(talk)
    talk.check()
    const [first, last] = [talk.turns[0]!, talk.turns.at(-1)!]
    expect(first.cachedTokens).toBe(0)
    expect(last.promptTokens).toBeGreaterThan(1000)
    expect(last.promptTokens - last.cachedTokens).toBeLessThan(100)
  })

  it('of several chats one after the other, which begin alike or not', async () => {
    const talks = [new Talk('Ben', 2), new Talk('Cleo', 3, true), new Talk('Dora', 4), new Talk('Emil', 5, true)]
    await carryOn(...talks)
    for (const talk of talks) talk.check()
    // The system message was computed by the first of the two that have it.
    expect(talks[3]!.turns[0]!.cachedTokens).toBeGreaterThan(SYSTEM.content.length)
  })

  it('of several chats at the same time, more than there are places', async () => {
    const names = ['Finn', 'Gus', 'Hal', 'Ida', 'Jo', 'Kim']
    const talks = names.map((name, i) => new Talk(name, 10 + i, i % 2 === 0))
    await Promise.all(talks.map((talk) => carryOn(talk)))
    for (const talk of talks) talk.check()
  })

  it('gives the answers of a session that knows nothing before', async () => {
    const talk = new Talk('Lea', 30)
    await carryOn(talk)
    for (const turn of [0, 3, 10, 19]) {
      const session = server.model.createSession()
      const { text } = await session.complete(talk.messages.slice(0, 2 * turn + 1), {
        maxTokens: 8 + (turn % 5),
        seed: 30 + turn,
        temperature: turn % 2 === 0 ? 0 : 1,
        ignoreEos: true,
        logitBias: LETTERS,
        ...(turn % 4 === 3 ? { stop: ['e', 'a'] } : {}),
      })
      expect(text).toBe(talk.turns[turn]!.text)
      session.dispose()
    }
  })

  it('goes back to an earlier turn, and on from there, without computing it again', async () => {
    const talk = new Talk('Max', 40)
    await carryOn(talk)
    const earlier = talk.messages.slice(0, 2 * 10)
    const other = await ask([...earlier, { role: 'user', content: 'Something else.' }], 10, 41)
    const before = talk.turns[9]!
    expect(other.cachedTokens).toBeGreaterThanOrEqual(before.promptTokens + before.newTokens - MOST_LOST)
    // And the long one is still there.
    const last = talk.turns.at(-1)!
    const again = await ask([...talk.messages, { role: 'user', content: 'And?' }], TURNS, 40)
    expect(again.cachedTokens).toBeGreaterThanOrEqual(last.promptTokens + last.newTokens - MOST_LOST)
  })
})

describe('20 turns of a session', () => {
  const folder = temporaryFolder()
  afterAll(() => folder.remove())

  async function turnOfSession(session: Session, messages: { role: string; content: string }[]) {
    const turn = messages.length >> 1
    messages.push({ role: 'user', content: `Question ${turn}: ${'who? '.repeat(turn % 3)}` })
    const { text, usage } = await session.complete(messages, {
      maxTokens: 10,
      seed: turn,
      ignoreEos: true,
      logitBias: LETTERS,
    })
    messages.push({ role: 'assistant', content: text })
    return { text, ...usage }
  }

  it('compute only what is new, also after it was saved and restored in between', async () => {
    const path = folder.path('turn-10.session')
    let session = server.model.createSession()
    const messages: { role: string; content: string }[] = []
    const turns: Turn[] = []
    for (let turn = 0; turn < 10; turn++) turns.push(await turnOfSession(session, messages))
    await session.save(path)
    const unsaved = [...messages]
    const expected: Turn[] = []
    for (let turn = 10; turn < TURNS; turn++) expected.push(await turnOfSession(session, unsaved))
    session.dispose()
    session = await Session.restore(server.model, path)
    for (let turn = 10; turn < TURNS; turn++) turns.push(await turnOfSession(session, messages))
    session.dispose()
    expect(turns.slice(10)).toEqual(expected)
    for (const [i, { cachedTokens, promptTokens }] of turns.entries()) {
      if (i === 0) continue
      const before = turns[i - 1]!
      expect(cachedTokens).toBeGreaterThanOrEqual(before.promptTokens + before.newTokens - MOST_LOST)
      expect(cachedTokens).toBeLessThan(promptTokens)
    }
  })
})
