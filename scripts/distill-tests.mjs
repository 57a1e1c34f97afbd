// The Python half: pytest on distill/, in a virtual environment of its own (distill/.venv, about 5.5 GB with PyTorch), which
// is made when Python 3.10 or newer and PyPI are at hand. Whoever only runs models never needs this: without Python these
// tests are skipped, with the reason. ONEBIT_PYTHON names an interpreter to use instead, as it is. With --install alone, the
// environment is made and nothing tested.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ROOT } from './native-tests.mjs'
import { Tally } from './tally.mjs'

const FOLDER = join(ROOT, 'distill')
const VENV = join(FOLDER, '.venv')
const VENV_PYTHON = process.platform === 'win32' ? join(VENV, 'Scripts', 'python.exe') : join(VENV, 'bin', 'python')
const RECENT = 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))'

const tally = new Tally()

function succeeds(command, argv) {
  return spawnSync(command, argv, { stdio: 'ignore' }).status === 0
}

/** An interpreter with everything installed, or { skip: reason }. */
function findPython() {
  if (process.env.ONEBIT_PYTHON) return { python: process.env.ONEBIT_PYTHON }
  const project = readFileSync(join(FOLDER, 'pyproject.toml'))
  const installed = createHash('sha256').update(project).digest('hex')
  // Written after pip has ended well: an installation that was interrupted is done again.
  const stamp = join(VENV, 'installed')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === installed) return { python: VENV_PYTHON }
  const base = ['python3', 'python'].find((name) => succeeds(name, ['-c', RECENT]))
  if (!base) return { skip: 'Python 3.10 or newer with venv was not found' }
  console.log('installing PyTorch and the rest into distill/.venv (some minutes, about 5.5 GB) ...')
  if (!existsSync(VENV_PYTHON) && !succeeds(base, ['-m', 'venv', VENV]))
    return { skip: 'no virtual environment could be made' }
  const argv = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--retries', '2', '--timeout', '20']
  const pip = spawnSync(VENV_PYTHON, [...argv, '-e', `${FOLDER}[test]`], { encoding: 'utf8' })
  if (pip.status !== 0) {
    const reason = `${pip.stderr}`.trim().split('\n').at(-1)
    return { skip: `the Python packages could not be installed (${reason})` }
  }
  writeFileSync(stamp, installed)
  return { python: VENV_PYTHON }
}

const ENTITIES = { '&quot;': '"', '&lt;': '<', '&gt;': '>', '&amp;': '&', '&apos;': "'" }

function attribute(element, name) {
  const [, value] = new RegExp(` ${name}="([^"]*)"`).exec(element) ?? []
  return value?.replace(/&\w+;/g, (entity) => ENTITIES[entity] ?? entity) ?? ''
}

/** Counts the cases of a JUnit report as pytest writes it. */
function countReport(xml) {
  for (const [element, head, , inside] of xml.matchAll(/(<testcase [^>]*?)(\/>|>([\s\S]*?)<\/testcase>)/g)) {
    const name = `distill: ${attribute(head, 'classname')} ${attribute(head, 'name')}`
    const [, outcome] = /<(failure|error|skipped) /.exec(inside ?? '') ?? []
    if (outcome === 'skipped') tally.skip(`${name} (${attribute(element, 'message')})`)
    else if (outcome) tally.fail(name)
    else tally.passed++
  }
}

function run(python, filters) {
  const folder = mkdtempSync(join(tmpdir(), 'onebit-distill-'))
  const report = join(folder, 'report.xml')
  const argv = ['-m', 'pytest', '-q', '-p', 'no:cacheprovider', `--junitxml=${report}`, ...filters]
  const env = { ...process.env, OMP_NUM_THREADS: '1', PYTHONDONTWRITEBYTECODE: '1' }
  const { status, signal, error } = spawnSync(python, argv, {
    cwd: FOLDER,
    env,
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  if (existsSync(report)) countReport(readFileSync(report, 'utf8'))
  rmSync(folder, { recursive: true })
  if (error) tally.fail(`distill: ${python}: ${error.message}`)
  else if (status !== 0 && tally.failed === 0)
    tally.fail(`distill: pytest ended with ${signal ?? `exit status ${status}`}`)
  else if (tally.passed + tally.failed + tally.skipped === 0) tally.fail('distill: pytest ran nothing')
}

const filters = process.argv.slice(2)
const found = findPython()
if (filters[0] === '--install') {
  // Whoever runs the tests later counts what this could not do.
  console.log(found.skip ?? `installed: ${found.python}`)
  process.exit()
}
if (found.skip) tally.skip(`distill/tests: ${found.skip}`)
else run(found.python, filters)
tally.finish()
