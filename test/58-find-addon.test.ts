/** Which file is loaded as the addon: of all that may be there, on every system, and what is said when there is none. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { findAddon, PREBUILT, type System, systemName, thisSystem } from '../dist/native/find-addon.js'
import { PROJECT } from './data.js'
import { failure } from './expect-code.js'
import { temporaryFolder } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

/** A folder with these files, empty. */
function packageWith(name: string, files: string[]): string {
  const root = folder.path(name)
  mkdirSync(root, { recursive: true })
  for (const file of files) {
    mkdirSync(dirname(join(root, file)), { recursive: true })
    writeFileSync(join(root, file), '')
  }
  return root
}

const SYSTEMS: System[] = Object.keys(PREBUILT).map((name) => {
  const [platform, arch, musl] = name.split('-') as [string, string, string?]
  return platform === 'linux' ? { platform, arch, libc: musl ? 'musl' : 'glibc' } : { platform, arch }
})
const ALL = Object.values(PREBUILT).map((file) => `prebuilds/${file}`)

describe('the addon', () => {
  it.each(SYSTEMS.map((system) => [systemName(system), system] as const))('of the package for %s', (name, system) => {
    const root = packageWith('whole', ALL)
    const path = findAddon(root, system, {})
    expect(path).toBe(join(root, 'prebuilds', PREBUILT[name]!))
    // Under prebuildify's names, so that others' tools find it too.
    const code = `console.log(require(${JSON.stringify(join(PROJECT, 'node_modules', 'node-gyp-build'))}).path(${JSON.stringify(root)}))`
    const { platform, arch, libc = '' } = system
    const env = { ...process.env, npm_config_platform: platform, npm_config_arch: arch, LIBC: libc }
    expect(spawnSync(process.execPath, ['-e', code], { env, encoding: 'utf8' }).stdout.trim()).toBe(path)
  })

  it('built here comes first', () => {
    const root = packageWith('built', [...ALL, 'build/Release/onebit.node'])
    expect(findAddon(root, SYSTEMS[0], {})).toBe(join(root, 'build', 'Release', 'onebit.node'))
  })

  it('is the one that the environment names', async () => {
    const root = packageWith('named', [...ALL, 'build/Release/onebit.node', 'elsewhere/my.node'])
    const path = join(root, 'elsewhere', 'my.node')
    expect(findAddon(root, SYSTEMS[0], { ONEBIT_ADDON: path })).toBe(path)
    const gone = join(root, 'gone.node')
    const error = await failure(() => findAddon(root, SYSTEMS[0], { ONEBIT_ADDON: gone }))
    expect([error.code, error.message]).toEqual(['ERR_ADDON', expect.stringContaining(gone)])
    const other = packageWith('other', ['build/Release/onebit.node'])
    const found = findAddon(root, SYSTEMS[0], { ONEBIT_RUN_PREBUILD: other })
    expect(found).toBe(join(other, 'build', 'Release', 'onebit.node'))
  })

  it.each([
    [{ platform: 'linux', arch: 'riscv64', libc: 'glibc' }, 'no prebuilt addon for linux-riscv64'],
    [{ platform: 'linux', arch: 'x64', libc: 'musl' }, 'addon for linux-x64-musl is not there'],
    [{ platform: 'linux', arch: 'constructor' }, 'no prebuilt addon for linux-constructor'],
    [{ platform: 'freebsd', arch: 'x64' }, 'no prebuilt addon for freebsd-x64'],
  ] as const)('that is missing is told, with the system and what to do: %o', async (system, words) => {
    for (const [root, hint] of [
      [packageWith('empty', []), 'npx onebit build'],
      [packageWith('clone', ['CMakeLists.txt']), 'npm run build'],
    ] as const) {
      const error = await failure(() => findAddon(root, system, {}))
      expect(error.code).toBe('ERR_ADDON')
      expect(error.message).toContain(words)
      expect(error.hint).toContain(hint)
    }
  })

  it('that does not load is told by its path', () => {
    const root = packageWith('damaged', ['build/Release/onebit.node'])
    const url = pathToFileURL(join(PROJECT, 'dist', 'native', 'addon.js')).href
    const code = `import(${JSON.stringify(url)}).then(({ addon }) => addon()).catch((error) => console.log(JSON.stringify([error.code, error.message])))`
    const env = { ...process.env, ONEBIT_RUN_PREBUILD: root }
    const { stdout } = spawnSync(process.execPath, ['-e', code], { env, encoding: 'utf8' })
    expect(JSON.parse(stdout)).toEqual(['ERR_ADDON', expect.stringContaining(join(root, 'build'))])
  })
})

describe('the C library', () => {
  it('is what the report of this process says', () => {
    const { LIBC: _, ...env } = process.env
    const url = pathToFileURL(join(PROJECT, 'dist', 'native', 'find-addon.js')).href
    const code = `import(${JSON.stringify(url)}).then((module) => console.log(JSON.stringify(module.thisSystem())))`
    const { stdout } = spawnSync(process.execPath, ['-e', code], { env, encoding: 'utf8' })
    const { header } = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } }
    const libc = header.glibcVersionRuntime ? 'glibc' : 'musl'
    const { platform, arch } = process
    expect(JSON.parse(stdout)).toEqual(platform === 'linux' ? { platform, arch, libc } : { platform, arch })
  })

  it('is the one that the environment names', () => {
    if (process.platform !== 'linux') return
    const before = process.env.LIBC
    process.env.LIBC = 'musl'
    expect(thisSystem().libc).toBe('musl')
    if (before === undefined) delete process.env.LIBC
    else process.env.LIBC = before
  })
})

describe('the static paths of the package', () => {
  it('lead to the addons, one for each system', () => {
    const { exports } = JSON.parse(readFileSync(join(PROJECT, 'package.json'), 'utf8'))
    const paths = Object.entries(exports).filter(([name]) => name.startsWith('./addon/'))
    const expected = Object.entries(PREBUILT).map(([name, file]) => [`./addon/${name}`, `./prebuilds/${file}`])
    expect(paths).toEqual(expected)
  })
})
