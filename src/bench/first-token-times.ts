/** Milliseconds until the first token: in a process that has the model, and in one that starts from nothing. */

import { spawn } from 'node:child_process'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { OnebitError } from '../errors.js'
import type { Activations, Model } from '../run/model.js'
import { firstTokenPrompt } from './first-token-prompt.js'
import { median } from './statistics.js'

/**
 * From a prompt to its first token, each time in a new session; the median after one that does not count. After
 * `seconds` no repetition begins.
 */
export async function warmFirstToken(model: Model, repetitions: number, seconds = Infinity): Promise<number> {
  const samples: number[] = []
  const begun = performance.now()
  for (let i = 0; i <= repetitions; i++) {
    const start = performance.now()
    if (samples.length > 0 && start - begun > seconds * 1000) break
    const session = model.createSession({ context: Math.min(64, model.context) })
    const pieces = session.generate(await firstTokenPrompt(model), { maxTokens: 1, temperature: 0, ignoreEos: true })
    await pieces.next()
    if (i > 0) samples.push(performance.now() - start)
    await pieces.return(undefined as never)
    session.dispose()
  }
  return median(samples)
}

export interface ColdStart {
  path: string
  threads: number
  activations: Activations
  isa: string
}

function oneColdStart({ isa, ...argument }: ColdStart): Promise<number> {
  const script = fileURLToPath(new URL('./first-token.js', import.meta.url))
  return new Promise((resolve, reject) => {
    const start = performance.now()
    let first: number | undefined
    let stderr = ''
    const child = spawn(process.execPath, [script, JSON.stringify(argument)], {
      env: { ...process.env, ONEBIT_ISA: isa },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    child.stdout.once('data', () => {
      first = performance.now() - start
    })
    child.stderr.on('data', (data) => {
      stderr += data
    })
    child.on('error', reject)
    child.on('close', (status, signal) => {
      if (status === 0 && first !== undefined) return resolve(first)
      const why = /\bError: (.*)/.exec(stderr)?.[1] ?? `${signal ?? `exit status ${status}`}`
      reject(new OnebitError('ERR_BENCH', `A fresh process gave no first token: ${why}`))
    })
  })
}

/** From the start of a process to its first token, the file in the page cache: the median after one that reads it. */
export async function coldFirstToken(start: ColdStart, repetitions: number): Promise<number> {
  const samples: number[] = []
  for (let i = 0; i <= repetitions; i++) {
    const ms = await oneColdStart(start)
    if (i > 0) samples.push(ms)
  }
  return median(samples)
}
