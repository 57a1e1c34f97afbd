// `onebit serve` as a process of its own, as its users have it; clients get its address and a key, and nothing else.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { until } from './checks.mjs'

const PROGRAM = fileURLToPath(new URL('../../dist/cli/onebit.js', import.meta.url))
/** The package's own Node, which may be older than the one that clients need. */
const NODE = process.env.ONEBIT_NODE ?? process.execPath

export function temporaryFolder() {
  const path = mkdtempSync(join(tmpdir(), 'onebit-clients-'))
  return { file: (name) => join(path, name), remove: () => rmSync(path, { recursive: true, force: true }) }
}

/** Starts the server and waits until it says where it listens. */
export async function serveModels(models, { key = 'sk-tried-by-tests', args = [] } = {}) {
  const child = spawn(NODE, [PROGRAM, 'serve', ...models, '--port', '0', '--json', '--threads', '2', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...(key ? { ONEBIT_API_KEY: key } : {}) },
  })
  const line = await new Promise((resolve, reject) => {
    let text = ''
    child.stdout.on('data', (part) => {
      text += part
      if (text.includes('\n')) resolve(text)
    })
    child.on('error', reject)
    child.on('exit', (status) => reject(new Error(`the server ended with exit status ${status}`)))
  })
  const { url } = JSON.parse(line)
  const headers = { authorization: `Bearer ${key}` }
  /** Of all models together. */
  const metric = async (name) => {
    const text = await (await fetch(`${url}/metrics`, { headers })).text()
    const values = [...text.matchAll(new RegExp(`^onebit_${name}\\{.*\\} (\\d+)$`, 'gm'))]
    return values.reduce((sum, [, value]) => sum + Number(value), 0)
  }
  return {
    url,
    key,
    baseURL: `${url}/v1`,
    metric,
    /** Nothing is computed and nothing waits any more. */
    idle: () => until(async () => (await metric('requests_running')) + (await metric('requests_waiting')) === 0),
    async stop() {
      const ended = once(child, 'exit')
      child.kill('SIGTERM')
      await ended
    },
  }
}
