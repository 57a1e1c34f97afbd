// `npm test`: builds what has changed, runs vitest, the native test programs, where there is time for it (CI, test:long) a soak
// of the server, the Python package's pytest and the clients that others wrote, and ends with the sum of all.
// With arguments (`npm test -- test/40 -t cosine`) only vitest runs, with these arguments.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { constants, setPriority, tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import {
  buildTestPrograms,
  missingBuildTool,
  onAllProcessors,
  ROOT,
  report,
  runTestProgram,
  testPrograms,
} from './native-tests.mjs'
import { Tally } from './tally.mjs'

const tally = new Tally()

/** Runs a script of Node's; `captured`: with what it prints on standard output. @returns { status, signal, stdout } */
async function node(argv, { captured = false, priority = constants.priority.PRIORITY_NORMAL } = {}) {
  const stdio = ['ignore', captured ? 'pipe' : 'inherit', 'inherit']
  const child = spawn(process.execPath, argv, { cwd: ROOT, stdio })
  if (priority !== constants.priority.PRIORITY_NORMAL) setPriority(child.pid, priority)
  let stdout = ''
  child.stdout?.setEncoding('utf8').on('data', (text) => {
    stdout += text
  })
  const [status, signal] = await once(child, 'close')
  return { status, signal, stdout }
}

async function vitest(filters) {
  const folder = mkdtempSync(join(tmpdir(), 'onebit-test-'))
  const json = join(folder, 'vitest.json')
  const argv = ['run', '--reporter=default', '--reporter=json', `--outputFile.json=${json}`, ...filters]
  const { status, signal } = await node([join(ROOT, 'node_modules', 'vitest', 'vitest.mjs'), ...argv])
  const files = existsSync(json) ? JSON.parse(readFileSync(json, 'utf8')).testResults : []
  rmSync(folder, { recursive: true })
  countVitest(files, signal ?? `exit status ${status}`, status === 0)
}

/** The first of what a failed test says, in one line. */
function reason([message = '']) {
  return message.replaceAll(/\s+/g, ' ').slice(0, 400)
}

function countVitest(files, ending, ended_well) {
  const before = tally.failed
  for (const { name, status, message, assertionResults } of files) {
    const file = relative(ROOT, name)
    for (const test of assertionResults) {
      if (test.status === 'passed') tally.passed++
      else if (test.status === 'failed') tally.fail(`${file}: ${test.fullName}: ${reason(test.failureMessages)}`)
      // Vitest leaves a test pending when its process died in it or before it.
      else if (test.status === 'pending') tally.fail(`${file}: ${test.fullName} was not run`)
      else tally.skip(`${file}: ${test.fullName}`)
    }
    // A file that could not even be loaded has no tests to count.
    const failed = assertionResults.some((test) => test.status === 'failed' || test.status === 'pending')
    if (status === 'failed' && !failed) tally.fail(`${file}: ${message || 'did not run'}`)
  }
  if (!ended_well && tally.failed === before) tally.fail(`vitest: ${ending}`)
}

async function nativeTests() {
  try {
    buildTestPrograms('build')
  } catch (error) {
    return tally.fail(`the native test programs do not build: ${error.message}`)
  }
  // Fuzzing goes on for as long as there is time: a minute for a change, a night for a release.
  const minutes = process.env.ONEBIT_LONG ? 480 : 1
  const options = {
    env: { ONEBIT_FUZZ_MINUTES: String(minutes), ...process.env },
    timeoutMs: (minutes + 20) * 60_000,
  }
  await onAllProcessors(testPrograms(), async (name) => {
    report(tally, name, await runTestProgram('build', name, options))
  })
}

/** A runner of its own, whose last line is counted when it has ended. @returns what counts it and prints what it said */
async function runner(name, argv, options = {}) {
  const run = await node([join(ROOT, 'scripts', argv[0]), ...argv.slice(1)], { ...options, captured: true })
  return () => {
    console.log(`\n${name}`)
    process.stdout.write(run.stdout)
    tally.addRun(name, { ...run, output: run.stdout })
  }
}

/** Runners that keep one processor busy at most, one after the other: with what the other tests leave. */
async function runnersBeside() {
  const low = { priority: constants.priority.PRIORITY_LOW }
  const counts = [await runner('distill', ['distill-tests.mjs'], low)]
  if (existsSync(join(ROOT, 'dist', 'index.js'))) counts.push(await runner('clients', ['client-tests.mjs'], low))
  return counts
}

/** What only time shows: minutes of mixed clients. */
async function soak() {
  const minutes = process.env.ONEBIT_LONG ? 20 : process.env.CI ? 2 : 0
  if (minutes > 0) (await runner('soak', ['soak.mjs', '--minutes', String(minutes), '--pauses']))()
}

async function main(filters) {
  const missing = missingBuildTool()
  const built = !missing && (await node([join(ROOT, 'scripts', 'prepare.mjs')])).status === 0
  if (missing) tally.fail(missing)
  else if (!built) tally.fail('the addon or dist/ does not build (see above)')
  if (filters.length > 0) {
    if (built) await vitest(filters)
    return
  }
  const beside = runnersBeside()
  if (built) {
    await vitest(filters)
    await nativeTests()
    await soak()
  }
  for (const count of await beside) count()
}

await main(process.argv.slice(2))
tally.finish()
