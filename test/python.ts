/** A Python that has what a test compares with: named by ONEBIT_PYTHON, distill's own, or the system's. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { PROJECT } from './data.js'

/** Its command, or undefined (and a word why) where no Python has all of `modules`. */
export function pythonWith(...modules: string[]): string | undefined {
  const distill = ['bin/python', 'Scripts/python.exe'].map((path) => join(PROJECT, 'distill', '.venv', path))
  const candidates = [process.env.ONEBIT_PYTHON, ...distill, 'python3', 'python'].filter((one) => one !== undefined)
  const found = candidates.find((one) => spawnSync(one, ['-c', `import ${modules.join(', ')}`]).status === 0)
  if (found === undefined)
    console.warn(`skipped: no Python here has ${modules.join(' and ')} (ONEBIT_PYTHON names one)`)
  return found
}
