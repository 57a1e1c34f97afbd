/** Many texts at once: each is what it would be alone, and `onebit texts` hands them over line by line. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type TextOptions, type TextOrder, TextWriter, type WrittenText } from '../dist/batch/texts.js'
import { type GenerateOptions, Model } from '../dist/index.js'
import { fromSession } from './batch-requests.js'
import { onebit, program, programWords } from './command.js'
import { codeOf } from './expect-code.js'
import { deltaFeatures, TINY_VOCAB, temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const MODEL = folder.path('tiny.obt')
const LENGTH = 40
let model: Model
beforeAll(async () => {
  await writeTinyModel(MODEL)
  model = await Model.load(MODEL, { threads: 2 })
})
afterAll(async () => {
  await model.dispose()
  folder.remove()
})

const orders = (count: number): TextOrder[] =>
  Array.from({ length: count }, (_, i) => ({ sequence: i, ids: [i % TINY_VOCAB], greedy: 3 + (i % 3), seed: 1000 + i }))

/** All texts of some orders, by their number. */
async function written(of: Model, list: readonly TextOrder[], options: TextOptions): Promise<Map<number, WrittenText>> {
  const writer = new TextWriter(of, options)
  const texts = new Map<number, WrittenText>()
  const step = async () => {
    for (const text of await writer.step()) texts.set(text.sequence, text)
  }
  try {
    for (const order of list) {
      while (writer.free === 0) await step()
      writer.begin(order)
    }
    while (writer.running > 0) await step()
  } finally {
    writer.dispose()
  }
  return texts
}

describe('TextWriter', () => {
  it('writes the same texts whatever their number at once and their order', async () => {
    const list = orders(30)
    const options = { length: LENGTH, stopTokens: [7, 100, 200] }
    const few = await written(model, list, { ...options, parallel: 3 })
    expect(few.size).toBe(30)
    expect(await written(model, list, { ...options, parallel: 30 })).toEqual(few)
    expect(await written(model, list.toReversed(), { ...options, parallel: 7 })).toEqual(few)
    const other = await written(
      model,
      list.map((order) => ({ ...order, seed: order.seed + 1 })),
      options,
    )
    expect(other).not.toEqual(few)
  })

  it('begins with the likeliest tokens, then draws as a session does', async () => {
    const chosen = async (prompt: readonly number[], options: GenerateOptions) => {
      const { pieces } = await fromSession(model, LENGTH, [...prompt], { ...options, ignoreEos: true })
      return [...prompt, ...pieces.map(({ id }) => id)]
    }
    const texts = await written(model, orders(6), { length: LENGTH, topK: 20 })
    for (const { sequence, ids, greedy, seed } of orders(6)) {
      const begun = await chosen(ids as number[], { temperature: 0, maxTokens: greedy - 1 })
      const drawing = { topK: 20, topP: 1, minP: 0, temperature: 1, seed, maxTokens: LENGTH - greedy }
      expect(texts.get(sequence)).toEqual({ sequence, ids: await chosen(begun, drawing), end: 'length' })
    }
  })

  it('ends a text at a stop token, which is left out, and not at the one that it begins with', async () => {
    const [whole] = (await written(model, orders(1), { length: LENGTH })).values()
    const stop = whole!.ids[20]!
    const at = whole!.ids.indexOf(stop, 1)
    const [cut] = (await written(model, orders(1), { length: LENGTH, stopTokens: [stop, whole!.ids[0]!] })).values()
    const found = Math.min(at, ...[whole!.ids.indexOf(whole!.ids[0]!, 1)].filter((i) => i > 0))
    expect(cut).toEqual({ sequence: 0, ids: whole!.ids.slice(0, found), end: 'stop' })
  })

  it('begins anew in a session with a recurrent state', async () => {
    const path = folder.path('delta.obt')
    await writeTinyModel(path, { kind: 'q8', features: deltaFeatures([0]) })
    const recurrent = await Model.load(path, { threads: 1 })
    try {
      const options = { length: 12 }
      const alone = await written(recurrent, orders(9), { ...options, parallel: 9 })
      expect(await written(recurrent, orders(9), { ...options, parallel: 2 })).toEqual(alone)
    } finally {
      await recurrent.dispose()
    }
  })

  it('names what is wrong with an order or an option', async () => {
    const writer = new TextWriter(model, { length: LENGTH })
    const order = orders(1)[0]!
    expect(await codeOf(() => writer.begin({ ...order, ids: [TINY_VOCAB] }))).toBe('ERR_TOKEN_RANGE')
    expect(await codeOf(() => writer.begin({ ...order, ids: [] }))).toBe('ERR_EMPTY_PROMPT')
    expect(await codeOf(() => writer.begin({ ...order, ids: Array(LENGTH).fill(1) }))).toBe('ERR_CONTEXT_FULL')
    expect(await codeOf(() => writer.begin({ ...order, seed: -1 }))).toBe('ERR_BAD_OPTION')
    expect(writer.running).toBe(0)
    for (const bad of [{ length: 1 }, { length: 257 }, { parallel: 257 }, { temperature: 0 }, { topK: -1 }]) {
      expect(await codeOf(() => new TextWriter(model, { length: LENGTH, ...bad }))).toBe('ERR_BAD_OPTION')
    }
    writer.dispose()
  })
})

