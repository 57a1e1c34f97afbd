/** Server-sent events: one JSON value each, at the pace of the one who reads them. */
import type { ServerResponse } from 'node:http'

/** A reader that takes nothing for this long is gone. */
const STALLED_MS = 10_000
/** Clients and proxies take a silent connection for a dead one. */
const PING_MS = 15_000
/** Events that follow within this time are written together, as a generation hands its tokens out (session.generate). */
const TOGETHER_MS = 8

export class EventStream {
  readonly #response: ServerResponse
  readonly #headers: Readonly<Record<string, string>>
  #ping: NodeJS.Timeout
  /** events that are to be written */
  #pending = ''
  #timer: NodeJS.Timeout | undefined
  /** when something was written last */
  #writtenMs = Number.NEGATIVE_INFINITY
  /** resolves when a reader that was behind has room again */
  #room: Promise<void> | undefined

  /** Nothing is sent before the first event, so that what goes wrong until then can have a status of its own. */
  constructor(response: ServerResponse, headers: Readonly<Record<string, string>> = {}) {
    this.#response = response
    this.#headers = headers
    this.#ping = setInterval(() => void this.#write(': still here\n\n'), PING_MS)
    this.#ping.unref()
    response.on('close', () => clearInterval(this.#ping))
  }

  get begun(): boolean {
    return this.#response.headersSent
  }

  /** Resolves when the reader has room for more; the stream may be closed then. `event`: its name, where it has one. */
  async send(value: unknown, event?: string): Promise<void> {
    this.#ping.refresh()
    const name = event === undefined ? '' : `event: ${event}\n`
    await this.#write(`${name}data: ${typeof value === 'string' ? value : JSON.stringify(value)}\n\n`)
  }

  end(): void {
    clearInterval(this.#ping)
    this.#flush()
    this.#response.end()
  }

  /**
   * Writing takes the system longer than all else that a token costs here, and its reader as long again. So what comes
   * quickly is written together; and it waits until this turn's promises are settled: the next step of the model has
   * begun then, and computes meanwhile.
   */
  async #write(text: string): Promise<void> {
    if (this.#pending === '') this.#flushSoon()
    this.#pending += text
    await this.#room
  }

  #flushSoon(): void {
    const wait = this.#writtenMs + TOGETHER_MS - performance.now()
    if (wait > 0) this.#timer = setTimeout(() => this.#flush(), wait)
    else process.nextTick(() => this.#flush())
  }

  #flush(): void {
    const response = this.#response
    clearTimeout(this.#timer)
    const text = this.#pending
    this.#pending = ''
    if (text === '' || response.destroyed || response.writableEnded) return
    if (!response.headersSent) {
      response.writeHead(200, {
        ...this.#headers,
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-cache',
        'x-accel-buffering': 'no',
      })
    }
    this.#writtenMs = performance.now()
    if (!response.write(text)) this.#room ??= this.#drained()
  }

  async #drained(): Promise<void> {
    const response = this.#response
    await new Promise<void>((resolve) => {
      const stalled = setTimeout(() => response.destroy(), STALLED_MS)
      const done = () => {
        clearTimeout(stalled)
        response.off('drain', done)
        response.off('close', done)
        resolve()
      }
      response.on('drain', done)
      response.on('close', done)
    })
    this.#room = undefined
  }
}
