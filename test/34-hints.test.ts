/** Errors about memory and context name the option that helps, as programs and as command lines know it. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Chat, Model } from '../dist/index.js'
import { NATIVE_HINTS } from '../dist/native/hints.js'
import { onebit } from './command.js'
import { failure } from './expect-code.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const MODEL = folder.path('tiny.obt')
beforeAll(() => writeTinyModel(MODEL))
afterAll(() => folder.remove())

const BOTH_NAMES = /(?=.*`context`)(?=.* -c )/

test('found by native code', () => {
  for (const code of ['ERR_OUT_OF_MEMORY', 'ERR_MEMORY_LIMIT', 'ERR_CONTEXT_FULL']) {
    expect([code, NATIVE_HINTS[code]]).toEqual([code, expect.stringMatching(BOTH_NAMES)])
  }
})

test('of a session that does not fit beside the weights', async () => {
  await using loaded = await Model.load(MODEL)
  const { info } = loaded
  const model = await Model.load(MODEL, { memoryLimit: Math.max(info.weightBytes, info.fileBytes) })
  const { code, hint } = await failure(async () => {
    const session = model.createSession()
    await session.logits(Array(256).fill(1))
  })
  expect([code, hint]).toEqual(['ERR_MEMORY_LIMIT', expect.stringMatching(BOTH_NAMES)])
  expect(hint).toContain('`memoryLimit`')
  await model.dispose()
})

test('of a prompt, a message and a command that are too long', async () => {
  const model = await Model.load(MODEL, { context: 96 })
  const long = 'x'.repeat(300)
  const errors = [
    await failure(() => model.createSession().complete(long)),
    await failure(() => new Chat(model).send(long).next()),
  ]
  for (const { code, hint } of errors) {
    expect([code, hint]).toEqual(['ERR_CONTEXT_FULL', expect.stringMatching(BOTH_NAMES)])
  }
  await model.dispose()
  expect(onebit('run', MODEL, '-c', '96', '-p', long).stderr).toMatch(BOTH_NAMES)
})
