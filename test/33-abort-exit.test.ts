/** Stopping at any moment: aborts, workers that are terminated, processes that exit. Nothing hangs, nothing crashes. */
import { spawn } from 'node:child_process'
import { getEventListeners } from 'node:events'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Model } from '../dist/index.js'
import { bestOf } from './best-of.js'
import { PROJECT } from './data.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const LONG = process.env.ONEBIT_LONG === '1'
const folder = temporaryFolder()
const tiny = folder.path('tiny.obt')
/** Slow enough to be met in the middle of things: 50 MB to load, and half a minute or so to read LONG_PROMPT. */
const slow = folder.path('slow.obt')
const INDEX = pathToFileURL(join(PROJECT, 'dist', 'index.js')).href
const LONG_PROMPT = Int32Array.from({ length: 16_000 }, (_, i) => (i * 31) % 256)

beforeAll(async () => {
  await writeTinyModel(tiny, {})
  await writeTinyModel(slow, { dim: 512, layers: 8, context: 16_384, kind: 'f32' })
})
afterAll(folder.remove)

/**
 * Stopping takes 3 to 15 ms, on a machine with twenty other busy programs up to half a second. Whatever does not stop goes
 * on for LONG_PROMPT, or for as many new tokens.
 */
const STOPS = { limit: 50, most: 5000 }

const later = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

describe('an abort', () => {
  it('before anything starts means that nothing starts', async () => {
    const model = await Model.load(tiny)
    const session = model.createSession()
    const reason = new Error('not at all')
    const signal = AbortSignal.abort(reason)
    await expect(Model.load(tiny, { signal })).rejects.toBe(reason)
    await expect(session.complete([1, 2], { signal })).rejects.toBe(reason)
    await expect(session.append([1, 2], { signal })).rejects.toBe(reason)
    await expect(session.logits([1, 2], { signal })).rejects.toBe(reason)
    await expect(session.score([1, 2], { signal })).rejects.toBe(reason)
    expect([session.position, session.busy]).toEqual([0, false])
    await model.dispose()
  })

  it('stops loading', async () => {
    const controller = new AbortController()
    const reason = new Error('not this one')
    const loading = Model.load(slow, { signal: controller.signal, onProgress: () => controller.abort(reason) })
    await expect(loading).rejects.toBe(reason)
    expect(getEventListeners(controller.signal, 'abort').length).toBe(0)
  })

  it('in the middle of a long prompt ends it within a chunk and keeps what was computed', async () => {
    const model = await Model.load(slow)
    const whole = await model.createSession().logits(LONG_PROMPT.subarray(0, 100))
    const best = await bestOf({ ...STOPS, times: 8 }, async (round) => {
      const session = model.createSession()
      const controller = new AbortController()
      const reason = new Error('enough')
      let from = 0
      setTimeout(
        () => {
          from = performance.now()
          controller.abort(reason)
        },
        15 * (round % 8),
      )
      await expect(session.complete(LONG_PROMPT, { signal: controller.signal })).rejects.toBe(reason)
      const delay = performance.now() - from
      expect(getEventListeners(controller.signal, 'abort').length).toBe(0)
      expect([...session.tokens]).toEqual([...LONG_PROMPT.subarray(0, session.position)])
      expect(session.position).toBeLessThan(LONG_PROMPT.length)
      if (session.position < 100) {
        const rest = await session.logits(LONG_PROMPT.subarray(session.position, 100))
        expect(rest.data).toEqual(whole.data)
      }
      session.dispose()
      return delay
    })
    expect(best).toBeLessThan(STOPS.limit)
    await model.dispose()
  })

  it('at any token ends the answer there and leaves a usable session', async () => {
    const model = await Model.load(tiny)
    const options = { ignoreEos: true, temperature: 0 }
    const free = await model.createSession().complete([1, 2, 3], { ...options, maxTokens: 201 })
    for (let at = 1; at <= (LONG ? 200 : 40); at++) {
      const session = model.createSession()
      const controller = new AbortController()
      const reason = new Error(`after ${at}`)
      const got: number[] = []
      const answer = (async () => {
        for await (const piece of session.generate([1, 2, 3], { ...options, signal: controller.signal })) {
          got.push(piece.id)
          if (got.length === at) controller.abort(reason)
        }
      })()
      await expect(answer).rejects.toBe(reason)
      expect(got).toEqual(free.ids.slice(0, at))
      expect([...session.tokens]).toEqual([1, 2, 3, ...got])
      expect(session.last).toMatchObject({ finishReason: 'abort', usage: { newTokens: at } })
      expect(getEventListeners(controller.signal, 'abort').length).toBe(0)
      const next = await session.complete([], { ...options, maxTokens: 1 })
      expect(next.ids).toEqual(free.ids.slice(at, at + 1))
      session.dispose()
    }
    await model.dispose()
  })

  it('of one session does not touch another', async () => {
    const model = await Model.load(tiny)
    const options = { ignoreEos: true, temperature: 0, maxTokens: 30 }
    const expected = (await model.createSession().complete([5, 6], options)).ids
    const controller = new AbortController()
    const reason = new Error('only this one')
    const aborted = (async () => {
      const pieces = model.createSession().generate([1, 2], { ignoreEos: true, signal: controller.signal })
      for await (const _ of pieces) controller.abort(reason)
    })()
    const kept = model.createSession().complete([5, 6], options)
    await expect(aborted).rejects.toBe(reason)
    expect((await kept).ids).toEqual(expected)
    await model.dispose()
  })
})

