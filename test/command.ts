/** Runs `onebit` and `onebit-run` as a user does. */
import { type SpawnSyncOptions, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { PROJECT } from './data.js'

export interface Ended {
  status: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

export interface ProgramOptions extends Pick<SpawnSyncOptions, 'cwd' | 'stdio' | 'timeout'> {
  /** what stands on standard input */
  input?: string | Uint8Array
  env?: Record<string, string>
}

/** The words that start a program: node and its script. */
export function programWords(name: 'onebit' | 'onebit-run' = 'onebit'): string[] {
  return [process.execPath, join(PROJECT, 'dist', 'cli', `${name}.js`)]
}

/** ONEBIT_ISA is left out of the environment unless `env` gives it. */
export function program(name: 'onebit' | 'onebit-run', args: string[], options: ProgramOptions = {}): Ended {
  const { env, input = '', ...others } = options
  const [command, script] = programWords(name)
  const { status, signal, stdout, stderr } = spawnSync(command!, [script!, ...args], {
    ...others,
    input,
    encoding: 'utf8',
    maxBuffer: 1 << 26,
    env: { ...process.env, ONEBIT_ISA: '', ...env },
  })
  return { status, signal, stdout, stderr }
}

export const onebit = (...args: string[]): Ended => program('onebit', args)
