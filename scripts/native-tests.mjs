// Builds and runs the native test programs (test/native/*_test.cpp).
import { execFile, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { cmakeJs } from './cmake-js.mjs'

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..')

/** Whether `command` can be started here. */
export function present(command, argv = ['--version']) {
  return spawnSync(command, argv, { stdio: 'ignore' }).status === 0
}

/** The reason why nothing native can be built here, or undefined. */
export function missingBuildTool() {
  if (!present('cmake')) {
    return 'cmake was not found. Install it (Debian: apt-get install cmake; macOS: brew install cmake; Windows: winget install Kitware.CMake).'
  }
  // On Windows CMake finds Visual Studio by itself; it is not on the PATH.
  if (process.platform === 'win32') return undefined
  if ([process.env.CXX, 'c++', 'g++', 'clang++'].some((compiler) => compiler && present(compiler))) return undefined
  return 'no C++ compiler was found. Install one (Debian: apt-get install g++; macOS: xcode-select --install).'
}

/** Standard output and error of ours are the runner's; a failing step of a build throws. */
function must(command, argv) {
  const { status, error } = spawnSync(command, argv, { cwd: ROOT, stdio: ['ignore', 2, 2] })
  if (error) throw error
  if (status !== 0) throw new Error(`${command} ${argv.join(' ')}: exit status ${status}`)
}

/** Names of the test programs: one per source file. Those with random cases first: they take longest, and others fill the end. */
export function testPrograms() {
  const folder = join(ROOT, 'test', 'native')
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .filter((name) => name.endsWith('_test.cpp'))
    .map((name) => basename(name, '.cpp'))
    .sort((a, b) => b.includes('fuzz') - a.includes('fuzz') || a.localeCompare(b))
}

/**
 * Builds the test programs from the objects of the addon in the same folder, with the same options of cmake-js. Not its
 * `compile`, which answers a failure by removing the folder, and the addon with it.
 */
export function buildTestPrograms(folder, options = [], target = 'native_tests') {
  const { status, error } = cmakeJs(['build', '--out', folder, ...options, '--target', target])
  if (error) throw error
  if (status !== 0) throw new Error(`cmake-js: exit status ${status}`)
}

/** Builds some of them in a folder without Node: for another kind of processor, say. */
export function crossBuildTestPrograms(folder, options, targets = ['native_tests']) {
  const build = join(ROOT, folder)
  const ninja = present('ninja')
  const cache = join(build, 'CMakeCache.txt')
  // CMake refuses a folder that another generator has configured, for example before Ninja was installed.
  if (existsSync(cache) && readFileSync(cache, 'utf8').includes('CMAKE_GENERATOR:INTERNAL=Ninja') !== ninja) {
    rmSync(build, { recursive: true })
  }
  must('cmake', [...(ninja ? ['-G', 'Ninja'] : []), '-S', ROOT, '-B', build, ...options])
  must('cmake', ['--build', build, '--target', ...targets, '--parallel', String(availableParallelism())])
}

function programPath(folder, name) {
  const file = process.platform === 'win32' ? `${name}.exe` : name
  // Visual Studio puts programs in a folder named after the configuration.
  return [join(ROOT, folder, file), join(ROOT, folder, 'Release', file)].find(existsSync)
}

/** Runs one test program, `prefix` before it (an emulator), and resolves with { status, signal, output, seconds }. */
export async function runTestProgram(folder, name, { prefix = [], env = process.env, timeoutMs = 900_000 } = {}) {
  const path = programPath(folder, name)
  if (!path) return { status: 1, signal: null, output: `${name} was not built in ${folder}\n`, seconds: 0 }
  const [command, ...argv] = [...prefix, path]
  const from = performance.now()
  const seconds = () => (performance.now() - from) / 1000
  try {
    const options = { cwd: ROOT, env, timeout: timeoutMs, maxBuffer: 1 << 26 }
    const { stdout, stderr } = await promisify(execFile)(command, argv, options)
    return { status: 0, signal: null, output: `${stdout}${stderr}`, seconds: seconds() }
  } catch (error) {
    // A status is a number; anything else (it could not be started, it printed too much, it took too long) has a word.
    const { code, signal, killed, stdout = '', stderr = '' } = error
    const why = killed ? `stopped after ${timeoutMs / 1000} s\n` : typeof code === 'string' ? `${error.message}\n` : ''
    const output = `${stdout}${stderr}${why}`
    return { status: typeof code === 'number' ? code : null, signal, output, seconds: seconds() }
  }
}

/** Prints what a test program said and how long it took, and counts it. */
export function report(tally, title, run) {
  process.stdout.write(`\n${title} (${run.seconds.toFixed(0)} s)\n${run.output}`)
  tally.addRun(title, run)
}

/** `work` on every item, as many at once as there are processors. */
export async function onAllProcessors(items, work) {
  const waiting = [...items]
  const lane = async () => {
    while (waiting.length > 0) await work(waiting.shift())
  }
  await Promise.all(Array.from({ length: availableParallelism() }, lane))
}
