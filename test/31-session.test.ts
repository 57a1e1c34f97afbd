/** What a session computes: the same whatever way it got there. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ChatMessage, Model, type Piece, type Session } from '../dist/index.js'
import { addon } from '../dist/native/addon.js'
import { internals } from '../dist/run/model.js'
import { checkSampling, nativeSampling } from '../dist/run/sampler.js'
import { TINY_VOCAB, temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
let model: Model
beforeAll(async () => {
  await writeTinyModel(folder.path('tiny.obt'), {})
  model = await Model.load(folder.path('tiny.obt'), { threads: 2 })
})
afterAll(async () => {
  await model.dispose()
  folder.remove()
})

const bytes = (data: Float32Array) => Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64')
const ids = (count: number, seed = 7) => Int32Array.from({ length: count }, (_, i) => (i * 31 + seed) % 256)
const BOS = 256

async function pieces(session: Session, prompt: string | Int32Array, options = {}): Promise<Piece[]> {
  const all: Piece[] = []
  for await (const piece of session.generate(prompt, options)) all.push(piece)
  return all
}

describe('logits', () => {
  it('are the same bytes for every chunk size', async () => {
    const expected = await model.createSession().logits(ids(150), { all: true })
    for (const chunk of [1, 7, 64, 256]) {
      const got = await model.createSession().logits(ids(150), { all: true, chunk })
      expect(bytes(got.data)).toBe(bytes(expected.data))
    }
  })

  it('differ a little with an int8 cache, and the same way however it was filled', async () => {
    const exact = await model.createSession({ kv: 'f32' }).logits(ids(60))
    const session = model.createSession({ kv: 'int8' })
    const rounded = await session.logits(ids(60))
    const difference = Math.max(...exact.data.map((x, i) => Math.abs(x - (rounded.data[i] as number))))
    expect(difference).toBeGreaterThan(0)
    expect(difference).toBeLessThan(0.05 * Math.max(...exact.data.map(Math.abs)))
    session.rewind(5)
    const fork = await session.fork()
    expect(bytes((await fork.logits(ids(60).subarray(5), { chunk: 7 })).data)).toBe(bytes(rounded.data))
  })

  it('are the same bytes fresh, continued, rewound and forked', async () => {
    const fresh = await model.createSession().logits(ids(60))
    const continued = model.createSession()
    await continued.append(ids(60).subarray(0, 41))
    expect(bytes((await continued.logits(ids(60).subarray(41))).data)).toBe(bytes(fresh.data))

    const rewound = model.createSession()
    await rewound.append(ids(41))
    await rewound.append(ids(80, 99))
    rewound.rewind(41)
    expect(rewound.position).toBe(41)
    expect(bytes((await rewound.logits(ids(60).subarray(41))).data)).toBe(bytes(fresh.data))

    const parent = model.createSession()
    await parent.append(ids(60))
    const [child, whole] = [await parent.fork(30), await parent.fork()]
    await parent.append(ids(20, 3))
    expect(bytes((await child.logits(ids(60).subarray(30))).data)).toBe(bytes(fresh.data))
    expect(bytes((await whole.logits([])).data)).toBe(bytes(fresh.data))
    expect([...whole.tokens]).toEqual([...ids(60)])
  })

  it('of all positions end with those of the last', async () => {
    const all = await model.createSession().logits(ids(9), { all: true })
    const last = await model.createSession().logits(ids(9))
    expect(bytes(all.data.slice(8 * TINY_VOCAB))).toBe(bytes(last.data))
  })
})

describe('scores', () => {
  it('are the log-softmax of the logits, with the likeliest tokens', async () => {
    const { data } = await model.createSession().logits(ids(20), { all: true })
    const { logprobs, top } = await model.createSession().score(ids(20), { top: 3 })
    expect(logprobs[0]).toBeNaN()
    expect(top[0]).toEqual([])
    for (let i = 1; i < 20; i++) {
      const row = data.subarray((i - 1) * TINY_VOCAB, i * TINY_VOCAB)
      const max = Math.max(...row)
      const total = max + Math.log(row.reduce((sum, x) => sum + Math.exp(x - max), 0))
      expect(logprobs[i]).toBeCloseTo(row[ids(20)[i]!]! - total, 4)
      const order = [...row.keys()].sort((a, b) => row[b]! - row[a]! || a - b)
      expect(top[i]!.map(({ id }) => id)).toEqual(order.slice(0, 3))
      expect(top[i]![0]!.logprob).toBeCloseTo(row[order[0]!]! - total, 4)
    }
  })

  it('do not depend on where the text is cut', async () => {
    const whole = await model.createSession().score(ids(50))
    const parts = model.createSession()
    await parts.append(ids(10))
    const first = await parts.score(ids(50).subarray(10, 11))
    const rest = await parts.score(ids(50).subarray(11))
    expect([...first.logprobs, ...rest.logprobs]).toEqual([...whole.logprobs.subarray(10)])
    expect(parts.position).toBe(50)
  })

  it('are the bits that a generation reports', async () => {
    const session = model.createSession()
    const options = { maxTokens: 8, ignoreEos: true, topLogprobs: 4, temperature: 0 }
    const generated = await pieces(session, ids(5), options)
    const answer = generated.map(({ id }) => id)
    const other = model.createSession()
    await other.append(ids(5))
    const { logprobs, top } = await other.score(answer, { top: 4 })
    expect(generated.map(({ logprob }) => logprob)).toEqual([...logprobs])
    expect(generated.map(({ topLogprobs }) => topLogprobs)).toEqual(top)
  })
})

describe('generation', () => {
  it('continues where the last one ended', async () => {
    const options = { ignoreEos: true, temperature: 0 }
    const whole = await model.createSession().complete(ids(5), { ...options, maxTokens: 20 })
    const session = model.createSession()
    const first = await session.complete(ids(5), { ...options, maxTokens: 8 })
    const second = await session.complete([], { ...options, maxTokens: 12 })
    expect([...first.ids, ...second.ids]).toEqual(whole.ids)
    expect([...session.tokens]).toEqual([...ids(5), ...whole.ids])
    expect(session.last).toMatchObject({ finishReason: 'length', usage: { promptTokens: 13, newTokens: 12 } })
  })

  it('is the same with a seed, whatever the chunks and threads', async () => {
    const options = { seed: 5, temperature: 1.5, maxTokens: 30, ignoreEos: true }
    const { text, ids: expected } = await model.createSession().complete('once', options)
    for (const chunk of [1, 7]) {
      const other = await model.createSession().complete('once', { ...options, chunk })
      expect([other.text, other.ids]).toEqual([text, expected])
    }
    const different = await model.createSession().complete('once', { ...options, seed: 6 })
    expect(different.ids).not.toEqual(expected)
  })

  it('puts BOS in front of a text only where a text begins', async () => {
    const session = model.createSession()
    await session.append('ab')
    await session.append('c')
    expect([...session.tokens]).toEqual([BOS, 97, 98, 99])
  })

  it('parses special tokens of a raw text', async () => {
    expect([...(await model.encode('<|im_start|>a'))]).toEqual([BOS, 257, 97])
  })

  it('stops at a stop token, a stop string, maxTokens and the end of the context', async () => {
    const options = { temperature: 0, ignoreEos: true }
    const free = await model.createSession().complete(ids(5), { ...options, maxTokens: 12 })
    const stopId = free.ids[6]!
    const before = free.ids.indexOf(stopId)
    const byToken = await model.createSession().complete(ids(5), { ...options, stopTokens: [stopId] })
    expect([byToken.finishReason, byToken.ids]).toEqual(['stop', free.ids.slice(0, before)])

    const stop = free.text.slice(3, 5)
    const byText = await model.createSession().complete(ids(5), { ...options, stop, maxTokens: 12 })
    expect([byText.finishReason, byText.text]).toEqual(['stop', free.text.slice(0, free.text.indexOf(stop))])

    // A special token gives no text: its name as a stop string stops at the token.
    const bias = { [model.tokenizer!.tokenToId('<|im_start|>')!]: 100 }
    const named = { ...options, ignoreEos: true, logitBias: bias, maxTokens: 4 }
    const unstopped = await model.createSession().complete(ids(5), named)
    expect([unstopped.finishReason, unstopped.text, unstopped.ids.length]).toEqual(['length', '', 4])
    const byName = await model.createSession().complete(ids(5), { ...named, stop: ['nothing', '<|im_start|>'] })
    expect([byName.finishReason, byName.ids]).toEqual(['stop', []])

    const small = model.createSession({ context: 10 })
    const byContext = await small.complete(ids(5), options)
    expect([byContext.finishReason, byContext.ids]).toEqual(['context', free.ids.slice(0, 6)])
    expect(small.position).toBe(10)
    expect((await model.createSession().complete(ids(5), { maxTokens: 0 })).finishReason).toBe('length')
  })

  it('hands out only what a prompt leaves room for, and says so with numbers', async () => {
    const session = model.createSession({ context: 10 })
    await session.append(ids(4))
    await expect(session.complete(ids(7))).rejects.toMatchObject({
      code: 'ERR_CONTEXT_FULL',
      message: expect.stringMatching(/7 tokens after the 4 .* 10/),
    })
    expect(session.position).toBe(4)
    await session.append(ids(6))
    expect(session.position).toBe(10)
  })

  it('needs something to start from', async () => {
    await expect(model.createSession().complete([])).rejects.toMatchObject({ code: 'ERR_EMPTY_PROMPT' })
    expect((await model.createSession().complete('', { maxTokens: 1, ignoreEos: true })).usage.promptTokens).toBe(1)
  })

  it('runs a little ahead of a slow consumer, who sees nothing of it', async () => {
    const options = { ignoreEos: true, temperature: 0, maxTokens: 60 }
    const whole = await model.createSession().complete(ids(5), options)
    const session = model.createSession()
    const taken: number[] = []
    for await (const { id } of session.generate(ids(5), options)) {
      taken.push(id)
      const handedOut = session.position
      if (taken.length % 7 === 0) await new Promise((resolve) => setTimeout(resolve, 10))
      expect(session.position).toBe(handedOut)
      expect([...session.tokens]).toEqual([...ids(5), ...taken])
    }
    expect(taken).toEqual(whole.ids)
  })

  it('computes at most 20 ms, and never more than 49 tokens, ahead of its consumer', async () => {
    const native = internals.native(model).createSession(256, 0)
    const sampling = nativeSampling(checkSampling({ temperature: 0 }, TINY_VOCAB), ids(1))
    const sampler = new (addon().Sampler)(sampling)
    const item = { session: native, sampler, most: 200, top: 0, stop_tokens: new Int32Array(0) }
    let told: number[] = []
    const onToken = (id: number) => void told.push(id)
    const generate = (tokens: Int32Array) =>
      addon().generate(internals.native(model), { ...item, tokens }, { chunk: 0, onToken })
    const { behind, steps } = await generate(ids(3))
    const ahead = told.length
    expect({ behind, steps }).toEqual({ behind: true, steps: ahead }) // nothing is guessed
    expect(ahead).toBeGreaterThanOrEqual(1) // one, when others had the processor for 20 ms
    expect(ahead).toBeLessThanOrEqual(49)
    expect(native.length).toBe(3 + ahead - 1) // the last one chosen is not computed
    for (const _ of told) sampler.took()
    const tokens = Int32Array.of(told.at(-1)!)
    told = []
    expect((await generate(tokens)).behind).toBe(true)
    expect(told.length).toBeLessThanOrEqual(49)
    native.dispose()
  })

  it('may be left early and leaves a usable session', async () => {
    const options = { maxTokens: 20, ignoreEos: true, temperature: 0 }
    const whole = await model.createSession().complete(ids(5), options)
    const session = model.createSession()
    const taken: number[] = []
    for await (const piece of session.generate(ids(5), options)) {
      taken.push(piece.id)
      if (taken.length === 4) break
    }
    expect(session.busy).toBe(false)
    expect([...session.tokens]).toEqual([...ids(5), ...whole.ids.slice(0, 4)])
    expect(session.last?.finishReason).toBe('abort')
    expect((await session.complete([], { ...options, maxTokens: 16 })).ids).toEqual(whole.ids.slice(4))
  })

  it('applies penalties and bias before the shortlist', async () => {
    const free = await model.createSession().complete(ids(5), { maxTokens: 1, temperature: 0, ignoreEos: true })
    const banned = { [free.ids[0]!]: -1000 }
    const other = await model.createSession().complete(ids(5), { maxTokens: 1, temperature: 0, logitBias: banned })
    expect(other.ids).not.toEqual(free.ids)
    const forced = await model
      .createSession()
      .complete(ids(5), { maxTokens: 4, temperature: 0, logitBias: { 65: 1000 } })
    expect(forced.text).toBe('AAAA')
    const options = { maxTokens: 4, temperature: 0, logitBias: { 65: 500, 66: 450 } }
    const punished = async (penalty: object) =>
      (await model.createSession().complete(ids(5), { ...options, ...penalty })).text
    expect(await punished({ presencePenalty: 100 })).toBe('ABAA')
    expect(await punished({ frequencyPenalty: 100 })).toBe('ABAB')
    expect(await punished({ repeatPenalty: 100 })).toBe('AAAA') // the bias comes after the penalties
  })

  it('never splits a character', async () => {
    const session = model.createSession()
    const all = await pieces(session, ids(5), { maxTokens: 60, seed: 3, temperature: 2, ignoreEos: true })
    const whole = new TextDecoder().decode(
      Uint8Array.from(
        all.filter(({ id }) => id < 256),
        ({ id }) => id,
      ),
    )
    expect(all.map(({ text }) => text).join('')).toBe(whole)
    for (const { text } of all) expect(text).not.toMatch(/\p{Cs}/u)
  })
})

describe('a chat', () => {
  it('computes only what the cache does not hold', async () => {
    const session = model.createSession()
    const messages: ChatMessage[] = [{ role: 'user', content: 'hello there' }]
    const first = await session.complete(messages, { maxTokens: 5, ignoreEos: true, temperature: 0 })
    expect(first.usage.cachedTokens).toBe(0)
    const again = await session.complete(messages, { maxTokens: 5, ignoreEos: true, temperature: 0 })
    expect(again.ids).toEqual(first.ids)
    expect(again.usage).toMatchObject({
      promptTokens: first.usage.promptTokens,
      cachedTokens: first.usage.promptTokens - 1,
    })
    const longer = [...messages, { role: 'assistant', content: 'well' }, { role: 'user', content: 'so?' }]
    const reused = await session.complete(longer, { maxTokens: 5, ignoreEos: true, temperature: 0 })
    expect(reused.usage.cachedTokens).toBeGreaterThanOrEqual(first.usage.promptTokens)
    const fresh = await model.createSession().complete(longer, { maxTokens: 5, ignoreEos: true, temperature: 0 })
    expect(reused.ids).toEqual(fresh.ids)
  })
})

describe('several sessions at once', () => {
  it('give what each gives alone', async () => {
    const options = (seed: number) => ({ seed, temperature: 1, maxTokens: 25, ignoreEos: true })
    const alone: number[][] = []
    for (let i = 0; i < 6; i++) alone.push((await model.createSession().complete(ids(5 + 9 * i), options(i))).ids)
    const together = await Promise.all(alone.map((_, i) => model.createSession().complete(ids(5 + 9 * i), options(i))))
    expect(together.map((completion) => completion.ids)).toEqual(alone)
  })
})
