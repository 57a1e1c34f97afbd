/** The questions of a task, from whatever files a folder has of it. */
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { OnebitError } from '../../errors.js'
import { fileError } from '../../files/file-errors.js'
import type { Question, Task, TaskRecord } from '../tasks/task.js'
import { type PlacedRecord, readRecords } from './read-records.js'

export interface Questions {
  questions: Question[]
  /** of the files' bytes */
  sha256: string
  files: string[]
}

const DATA_FILE = /\.(jsonl|json|ndjson|parquet|txt)(\.gz|\.bz2)?$/
/** Of ours (answers-file.ts), which may lie in the same folder. */
const ANSWERS = /\.eval\.jsonl$/
const MOST_FILES = 10_000

/** @throws OnebitError ERR_NO_DATA (with where to get it), ERR_DATA_FILE, and those of reading files */
export async function findQuestions(folder: string | undefined, task: Task): Promise<Questions> {
  if (folder === undefined) throw noData(task, 'There is no data: name the folder that has it.')
  const files = await filesOf(folder, task)
  const hash = createHash('sha256')
  const questions: Question[] = []
  for (const path of files) {
    const { records, bytes } = await readRecords(path)
    hash.update(bytes)
    for (const placed of await withLabels(path, task, records, hash)) questions.push(questionOf(path, task, placed))
  }
  if (questions.length === 0) throw noData(task, `${files.join(', ')} has no questions.`)
  return { questions, sha256: hash.digest('hex'), files }
}

function questionOf(path: string, task: Task, { record, place }: PlacedRecord): Question {
  try {
    return task.question(record)
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause
    throw new OnebitError('ERR_DATA_FILE', `${path}, ${place}: ${cause.message}`, {
      cause,
      hint: `Is it a file of ${task.name}? Its own one is ${task.source.dataset}: ${task.source.files.join(', ')}.`,
    })
  }
}

/** @throws OnebitError ERR_NO_DATA */
async function filesOf(folder: string, task: Task): Promise<string[]> {
  const every = await everyFile(folder)
  const named = (from: string) =>
    every.filter((path) => {
      const name = relative(from, path).split(sep).join('/').toLowerCase()
      return DATA_FILE.test(name) && !ANSWERS.test(name) && task.holds(name) && !name.includes('train')
    })
  const within = named(folder)
  // Where no file's name says it, the folder's own does: a data set as it came from the hub.
  const all = within.length > 0 ? within : named(dirname(resolve(folder)))
  const ofSplit = all.filter((path) => task.split.test(relative(folder, path).toLowerCase()))
  const files = ofSplit.length > 0 ? ofSplit : all
  if (files.length === 0) throw noData(task, `${folder} has no file of ${task.name}.`)
  // Several are the parts of one, or nobody can say which of them is meant.
  if (files.length === 1 || files.every((path) => /-\d{5}-of-\d{5}\.parquet$/.test(path))) return files.sort()
  throw new OnebitError('ERR_DATA_FILE', `Several files may be ${task.name}: ${files.join(', ')}.`, {
    hint: 'Leave one of them in the folder.',
  })
}

async function everyFile(folder: string): Promise<string[]> {
  try {
    const entries = await readdir(folder, { recursive: true, withFileTypes: true })
    // Links too: the cache of Hugging Face's tools has nothing else.
    return entries
      .filter((entry) => entry.isFile() || entry.isSymbolicLink())
      .slice(0, MOST_FILES)
      .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
  } catch (error) {
    throw fileError(error, folder, 'reading')
  }
}

/** PIQA's own files have the labels apart: a digit in every line. */
async function withLabels(
  path: string,
  task: Task,
  records: PlacedRecord[],
  hash: { update(bytes: Uint8Array): unknown },
): Promise<PlacedRecord[]> {
  if (task.name !== 'piqa' || records.length === 0 || records[0]!.record.label !== undefined) return records
  const beside = (await readdir(dirname(path))).filter((name) => /piqa.*labels\.lst$|^valid-labels\.lst$/.test(name))
  if (beside.length !== 1) {
    throw new OnebitError(
      'ERR_DATA_FILE',
      `${path}: the labels are missing: a file called …valid-labels.lst beside it.`,
    )
  }
  const bytes = await readFile(join(dirname(path), beside[0]!))
  hash.update(bytes)
  const labels = bytes.toString('utf8').trim().split(/\s+/)
  if (labels.length !== records.length) {
    throw new OnebitError(
      'ERR_DATA_FILE',
      `${path} has ${records.length} questions, ${beside[0]} has ${labels.length} labels.`,
    )
  }
  return records.map(({ record, place }, i): PlacedRecord => {
    const labelled: TaskRecord = { ...record, label: labels[i]! }
    return { record: labelled, place }
  })
}

function noData({ name, source }: Task, problem: string): OnebitError {
  return new OnebitError('ERR_NO_DATA', `${name}: ${problem}`, {
    hint: `Get https://huggingface.co/datasets/${source.dataset} (${source.files.join('; ')}), as JSONL or parquet, into a folder, and name it with --data.`,
  })
}
