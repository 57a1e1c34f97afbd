/** The tasks ask, to the letter, what lm-evaluation-harness asks (test/fixtures/eval.json holds what it said). */
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import { afterAll, describe, expect, it } from 'vitest'
import { findQuestions } from '../dist/eval/data/find-questions.js'
import { figuresOf } from '../dist/eval/metrics.js'
import { TASKS } from '../dist/eval/tasks/definitions.js'
import type { Question, TaskRecord } from '../dist/eval/tasks/task.js'
import { dataFile, missing, PROJECT, readJson } from './data.js'
import { failure } from './expect-code.js'
import { temporaryFolder } from './tiny-model.js'

interface Asked {
  record: TaskRecord
  pairs: Question['pairs']
  scores: number[]
  metrics: Record<string, number>
}

const fixture = readJson<{ tasks: Record<string, Asked[]> }>(`${PROJECT}/test/fixtures/eval.json`)
const taskNamed = (name: string) => TASKS.find((task) => task.name === name)!
const folder = temporaryFolder()
afterAll(() => folder.remove())

describe('questions as the harness asks them', () => {
  for (const [name, asked] of Object.entries(fixture.tasks)) {
    it.each(asked)(`${name} %#`, ({ record, pairs, scores, metrics }) => {
      const task = taskNamed(name)
      const question = task.question(record)
      expect(question.pairs).toEqual(pairs)
      const answers = scores.map((logprob, i) => ({ logprob, greedy: i % 2 === 0 }))
      const figures = figuresOf(task, [question], [answers])
      // Of one question: right or wrong, which shows the right answer, and what acc_norm divides by.
      if (metrics.acc !== undefined) expect(figures.acc!.value).toBe(metrics.acc)
      if (task.metrics.includes('acc_norm')) expect(figures.acc_norm!.value).toBe(metrics.acc_norm)
      if (task.metrics.includes('perplexity'))
        expect(Math.log(figures.perplexity!.value)).toBeCloseTo(-metrics.perplexity!)
    })
  }

  it('has a question of every task', () => {
    expect(Object.keys(fixture.tasks)).toEqual(TASKS.map(({ name }) => name))
  })
})

describe('standard errors', () => {
  it('are those of a mean, with n - 1', () => {
    const question = { pairs: [], gold: 0, lengths: [1, 1] }
    const right = [
      { logprob: -1, greedy: false },
      { logprob: -2, greedy: false },
    ]
    const wrong = [...right].reverse()
    const { acc } = figuresOf(
      taskNamed('winogrande'),
      [question, question, question, question],
      [right, right, right, wrong],
    )
    expect(acc!.value).toBe(0.75)
    expect(acc!.stderr).toBeCloseTo(Math.sqrt((3 * 0.0625 + 0.5625) / 3 / 4), 12)
  })
})

