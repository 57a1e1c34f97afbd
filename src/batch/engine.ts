/**
 * Takes requests from a queue to places and computes all that have one together, step by step. Everything that touches
 * sessions happens between two steps, in one loop that ends when nothing is left to do.
 */
import { OnebitError } from '../errors.js'
import { addon } from '../native/addon.js'
import type { NativeGeneration, NativeModel, NativeSession, NativeStepResult, OnToken } from '../native/native.js'
import { MOST_STEP_TOKENS, Pace } from './pace.js'
import { type Demand, planStep } from './plan.js'
import { PrefixCache } from './prefix-cache.js'
import type { BatchRequest } from './request.js'
import type { BatchState } from './requests.js'
import { type Found, findLeader, findSession, takesOver } from './reuse.js'

export interface EngineOptions {
  parallel: number
  queue: number
  cacheBytes: number
  context: number
  kv: 0 | 1 | 2
  threads: number
}

/** A request in a step: `count` tokens after the first `before`. */
interface Part {
  request: BatchRequest
  before: number
  count: number
}

/** What may be lost of a step's time by waiting for masks that are nearly there. */
const MASK_SHARE = 0.1
const LEAST_MASK_MS = 1

const STOPPING = 'ERR_STOPPING'

function stopping(): OnebitError {
  return new OnebitError(STOPPING, 'No more requests are taken: this is about to stop.', { hint: 'Try again later.' })
}

function lacksMemory(error: unknown): boolean {
  return error instanceof OnebitError && (error.code === 'ERR_OUT_OF_MEMORY' || error.code === 'ERR_MEMORY_LIMIT')
}

export class Engine {
  readonly #model: NativeModel
  readonly #options: EngineOptions
  readonly #cache: PrefixCache
  readonly #pace: Pace
  #waiting: BatchRequest[] = []
  #running: BatchRequest[] = []
  readonly #totals = { requests: 0, promptTokens: 0, cachedTokens: 0, newTokens: 0, steps: 0 }
  #orders = 0
  #loop: Promise<void> | undefined
  #closing = false
  /** something happened since the loop looked */
  #news = false
  #wake = () => {}
  /** of the step under way */
  #parts: readonly Part[] = []
  /** the only request there is, which native code computes by itself just now */
  #alone: BatchRequest | undefined
  #cancel = new (addon().Cancel)()
  /** requests whose masks were waited for once: a slow one is not waited for at every step */
  readonly #late = new WeakSet<Promise<void>>()

  constructor(model: NativeModel, options: EngineOptions) {
    this.#model = model
    this.#options = options
    this.#cache = new PrefixCache(options.cacheBytes)
    this.#pace = new Pace(options.threads)
  }

  get state(): BatchState {
    const bytes = this.#running.reduce((sum, { native }) => sum + (native?.usedBytes ?? 0), 0)
    return {
      running: this.#running.length,
      waiting: this.#waiting.length,
      runningBytes: bytes,
      cacheBytes: this.#cache.bytes,
      ...this.#totals,
    }
  }

