/**
 * Sessions of a model whose layers have states, which cannot go back by themselves: from checkpoints, to the same bytes as
 * without going back. What is checked is what comes out, and how much was computed again.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Batch } from '../dist/batch/batch.js'
import { createLanes } from '../dist/bench/lanes.js'
import { ChoiceScorer } from '../dist/eval/choices.js'
import { Chat, Model, Session } from '../dist/index.js'
import { internals } from '../dist/run/model.js'
import { comparable, fromBatch, fromSession, randomNumbers } from './batch-requests.js'
import { codeOf, failure } from './expect-code.js'
import { deltaFeatures, TINY_VOCAB, temporaryFolder, writeTinyModel } from './tiny-model.js'

const CONTEXT = 900
const folder = temporaryFolder()
const path = folder.path('recurrent.obt')
let model: Model
beforeAll(async () => {
  await writeTinyModel(path, { dim: 64, layers: 2, context: CONTEXT, features: deltaFeatures([0]) })
  model = await Model.load(path, { threads: 2 })
})
afterAll(async () => {
  await model.dispose()
  folder.remove()
})

const ids = (count: number, from = 0) =>
  Int32Array.from({ length: count }, (_, i) => ((i + from) * 37 + ((i + from) % 11)) % TINY_VOCAB)
const ANSWER = { maxTokens: 12, ignoreEos: true, seed: 3, topLogprobs: 3 }

/** How a session goes on, and how a new one with the same tokens does. */
async function expectAsFresh(session: Session): Promise<void> {
  const fresh = model.createSession({ context: session.capacity })
  await fresh.append(session.tokens)
  for (const one of [session, fresh]) expect(one.position).toBe(session.position)
  const next = ids(5, session.position + 1)
  const [found, expected] = [await session.logits(next, { all: true }), await fresh.logits(next, { all: true })]
  expect(Buffer.from(found.data.buffer).equals(Buffer.from(expected.data.buffer))).toBe(true)
  expect(await session.complete(ids(3), ANSWER)).toMatchObject(
    (({ ids, text, logprobs, topLogprobs }) => ({ ids, text, ...(logprobs && { logprobs }), topLogprobs }))(
      await fresh.complete(ids(3), ANSWER),
    ),
  )
  fresh.dispose()
}

describe('a session of a recurrent model', () => {
  it('rewound to any length goes on as a new one', { timeout: 60_000 }, async () => {
    const whole = model.createSession()
    await whole.append(ids(300))
    await whole.complete(ids(40, 300), { ...ANSWER, maxTokens: 60 })
    await whole.append(ids(200, 400))
    for (let length = 0; length <= whole.position; length += 29) {
      const session = await whole.fork()
      session.rewind(length)
      expect(session.position).toBe(length)
      expect(session.tokens).toEqual(whole.tokens.subarray(0, length))
      await expectAsFresh(session)
      session.dispose()
      const fork = await whole.fork(length)
      expect(fork.position).toBe(length)
      await expectAsFresh(fork)
      fork.dispose()
    }
    whole.dispose()
  })

  it('computes again only what comes after the last checkpoint', async () => {
    const session = model.createSession()
    await session.complete(ids(100), { ...ANSWER, maxTokens: 50 })
    session.rewind(100)
    // Eight tokens before the end of the prompt the state was kept.
    await session.complete('', { ...ANSWER, maxTokens: 1 }).catch(() => {})
    expect(session.last!.usage.cachedTokens).toBe(92)
    session.dispose()
  })

  it('keeps what was pending when a call is given up before anything of it was computed', async () => {
    const session = model.createSession()
    await session.append(ids(400))
    session.rewind(390)
    const abort = new AbortController()
    const answer = session.generate(ids(400, 400), { ...ANSWER, signal: abort.signal })
    abort.abort()
    await expect(answer.next()).rejects.toThrow()
    expect(session.position).toBeGreaterThanOrEqual(390)
    expect(session.tokens.subarray(0, 390)).toEqual(ids(390))
    session.rewind(390)
    await expectAsFresh(session)
    session.dispose()
  })

  it('scores the same after going back', async () => {
    const session = model.createSession()
    await session.append(ids(90))
    const scores = []
    for (let choice = 0; choice < 4; choice++) {
      scores.push((await session.score(ids(6, 200))).logprobs)
      session.rewind(90)
    }
    for (const other of scores) expect(other).toEqual(scores[0])
    session.dispose()
  })

  it('embeds one text after another', async () => {
    const session = model.createSession()
    const first = await session.embed(ids(40))
    await session.embed(ids(60, 7))
    expect(await session.embed(ids(40))).toEqual(first)
    session.dispose()
  })
})

