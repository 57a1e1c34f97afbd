// `npm test`: builds what has changed, runs vitest, the native test programs, where there is time for it (CI, test:long) a soak
// of the server, the Python package's pytest and the clients that others wrote, and ends with the sum of all.
// With arguments (`npm test -- test/40 -t cosine`) only vitest runs, with these arguments.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
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

function node(argv) {
  return spawnSync(process.execPath, argv, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] })
}

function vitest(filters) {
  const folder = mkdtempSync(join(tmpdir(), 'onebit-test-'))
  const json = join(folder, 'vitest.json')
  const argv = ['run', '--reporter=default', '--reporter=json', `--outputFile.json=${json}`, ...filters]
  const { status, signal } = node([join(ROOT, 'node_modules', 'vitest', 'vitest.mjs'), ...argv])
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
  // Fuzzing goes on for as long as there is time: some minutes for a change, a night for a release.
  const minutes = process.env.ONEBIT_LONG ? 480 : process.env.CI ? 2 : 1
  const options = {
    env: { ONEBIT_FUZZ_MINUTES: String(minutes), ...process.env },
    timeoutMs: (minutes + 20) * 60_000,
  }
  await onAllProcessors(testPrograms(), async (name) => {
    report(tally, name, await runTestProgram('build', name, options))
  })
}

/** A runner of its own, whose last line is counted. */
function runner(name, script, ...args) {
  console.log(`\n${name}`)
  const argv = [join(ROOT, 'scripts', script), ...args]
  const stdio = ['ignore', 'pipe', 'inherit']
  const run = spawnSync(process.execPath, argv, { cwd: ROOT, stdio, encoding: 'utf8', maxBuffer: 1 << 26 })
  process.stdout.write(run.stdout ?? '')
  tally.addRun(name, { ...run, output: run.stdout ?? '' })
}

/** What only time shows: minutes of mixed clients. */
function soak() {
  const minutes = process.env.ONEBIT_LONG ? 20 : process.env.CI ? 2 : 0
  if (minutes > 0) runner('soak', 'soak.mjs', '--minutes', String(minutes), '--pauses')
}

const filters = process.argv.slice(2)
const missing = missingBuildTool()
if (missing) {
  tally.fail(missing)
} else if (node([join(ROOT, 'scripts', 'prepare.mjs')]).status !== 0) {
  tally.fail('the addon or dist/ does not build (see above)')
} else {
  vitest(filters)
  if (filters.length === 0) {
    await nativeTests()
    soak()
  }
}
if (filters.length === 0) {
  runner('distill', 'distill-tests.mjs')
  if (existsSync(join(ROOT, 'dist', 'index.js'))) runner('clients', 'client-tests.mjs')
}
tally.finish()
