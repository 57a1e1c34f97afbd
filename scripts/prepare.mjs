// Builds the addon and dist/ when something they are made of has changed; otherwise returns at once, because some
// npm versions run `prepare` at every `npx` in a clone. In an installed package this file does not exist.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const force = process.argv.includes('--force')

/** Path, size and modification time of every file below `entries`: cheap, and it changes when a file does. */
function fingerprint(entries) {
  const hash = createHash('sha256')
  const visit = (path) => {
    const stat = statSync(path, { throwIfNoEntry: false })
    if (!stat) return
    if (stat.isDirectory()) for (const name of readdirSync(path).sort()) visit(join(path, name))
    else hash.update(`${path}\0${stat.size}\0${stat.mtimeMs}\n`)
  }
  for (const entry of entries) visit(join(root, entry))
  return hash.digest('hex')
}

function run(script) {
  const npm = process.env.npm_execpath
  const [command, prefix] = npm ? [process.execPath, [npm]] : [process.platform === 'win32' ? 'npm.cmd' : 'npm', []]
  // npm's standard output is the user's own (`npx onebit run … | …`), so everything of ours goes to stderr.
  const { status, error } = spawnSync(command, [...prefix, 'run', '--silent', script], {
    cwd: root,
    stdio: ['ignore', 2, 2],
    shell: !npm && process.platform === 'win32',
  })
  if (error) throw error
  if (status !== 0) process.exit(status ?? 1)
}

/** cmake-js says little when there is no CMake; a first build deserves a clear word. */
function requireCmake() {
  if (spawnSync('cmake', ['--version'], { stdio: 'ignore' }).status === 0) return
  console.error(
    'onebit-run: building the addon needs CMake 3.22 or newer and a C++20 compiler (Debian: apt install cmake g++;\n' +
      'macOS: xcode-select --install and brew install cmake; Windows: the Visual Studio C++ build tools).',
  )
  process.exit(1)
}

function buildWhenChanged(script, product, entries) {
  const stamp = join(root, `.stamp-${script.replace(':', '-')}`)
  const now = fingerprint([...entries, 'package.json', 'package-lock.json'])
  const fresh = !force && existsSync(join(root, product)) && existsSync(stamp) && readFileSync(stamp, 'utf8') === now
  if (fresh) return
  rmSync(stamp, { force: true })
  if (script === 'build:native') requireCmake()
  run(script)
  writeFileSync(stamp, now)
}

buildWhenChanged('build:native', 'build/Release/onebit.node', ['binding', 'CMakeLists.txt'])
buildWhenChanged('build:ts', 'dist/index.js', ['src', 'tsconfig.json', 'scripts/join-start.mjs'])
