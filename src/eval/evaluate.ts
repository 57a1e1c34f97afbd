/** Evaluation tasks: a model answers questions, and how often it is right is compared with what others report. */
import { join } from 'node:path'
import { badOption } from '../errors.js'
import { booleanOption, functionOption, integerOption, optionFields, signalOption, stringOption } from '../options.js'
import type { Model } from '../run/model.js'
import { AnswersFile } from './answers-file.js'
import { type AnswerScore, ChoiceScorer } from './choices.js'
import { findQuestions } from './data/find-questions.js'
import { type Figures, figuresOf } from './metrics.js'
import { TASKS } from './tasks/definitions.js'
import { type Question, TASK_NAMES, type Task, type TaskName } from './tasks/task.js'

export type { AnswerScore } from './choices.js'
export type { Figure, Figures } from './metrics.js'
export { type Metric, TASK_NAMES, type TaskName } from './tasks/task.js'

/** What `evaluate` is told. */
export interface EvaluateOptions {
  /** which are asked; default: the six of the paper, all but lambada */
  tasks?: readonly TaskName[]
  /** the folder that has the tasks' files: JSONL, JSON or parquet, however deep, as docs/evaluation.md says */
  data: string
  /** only the first so many questions of each task; default: all */
  limit?: number
  /** put BOS in front; default false, as the paper did and as the harness does through a server */
  bos?: boolean
  /** keep every answer's score in this folder, one file a task, and go on from what is there */
  out?: string
  /** told before each task and after some of its questions: how many are answered, and of how many */
  onQuestion?: (task: TaskName, done: number, total: number) => void
  /** stops within a chunk; the call rejects with the signal's reason, and what is in `out` stays */
  signal?: AbortSignal
}

/** What a model got in one task. */
export interface TaskResult {
  /** which it is */
  task: TaskName
  /** how many were asked */
  questions: number
  /** its metrics with standard errors */
  figures: Figures
  /** what this run took; next to nothing when all was in the file */
  seconds: number
  /** questions that this run answered; the others were in the file */
  computed: number
  /** scores[i][j]: of answer j of question i */
  scores: AnswerScore[][]
}

/** What `evaluate` gives. */
export interface EvaluateResult {
  /** in the order in which they were asked for */
  tasks: TaskResult[]
  /** the paper's: the mean over its six tasks of the metric that it reports; undefined unless all six were asked */
  average: number | undefined
}

const NAMES = ['tasks', 'data', 'limit', 'bos', 'out', 'onQuestion', 'signal']
const PAPER = TASKS.filter(({ paper }) => paper !== undefined)

/** @throws OnebitError ERR_BAD_OPTION */
export function checkEvaluateOptions(options: Partial<EvaluateOptions> | undefined) {
  const fields = optionFields('options', options, NAMES)
  const names = fields.tasks ?? PAPER.map(({ name }) => name)
  if (!Array.isArray(names) || names.length === 0) throw badOption('tasks', 'must be a list of tasks')
  return {
    tasks: names.map(taskOf),
    data: stringOption(fields, 'data'),
    limit: integerOption(fields, 'limit', 1, Number.MAX_SAFE_INTEGER) ?? Number.POSITIVE_INFINITY,
    bos: booleanOption(fields, 'bos') ?? false,
    out: stringOption(fields, 'out'),
    onQuestion: functionOption<NonNullable<EvaluateOptions['onQuestion']>>(fields, 'onQuestion'),
    signal: signalOption(fields),
  }
}

function taskOf(name: unknown): Task {
  const task = TASKS.find((one) => one.name === name)
  if (task) return task
  throw badOption('tasks', `${JSON.stringify(name)} is none of ${TASK_NAMES.join(', ')}`)
}

/**
 * Asks a model the questions of some tasks as lm-evaluation-harness 0.4.12 does, to the letter and to the token: how likely each
 * answer is, and whether the likeliest is the right one.
 *
 * ```ts
 * const { tasks, average } = await evaluate(model, { data: 'tasks/', tasks: ['piqa', 'boolq'], limit: 200 })
 * for (const { task, figures } of tasks) console.log(task, figures.acc?.value, figures.acc?.stderr)
 * ```
 * @throws OnebitError ERR_BAD_OPTION, ERR_NO_DATA, ERR_DATA_FILE, ERR_EVAL_FILE, ERR_NO_TOKENIZER, ERR_CONTEXT_FULL and
 *   those of files and of computing; the signal's reason
 */
export async function evaluate(model: Model, options: EvaluateOptions): Promise<EvaluateResult> {
  const checked = checkEvaluateOptions(options)
  const scorer = new ChoiceScorer(model, { bos: checked.bos })
  const tasks: TaskResult[] = []
  try {
    for (const task of checked.tasks) tasks.push(await runTask(model, scorer, task, checked))
  } finally {
    scorer.dispose()
  }
  return { tasks, average: averageOf(tasks) }
}

async function runTask(
  model: Model,
  scorer: ChoiceScorer,
  task: Task,
  { data, limit, bos, out, onQuestion, signal }: ReturnType<typeof checkEvaluateOptions>,
): Promise<TaskResult> {
  const { questions: all, sha256 } = await findQuestions(data, task)
  const questions = all.slice(0, limit)
  const { identity, activations, kv } = model.info
  const head = { format: 'onebit-eval', version: 1, task: task.name } as const
  const about = { model: identity, activations, kv, context: model.context, bos, data: sha256 }
  const file =
    out === undefined
      ? undefined
      : await AnswersFile.open(join(out, `${task.name}.eval.jsonl`), { ...head, ...about }, questions.length)
  try {
    const scores = [...(file?.scores ?? [])]
    const found = scores.length
    const started = performance.now()
    onQuestion?.(task.name, found, questions.length)
    for (const group of groups(questions, found, scorer.together)) {
      const answered = await scorer.score(group, signal)
      scores.push(...answered)
      await file?.add(answered)
      onQuestion?.(task.name, scores.length, questions.length)
    }
    const seconds = (performance.now() - started) / 1000
    const figures = figuresOf(task, questions, scores)
    return { task: task.name, questions: questions.length, figures, seconds, computed: scores.length - found, scores }
  } finally {
    await file?.close()
  }
}

function* groups(questions: readonly Question[], from: number, size: number): Generator<readonly Question[]> {
  for (let i = from; i < questions.length; i += size) yield questions.slice(i, i + size)
}

/** @returns undefined unless there is a result for each of the paper's tasks */
export function averageOf(results: readonly TaskResult[]): number | undefined {
  const values = PAPER.map(({ name, paper }) => results.find(({ task }) => task === name)?.figures[paper!]?.value)
  if (values.some((value) => value === undefined)) return undefined
  return values.reduce((sum: number, value) => sum + value!, 0) / PAPER.length
}
