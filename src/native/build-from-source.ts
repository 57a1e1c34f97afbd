/** Builds the addon with CMake, from the sources of a clone or from source.tgz of the package. */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { availableParallelism, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { OnebitError } from '../errors.js'

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const TOOLS =
  'Debian: apt install cmake g++; Alpine: apk add cmake g++ make; macOS: xcode-select --install and brew install cmake; Windows: the Visual Studio C++ build tools.'

/** Where sources and headers lie. */
interface Sources {
  folder: string
  /** of Node-API, and of node-addon-api */
  headers: [string, string]
}

/** Runs a program, its output on standard error. @returns its exit status */
async function run(command: string, args: string[]): Promise<number> {
  const child = spawn(command, args, { stdio: ['ignore', 2, 2] })
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (status) => resolve(status ?? 1))
  })
}

async function must(command: string, args: string[], what: string): Promise<void> {
  const status = await run(command, args)
  if (status !== 0) {
    throw new OnebitError(
      'ERR_BUILD',
      `${what} failed: ${command} ended with status ${status}; what it said is above.`,
      {
        hint: `A compiler for C++20 is needed (GCC 12, Clang 15 or Visual Studio 2022, or newer). ${TOOLS}`,
      },
    )
  }
}

async function findSources(root: string, work: string): Promise<Sources> {
  if (existsSync(join(root, 'CMakeLists.txt'))) {
    const require = createRequire(join(root, 'package.json'))
    try {
      const headers = require('node-api-headers') as { include_dir: string }
      const wrapper = require('node-addon-api') as { include_dir: string }
      return { folder: root, headers: [headers.include_dir, wrapper.include_dir] }
    } catch (cause) {
      throw new OnebitError('ERR_BUILD', 'The headers of Node are not installed in this clone.', {
        hint: `Run \`npm ci --ignore-scripts\` in ${root}.`,
        cause,
      })
    }
  }
  const packed = join(root, 'source.tgz')
  if (!existsSync(packed)) {
    throw new OnebitError('ERR_BUILD', `There are no sources to build from: no ${packed}.`, {
      hint: 'Install the package again, or clone the project and run `npm ci` there.',
    })
  }
  const folder = join(work, 'source')
  await mkdir(folder)
  // Every system that the package supports has a tar; that of Windows 10 is bsdtar.
  await must('tar', ['-xzf', packed, '-C', folder], 'Unpacking the sources')
  return { folder, headers: [join(folder, 'include'), join(folder, 'include')] }
}

/** Loads the new addon in a process of its own: one that does not load must not come before one that does. */
function check(path: string): void {
  const code = 'const addon = require(process.argv[1]); if (typeof addon.info !== "function") process.exit(1)'
  const { status, signal, stderr } = spawnSync(process.execPath, ['-e', code, path], {
    encoding: 'utf8',
    env: { ...process.env, NODE_OPTIONS: '', ELECTRON_RUN_AS_NODE: '1' },
  })
  if (status === 0) return
  const said = stderr?.split('\n').find((line) => line.includes('Error')) ?? ''
  throw new OnebitError(
    'ERR_BUILD',
    `The addon was built and does not load here (${signal ?? `status ${status}`}). ${said}`,
    {
      hint: 'Build with the compiler and the architecture that this Node was made for: `node -p process.arch`.',
    },
  )
}

/** Puts it into the package at once and whole: another process may be loading the old one. */
async function install(made: string, path: string): Promise<void> {
  const temporary = `${path}.tmp-${process.pid}`
  try {
    await mkdir(dirname(path), { recursive: true })
    await copyFile(made, temporary)
    await rename(temporary, path)
  } catch (cause) {
    await rm(temporary, { force: true })
    const { code } = cause as NodeJS.ErrnoException
    throw new OnebitError('ERR_BUILD', `The addon could not be written to ${path} (${code}).`, {
      hint: 'Install the package where you may write, and end the programs that have it loaded (Windows keeps their files).',
      cause,
    })
  }
}

/**
 * Builds the addon and puts it where it comes before a prebuilt one. Nothing but `onebit build` calls this.
 * @returns the addon's path
 * @throws OnebitError ERR_BUILD, with what to do
 */
export async function buildFromSource({ root = ROOT, jobs = availableParallelism() } = {}): Promise<string> {
  const { error, status } = spawnSync('cmake', ['--version'], { stdio: 'ignore' })
  if (error || status !== 0) {
    throw new OnebitError('ERR_BUILD', 'CMake was not found.', { hint: `CMake 3.22 or newer is needed. ${TOOLS}` })
  }
  const work = await mkdtemp(join(tmpdir(), 'onebit-build-'))
  try {
    const { folder, headers } = await findSources(root, work)
    const build = join(work, 'build')
    const made = join(work, 'made')
    // Visual Studio and Xcode would put it in a folder named after the configuration; `$<0:>` is nothing, and prevents that.
    const output = ['LIBRARY', 'RUNTIME'].map((kind) => `-DCMAKE_${kind}_OUTPUT_DIRECTORY=${made}/$<0:>`)
    const includes = [`-DCMAKE_JS_INC=${headers[0]}`, `-DADDON_API=${headers[1]}`]
    await must(
      'cmake',
      ['-S', folder, '-B', build, '-DCMAKE_BUILD_TYPE=Release', ...includes, ...output],
      'Configuring',
    )
    const target = ['--config', 'Release', '--target', 'onebit', '--parallel', String(jobs)]
    await must('cmake', ['--build', build, ...target], 'Compiling')
    const file = join(made, 'onebit.node')
    check(file)
    const path = join(root, 'build', 'Release', 'onebit.node')
    await install(file, path)
    return path
  } finally {
    await rm(work, { recursive: true, force: true, maxRetries: 3 })
  }
}
