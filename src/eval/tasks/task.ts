/** What an evaluation task is: questions with answers to choose from, and how a choice is judged. */

/** A record of a data file: its fields as they stand there. */
export type TaskRecord = Readonly<Record<string, unknown>>

/**
 * One question. Each answer is a continuation of a context; the likeliest one is the model's choice. Most tasks have one
 * context and several continuations; winogrande has it the other way round.
 */
export interface Question {
  pairs: readonly { context: string; continuation: string }[]
  /** index of the right one; a task with one pair asks whether it is what the model would say */
  gold: number
  /** characters (code points) of each answer, by which acc_norm divides */
  lengths: readonly number[]
}

/**
 * `acc`: the share of questions whose likeliest answer is the right one; `acc_norm`: the same when each log-probability is divided
 * by the characters of the answer; `perplexity`: exp of the mean negative log-likelihood of the answers (lambada).
 */
export type Metric = 'acc' | 'acc_norm' | 'perplexity'

export interface TaskSource {
  /** on the Hugging Face hub */
  dataset: string
  /** files of it that have the questions */
  files: readonly string[]
}

export interface Task {
  name: TaskName
  metrics: readonly Metric[]
  /** the one that the paper reports; undefined: the paper does not report the task */
  paper: Metric | undefined
  source: TaskSource
  /** Whether a file of this path, in small letters, may hold its questions. */
  holds(path: string): boolean
  /** the part of the dataset that is asked, as it shows in names of files */
  split: RegExp
  /** @throws TypeError that says which field of the record is wrong */
  question(record: TaskRecord): Question
}

/** The tasks that `evaluate` knows. */
export const TASK_NAMES = ['piqa', 'hellaswag', 'winogrande', 'arc_easy', 'arc_challenge', 'boolq', 'lambada'] as const
/** One of `TASK_NAMES`. */
export type TaskName = (typeof TASK_NAMES)[number]

/** Between a context and its continuation, as the harness has it. */
const DELIMITER = ' '

/** A question with one context. */
export function oneContext(context: string, answers: readonly string[], gold: number): Question {
  return {
    pairs: answers.map((answer) => ({ context, continuation: DELIMITER + answer })),
    gold,
    lengths: answers.map(characters),
  }
}

/** A question whose answers stand in front of what is scored. */
export function oneContinuation(contexts: readonly string[], continuation: string, gold: number): Question {
  return {
    pairs: contexts.map((context) => ({ context, continuation: DELIMITER + continuation })),
    gold,
    lengths: contexts.map(characters),
  }
}

function characters(text: string): number {
  return [...text].length
}

// ---- fields of records
export function textField(record: TaskRecord, name: string): string {
  const value = record[name]
  if (typeof value === 'string') return value
  throw new TypeError(`${name} must be a text`)
}

export function textsField(record: TaskRecord, name: string): string[] {
  const value = record[name]
  if (Array.isArray(value) && value.length >= 2 && value.every((one) => typeof one === 'string')) return value
  throw new TypeError(`${name} must be a list of at least two texts`)
}

/** An index below `below`, as a number or as its digits; `first` is what the first one is called. */
export function indexField(record: TaskRecord, name: string, below: number, first = 0): number {
  const value = typeof record[name] === 'bigint' ? Number(record[name]) : record[name]
  const index = (typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value) as number
  if (Number.isInteger(index) && index >= first && index < below + first) return index - first
  throw new TypeError(`${name} must be an integer from ${first} to ${below + first - 1}`)
}
