// `npm run prebuilds [-- PLATFORM-ARCH[-LIBC] ...]`: the addons of the package, for all eight systems or those named, made on
// this machine by Zig's clang, in prebuildify's folders and under its names: prebuilds/linux-x64/onebit.glibc.node. Zig comes
// from PyPI (about 410 MB, into build-zig/) unless ONEBIT_ZIG names its program. ONEBIT_JOBS: how many compilers at once.
import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { checkAddon } from './check-addon.mjs'

const SCRIPT = fileURLToPath(import.meta.url)
const ROOT = join(dirname(SCRIPT), '..')
const ZIG_PACKAGE = 'ziglang==0.17.1'
const VENV = join(ROOT, 'build-zig')

/** Each system by its name, with Zig's name of it; `file`: where the addon lies. The oldest systems that are supported. */
export const TARGETS = {
  'linux-x64-glibc': { zig: 'x86_64-linux-gnu.2.17', file: 'linux-x64/onebit.glibc.node' },
  'linux-x64-musl': { zig: 'x86_64-linux-musl', file: 'linux-x64/onebit.musl.node' },
  'linux-arm64-glibc': { zig: 'aarch64-linux-gnu.2.17', file: 'linux-arm64/onebit.glibc.node' },
  'linux-arm64-musl': { zig: 'aarch64-linux-musl', file: 'linux-arm64/onebit.musl.node' },
  'win32-x64': { zig: 'x86_64-windows-gnu', file: 'win32-x64/onebit.node' },
  'win32-arm64': { zig: 'aarch64-windows-gnu', file: 'win32-arm64/onebit.node' },
  'darwin-x64': { zig: 'x86_64-macos.11.0', file: 'darwin-x64/onebit.node' },
  'darwin-arm64': { zig: 'aarch64-macos.11.0', file: 'darwin-arm64/onebit.node' },
}

export const buildFolder = (target) => join('build-prebuilds', target)
export const prebuiltPath = (target) => join(ROOT, 'prebuilds', TARGETS[target].file)

function succeeds(command, argv) {
  return spawnSync(command, argv, { stdio: 'ignore' }).status === 0
}

/** Zig's program. @throws Error with the reason when it cannot be had */
export function findZig() {
  if (process.env.ONEBIT_ZIG) return process.env.ONEBIT_ZIG
  const stamp = join(VENV, 'installed')
  const inside = join(VENV, process.platform === 'win32' ? 'Scripts/python.exe' : 'bin/python')
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== ZIG_PACKAGE) {
    const base = ['python3', 'python'].find((name) => succeeds(name, ['-c', 'import venv, ensurepip']))
    if (!base) throw new Error('Zig comes from PyPI, and Python 3 with venv was not found (or set ONEBIT_ZIG)')
    console.error(`installing ${ZIG_PACKAGE} into build-zig/ ...`)
    if (!succeeds(base, ['-m', 'venv', VENV])) throw new Error('no virtual environment could be made in build-zig/')
    const argv = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--retries', '2', ZIG_PACKAGE]
    const pip = spawnSync(inside, argv, { encoding: 'utf8' })
    if (pip.status !== 0)
      throw new Error(`${ZIG_PACKAGE} could not be installed (${pip.stderr?.trim().split('\n').at(-1)})`)
    writeFileSync(stamp, ZIG_PACKAGE)
  }
  const find = "import os, ziglang; print(os.path.join(os.path.dirname(ziglang.__file__), 'zig'))"
  return spawnSync(inside, ['-c', find], { encoding: 'utf8' }).stdout.trim()
}

function must(command, argv) {
  const { status, error } = spawnSync(command, argv, { cwd: ROOT, stdio: ['ignore', 2, 2] })
  if (error) throw error
  if (status !== 0) throw new Error(`${command} ${argv.join(' ')}: exit status ${status}`)
}

/**
 * CMake's look at one system, with all instruction sets or those named beside scalar. Its trials make Zig compile the system's
 * libraries, once for all builds: minutes, mostly on one processor.
 * @throws Error when it fails
 */
export function configure(zig, target, sets = []) {
  const folder = join(ROOT, buildFolder(target))
  const require = createRequire(import.meta.url)
  // Zig's program and version are part of what is built: another one starts afresh.
  const stamp = join(folder, 'zig')
  const identity = `${zig} ${spawnSync(zig, ['version'], { encoding: 'utf8' }).stdout ?? ''} ${TARGETS[target].zig}`
  if (existsSync(folder) && (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== identity))
    rmSync(folder, { recursive: true })
  must('cmake', [
    ...(succeeds('ninja', ['--version']) ? ['-G', 'Ninja'] : ['-G', 'Unix Makefiles']),
    ...['-S', ROOT, '-B', folder, '-DCMAKE_BUILD_TYPE=Release'],
    `-DCMAKE_TOOLCHAIN_FILE=${join(ROOT, 'scripts', 'zig.toolchain.cmake')}`,
    ...[`-DZIG=${zig}`, `-DZIG_TARGET=${TARGETS[target].zig}`],
    `-DCMAKE_JS_INC=${require('node-api-headers').include_dir}`,
    `-DONEBIT_SETS=${sets.join(';')}`,
    '-DCMAKE_CXX_COMPILER_LAUNCHER=', // Zig keeps what it has compiled by itself
  ])
  writeFileSync(stamp, identity)
  return folder
}

