/** Tokens that are guessed and computed ahead: the same text, whatever was right of it. */
import { afterAll, describe, expect, it } from 'vitest'
import { type GenerateOptions, Model, type Session } from '../dist/index.js'
import { codeOf } from './expect-code.js'
import { type KindName, temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

async function tinyModel(kind: KindName, context = 512): Promise<Model> {
  const path = folder.path(`${kind}-${context}.obt`)
  await writeTinyModel(path, { kind, context })
  return Model.load(path, { threads: 2 })
}

/** Everything that a reader of the answer sees but times, and what the session holds. */
async function answer(session: Session, prompt: string, options: GenerateOptions) {
  const pieces = []
  for await (const piece of session.generate(prompt, options)) pieces.push(piece)
  const { finishReason, usage } = session.last!
  return { pieces, finishReason, usage, ids: session.tokens }
}

const REPEATED = 'one two three four five six seven, one two three four five six seven, one two three'

describe('an answer with guesses', () => {
  const cases: [string, GenerateOptions][] = [
    ['greedy', { temperature: 0 }],
    ['sampled', { seed: 3, temperature: 0.7, topLogprobs: 3 }],
    ['with penalties', { seed: 4, temperature: 0.5, repeatPenalty: 1.3, frequencyPenalty: 0.4 }],
    ['that ends with a stop string', { temperature: 0, stop: ['e', 'th', '\n'] }],
    ['in chunks of one token', { temperature: 0, chunk: 1, maxTokens: 20 }],
  ]
  for (const kind of ['sign', 'q8', 'chain', 'q1_0'] as const) {
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

  it('fills the context and goes on from what was said, like the one without', async () => {
    const model = await tinyModel('sign', 160)
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

  it('is refused what is no number of tokens', async () => {
    const model = await tinyModel('sign')
    for (const speculate of [0, 33, 1.5, 'on', true, null])
      expect(await codeOf(() => model.createSession().complete('x', { speculate: speculate as never }))).toBe(
        'ERR_BAD_OPTION',
      )
    await model.dispose()
  })
})
