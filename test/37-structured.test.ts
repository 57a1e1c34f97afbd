/** Answers of a given form, in the API: they are valid, deterministic, and wrong forms are errors by name. */
import { Ajv } from 'ajv'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { Chat, Model } from '../dist/index.js'
import { codeOf } from './expect-code.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
let model: Model
beforeAll(async () => {
  await writeTinyModel(folder.path('tiny.obt'), { context: 512 })
  model = await Model.load(folder.path('tiny.obt'), { threads: 2 })
})
afterAll(async () => {
  await model.dispose()
  folder.remove()
})

const person = {
  type: 'object',
  properties: {
    name: { type: 'string', maxLength: 12 },
    age: { type: 'integer', minimum: 0, maximum: 120 },
    pets: { type: 'array', items: { enum: ['cat', 'dog'] }, maxItems: 3 },
  },
  required: ['name', 'age', 'pets'],
  additionalProperties: false,
}

describe('an answer', () => {
  it('is valid by its schema, whatever is chosen', async () => {
    const valid = new Ajv().compile(person)
    for (let seed = 0; seed < 12; seed++) {
      const session = model.createSession()
      const { text, finishReason } = await session.complete('A person:', {
        schema: person,
        seed,
        temperature: 1.5,
        topK: 0,
        topP: 1,
        minP: 0,
      })
      expect(finishReason).toBe('stop')
      expect(valid(JSON.parse(text))).toBe(true)
      session.dispose()
    }
  })

  it('matches a regular expression, or a grammar', async () => {
    const session = model.createSession()
    const { text } = await session.complete('Call', { regex: '\\+\\d{2} [0-9]{3,5}', seed: 1 })
    expect(text).toMatch(/^\+\d{2} \d{3,5}$/)
    const { text: sum } = await session.complete('x', { grammar: 'root ::= n "+" n\nn ::= [1-9] [0-9]', seed: 2 })
    expect(sum).toMatch(/^[1-9]\d\+[1-9]\d$/)
    const { text: cut, finishReason } = await session.complete('x', { regex: 'a{20}', maxTokens: 5 })
    expect([cut, finishReason]).toEqual(['aaaaa', 'length'])
    session.dispose()
  })

  it('is the same when what may come is known late, and ends when that cannot be known', async () => {
    const options = { schema: person, seed: 4, maxTokens: 12 }
    const expected = await model.createSession().complete('A person:', options)
    const constrain = model.constrain.bind(model)
    let [asked, lost] = [0, Number.POSITIVE_INFINITY]
    const late = vi.spyOn(model, 'constrain').mockImplementation(async (...given) => {
      const constraint = await constrain(...given)
      return {
        // Longer than native code waits for it, every other time.
        next: async () => {
          if (++asked % 2 === 0) await new Promise((resolve) => setTimeout(resolve, 60))
          if (asked > lost) throw new Error('lost')
          return constraint.next()
        },
        accept: (id) => constraint.accept(id),
        dispose: () => constraint.dispose(),
      }
    })
    try {
      const { text, ids } = await model.createSession().complete('A person:', options)
      expect([text, ids]).toEqual([expected.text, expected.ids])
      expect(asked).toBeGreaterThanOrEqual(ids.length)
      lost = asked + 4
      const session = model.createSession()
      await expect(session.complete('A person:', options)).rejects.toThrow('lost')
      // The session is as it was after the last token.
      expect(session.position).toBe((await model.encode('A person:')).length + 4)
      await session.complete('', { maxTokens: 1 })
      const stop = AbortSignal.timeout(100)
      lost = Number.POSITIVE_INFINITY
      const aborted = model.createSession().complete('A person:', { ...options, signal: stop })
      await expect(aborted).rejects.toThrow('timeout')
    } finally {
      late.mockRestore()
    }
  })

  it('is the same with other threads, chunks and cache states', async () => {
    const options = { schema: person, seed: 7, temperature: 1.2, logprobs: true }
    const prompt = `A person ${'and another one '.repeat(8)}:`
    const expected = await model.createSession().complete(prompt, options)
    const other = await Model.load(folder.path('tiny.obt'), { threads: 1 })
    const essence = ({ ids, logprobs, text }: typeof expected) => ({ ids, logprobs, text })
    expect(essence(await other.createSession().complete(prompt, { ...options, chunk: 3 }))).toEqual(essence(expected))
    await other.dispose()
    const warm = model.createSession()
    await warm.append(prompt)
    warm.rewind(40)
    const rest = (await model.encode(prompt)).subarray(40)
    expect(essence(await warm.complete(rest, options))).toEqual(essence(expected))
  })

  it('leaves a session as any other does: it goes on, and may be left early', async () => {
    const session = model.createSession()
    for await (const _ of session.generate('x', { regex: 'a{50}' })) if (session.position > 8) break
    const before = session.position
    const { text } = await session.complete(' more', { regex: 'b{3}' })
    expect(text).toBe('bbb')
    expect(session.position).toBeGreaterThan(before)
    const stop = new AbortController()
    const cut = session.complete('x', { regex: '[ab]+', ignoreEos: true, signal: stop.signal })
    setTimeout(() => stop.abort(new Error('enough')), 20)
    await expect(cut).rejects.toThrow('enough')
    expect((await session.complete('x', { regex: 'c' })).text).toBe('c')
  })

  it('of a chat has one too', async () => {
    const chat = new Chat(model)
    let text = ''
    for await (const piece of chat.send('Who?', { schema: { enum: ['me', 'you'] }, seed: 3 })) text += piece.text
    expect(['"me"', '"you"']).toContain(text)
    expect(chat.messages.at(-1)).toEqual({ role: 'assistant', content: text })
    chat.dispose()
  })
})

describe('a wrong form', () => {
  it.each([
    [{ schema: 5 }, 'ERR_BAD_OPTION'],
    [{ json: 'yes' }, 'ERR_BAD_OPTION'],
    [{ schema: {}, regex: 'a' }, 'ERR_BAD_OPTION'],
    [{ schema: { type: 'strange' } }, 'ERR_SCHEMA'],
    [{ regex: '(((' }, 'ERR_REGEX'],
    [{ grammar: 'root ::=' }, 'ERR_GRAMMAR'],
  ])('%j is %s', async (options, code) => {
    const session = model.createSession()
    expect(await codeOf(() => session.complete('x', options as never))).toBe(code)
    expect(session.position).toBe(0)
    expect((await session.complete('x', { regex: 'a' })).text).toBe('a')
  })
})
