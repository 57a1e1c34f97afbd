/**
 * Calls into one worker (a thread or a process), one at a time: started when first needed, ended after some idle time,
 * killed when a call takes too long. While no call is under way it does not keep the process alive.
 */
import type { ChildProcess } from 'node:child_process'
import type { Worker } from 'node:worker_threads'
import { badOption, OnebitError } from '../errors.js'
import { TimeLimit } from '../flow/time-limit.js'

/** What a thread and a process have in common here. */
export interface Remote {
  send(message: unknown): void
  onMessage(listener: (message: unknown) => void): void
  onEnd(listener: (cause: Error) => void): void
  /** whether it keeps this process alive */
  hold(held: boolean): void
  kill(): void
}

export function remoteThread(worker: Worker): Remote {
  worker.unref()
  return {
    send: (message) => worker.postMessage(message),
    onMessage: (listener) => worker.on('message', listener),
    onEnd: (listener) => {
      worker.on('error', listener)
      worker.on('messageerror', listener)
      worker.on('exit', (code) => listener(new Error(`exit code ${code}`)))
    },
    hold: (held) => (held ? worker.ref() : worker.unref()),
    kill: () => void worker.terminate(),
  }
}

export function remoteProcess(child: ChildProcess): Remote {
  const hold = (held: boolean) => {
    if (held) {
      child.ref()
      child.channel?.ref()
    } else {
      child.unref()
      child.channel?.unref()
    }
  }
  hold(false)
  return {
    send: (message) => void child.send(message as object, () => {}),
    onMessage: (listener) => child.on('message', listener),
    onEnd: (listener) => {
      child.on('error', listener)
      child.on('exit', (code, signal) => listener(new Error(signal ? `signal ${signal}` : `exit code ${code}`)))
    },
    hold,
    kill: () => void child.kill('SIGKILL'),
  }
}

export interface RemoteCallsOptions {
  start: () => Remote
  /** per call, counted from when the worker is ready; none means no limit */
  timeoutMs?: number
  /** the worker ends after this long without a call */
  idleMs: number
  /** the error of a call that took too long, and of one whose worker died */
  onTimeout: () => OnebitError
  onDeath: (cause: Error) => OnebitError
}

/** What a worker sends: once when it can take calls, then one answer per call. */
export type RemoteAnswer<T> = { ready: true } | { result: T } | { error: { code: string; message: string } }

interface Call<Request, Result> {
  request: Request
  resolve: (result: Result) => void
  reject: (error: unknown) => void
  signal: AbortSignal | undefined
  onAbort: () => void
}

export class RemoteCalls<Request, Result> {
  readonly #options: RemoteCallsOptions
  readonly #queue: Call<Request, Result>[] = []
  #current: Call<Request, Result> | undefined
  #worker: Remote | undefined
  #ready = false
  #limit: TimeLimit | undefined
  #idle: NodeJS.Timeout | undefined

  constructor(options: RemoteCallsOptions) {
    this.#options = options
  }

  /** Begins to start the worker, so that the first call finds it ready. */
  warmUp(): void {
    if (!this.#worker) this.#startWorker()
  }

  call(request: Request, signal?: AbortSignal): Promise<Result> {
    return new Promise<Result>((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason)
        return
      }
      const call: Call<Request, Result> = { request, resolve, reject, signal, onAbort: () => this.#abort(call) }
      signal?.addEventListener('abort', call.onAbort, { once: true })
      this.#queue.push(call)
      this.#next()
    })
  }

  /** Ends the worker; calls under way fail as if it had died. */
  stop(): void {
    const calls = [this.#current, ...this.#queue.splice(0)]
    this.#dropWorker()
    for (const call of calls) {
      if (call) this.#settle(call, () => call.reject(new OnebitError('ERR_DISPOSED', 'The model was disposed.')))
    }
  }

  #next(): void {
    if (this.#current) return
    const call = this.#queue.shift()
    if (!call) {
      this.#rest()
      return
    }
    clearTimeout(this.#idle)
    this.#current = call
    if (!this.#worker) this.#startWorker()
    this.#worker!.hold(true)
    if (this.#ready) this.#send(call)
  }

  #send(call: Call<Request, Result>): void {
    const { timeoutMs, onTimeout } = this.#options
    if (timeoutMs !== undefined) this.#limit = new TimeLimit(timeoutMs, () => this.#fail(onTimeout()))
    try {
      this.#worker!.send(call.request)
    } catch (error) {
      // A value that cannot be copied, such as a function among a template's variables.
      this.#limit?.clear()
      this.#settle(call, () => call.reject(badOption('variables', (error as Error).message)))
      this.#next()
    }
  }

  #startWorker(): void {
    const worker = this.#options.start()
    this.#worker = worker
    this.#ready = false
    worker.onMessage((answer) => {
      if (worker === this.#worker) this.#receive(answer as RemoteAnswer<Result>)
    })
    worker.onEnd((cause) => {
      if (worker === this.#worker) this.#fail(this.#options.onDeath(cause))
    })
  }

  #receive(answer: RemoteAnswer<Result>): void {
    const call = this.#current
    if ('ready' in answer) {
      this.#ready = true
      if (call) this.#send(call)
      return
    }
    if (!call) return
    this.#limit?.clear()
    this.#settle(call, () => {
      if ('result' in answer) call.resolve(answer.result)
      else call.reject(new OnebitError(answer.error.code, answer.error.message))
    })
    this.#next()
  }

  /** The worker is stuck or gone: its call fails, later ones get a new worker. */
  #fail(error: OnebitError): void {
    const call = this.#current
    this.#dropWorker()
    if (call) this.#settle(call, () => call.reject(error))
    this.#next()
  }

  #abort(call: Call<Request, Result>): void {
    const waiting = this.#queue.indexOf(call)
    if (waiting >= 0) this.#queue.splice(waiting, 1)
    // What runs cannot be told to stop from outside, except by ending its thread.
    else this.#dropWorker()
    this.#settle(call, () => call.reject(call.signal?.reason))
    this.#next()
  }

  #settle(call: Call<Request, Result>, finish: () => void): void {
    call.signal?.removeEventListener('abort', call.onAbort)
    if (this.#current === call) this.#current = undefined
    finish()
  }

  #rest(): void {
    this.#worker?.hold(false)
    clearTimeout(this.#idle)
    if (!this.#worker) return
    this.#idle = setTimeout(() => this.#dropWorker(), this.#options.idleMs)
    this.#idle.unref()
  }

  #dropWorker(): void {
    const worker = this.#worker
    this.#worker = undefined
    this.#ready = false
    this.#limit?.clear()
    clearTimeout(this.#idle)
    worker?.kill()
  }
}