describe('the memory of checkpoints', () => {
  it('is limited, forks share it, and it goes with the sessions', async () => {
    const other = await Model.load(path, { threads: 1, checkpointMiB: 1 })
    const native = internals.native(other)
    const session = other.createSession()
    const state = (session.bytes - other.createSession({ context: 1 }).bytes) as number
    expect(state).toBeGreaterThan(0)
    for (let i = 0; i < 60; i++) {
      await session.append(ids(14, 14 * i))
      expect(native.checkpointBytes).toBeLessThanOrEqual(2 ** 20)
    }
    const kept = native.checkpointBytes
    expect(kept).toBeGreaterThan(0)
    const forks = await Promise.all([session.fork()])
    expect(native.checkpointBytes).toBe(kept)
    session.dispose()
    expect(native.checkpointBytes).toBe(kept)
    for (const fork of forks) fork.dispose()
    expect(native.checkpointBytes).toBe(0)
    await other.dispose()
  })

  it('can be none: then everything is computed again', async () => {
    const other = await Model.load(path, { threads: 1, checkpointMiB: 0 })
    const session = other.createSession()
    await session.append(ids(300))
    session.rewind(20)
    const { data } = await session.logits(ids(3), { all: true })
    const fresh = model.createSession()
    await fresh.append(ids(20))
    expect((await fresh.logits(ids(3), { all: true })).data).toEqual(data)
    expect(internals.native(other).checkpointBytes).toBe(0)
    fresh.dispose()
    await other.dispose()
  })

  it('is within the limit of all memory', async () => {
    const needed = model.info.weightBytes + model.createSession().bytes
    const other = await Model.load(path, { memoryLimit: needed + 40_000 })
    const session = other.createSession()
    for (let i = 0; i < 20; i++) await session.append(ids(30, 30 * i))
    expect(internals.native(other).checkpointBytes).toBeLessThanOrEqual(40_000)
    await other.dispose()
  })

  it.each([-1, 0.5, 2 ** 21])('%s MiB of it is refused', async (checkpointMiB) => {
    expect(await codeOf(() => Model.load(path, { checkpointMiB }))).toBe('ERR_BAD_OPTION')
  })
})

describe('a saved session', () => {
  const file = folder.path('a.session')

  it.each([0, 1, 17, 256, 300, 700])('of %i tokens goes on with the same bytes', async (length) => {
    const session = model.createSession()
    await session.append(ids(length))
    await session.save(file)
    const restored = await Session.restore(model, file)
    expect(restored.tokens).toEqual(session.tokens)
    await expectAsFresh(restored)
    for (const one of [session, restored]) one.dispose()
  })

  it('holds its newest checkpoints', async () => {
    const session = model.createSession()
    for (let i = 0; i < 8; i++) await session.append(ids(50, 50 * i))
    await session.save(file)
    const header = JSON.parse(
      readFileSync(file)
        .subarray(8, 8 + Number(readFileSync(file).readBigUInt64LE()))
        .toString(),
    )
    expect(header.__metadata__).toMatchObject({ version: '2', states: '242,292,342,392,400', positions: '400' })
    const restored = await Session.restore(model, file)
    restored.rewind(340)
    await restored.complete(ids(2), ANSWER)
    expect(restored.last!.usage.cachedTokens).toBe(292)
    restored.rewind(340)
    await expectAsFresh(restored)
    // The same session gives the same file.
    const again = folder.path('again.session')
    await session.save(again)
    expect(readFileSync(again).equals(readFileSync(file))).toBe(true)
    for (const one of [session, restored]) one.dispose()
  })

  it('whose states are not as they should be is refused', async () => {
    const session = model.createSession()
    await session.append(ids(60))
    await session.append(ids(60, 60))
    await session.save(file)
    session.dispose()
    const good = readFileSync(file)
    const changed = (from: string, to: string) => {
      const bytes = Buffer.from(good)
      expect(from.length).toBe(to.length)
      bytes.write(to, bytes.indexOf(from))
      writeFileSync(file, bytes)
    }
    for (const [from, to] of [
      ['"states":"52,112,120"', '"states":"52,112,121"'],
      ['"states":"52,112,120"', '"states":"112,52,120"'],
      ['"version":"2"', '"version":"1"'],
      ['"version":"2"', '"version":"3"'],
    ] as const) {
      changed(from, to)
      expect((await failure(() => Session.restore(model, file))).code).toMatch(/^ERR_(SESSION_FILE|VERSION|FILE_SIZE)$/)
    }
  })
})

