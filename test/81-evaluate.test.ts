/** Evaluations: answers are scored as a session scores them, and a run that was ended goes on. */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ChoiceScorer } from '../dist/eval/choices.js'
import { evaluate } from '../dist/eval/index.js'
import { Model } from '../dist/index.js'
import { onebit } from './command.js'
import { codeOf } from './expect-code.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
let model: Model
beforeAll(async () => {
  await writeTinyModel(folder.path('tiny.obt'), { context: 128 })
  model = await Model.load(folder.path('tiny.obt'), { threads: 2 })
  const words = ['tea', 'a kettle', 'the sea', 'nothing at all', 'ümläut']
  const piqa = Array.from({ length: 37 }, (_, i) => ({
    goal: `do ${words[i % 5]} ${'again '.repeat(i % 7)}`,
    sol1: `${words[(i + 1) % 5]} ${i}`,
    sol2: `${words[(i + 2) % 5]}, ${i * i}`,
    label: i % 2,
  }))
  const lambada = Array.from({ length: 5 }, (_, i) => ({ text: `the ${words[i]} was ${words[(i + 3) % 5]}` }))
  writeFileSync(folder.path('piqa.jsonl'), piqa.map((one) => JSON.stringify(one)).join('\n'))
  writeFileSync(folder.path('lambada.jsonl'), lambada.map((one) => JSON.stringify(one)).join('\n'))
})
afterAll(async () => {
  await model.dispose()
  folder.remove()
})

const options = () => ({ data: folder.path(''), tasks: ['piqa' as const] })

describe('answers', () => {
  it('have the scores that a session gives each alone', async () => {
    const scorer = new ChoiceScorer(model)
    const questions = [
      {
        pairs: ['one', 'two two', 'three'].map((word) => ({ context: 'A question:  ', continuation: ` ${word}` })),
        gold: 0,
        lengths: [],
      },
      {
        pairs: ['Ann', 'Bea or Bo'].map((name) => ({ context: `So ${name}`, continuation: ' went.' })),
        gold: 0,
        lengths: [],
      },
      { pairs: [{ context: 'x'.repeat(200), continuation: ' y' }], gold: 0, lengths: [] },
    ]
    const scores = await scorer.score(questions)
    for (const [i, { pairs }] of questions.entries()) {
      for (const [k, { context, continuation }] of pairs.entries()) {
        const trimmed = context.trimEnd()
        const before = model.tokenizer!.encode(trimmed, { bos: false })
        const answer = model.tokenizer!.encode(context + continuation, { bos: false }).subarray(before.length)
        const ids = [...before, ...answer].slice(-(model.context - 1))
        const { logprobs, top } = await model.createSession().score(ids, { top: 1 })
        const own = [...logprobs.subarray(-answer.length)]
        expect(scores[i]![k]!.logprob).toBe(own.reduce((sum, x) => sum + x, 0))
        expect(scores[i]![k]!.greedy).toBe(answer.every((id, n) => top.at(n - answer.length)![0]!.id === id))
      }
    }
    scorer.dispose()
  })

  it('do not depend on how many are computed together', async () => {
    const all = await evaluate(model, options())
    const scorer = new ChoiceScorer(model)
    const { findQuestions } = await import('../dist/eval/data/find-questions.js')
    const { TASKS } = await import('../dist/eval/tasks/definitions.js')
    const { questions } = await findQuestions(folder.path(''), TASKS[0]!)
    for (const [i, question] of questions.entries())
      expect(await scorer.score([question])).toEqual([all.tasks[0]!.scores[i]])
    scorer.dispose()
  })

  it('that are longer than the context are an error', async () => {
    const scorer = new ChoiceScorer(model)
    const question = { pairs: [{ context: 'x', continuation: ' y'.repeat(200) }], gold: 0, lengths: [1] }
    expect(await codeOf(() => scorer.score([question]))).toBe('ERR_CONTEXT_FULL')
    scorer.dispose()
  })
})