  /** @throws OnebitError ERR_STOPPING, ERR_QUEUE_FULL */
  submit(request: BatchRequest): void {
    if (this.#closing) throw stopping()
    const places = this.#options.parallel - this.#running.filter(({ over }) => !over).length
    if (this.#waiting.length >= places + this.#options.queue) {
      throw new OnebitError('ERR_QUEUE_FULL', `${this.#waiting.length} requests are waiting already.`, {
        hint: 'Try again when some have ended, or allow more to wait with the option `queue`.',
      })
    }
    this.#totals.requests++
    request.changed = this.#changed
    this.#waiting.push(request)
    this.#changed()
    this.#loop ??= this.#run()
  }

  /** Requests that wait end at once with ERR_STOPPING, the others after `graceMs`; resolves when all memory is free. */
  async close(graceMs: number): Promise<void> {
    this.#closing = true
    for (const request of this.#waiting) request.stop(stopping())
    const timer = setTimeout(() => {
      for (const request of this.#running) request.stop(stopping())
    }, graceMs)
    await this.#loop
    clearTimeout(timer)
    this.#cache.clear()
  }

  readonly #changed = (): void => {
    this.#news = true
    this.#waiting = this.#waiting.filter(({ over }) => !over)
    // Nobody wants what is being computed.
    if (this.#parts.length > 0 && this.#parts.every(({ request }) => request.over)) this.#cancel.cancel()
    // Or somebody comes and wants to be computed beside it.
    if (this.#alone && (this.#alone.ending || this.#comesNext)) this.#cancel.cancel()
    this.#wake()
  }

  async #run(): Promise<void> {
    await undefined // who comes at the same time starts at the same time
    do {
      try {
        await this.#turn()
      } catch (error) {
        // Nothing is known to come here. If something does, nobody may wait for ever, and the process goes on.
        for (const request of [...this.#running, ...this.#waiting]) {
          request.spoilt = true
          request.stop(error)
        }
      }
    } while (this.#running.length > 0 || this.#waiting.length > 0)
    this.#loop = undefined
  }

  async #turn(): Promise<void> {
    this.#news = false
    this.#retire()
    await this.#admit()
    if (this.#running.length === 0) return
    const [first] = this.#running
    const generation = this.#running.length === 1 && !this.#comesNext ? first!.goAlone() : undefined
    if (generation && (await this.#goesAlone(first!, generation))) return
    await this.#masks()
    const parts = this.#plan()
    if (parts.length > 0) await this.#step(parts)
    else await this.#change()
  }

  /** Resolves when something has happened since the loop began its turn. */
  async #change(): Promise<void> {
    if (this.#news) return
    await new Promise<void>((resolve) => {
      this.#wake = resolve
    })
  }

  // ---- places

  /** Frees the places of requests that are over; their sessions are kept. */
  #retire(): void {
    for (const request of this.#running) {
      const { native } = request
      if (!request.over || !native) continue
      const ids = request.computed.slice()
      request.native = undefined
      if (native.disposed) continue
      if (request.keeps && !request.spoilt) this.#cache.add(native, ids, request.scores?.cut(ids.length))
      else native.dispose()
    }
    this.#running = this.#running.filter(({ over }) => !over)
  }

  async #admit(): Promise<void> {
    while (this.#running.length < this.#options.parallel && this.#waiting.length > 0) {
      const request = this.#waiting.shift()!
      request.order = ++this.#orders
      this.#running.push(request)
      request.start()
    }
    for (const request of this.#running) {
      if (request.over || request.native) continue
      const { leader } = request
      if (leader && !leader.request.over && (leader.request.native?.length ?? 0) < leader.tokens) continue
      try {
        await this.#place(request)
      } catch (error) {
        request.stop(error)
      }
    }
  }

  /** Gives a request a session, with as much computed already as can be found, or another request to wait for. */
  async #place(request: BatchRequest): Promise<void> {
    const found = findSession(request, this.#cache, this.#running)
    request.leader = findLeader(request, found?.tokens ?? 0, this.#running)
    if (request.leader) return
    request.native = found && (await this.#reuse(request, found))
    const tokens = request.native?.length ?? 0
    request.found(tokens, (found?.kept ?? found?.running)?.scores)
    request.native ??= this.#create()
    this.#totals.promptTokens += request.prompt.length
    this.#totals.cachedTokens += tokens
  }

  async #reuse(request: BatchRequest, { tokens, kept, running }: Found): Promise<NativeSession | undefined> {
    if (kept && !takesOver(request, kept, tokens)) {
      this.#cache.touch(kept)
      try {
        return await kept.native.fork(tokens)
      } catch (error) {
        if (!lacksMemory(error)) throw error
      }
    }
    if (kept) {
      this.#cache.take(kept)
      kept.native.rewind(tokens)
      kept.native.mark()
      return kept.native
    }
    try {
      return await running!.native!.fork(tokens)
    } catch (error) {
      if (lacksMemory(error)) return undefined
      throw error
    }
  }

  #create(): NativeSession {
    const { context, kv } = this.#options
    try {
      return this.#model.createSession(context, kv)
    } catch (error) {
      if (!lacksMemory(error) || !this.#cache.clear()) throw error
      return this.#model.createSession(context, kv)
    }
  }

  // ---- steps

  /** Whether somebody waits for whom there is a place. */
  get #comesNext(): boolean {
    return this.#waiting.length > 0 && this.#running.length < this.#options.parallel
  }

  /**
   * An answer that has the engine to itself does not come back for every token: native code goes on by itself, which is
   * quicker, until somebody else comes. False when nothing came of it.
   */
  async #goesAlone(request: BatchRequest, generation: NativeGeneration): Promise<boolean> {
    if (this.#cancel.cancelled) this.#cancel = new (addon().Cancel)()
    let told = 0
    const onToken: OnToken = (id, logprob, ms, topIds, topLogprobs) => {
      // Behind the first one tokens may have been guessed, which says nothing about a step with a token of each.
      if (told++ === 0) this.#pace.observe(1, 0, ms)
      if (request.over) return
      const { made } = request
      try {
        request.told({ id, logprob, topIds, topLogprobs }, ms)
      } catch (error) {
        request.stop(error)
      }
      this.#totals.newTokens += request.made - made
    }
    this.#alone = request
    try {
      const options = { chunk: MOST_STEP_TOKENS, cancel: this.#cancel, onToken }
      const { steps } = await addon().generate(this.#model, generation, options)
      this.#totals.steps += steps
    } catch {
      // The same by steps says what is wrong, and what can be done about it is done there.
      return false
    } finally {
      this.#alone = undefined
      request.cameBack()
    }
    return told > 0 || this.#cancel.cancelled
  }

  #plan(): Part[] {
    const ready = this.#running.filter(({ over, native }) => !over && native)
    const demands = ready.map((request) => this.#upToFollowers(request))
    // Also those that wait for a mask: they may go on with the next step, and are stalled by this one.
    const answers = ready.filter(({ answering, paused }) => answering && !paused).length
    const counts = planStep(demands, this.#pace.promptTokens(answers), this.#totals.steps)
    return ready.flatMap((request, i) => {
      const count = counts[i]!
      return count > 0 ? [{ request, before: request.native!.length, count }] : []
    })
  }

  /**
   * What a request could have computed now. Where a cache cannot be gone back in to any position, a request for whose tokens
   * others wait stops where they begin.
   */
  #upToFollowers(request: BatchRequest): Demand {
    const { demand } = request
    const native = request.native!
    if (native.stateBytes === 0) return demand
    const stops = this.#running.flatMap(({ leader }) =>
      leader?.request === request ? [leader.tokens - native.length] : [],
    )
    return { ...demand, pending: Math.min(demand.pending, ...stops.filter((tokens) => tokens > 0)) }
  }

  /** Gives masks that are nearly there a little time, when there is something to compute without them. */
  async #masks(): Promise<void> {
    const missing = this.#running.flatMap((request) => {
      const { native, maskComes } = request
      const waits = native && maskComes && request.demand.pending === 0
      return waits && !this.#late.has(maskComes) ? [maskComes] : []
    })
    if (missing.length === 0 || this.#plan().length === 0) return
    let timer: NodeJS.Timeout | undefined
    const ms = Math.max(LEAST_MASK_MS, MASK_SHARE * (this.#pace.stepMs(1) ?? 0))
    const time = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, ms)
    })
    await Promise.race([Promise.all(missing), time])
    clearTimeout(timer)
    for (const mask of missing) this.#late.add(mask)
  }

  async #step(parts: readonly Part[]): Promise<void> {
    try {
      this.#took(parts, await this.#compute(parts))
    } catch (error) {
      await this.#recover(parts, error)
    }
  }

  /** One native step: the whole of it is computed at once. */
  async #compute(parts: readonly Part[]): Promise<NativeStepResult[]> {
    if (this.#cancel.cancelled) this.#cancel = new (addon().Cancel)()
    const items = parts.map(({ request, count }) => request.item(count))
    this.#parts = parts
    this.#totals.steps++
    try {
      return await addon().step(this.#model, items, { chunk: MOST_STEP_TOKENS, cancel: this.#cancel })
    } finally {
      this.#parts = []
    }
  }

  #took(parts: readonly Part[], results: readonly NativeStepResult[]): void {
    const answers = parts.filter(({ request }) => request.answering).length
    const prompt = parts.reduce((sum, { request, count }) => sum + (request.answering ? 0 : count), 0)
    const whole = parts.every(({ count }, i) => results[i]!.processed === count)
    if (whole) this.#pace.observe(answers, prompt, results[0]!.stepMs)
    parts.forEach(({ request, before, count }, i) => {
      if (request.over) return
      const result = results[i]!
      if (result.processed < count) {
        request.stop(new OnebitError('ERR_DISPOSED', 'The model was disposed while this was being computed.'))
        return
      }
      const { made } = request
      request.took(result, before, count)
      this.#totals.newTokens += request.made - made
    })
  }

  /**
   * A step failed, and everything in it with it: tokens that were chosen are lost, samplers have moved on. So all goes back
   * to where it was, and those that have nothing to do with the error get the same results as without it.
   */
  async #recover(parts: readonly Part[], error: unknown): Promise<void> {
    const left = parts.flatMap((part) => this.#goBack(part))
    if (lacksMemory(error) && this.#cache.clear()) {
      if (left.length > 0) await this.#step(left)
      return
    }
    if (parts.length === 1) {
      for (const { request } of left) {
        request.spoilt = true
        request.stop(error)
      }
      return
    }
    for (const part of left) await this.#step([part])
  }

  /** Undoes a step for one request: what is to be computed then, no part when it is over. */
  #goBack({ request, before, count }: Part): Part[] {
    try {
      if (!request.native!.disposed && request.native!.length > before) request.native!.rewind(before)
      if (!request.over) request.again()
    } catch (error) {
      request.spoilt = true
      request.stop(error)
    }
    if (request.over) return []
    // A cache may have gone back farther.
    const from = Math.min(before, request.native!.length)
    return [{ request, before: from, count: before + count - from }]
  }
}
