// The functions between a call in JavaScript and a kernel, as gdb sees them in a build in which nothing is inlined:
// `node scripts/call-chain.mjs` (Linux, with gdb). Ends with an error when there are more than docs/core.md promises.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { cmakeJs } from './cmake-js.mjs'
import { missingBuildTool, present, ROOT } from './native-tests.mjs'

const MOST = 12
const FOLDER = 'build-debug'
const MODEL = join(ROOT, 'models', 'stories-5M.obt')
// Kernels of the scalar set. With one thread, since another's stack begins in the pool.
const KERNELS = ['scalar.cpp:sign_i8', 'lanes_attend.inl:attend', 'lanes_rows.inl:rmsnorm', 'lanes_rows.inl:activate']
const PROGRAM = `
const { Model } = await import(${JSON.stringify(`file://${join(ROOT, 'dist', 'index.js')}`)})
const model = await Model.load(${JSON.stringify(MODEL)}, { threads: 1 })
for await (const _ of model.createSession().generate('Once upon', { maxTokens: 2 })) ;
await model.dispose()`

/** Names of our functions on the stack of the thread that reaches `symbol` first, innermost first. */
function stackAt(symbol) {
  const commands = ['set breakpoint pending on', 'set pagination off', `break ${symbol}`, 'run', 'bt', 'kill']
  const gdb = ['-q', '-batch', ...commands.flatMap((command) => ['-ex', command]), '--args']
  const env = { ...process.env, ONEBIT_ISA: 'scalar', ONEBIT_RUN_PREBUILD: join(ROOT, FOLDER) }
  const node = [process.execPath, '--input-type=module', '-e', PROGRAM]
  const { stdout } = spawnSync('gdb', [...gdb, ...node], { cwd: ROOT, env, encoding: 'utf8', timeout: 300_000 })
  const ours = stdout.matchAll(/^#\d+ .*?(onebit::[^\n]*?) \([^\n]* at (\S*?binding\/\S+)$/gm)
  return [...ours].map(
    ([, name, place]) =>
      `${name.replace('(anonymous namespace)::', '').replace(/\(.*/, '')}  ${place.replace(/.*binding/, 'binding')}`,
  )
}

function list() {
  const { status } = cmakeJs(['compile', '--debug', '--out', `${FOLDER}/build`])
  if (status !== 0) throw new Error('the engine does not build')
  const call = stackAt('onebit::generate_call').reverse()
  let most = 0
  for (const kernel of KERNELS) {
    const stack = stackAt(kernel).reverse()
    if (stack.length === 0) throw new Error(`gdb did not reach ${kernel}`)
    const before = [...call, ...stack.slice(0, -1)]
    most = Math.max(most, before.length)
    console.log(`\n${before.length} functions before ${kernel}`)
    for (const frame of [...before, stack.at(-1)]) console.log(`  ${frame}`)
  }
  if (most > MOST) throw new Error(`${most} functions, more than ${MOST}`)
}

const missing = missingBuildTool() ?? (present('gdb') ? undefined : 'gdb was not found')
try {
  if (missing) throw new Error(missing)
  list()
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