describe('a batch', () => {
  it('gives what sessions of their own give, whatever it keeps', { timeout: 120_000 }, async () => {
    const random = randomNumbers(5)
    const prompts = Array.from({ length: 14 }, () => {
      const shared = ids(20 + random(3) * 90)
      return Int32Array.from([...shared, ...ids(1 + random(40), random(500))])
    })
    const options = prompts.map((_, i) => ({ maxTokens: 3 + random(40), seed: i, ignoreEos: true, temperature: 1 }))
    const alone = []
    for (const [i, prompt] of prompts.entries()) {
      alone.push(comparable(await fromSession(model, 600, prompt, options[i]!)))
    }
    for (const parallel of [1, 3, 8]) {
      for (const cacheMiB of [0, 64]) {
        const batch = new Batch(model, { parallel, cacheMiB, context: 600 })
        for (let round = 0; round < 2; round++) {
          const found = await Promise.all(prompts.map((prompt, i) => fromBatch(batch, prompt, options[i]!)))
          expect(found.map(comparable), `${parallel} ${cacheMiB} ${round}`).toEqual(alone)
        }
        if (cacheMiB > 0) expect(batch.state.cachedTokens).toBeGreaterThan(0)
        await batch.close({ graceMs: 0 })
      }
    }
  })

  it('computes the question of several answers once', async () => {
    const batch = new Batch(model, { parallel: 4, context: 600 })
    const question = ids(200)
    const answers = await Promise.all([1, 2, 3, 4].map((seed) => fromBatch(batch, question, { ...ANSWER, seed })))
    const cached = answers.map(({ summary }) => summary.usage.cachedTokens)
    expect(cached.sort((a, b) => a - b)).toEqual([0, 199, 199, 199])
    const later = await fromBatch(batch, question, { ...ANSWER, seed: 1 })
    expect(later.summary.usage.cachedTokens).toBeGreaterThan(180)
    expect(comparable(later)).toEqual(comparable(await fromSession(model, 600, question, { ...ANSWER, seed: 1 })))
    await batch.close({ graceMs: 0 })
  })

  it('scores choices as sessions do', async () => {
    const batch = new Batch(model, { parallel: 3, context: 600 })
    const question = ids(90)
    const texts = [1, 2, 3, 4, 5].map((choice) => Int32Array.from([...question, ...ids(3 + choice, 100 * choice)]))
    const found = await Promise.all(texts.map((text) => batch.score(text)))
    for (const [i, text] of texts.entries()) {
      const session = model.createSession()
      const { logprobs } = await session.score(text)
      expect(Buffer.from(found[i]!.logprobs.buffer).equals(Buffer.from(logprobs.buffer))).toBe(true)
      session.dispose()
    }
    await batch.close({ graceMs: 0 })
  })
})

describe('an evaluation', () => {
  it('scores answers as a session does each alone', async () => {
    const scorer = new ChoiceScorer(model)
    const questions = ['short', 'a question of some length, so that what it has in common is worth keeping: '].map(
      (context) => ({
        pairs: ['one', 'two two', 'three and more'].map((word) => ({ context, continuation: ` ${word}` })),
        gold: 0,
        lengths: [],
      }),
    )
    const scores = await scorer.score(questions)
    for (const [i, { pairs }] of questions.entries()) {
      for (const [k, { context, continuation }] of pairs.entries()) {
        const { tokenizer } = model
        const before = tokenizer!.encode(context.trimEnd(), { bos: false })
        const ids = tokenizer!.encode(context + continuation, { bos: false })
        const session = model.createSession()
        const { logprobs } = await session.score(ids)
        const own = [...logprobs.subarray(before.length)].reduce((sum, x) => sum + x, 0)
        expect(scores[i]![k]!.logprob).toBe(own)
        session.dispose()
      }
    }
    scorer.dispose()
  })

  it('computes again little of what was appended before what is scored', async () => {
    const session = model.createSession()
    await session.append(ids(300))
    await session.score(ids(5, 300))
    const other = model.createSession()
    const { logprobs } = await other.score(ids(305))
    session.rewind(300)
    expect((await session.score(ids(5, 300))).logprobs).toEqual(logprobs.subarray(300))
    for (const one of [session, other]) one.dispose()
  })
})

describe('a measurement at a depth', () => {
  it.each([1, 3])('goes back to it, whatever has to be computed again: %i sessions', async (n_parallel) => {
    const test = { n_parallel, n_batch: 64, n_ubatch: 64, n_depth: 50, n_prompt: 100, n_gen: 3, kv: 'f16' } as never
    const lanes = createLanes(model, test, 300)
    await lanes.prefill(50)
    await lanes.prefill(120)
    for (const depth of [50, 45]) {
      await lanes.rewind(depth)
      expect(lanes.length).toBe(depth)
      await lanes.decode(3)
    }
    lanes.dispose()
  })
})

describe('a chat', () => {
  it('lets its oldest turns go, and goes on as a new session with what is left', async () => {
    const gone: number[] = []
    const chat = new Chat(model, { system: 'SYSTEM', context: 200, onTrim: (messages) => gone.push(messages) })
    for (let turn = 0; turn < 8; turn++) {
      for await (const _ of chat.send(`message number ${turn}`, { ...ANSWER, maxTokens: 10 })) {
      }
      const { tokens } = chat.session
      const prompt = tokens.subarray(0, chat.session.last!.usage.promptTokens)
      const fresh = model.createSession({ context: 200 })
      const again = await fresh.complete(prompt, { ...ANSWER, maxTokens: 10 })
      expect(again.ids).toEqual([...tokens.subarray(prompt.length)])
      fresh.dispose()
    }
    expect(gone.length).toBeGreaterThan(0)
    chat.dispose()
  })
})