describe('files', () => {
  const records = (name: string) => fixture.tasks[name]!.map(({ record }) => record)
  const lines = (name: string) =>
    `${records(name)
      .map((record) => JSON.stringify(record))
      .join('\n')}\n`

  it('may be JSONL, JSON, packed, and in folders as the hub has them', async () => {
    mkdirSync(folder.path('boolq'))
    writeFileSync(folder.path('piqa-validation.jsonl'), lines('piqa'))
    writeFileSync(folder.path('hellaswag_val.jsonl.gz'), gzipSync(lines('hellaswag')))
    writeFileSync(folder.path('boolq/validation.json'), JSON.stringify(records('boolq')))
    writeFileSync(folder.path('boolq/train.json'), 'not read')
    writeFileSync(folder.path('arc-easy-test.jsonl'), lines('arc_easy'))
    writeFileSync(folder.path('arc-easy-validation.jsonl'), 'not the split that is asked')
    for (const name of ['piqa', 'hellaswag', 'boolq', 'arc_easy']) {
      const { questions, files } = await findQuestions(folder.path(''), taskNamed(name))
      expect(questions.map(({ pairs }) => pairs)).toEqual(fixture.tasks[name]!.map(({ pairs }) => pairs))
      expect(files).toHaveLength(1)
    }
  })

  it('may be links, and in a folder that alone says what they are', async () => {
    const snapshot = folder.path('hub-cache/datasets--baber--piqa/snapshots/0123')
    mkdirSync(snapshot, { recursive: true })
    writeFileSync(folder.path('blob'), lines('piqa'))
    symlinkSync(folder.path('blob'), `${snapshot}/validation.jsonl`)
    for (const data of [folder.path('hub-cache'), folder.path('hub-cache/datasets--baber--piqa')]) {
      const { questions } = await findQuestions(data, taskNamed('piqa'))
      expect(questions.map(({ pairs }) => pairs)).toEqual(fixture.tasks.piqa!.map(({ pairs }) => pairs))
      expect((await failure(() => findQuestions(data, taskNamed('boolq')))).code).toBe('ERR_NO_DATA')
    }
  })

  it('may be parquet with columns in columns', async () => {
    mkdirSync(folder.path('nested/ARC-Challenge'), { recursive: true })
    const bytes = readFileSync(`${PROJECT}/test/fixtures/eval-arc.parquet`)
    writeFileSync(folder.path('nested/ARC-Challenge/test-00000-of-00001.parquet'), bytes)
    const { questions } = await findQuestions(folder.path('nested'), taskNamed('arc_challenge'))
    expect(questions.map(({ pairs }) => pairs)).toEqual(fixture.tasks.arc_challenge!.map(({ pairs }) => pairs))
  })

  it('may be parquet', async () => {
    const bytes = readFileSync(`${PROJECT}/test/fixtures/eval-boolq.parquet`)
    mkdirSync(folder.path('hub/boolq'), { recursive: true })
    writeFileSync(folder.path('hub/boolq/validation-00000-of-00001.parquet'), bytes)
    const { questions } = await findQuestions(folder.path('hub'), taskNamed('boolq'))
    expect(questions.map(({ pairs }) => pairs)).toEqual(fixture.tasks.boolq!.map(({ pairs }) => pairs))
    writeFileSync(folder.path('hub/boolq/validation-00000-of-00001.parquet'), bytes.subarray(0, 200))
    expect((await failure(() => findQuestions(folder.path('hub'), taskNamed('boolq')))).code).toBe('ERR_DATA_FILE')
  })

  it('that are missing, wrong or ambiguous are named, and what to do', async () => {
    const wino = taskNamed('winogrande')
    const none = await failure(() => findQuestions(folder.path(''), wino))
    expect([none.code, none.hint]).toEqual(['ERR_NO_DATA', expect.stringContaining('allenai/winogrande')])
    expect((await failure(() => findQuestions(undefined, wino))).code).toBe('ERR_NO_DATA')
    expect((await failure(() => findQuestions(folder.path('nowhere'), wino))).code).toBe('ERR_FILE_NOT_FOUND')
    const cases: [string, RegExp][] = [
      ['{"sentence": "a _ b", "option1": "x", "option2": "y", "answer": "3"}', /line 1: answer must be/],
      ['{"sentence": "a b", "option1": "x", "option2": "y", "answer": "1"}', /blank/],
      ['\n{"sentence": 5}', /line 2: sentence must be a text/],
      ['{"sentence": "a _ b"', /line 1 is not JSON/],
      ['5', /line 1 must be an object/],
      ['{"centerpiece": "_", "options": ["a"]}', /options must be a list/],
      ['', /no questions/],
    ]
    for (const [text, problem] of cases) {
      writeFileSync(folder.path('winogrande-dev.jsonl'), text)
      expect((await failure(() => findQuestions(folder.path(''), wino))).message).toMatch(problem)
    }
    writeFileSync(folder.path('winogrande-dev-2.jsonl'), '')
    expect((await failure(() => findQuestions(folder.path(''), wino))).message).toMatch(/Several files/)
    writeFileSync(folder.path('winogrande-dev-2.jsonl.bz2'), 'no bzip2')
  })

  it.skipIf(missing('tasks/piqa-valid.jsonl'))('of the data folder are whole', async () => {
    const counts: Record<string, number> = {}
    for (const { name } of TASKS) {
      if (name === 'lambada') continue
      counts[name] = (await findQuestions(dataFile('tasks'), taskNamed(name))).questions.length
    }
    expect(counts).toEqual({
      piqa: 1838,
      hellaswag: 10042,
      winogrande: 1267,
      arc_easy: expect.any(Number),
      arc_challenge: expect.any(Number),
      boolq: 3270,
    })
    const { questions } = await findQuestions(dataFile('tasks'), taskNamed('hellaswag'))
    expect(questions[0]!.pairs[3]).toEqual({
      context: 'Roof shingle removal: A man is sitting on a roof. he',
      continuation: ' starts pulling up roofing on a roof.',
    })
  })
})
