/**
 * Where the native addon for this system lies. A build of its own comes first (`npm run build`, `onebit build`), then the one
 * that the package brings, in prebuildify's folders and under its names.
 */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { OnebitError } from '../errors.js'

/** A system as far as an addon cares: `libc` is given on Linux alone. */
export interface System {
  platform: string
  arch: string
  libc?: 'glibc' | 'musl'
}

/** The systems that the package has an addon for, as `onebit-run/addon/NAME` and the folders of prebuilds/ call them. */
export const PREBUILT: Readonly<Record<string, string>> = {
  'linux-x64': 'linux-x64/onebit.glibc.node',
  'linux-x64-musl': 'linux-x64/onebit.musl.node',
  'linux-arm64': 'linux-arm64/onebit.glibc.node',
  'linux-arm64-musl': 'linux-arm64/onebit.musl.node',
  'darwin-x64': 'darwin-x64/onebit.node',
  'darwin-arm64': 'darwin-arm64/onebit.node',
  'win32-x64': 'win32-x64/onebit.node',
  'win32-arm64': 'win32-arm64/onebit.node',
}

/**
 * Which C library this process runs on: where one of the two has its loader in its place and the other has not, that one; else the
 * one that this process has in its memory, as the system says, or, where it does not say, Node's report, which takes 6 ms. (A
 * file that Alpine alone has is no sign: other musl systems exist.)
 */
function libcOf(arch: string): 'glibc' | 'musl' {
  const { LIBC } = process.env // the word of node-gyp-build
  if (LIBC === 'glibc' || LIBC === 'musl') return LIBC
  const [musl, glibc] =
    arch === 'x64'
      ? ['/lib/ld-musl-x86_64.so.1', '/lib64/ld-linux-x86-64.so.2']
      : ['/lib/ld-musl-aarch64.so.1', '/lib/ld-linux-aarch64.so.1']
  if (!process.report || (!existsSync(musl) && existsSync(glibc))) return 'glibc'
  return mappedLibc() ?? reportedLibc(process.report)
}

function mappedLibc(): 'glibc' | 'musl' | undefined {
  try {
    const maps = readFileSync('/proc/self/maps', 'latin1')
    if (/\/ld-musl-[^/]*$/m.test(maps)) return 'musl'
    return /\/libc(\.so\.6|-2\.\d+\.so)$/m.test(maps) ? 'glibc' : undefined
  } catch {
    return undefined // no /proc here
  }
}

function reportedLibc(processReport: NonNullable<typeof process.report>): 'glibc' | 'musl' {
  const report = processReport as typeof processReport & { excludeNetwork?: boolean }
  const before = report.excludeNetwork
  report.excludeNetwork = true // looking up the names of open sockets takes seconds on some networks
  const { header } = report.getReport() as { header?: { glibcVersionRuntime?: string } }
  if (before !== undefined) report.excludeNetwork = before
  return header !== undefined && !header.glibcVersionRuntime ? 'musl' : 'glibc'
}

export function thisSystem(): System {
  const { platform, arch } = process
  return platform === 'linux' ? { platform, arch, libc: libcOf(arch) } : { platform, arch }
}

/** "linux-x64-musl"; glibc is not said. */
export function systemName({ platform, arch, libc }: System): string {
  return libc === 'musl' ? `${platform}-${arch}-musl` : `${platform}-${arch}`
}

/**
 * The addon's file. `ONEBIT_ADDON` in the environment names it, for programs that keep it elsewhere; otherwise it is looked for in
 * `root`, or the folder that ONEBIT_RUN_PREBUILD names in its place, and then beside the program that runs, where
 * single-file programs have what they cannot hold.
 * @throws OnebitError ERR_ADDON, with what to do, when there is none
 */
export function findAddon(root: string, system: System = thisSystem(), env: NodeJS.ProcessEnv = process.env): string {
  if (env.ONEBIT_ADDON) {
    if (existsSync(env.ONEBIT_ADDON)) return env.ONEBIT_ADDON
    throw new OnebitError('ERR_ADDON', `ONEBIT_ADDON names ${env.ONEBIT_ADDON}, and there is no such file.`, {
      hint: 'Unset it, or let it name the addon for this system: onebit.node.',
    })
  }
  const folder = env.ONEBIT_RUN_PREBUILD || root
  const name = systemName(system)
  const prebuilt = Object.hasOwn(PREBUILT, name) ? PREBUILT[name] : undefined
  const places = [join(folder, 'build', 'Release', 'onebit.node')]
  if (prebuilt !== undefined)
    places.push(join(folder, 'prebuilds', prebuilt), join(dirname(process.execPath), 'prebuilds', prebuilt))
  const found = places.find((path) => existsSync(path))
  if (found !== undefined) return found
  const problem =
    prebuilt === undefined
      ? `There is no prebuilt addon for ${name}. There are some for ${Object.keys(PREBUILT).join(', ')}.`
      : `The native addon for ${name} is not there: no ${places.slice(0, 2).join(' and no ')}.`
  throw new OnebitError('ERR_ADDON', problem, { hint: whatToDo(root) })
}

/** How to get an addon that loads. */
export function whatToDo(root: string): string {
  return existsSync(join(root, 'CMakeLists.txt'))
    ? 'Build it with `npm run build` in the folder of onebit-run (needs CMake and a C++20 compiler).'
    : 'Install the package again (`npm install onebit-run`), or build the addon here: `npx onebit build` (needs CMake and a C++20 compiler).'
}
