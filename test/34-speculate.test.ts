/** Tokens that are guessed and computed ahead: the same text, whatever was right of it. */
import { afterAll, describe, expect, it } from 'vitest'
import { type GenerateOptions, Model, type Session } from '../dist/index.js'
import { codeOf } from './expect-code.js'
import { deltaFeatures, type KindName, temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

/** `states`: its second layer has a state, which goes back to where a step began and not to where a guess was wrong. */
type Made = KindName | 'states'

async function written(kind: Made, context = 512): Promise<string> {
  const path = folder.path(`${kind}-${context}.obt`)
  await writeTinyModel(path, kind === 'states' ? { context, features: deltaFeatures([1]) } : { kind, context })
  return path
}

async function tinyModel(kind: Made, context = 512): Promise<Model> {
  return Model.load(await written(kind, context), { threads: 2 })
}

/** Everything that a reader of the answer sees but times, and what the session holds. */
async function answer(session: Session, prompt: string, options: GenerateOptions) {
  const pieces = []
  for await (const piece of session.generate(prompt, options)) pieces.push(piece)
  const { finishReason, usage } = session.last!
  return { pieces, finishReason, usage, ids: session.tokens }
}

const REPEATED = 'one two three four five six seven, one two three four five six seven, one two three'

const CASES: [string, GenerateOptions][] = [
  ['greedy', { temperature: 0 }],
  ['sampled', { seed: 3, temperature: 0.7, topLogprobs: 3 }],
  ['with penalties', { seed: 4, temperature: 0.5, repeatPenalty: 1.3, frequencyPenalty: 0.4 }],
  ['that ends with a stop string', { temperature: 0, stop: ['e', 'th', '\n'] }],
]

describe('an answer with guesses', () => {
  const cases: typeof CASES = [...CASES, ['in chunks of one token', { temperature: 0, chunk: 1, maxTokens: 20 }]]
  for (const kind of ['sign', 'q8', 'chain', 'q1_0', 'states'] as const) {
    it.each(cases)(`of a ${kind} model, %s, is the one without`, async (_, options) => {
      const model = await tinyModel(kind)
      for (const maxTokens of [1, 2, 5, 90]) {
        const given = { maxTokens, ignoreEos: true, ...options }
        const wanted = await answer(model.createSession(), REPEATED, { ...given, speculate: 'off' })
        for (const speculate of ['auto', 1, 7, 32] as const) {
          expect(await answer(model.createSession(), REPEATED, { ...given, speculate }), `${speculate}`).toEqual(wanted)
        }
      }
      await model.dispose()
    })
  }

  it.each(['sign', 'states'] as const)('of %s fills the context and goes on from what was said', async (kind) => {
    const model = await tinyModel(kind, 160)
    const answers = []
    for (const speculate of ['off', 9] as const) {
      const session = model.createSession({ kv: 'int8' })
      const first = await answer(session, REPEATED, { temperature: 0, maxTokens: 12, speculate })
      const left: string[] = []
      for await (const { text } of session.generate(' one two three', { temperature: 0, speculate })) {
        left.push(text)
        if (left.length === 4) break
      }
      const last = await answer(session, ' six', { temperature: 0, ignoreEos: true, speculate })
      answers.push({ first, left, last })
      expect(last.finishReason).toBe('context')
    }
    expect(answers[1]).toEqual(answers[0])
    await model.dispose()
  })

  it('stays on the timeline when what comes behind it is stopped, also where its end is computed once more', async () => {
    const model = await tinyModel('states')
    const given = { temperature: 0.9, seed: 5, speculate: 8 as const }
    const { ids } = await model.createSession().complete(REPEATED, { ...given, maxTokens: 40 })
    for (const id of new Set(ids)) {
      const session = model.createSession()
      await session.complete(REPEATED, { ...given, stopTokens: [id] }) // which may be where a guess was wrong
      const said = [...session.tokens]
      const stop = new AbortController()
      const stopped = session.append(new Array(30).fill(65), { signal: stop.signal })
      stop.abort()
      await expect(stopped).rejects.toThrow()
      expect([...session.tokens].slice(0, said.length - 1)).toEqual(said.slice(0, -1))
    }
    await model.dispose()
  })

  it('is refused what is no number of tokens', async () => {
    const model = await tinyModel('sign')
    for (const speculate of [0, 33, 1.5, 'on', true, null])
      expect(await codeOf(() => model.createSession().complete('x', { speculate: speculate as never }))).toBe(
        'ERR_BAD_OPTION',
      )
    await model.dispose()
  })
})

/** A model, and another one that guesses for it. */
async function withDraft(kind: Made, draft: string): Promise<Model> {
  return Model.load(await written(kind), { threads: 2, draft })
}

const SAID_ONCE = 'The quick brown fox jumps over the lazy dog'

describe('a small model beside it', () => {
  it.each(CASES)('guesses right or wrong, and the answer %s is the one without', async (_, options) => {
    // itself, all of whose guesses are right where the likeliest is taken; another; and one whose context is full half way
    const drafts = [await written('sign'), await written('q8'), await written('chain', 70)]
    for (const [kind, draft] of [...drafts.map((draft) => ['sign', draft] as const), ['states', drafts[0]!] as const]) {
      const wanting = await tinyModel(kind)
      const model = await withDraft(kind, draft)
      expect(model.draft!.info.path).toBe(draft)
      for (const prompt of [SAID_ONCE, REPEATED]) {
        for (const maxTokens of [1, 2, 60]) {
          const given = { maxTokens, ignoreEos: true, ...options }
          const wanted = await answer(wanting.createSession(), prompt, { ...given, speculate: 'off' })
          for (const speculate of ['auto', 1, 5, 32] as const) {
            expect(await answer(model.createSession(), prompt, { ...given, speculate }), `${speculate}`).toEqual(wanted)
          }
        }
      }
      await model.dispose()
      await wanting.dispose()
    }
  })

  it.each(['sign', 'states'] as const)(
    'goes along when a session of %s goes on, back, or another way',
    async (kind) => {
      const model = await withDraft(kind, await written('sign'))
      const answers = []
      for (const speculate of ['off', 6] as const) {
        const session = model.createSession()
        const given = { temperature: 0, maxTokens: 14, ignoreEos: true, speculate }
        const first = await answer(session, SAID_ONCE, given)
        const left: string[] = []
        for await (const { text } of session.generate(' and', { ...given, maxTokens: 60 })) {
          left.push(text)
          if (left.length === 3) break // what was computed ahead is forgotten on both sides
        }
        const fork = await session.fork()
        session.rewind(5)
        const back = await answer(session, ' cat', given)
        const other = await answer(fork, ' then', given)
        const off = await answer(session, ' or', { ...given, speculate: 'off' })
        const last = await answer(session, ' not', given)
        answers.push({ first, left, back, other, off, last })
        session.dispose()
        fork.dispose()
      }
      expect(answers[1]).toEqual(answers[0])
      await model.dispose()
    },
  )

  it('may be gone, or be asked for in the middle of something that is stopped', async () => {
    const model = await withDraft('sign', await written('sign'))
    const given = { temperature: 0, maxTokens: 30, ignoreEos: true, speculate: 8 }
    const wanted = await answer(model.createSession(), SAID_ONCE, { ...given, speculate: 'off' })
    const session = model.createSession()
    const stop = new AbortController()
    const pieces = session.generate(SAID_ONCE, { ...given, signal: stop.signal })
    await pieces.next()
    stop.abort()
    await expect(pieces.next()).rejects.toThrow()
    session.rewind(0)
    expect(await answer(session, SAID_ONCE, given)).toEqual(wanted)
    const running = session.generate(' more', { ...given, maxTokens: 200 })
    await running.next()
    await model.draft!.dispose()
    const texts: string[] = []
    for await (const { text } of running) texts.push(text)
    expect(texts.length).toBeGreaterThan(100)
    expect(await answer(model.createSession(), SAID_ONCE, given)).toEqual(wanted)
    await model.dispose()
    expect(model.draft!.disposed).toBe(true)
  })

  it('is refused where it means other tokens, or cannot go back', async () => {
    const load = (draft: string, model = 'sign-512') => codeOf(() => Model.load(folder.path(`${model}.obt`), { draft }))
    await written('sign')
    for (const name of ['one', 'two']) await writeTinyModel(folder.path(`${name}.obt`), { special: [`<|${name}|>`] })
    expect(await load(await written('states'))).toBe('ERR_DRAFT')
    expect(await load(folder.path('one.obt'))).toBe('ERR_DRAFT') // one token more
    expect(await load(folder.path('one.obt'), 'two')).toBe('ERR_DRAFT') // as many, one of another name
    await (await Model.load(folder.path('one.obt'), { draft: folder.path('one.obt') })).dispose()
    expect(await load(folder.path('nothing.obt'))).toBe('ERR_FILE_NOT_FOUND')
    expect(await codeOf(() => Model.load(folder.path('sign-512.obt'), { draft: 3 as never }))).toBe('ERR_BAD_OPTION')
  })
})
