// cmake-js with all processors: `node scripts/cmake-js.mjs compile --out build [--target NAME]`. By itself it lets make, which
// it takes where there is no Ninja, build one file after the other.
import { spawnSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { argv, execPath, env as inherited } from 'node:process'
import { fileURLToPath } from 'node:url'

const SCRIPT = fileURLToPath(import.meta.url)
const ROOT = join(dirname(SCRIPT), '..')
const CMAKE_JS = join(ROOT, 'node_modules', 'cmake-js', 'bin', 'cmake-js')

/** Its standard output goes to stderr, as everything of a build does. @returns { status, error } */
export function cmakeJs(args) {
  const env = { CMAKE_BUILD_PARALLEL_LEVEL: String(availableParallelism()), ...inherited }
  return spawnSync(execPath, [CMAKE_JS, ...args], { cwd: ROOT, env, stdio: ['ignore', 2, 2] })
}

if (argv[1] === SCRIPT) process.exitCode = cmakeJs(argv.slice(2)).status ?? 1
