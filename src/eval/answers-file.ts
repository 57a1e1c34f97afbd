/**
 * What an evaluation has found so far, in a file that grows: a line that says of which model and data, then a line for
 * each question. A run that was ended goes on behind its last whole line.
 */
import { mkdir, open, readFile, truncate } from 'node:fs/promises'
import { dirname } from 'node:path'
import { OnebitError } from '../errors.js'
import { fileError } from '../files/file-errors.js'
import { isRecord } from '../text/tokenizer-json.js'
import type { AnswerScore } from './choices.js'

/** Everything on which the scores depend. */
export interface AnswersHead {
  format: 'onebit-eval'
  version: 1
  task: string
  /** ModelInfo.identity */
  model: string
  activations: string
  kv: string
  context: number
  bos: boolean
  /** of the data's files */
  data: string
}

export class AnswersFile {
  readonly path: string
  /** of the first questions */
  readonly scores: AnswerScore[][] = []
  #handle: Awaited<ReturnType<typeof open>> | undefined

  private constructor(path: string) {
    this.path = path
  }

  /**
   * Opens the file, or makes it.
   * @param limit how many questions there are
   * @throws OnebitError ERR_EVAL_FILE when it is of something else, and those of reading and writing files
   */
  static async open(path: string, head: AnswersHead, limit: number): Promise<AnswersFile> {
    const file = new AnswersFile(path)
    try {
      await mkdir(dirname(path), { recursive: true })
      await file.#load(head, limit)
      file.#handle = await open(path, 'a')
      if (file.#isNew) await file.#handle.write(`${JSON.stringify(head)}\n`)
    } catch (error) {
      throw fileError(error, path, 'writing')
    }
    return file
  }

  #isNew = true

  async #load(head: AnswersHead, limit: number): Promise<void> {
    const bytes = await readFile(this.path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return Buffer.alloc(0)
      throw error
    })
    // What was being written when the run ended.
    const whole = bytes.lastIndexOf(0x0a) + 1
    if (whole < bytes.length) await truncate(this.path, whole)
    const lines = bytes.subarray(0, whole).toString('utf8').split('\n').slice(0, -1)
    if (lines.length === 0) return
    this.#isNew = false
    if (lines[0] !== JSON.stringify(head)) throw this.#wrong('it is about another model, other options or other data')
    for (const [i, line] of lines.slice(1).entries()) {
      if (i >= limit) break
      this.scores.push(this.#scores(line, i))
    }
  }

  #scores(line: string, index: number): AnswerScore[] {
    try {
      const value: unknown = JSON.parse(line)
      if (!isRecord(value) || value.question !== index) throw new TypeError()
      const { logprobs, greedy } = value
      if (!Array.isArray(logprobs) || !Array.isArray(greedy) || logprobs.length !== greedy.length) throw new TypeError()
      return logprobs.map((logprob: unknown, i) => {
        if (typeof logprob !== 'number' || typeof greedy[i] !== 'boolean') throw new TypeError()
        return { logprob, greedy: greedy[i] }
      })
    } catch {
      throw this.#wrong(`line ${index + 2} is damaged`)
    }
  }

  #wrong(problem: string): OnebitError {
    return new OnebitError('ERR_EVAL_FILE', `${this.path}: ${problem}.`, {
      hint: 'Delete the file, or name another folder with --out.',
    })
  }

  async add(scores: readonly AnswerScore[][]): Promise<void> {
    const first = this.scores.length
    const lines = scores.map((one, i) => {
      const logprobs = one.map(({ logprob }) => logprob)
      const greedy = one.map((answer) => answer.greedy)
      return `${JSON.stringify({ question: first + i, logprobs, greedy })}\n`
    })
    this.scores.push(...scores)
    try {
      await this.#handle!.write(lines.join(''))
    } catch (error) {
      throw fileError(error, this.path, 'writing')
    }
  }

  async close(): Promise<void> {
    await this.#handle?.close()
  }
}