it('the event loop stays free while a prompt is read and an answer is made', async () => {
  const model = await Model.load(slow)
  // Of delays that are 1 ms on a free loop; held up by the engine, the loop's only delay would be the whole answer.
  const best = await bestOf({ limit: 20, most: 500 }, async () => {
    const delay = monitorEventLoopDelay({ resolution: 1 })
    const session = model.createSession()
    delay.enable()
    await session.complete(LONG_PROMPT.subarray(0, 600), { maxTokens: 100, ignoreEos: true })
    delay.disable()
    session.dispose()
    return delay.percentile(90) / 1e6
  })
  expect(best).toBeLessThan(20)
  await model.dispose()
})

/** What worker threads and child processes run: `model` is loaded from argv or workerData by `loadIt()`. */
const PHASES: Record<string, string> = {
  load: 'say("load"); await Model.load(path, { onProgress() {} })',
  prefill: `const model = await Model.load(path); const session = model.createSession(); say("prefill")
    await session.complete(prompt, { maxTokens: 1 })`,
  decode: `const model = await Model.load(path); const session = model.createSession(); say("decode")
    for await (const piece of session.generate([1, 2, 3], { ignoreEos: true })) {}`,
  dispose: `const model = await Model.load(path); const session = model.createSession(); say("dispose")
    session.complete(prompt).catch(() => {}); await new Promise((r) => setTimeout(r, 5)); await model.dispose()
    await new Promise((r) => setTimeout(r, 1000))`,
}

function workerCode(phase: string): string {
  return `
    const { parentPort, workerData: path } = require('node:worker_threads')
    import(${JSON.stringify(INDEX)}).then(async ({ Model }) => {
      const say = (word) => parentPort.postMessage(word)
      const prompt = Int32Array.from({ length: 16_000 }, (_, i) => (i * 31) % 256)
      ${PHASES[phase]}
    })`
}