describe('onebit texts', () => {
  const ARGUMENTS = ['texts', MODEL, '-n', '20', '--stop', '7,100', '-t', '1']
  const input = (list: readonly TextOrder[]) => list.map((order) => `${JSON.stringify(order)}\n`).join('')
  const parsed = (stdout: string) =>
    stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line))

  it('takes an order a line and gives a text a line, behind one about the model', async () => {
    const { status, stdout, stderr } = program('onebit', [...ARGUMENTS, '--parallel', '4'], { input: input(orders(9)) })
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    const [first, ...texts] = parsed(stdout)
    expect(first.model).toMatchObject({ vocab_size: TINY_VOCAB, context_length: 256, activations: 'int8', threads: 1 })
    const expected = await written(model, orders(9), { length: 20, stopTokens: [7, 100], parallel: 9 })
    expect(new Map(texts.map((text) => [text.sequence, text]))).toEqual(expected)
  })

  it('keeps what is finished when an order is bad', () => {
    const bad = `${input(orders(2))}\n{"sequence": 5}\n`
    const { status, stdout, stderr } = program('onebit', [...ARGUMENTS, '--parallel', '1'], { input: bad })
    expect(status).toBe(1)
    expect(stderr).toContain('ERR_ORDER')
    expect(stderr).toContain('Line 4')
    expect(parsed(stdout)).toHaveLength(3)
  })

  it('writes while orders come, and ends when they do', async () => {
    const child = spawn(programWords()[0]!, [programWords()[1]!, ...ARGUMENTS], { stdio: ['pipe', 'pipe', 'inherit'] })
    let stdout = ''
    child.stdout.on('data', (data) => {
      stdout += data
    })
    child.stdin.write(input(orders(1)))
    while (parsed(stdout).length < 2) await once(child.stdout, 'data')
    child.stdin.end(input(orders(3).slice(1)))
    const [status] = await once(child, 'close')
    expect(status).toBe(0)
    expect(parsed(stdout)).toHaveLength(4)
  })

  it('ends after an error while its input stays open', async () => {
    const child = spawn(programWords()[0]!, [programWords()[1]!, ...ARGUMENTS], { stdio: ['pipe', 'ignore', 'pipe'] })
    let stderr = ''
    child.stderr.on('data', (data) => {
      stderr += data
    })
    child.stdin.write('nonsense\n')
    const [status] = await once(child, 'close')
    expect(status).toBe(1)
    expect(stderr).toContain('ERR_ORDER')
  })

  it('says what is wrong with the command line', () => {
    expect(onebit('texts', MODEL)).toMatchObject({ status: 2, stderr: expect.stringContaining('--length') })
    expect(onebit('texts', MODEL, '-n', '20', '--stop', 'a')).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('--stop'),
    })
    expect(onebit('texts', MODEL, '-n', '300').stderr).toContain('ERR_BAD_OPTION')
  })
})
