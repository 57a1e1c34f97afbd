/** Starts a job in a process of its own and hands on what it finds. */
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { OnebitError } from '../errors.js'
import type { Peaks } from '../native/native.js'
import { type Job, type Message, sourceName } from './jobs.js'
import type { BenchRow } from './rows.js'
import type { ServingRow } from './serving-rows.js'

export interface JobListener {
  row?(row: BenchRow): void
  serving?(row: ServingRow): void
  skip?(what: string, why: string): void
  progress?(text: string): void
  peaks?(peaks: Peaks): void
}

function listen(listener: JobListener, message: Message): void {
  if (message.kind === 'row') listener.row?.(message.row)
  else if (message.kind === 'serving') listener.serving?.(message.row)
  else if (message.kind === 'skip') listener.skip?.(message.what, message.why)
  else if (message.kind === 'progress') listener.progress?.(message.text)
  else if (message.kind === 'peaks') listener.peaks?.(message.peaks)
}

/**
 * Resolves when the job is done.
 * @param seconds after which it is stopped; default: never
 * @throws OnebitError what the job met; ERR_BENCH_TIMEOUT; ERR_BENCH when its process ended without a word
 */
export function runJob(job: Job, listener: JobListener, seconds?: number): Promise<void> {
  const script = fileURLToPath(new URL('./job-process.js', import.meta.url))
  return new Promise((resolve, reject) => {
    const child = fork(script, [], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'], execArgv: [] })
    let last: Message | undefined
    let late = false
    const stop = () => {
      late = true
      child.kill('SIGKILL')
    }
    const timer = seconds === undefined ? undefined : setTimeout(stop, seconds * 1000)
    child.on('message', (message: Message) => {
      last = message
      listen(listener, message)
    })
    child.on('error', reject)
    child.on('close', (status, signal) => {
      clearTimeout(timer)
      if (last?.kind === 'done') return resolve()
      if (late)
        return reject(new OnebitError('ERR_BENCH_TIMEOUT', `stopped after ${seconds!.toFixed(0)} s: too slow here`))
      if (last?.kind === 'error') {
        const { code, message, hint } = last
        return reject(new OnebitError(code, message, hint === undefined ? {} : { hint }))
      }
      const what = job.kind === 'peaks' ? "the machine's peaks" : sourceName(job.source)
      const why = signal ?? `exit status ${status}`
      const hint =
        signal === 'SIGKILL' ? { hint: 'The system does this when memory runs out; take a smaller model.' } : {}
      reject(new OnebitError('ERR_BENCH', `The process that measured ${what} ended early (${why}).`, hint))
    })
    child.send(job)
  })
}

/** Memory that is read to find its speed: more than any cache holds. */
export const DRAM_BYTES = 2 ** 30

/**
 * What this machine can do, each path and number of threads measured once, in processes of their own. How fast memory
 * is read depends on the threads only, so one path's figure serves all.
 */
export class MachineLimits {
  readonly #found = new Map<string, Peaks>()
  readonly #dramBytes: number

  constructor(dramBytes: number = DRAM_BYTES) {
    this.#dramBytes = dramBytes
  }

  async get(threads: number, isa: string): Promise<Peaks> {
    const key = `${threads} ${isa}`
    const known = this.#found.get(key)
    if (known) return known
    const alike = [...this.#found].find(([other]) => other.startsWith(`${threads} `))?.[1]
    const peaks = alike ? await this.#measure(threads, isa, false) : await this.#measure(threads, isa, true)
    if (alike?.dram_gbps !== undefined) Object.assign(peaks, { dram_gbps: alike.dram_gbps, dram: alike.dram })
    this.#found.set(key, peaks)
    return peaks
  }

  /** Not from memory: how fast the machine is now. */
  again(threads: number, isa: string): Promise<Peaks> {
    return this.#measure(threads, isa, true)
  }

  async #measure(threads: number, isa: string, dram: boolean): Promise<Peaks> {
    let found: Peaks | undefined
    const peaks = (measured: Peaks) => {
      found = measured
    }
    const what = dram ? (['dram', 'int8', 'lookup', 'f32'] as const) : (['int8', 'lookup', 'f32'] as const)
    await runJob({ kind: 'peaks', threads, isa, what: [...what], dramBytes: this.#dramBytes }, { peaks })
    return found!
  }
}