/** Compiles `products` (targets of CMakeLists.txt) for one system. @throws Error when a step fails */
export function compile(zig, target, products, sets) {
  const folder = configure(zig, target, sets)
  const jobs = process.env.ONEBIT_JOBS ?? String(availableParallelism())
  must('cmake', ['--build', folder, '--target', ...products, '--parallel', jobs])
}

/** Builds one addon, checks it and puts it where the package has it. @returns its path */
export function prebuild(zig, target, sets) {
  compile(zig, target, ['onebit'], sets)
  const made = join(ROOT, buildFolder(target), 'onebit.node')
  const problems = checkAddon(made, target)
  if (problems.length > 0) throw new Error(`${target}: ${problems.join('; ')}`)
  const path = prebuiltPath(target)
  mkdirSync(dirname(path), { recursive: true })
  // Never half a file under that name, and never other bytes in a file that a running program has open.
  copyFileSync(made, `${path}.tmp`)
  renameSync(`${path}.tmp`, path)
  return path
}

/** Where Zig and npm have the licences of what the linker puts into an addon. */
const LICENCES = {
  'node-addon-api and Node-API headers': ['node-addon-api/LICENSE.md', 'node-api-headers/LICENSE'],
  'libc++, libc++abi, libunwind (LLVM)': ['libcxx/LICENSE.TXT', 'libcxxabi/LICENSE.TXT', 'libunwind/LICENSE.TXT'],
  'compiler-rt and start files (Zig)': ['../LICENSE'],
  'MinGW-w64 (Windows)': ['libc/mingw/COPYING'],
  'musl (start files)': ['libc/musl/COPYRIGHT'],
}

/** Writes prebuilds/LICENSES.txt: what else is inside the addons, and on which terms. */
export function writeLicences(zig) {
  const folders = [join(ROOT, 'node_modules'), join(dirname(realpathSync(zig)), 'lib')]
  const parts = ['The addons in these folders hold parts of other projects, on these terms.']
  for (const [title, files] of Object.entries(LICENCES)) {
    const texts = files.map((file) => {
      const path = folders.map((folder) => join(folder, file)).find(existsSync)
      if (path === undefined) throw new Error(`there is no ${file} beside ${zig}: the licence of ${title}`)
      return readFileSync(path, 'utf8').trim()
    })
    parts.push(`==== ${title}`, ...new Set(texts)) // one that several have in common is said once
  }
  writeFileSync(join(ROOT, 'prebuilds', 'LICENSES.txt'), `${parts.join('\n\n')}\n`)
}

const KERNEL_SETS = ['amx', 'avx512vnni', 'avx512', 'avxvnni', 'avx2', 'neondot', 'neon', 'scalar']

/** What each object of an instruction set weighs, code and constants: "avx2 412 kB, …". */
function objectSizes(target) {
  const folder = join(ROOT, buildFolder(target), 'CMakeFiles', 'onebit_engine.dir', 'binding', 'kernels')
  const sizes = KERNEL_SETS.flatMap((name) => {
    const path = ['.o', '.obj'].map((end) => join(folder, `${name}.cpp${end}`)).find(existsSync)
    return path ? [`${name} ${Math.round(statSync(path).size / 1000)}`] : []
  })
  return `kernel objects in kB: ${sizes.join(', ')}`
}

function main(names) {
  if (names[0] === '--install') {
    console.log(`installed: ${findZig()}`)
    return 0
  }
  const unknown = names.filter((name) => !(name in TARGETS))
  if (unknown.length > 0) {
    console.error(`There is no ${unknown.join(', ')}. Systems: ${Object.keys(TARGETS).join(', ')}`)
    return 2
  }
  const zig = findZig()
  let bytes = 0
  for (const target of names.length > 0 ? names : Object.keys(TARGETS)) {
    const from = performance.now()
    const path = prebuild(zig, target)
    const { size } = statSync(path)
    bytes += size
    const seconds = ((performance.now() - from) / 1000).toFixed(0)
    writeLicences(zig)
    console.log(`${target.padEnd(18)} ${(size / 1e6).toFixed(2)} MB in ${seconds} s; ${objectSizes(target)}`)
  }
  console.log(`${(bytes / 1e6).toFixed(2)} MB together`)
  return 0
}

if (process.argv[1] === SCRIPT) {
  try {
    process.exitCode = main(process.argv.slice(2))
  } catch (error) {
    console.error(error.message)
    process.exitCode = 1
  }
}
