// Everything native under AddressSanitizer and UndefinedBehaviorSanitizer: the native test programs, then the addon
// itself, loaded into node for the file attacks and for a generation.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { cmakeJs } from './cmake-js.mjs'
import { importTypeScript } from './import-typescript.mjs'
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

// The addon is looked for below this folder, instead of below the package, when ONEBIT_RUN_PREBUILD names it.
const ADDON_ROOT = join(ROOT, 'build-asan')
const BUILD = 'build-asan/build'
const ADDON = join(ROOT, BUILD, 'Release', 'onebit.node')
const tally = new Tally()
// Random cases cost ten times as much here. ONEBIT_LONG=1 (an hour and more) gives the loader two million mutants and the engine
// 5,000 cases.
const LONG = process.env.ONEBIT_LONG === '1'
const FEWER = {
  ONEBIT_CASES: LONG ? '2000' : '1200',
  ONEBIT_VARIANTS: 'few',
  ONEBIT_MUTANTS: LONG ? '2000000' : '100000',
  ONEBIT_FUZZ: LONG ? '5000' : '100',
}
const SANITIZERS = {
  // A signal, not an exit status that a test might take for a refusal.
  ASAN_OPTIONS: 'abort_on_error=1:detect_leaks=1',
  UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1:abort_on_error=1',
}

function node(argv, env, capture) {
  const stdio = ['ignore', capture ? 'pipe' : 'inherit', 'inherit']
  return spawnSync(process.execPath, argv, { cwd: ROOT, stdio, env, encoding: 'utf8', timeout: 1_200_000 })
}

async function nativePrograms() {
  await onAllProcessors(testPrograms(), async (name) => {
    const env = { ...FEWER, ...process.env, ...SANITIZERS }
    const run = await runTestProgram(BUILD, name, { env, timeoutMs: LONG ? 8 * 3_600_000 : 900_000 })
    report(tally, `${name} under sanitizers`, run)
  })
}

/** node is not built with the sanitizers, so their library must be in the process before anything else. */
function preloaded() {
  const compiler = process.env.CXX ?? 'c++'
  const file = (name) => spawnSync(compiler, [`-print-file-name=${name}`], { encoding: 'utf8' }).stdout.trim()
  // libstdc++ too: otherwise ASan finds no __cxa_throw to wrap and stops at node's first exception.
  return [file('libasan.so'), file('libstdc++.so.6')].join(' ')
}

/**
 * Of two sets that read and write with the same code (one multiplies bytes by an instruction more) one is checked, or both where
 * there is time: building a set with checks takes minutes. What this processor cannot run is not built at all.
 */
const ALIKE = { avx512: 'avx512vnni', avxvnni: 'avx2' }

async function checkedSets() {
  const { addon } = await import('../dist/native/addon.js')
  const present = addon()
    .info()
    .isas.filter(({ state }) => state === 'usable')
    .map(({ name }) => name)
  return LONG ? present : present.filter((name) => !present.includes(ALIKE[name]))
}

/** The addon and the test programs from the same objects. */
async function build() {
  const sets = await checkedSets()
  console.log(`with checks: ${sets.join(', ')}`)
  const options = ['--CDONEBIT_SANITIZE=ON', `--CDONEBIT_SETS=${sets.join(';')}`]
  const { status } = cmakeJs(['compile', '--out', BUILD, ...options])
  if (status !== 0 || !existsSync(ADDON)) throw new Error('the engine does not build with sanitizers')
  buildTestPrograms(BUILD, options)
}

/** Otherwise everything below would quietly pass with the ordinary addon. */
function mustLoadSanitized(env) {
  const script = `const { addon } = await import('./dist/native/addon.js'); addon()
    console.log(process.report.getReport().sharedObjects.join('\\n'))`
  const { status, stdout } = node(['--input-type=module', '-e', script], env, true)
  if (status !== 0 || !stdout.includes(ADDON)) throw new Error('node did not load the addon with sanitizers')
}

function attacks(env, folder) {
  const json = join(folder, 'vitest.json')
  // Those on JSON's fields end before anything native, and take minutes.
  const apart = ['--exclude', '**/fields-of-the-wrong-type.test.ts']
  const argv = ['run', 'test/attacks', ...apart, '--reporter=default', '--reporter=json', `--outputFile.json=${json}`]
  const { status, signal } = node([join(ROOT, 'node_modules', 'vitest', 'vitest.mjs'), ...argv], env)
  if (!existsSync(json)) return tally.fail(`the attacks under sanitizers: ${signal ?? `exit status ${status}`}`)
  const { numPassedTests, numFailedTests, numPendingTests } = JSON.parse(readFileSync(json, 'utf8'))
  tally.add({ passed: numPassedTests, failed: numFailedTests, skipped: numPendingTests })
  if (status !== 0 && numFailedTests === 0) tally.fail('the attacks under sanitizers did not end well')
  if (numPassedTests === 0) tally.fail('no attack ran under sanitizers')
}

/** A model of every-day use: converted, loaded, asked in both activation modes. */
async function generation(env, folder) {
  const { tinyQwen3 } = await importTypeScript('test/fixtures/tiny-qwen3.ts')
  const gguf = join(folder, 'tiny.gguf')
  const obt = join(folder, 'tiny.obt')
  writeFileSync(gguf, tinyQwen3())
  const onebit = join(ROOT, 'dist', 'cli', 'onebit.js')
  const converted = node([onebit, 'convert', gguf, '-o', obt], env)
  if (converted.status !== 0) return tally.fail(`convert under sanitizers: ${converted.signal ?? converted.status}`)
  for (const activations of ['int8', 'f32']) {
    const argv = ['run', obt, '-p', 'abcabc', '-n', '24', '--temp', '0', '--threads', '2', '--activations', activations]
    const { status, signal, stdout } = node([onebit, ...argv], env, true)
    if (status === 0 && stdout.length > 0) tally.passed++
    else tally.fail(`a generation (${activations}) under sanitizers: ${signal ?? `exit status ${status}`}`)
  }
}

async function addonInNode() {
  const folder = mkdtempSync(join(tmpdir(), 'onebit-asan-'))
  // No leak check here: node itself ends without freeing everything.
  const asan = SANITIZERS.ASAN_OPTIONS.replace('detect_leaks=1', 'detect_leaks=0')
  const env = {
    ...process.env,
    ...SANITIZERS,
    ASAN_OPTIONS: asan,
    ONEBIT_RUN_PREBUILD: ADDON_ROOT,
    LD_PRELOAD: preloaded(),
  }
  try {
    mustLoadSanitized(env)
    attacks(env, folder)
    await generation(env, folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const missing = missingBuildTool()
if (process.platform !== 'linux') tally.skip('sanitizers inside node: their library is preloaded the way Linux does it')
else if (missing) tally.fail(missing)
else {
  try {
    await build()
    await nativePrograms()
    await addonInNode()
  } catch (error) {
    tally.fail(error.message)
  }
}
tally.finish()