describe('a run', () => {
  it('counts, limits, and tells how far it is', async () => {
    const told: number[] = []
    const { tasks, average } = await evaluate(model, {
      data: folder.path(''),
      tasks: ['piqa', 'lambada'],
      limit: 20,
      onQuestion: (_task, done) => told.push(done),
    })
    expect(tasks.map(({ questions }) => questions)).toEqual([20, 5])
    expect(told[0]).toBe(0)
    expect(told.at(-1)).toBe(5)
    expect(average).toBeUndefined()
    expect(Object.keys(tasks[1]!.figures)).toEqual(['acc', 'perplexity'])
    expect(tasks[1]!.figures.perplexity!.value).toBeGreaterThan(1)
  })

  it('goes on where it was ended, also in the middle of a line', async () => {
    const out = folder.path('out')
    const whole = await evaluate(model, options())
    const stop = new AbortController()
    const cut = evaluate(model, {
      ...options(),
      out,
      signal: stop.signal,
      onQuestion: (_task, done) => done >= 16 && stop.abort(),
    })
    await expect(cut).rejects.toThrow()
    const lines = readFileSync(`${out}/piqa.eval.jsonl`, 'utf8').split('\n').length - 2
    expect(lines).toBeGreaterThanOrEqual(16)
    expect(lines).toBeLessThan(37)
    appendFileSync(`${out}/piqa.eval.jsonl`, '{"question": 99, "logpr')
    const { tasks } = await evaluate(model, { ...options(), out })
    expect(tasks[0]!.computed).toBe(37 - lines)
    expect(tasks[0]!.scores).toEqual(whole.tasks[0]!.scores)
    const again = await evaluate(model, { ...options(), out })
    expect(again.tasks[0]!.computed).toBe(0)
    expect(again.tasks[0]!.figures).toEqual(whole.tasks[0]!.figures)
  })

  it('does not go on from a file of something else', async () => {
    const out = folder.path('other')
    await evaluate(model, { ...options(), out, limit: 3 })
    expect(await codeOf(() => evaluate(model, { ...options(), out, bos: true }))).toBe('ERR_EVAL_FILE')
    writeFileSync(
      `${out}/piqa.eval.jsonl`,
      readFileSync(`${out}/piqa.eval.jsonl`, 'utf8').replace('"question":1', '"question":7'),
    )
    expect(await codeOf(() => evaluate(model, { ...options(), out }))).toBe('ERR_EVAL_FILE')
  })

  it('is refused by name for wrong options', async () => {
    expect(await codeOf(() => evaluate(model, { ...options(), tasks: ['pika' as never] }))).toBe('ERR_BAD_OPTION')
    expect(await codeOf(() => evaluate(model, { ...options(), limit: 0 }))).toBe('ERR_BAD_OPTION')
    expect(await codeOf(() => evaluate(model, { tasks: ['boolq'], data: folder.path('') }))).toBe('ERR_NO_DATA')
  })
})

describe('the command', () => {
  it('prints a table of several models', async () => {
    await writeTinyModel(folder.path('other.obt'), { context: 128, kind: 'f32' })
    const models = [folder.path('tiny.obt'), folder.path('other.obt')]
    const run = onebit('eval', ...models, '--data', folder.path(''), '--tasks', 'piqa,lambada', '--limit', '4')
    expect(run.status).toBe(0)
    const [head, piqa, norm, lambada, perplexity] = run.stdout.trim().split('\n')
    expect(head).toMatch(/^task +questions +metric +tiny +other$/)
    expect(piqa).toMatch(/^piqa +4 +acc +\d+\.\d\d ± \d+\.\d\d +\d+\.\d\d ± \d+\.\d\d$/)
    expect(norm).toMatch(/^ +acc_norm +/)
    expect(lambada).toMatch(/^lambada +4 +acc +/)
    expect(perplexity).toMatch(/^ +perplexity +\d+\.\d{3} ± /)
    expect(existsSync(folder.path('out/tiny'))).toBe(false)
  })

  it('says what is missing before it computes', () => {
    const none = onebit('eval', folder.path('tiny.obt'))
    expect([none.status, none.stderr]).toEqual([1, expect.stringContaining('--data')])
    const wrong = onebit('eval', folder.path('tiny.obt'), '--tasks', 'pika')
    expect([wrong.status, wrong.stderr]).toEqual([2, expect.stringContaining('--tasks')])
  })
})
