/** `onebit eval`, `compare` and `perplexity` as they are typed, and an evaluation that is killed. */
import { spawn } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { compare, perplexity, perplexityOfTexts } from '../dist/eval/index.js'
import { Model } from '../dist/index.js'
import { onebit, programWords } from './command.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const [A, B] = [folder.path('a.obt'), folder.path('b.obt')]
const TEXT = Array.from({ length: 90 }, (_, i) => `word ${i * i} and more`).join(', ')
const QUESTIONS = 400
beforeAll(async () => {
  await writeTinyModel(A, { kind: 'f32', context: 256 })
  await writeTinyModel(B, { kind: 'sign', context: 256 })
  writeFileSync(folder.path('text.txt'), TEXT)
  const boolq = Array.from({ length: QUESTIONS }, (_, i) => ({
    passage: `The sea has ${i} drops. ${'So it is said. '.repeat(i % 9)}`,
    question: `does the sea have ${i} drops`,
    label: i % 2,
  }))
  writeFileSync(folder.path('boolq.jsonl'), boolq.map((one) => JSON.stringify(one)).join('\n'))
})
afterAll(() => folder.remove())

async function withModel<T>(path: string, use: (model: Model) => Promise<T>): Promise<T> {
  const model = await Model.load(path)
  try {
    return await use(model)
  } finally {
    await model.dispose()
  }
}

describe('onebit eval', () => {
  it('that is killed goes on where it was, to the same figures', async () => {
    const args = ['eval', A, '--data', folder.path(''), '--tasks', 'boolq', '--json']
    const whole = JSON.parse(onebit(...args).stdout)[0].tasks.boolq
    expect([whole.questions, whole.computed]).toEqual([QUESTIONS, QUESTIONS])
    const out = folder.path('out')
    const answers = `${out}/boolq.eval.jsonl`
    const [node, script] = programWords()
    const child = spawn(node!, [script!, ...args, '--out', out], { stdio: 'ignore' })
    const ended = new Promise((resolve) => child.on('exit', resolve))
    const lines = () => (existsSync(answers) ? readFileSync(answers, 'utf8').split('\n').length - 1 : 0)
    while (lines() < 20 && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 2))
    child.kill('SIGKILL')
    await ended
    const kept = lines() - 1
    expect(kept).toBeGreaterThanOrEqual(19)
    const rest = JSON.parse(onebit(...args, '--out', out).stdout)[0].tasks.boolq
    expect(rest.computed).toBe(QUESTIONS - kept)
    expect(rest.acc).toEqual(whole.acc)
  })
})

describe('onebit compare', () => {
  it('says in words and in JSON what compare() says', async () => {
    const args = ['compare', A, B, '--file', folder.path('text.txt'), '--ctx', '64']
    const { klMean, sameTop, ratio, positions } = JSON.parse(onebit(...args, '--json').stdout)
    const own = await withModel(A, (a) => withModel(B, (b) => compare(a, b, TEXT, { ctx: 64 })))
    expect({ klMean, sameTop, ratio, positions }).toEqual({
      klMean: own.klMean,
      sameTop: own.sameTop,
      ratio: own.ratio,
      positions: own.positions,
    })
    const { status, stdout } = onebit(...args)
    expect(status).toBe(0)
    expect(stdout).toContain(`KL divergence         mean ${Number(klMean.toPrecision(3))} ±`)
    expect(stdout).toContain(`same likeliest token  ${(100 * sameTop).toFixed(2)} %`)
    expect(stdout).toContain(`= ${ratio.toFixed(4)} ± `)
  })

  it('compares a model with itself under other options', () => {
    const args = ['compare', B, B, '--file', folder.path('text.txt'), '--ctx', '64', '--json']
    expect(JSON.parse(onebit(...args).stdout).klMax).toBe(0)
    const other = JSON.parse(onebit(...args, '--activations', 'f32', '--b-activations', 'int8').stdout)
    expect(other.klMean).toBeGreaterThan(0)
    expect(other.klMean).toBeLessThan(0.1)
  })

  it('says what is missing', () => {
    expect(onebit('compare', A, B).stderr).toContain('--file')
    expect(onebit('compare', A, '--file', 'x').status).toBe(2)
    expect(onebit('compare', A, B, '--file', folder.path('none.txt')).stderr).toContain('ERR_READ')
    expect(onebit('compare', A, B, '--file', folder.path('text.txt'), '--b-kv', 'f64').stderr).toContain('--b-kv')
  })
})

describe('onebit perplexity', () => {
  it('prints a line for every block', async () => {
    const { stdout } = onebit('perplexity', A, folder.path('text.txt'), '--ctx', '128', '--each')
    const lines = stdout.trim().split('\n')
    const { chunkNlls, perplexity: whole } = await withModel(A, async (model) =>
      perplexity(model, await model.encode(TEXT), { ctx: 128 }),
    )
    const soFar = chunkNlls.map((_, i) => {
      const sum = chunkNlls.slice(0, i + 1).reduce((total, nll) => total + nll, 0)
      return `${i + 1}\t${Math.exp(sum / (i + 1)).toFixed(4)}`
    })
    expect(lines).toEqual([...soFar, `perplexity ${whole.toFixed(4)}`])
  })

  it('draws windows of records with texts, as C4 has them', async () => {
    const texts = Array.from({ length: 30 }, (_, i) => TEXT.slice(i, i + 60 + 40 * (i % 5)))
    const lines = texts.map((text) => JSON.stringify({ text, url: 'https://example.org' })).join('\n')
    const file = folder.path('c4-validation.00000-of-00008.json.gz')
    writeFileSync(file, gzipSync(lines))
    const args = ['perplexity', A, file, '--ctx', '50', '--chunks', '8', '--seed', '3', '--json']
    const { nll, chunks } = JSON.parse(onebit(...args).stdout)
    const options = { ctx: 50, chunks: 8, seed: 3 }
    expect({ nll, chunks }).toEqual({ nll: (await own(texts, options)).nll, chunks: 8 })
    writeFileSync(folder.path('other.jsonl'), '{"body": "no text"}')
    expect(onebit('perplexity', A, folder.path('other.jsonl')).stderr).toMatch(
      /line 1: there is no text.*ERR_DATA_FILE/,
    )
  })

  const own = (texts: string[], options: { ctx: number; chunks: number; seed: number }) =>
    withModel(A, (model) => perplexityOfTexts(model, texts, options))
})