describe('a worker thread', () => {
  it.each(Object.keys(PHASES))('is terminated in the middle of %s, at once and without a crash', async (phase) => {
    const best = await bestOf({ ...STOPS, times: LONG ? 250 : 13, atMost: 60 }, async (round) => {
      const worker = new Worker(workerCode(phase), { eval: true, workerData: slow })
      const failed = new Promise<never>((_, reject) => worker.once('error', reject))
      await Promise.race([failed, new Promise((resolve) => worker.once('message', resolve))])
      await Promise.race([failed, later((round * 7) % 40)])
      const from = performance.now()
      await Promise.race([failed, worker.terminate()])
      return performance.now() - from
    })
    expect(best).toBeLessThan(STOPS.limit)
  })

  it('and several others at once get what one alone gets', async () => {
    const code = `
      const { parentPort, workerData: path } = require('node:worker_threads')
      import(${JSON.stringify(INDEX)}).then(async ({ Model }) => {
        const model = await Model.load(path, { threads: 1 })
        const { ids } = await model.createSession().complete([7, 8, 9], { seed: 11, temperature: 1, maxTokens: 60, ignoreEos: true })
        await model.dispose()
        parentPort.postMessage(ids)
      })`
    const model = await Model.load(tiny)
    const options = { seed: 11, temperature: 1, maxTokens: 60, ignoreEos: true }
    const { ids } = await model.createSession().complete([7, 8, 9], options)
    await model.dispose()
    const answers = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const worker = new Worker(code, { eval: true, workerData: tiny })
        const status = new Promise((resolve) => worker.once('exit', resolve))
        const answer = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
        expect(await status).toBe(0)
        return answer
      }),
    )
    expect(answers).toEqual(Array(4).fill(ids))
  })
})

/**
 * Runs a script in a process of its own, and `end` in it shortly after it has said something; `ms`: how long it went on
 * after its word.
 */
async function runScript(body: string, end = '', onWord?: (kill: (signal: NodeJS.Signals) => void) => void) {
  const code = `
    import { Model } from ${JSON.stringify(INDEX)}
    const path = process.argv[1]
    const say = (word) => {
      process.stdout.write(word + '\\n')
      ${end && `setTimeout(() => { ${end} }, Math.random() * 30)`}
    }
    const prompt = Int32Array.from({ length: 16_000 }, (_, i) => (i * 31) % 256)
    ${onWord ? '// A signal may come late.\nsetInterval(() => {}, 1000)' : ''}
    ${body}`
  const child = spawn(process.execPath, ['--input-type=module', '-e', code, slow])
  let [output, errors, said] = ['', '', 0]
  child.stdout.on('data', (data) => {
    if (output === '') {
      said = performance.now()
      onWord?.((signal) => child.kill(signal))
    }
    output += data
  })
  child.stderr.on('data', (data) => {
    errors += data
  })
  const [status, signal] = await new Promise<[number | null, string | null]>((resolve) =>
    child.on('close', (...ending) => resolve(ending)),
  )
  return { status, signal, output, errors, ms: performance.now() - said }
}

describe('a process', () => {
  describe.each(Object.keys(PHASES))('in the middle of %s', (phase) => {
    it('exits with the status it was given', async () => {
      const { status, signal, ms } = await runScript(PHASES[phase]!, 'process.exit(7)')
      expect([status, signal]).toEqual([7, null])
      expect(ms).toBeLessThan(STOPS.most)
    })

    it('dies of an uncaught exception as others do', async () => {
      const { status, signal, errors, ms } = await runScript(PHASES[phase]!, "throw new Error('nobody caught this')")
      expect([status, signal]).toEqual([1, null])
      expect(ms).toBeLessThan(STOPS.most)
      expect(errors).toContain('nobody caught this')
    })

    it.skipIf(process.platform === 'win32')('is killed by SIGTERM', async () => {
      const { status, signal, ms } = await runScript(PHASES[phase]!, '', (kill) =>
        setTimeout(() => kill('SIGTERM'), 10),
      )
      expect([status, signal]).toEqual([null, 'SIGTERM'])
      expect(ms).toBeLessThan(STOPS.most)
    })
  })

  it('ends by itself when a model is loaded and nothing is under way', async () => {
    const { status, output } = await runScript(
      `const model = await Model.load(path); model.createSession(); say('loaded')`,
    )
    expect([status, output]).toEqual([0, 'loaded\n'])
  })

  it('stays alive while something is under way, even if nobody awaits it', async () => {
    const { status, output } = await runScript(`
      const model = await Model.load(path)
      model.createSession().complete([1, 2, 3], { maxTokens: 30, ignoreEos: true }).then(({ ids }) => say(String(ids.length)))`)
    expect([status, output]).toEqual([0, '30\n'])
  })
})
