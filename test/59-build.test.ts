/** `onebit build`: from the package's source.tgz and from a clone, with a small addon in place of ours, and all that can go wrong. */
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { buildFromSource } from '../dist/native/build-from-source.js'
import { onebit, program } from './command.js'
import { PROJECT } from './data.js'
import { failure } from './expect-code.js'
import { temporaryFolder } from './tiny-model.js'

const { packSources } = await import(pathToFileURL(join(PROJECT, 'scripts', 'package.mjs')).href)

const folder = temporaryFolder()
afterAll(() => folder.remove())

const PROJECT_FILE = `
cmake_minimum_required(VERSION 3.22)
project(small LANGUAGES CXX)
if(NOT EXISTS \${ADDON_API}/napi.h)
  message(FATAL_ERROR "no node-addon-api")
endif()
add_library(onebit SHARED addon.cpp)
set_target_properties(onebit PROPERTIES PREFIX "" SUFFIX ".node")
target_include_directories(onebit PRIVATE \${CMAKE_JS_INC})
`
const ADDON = `
#include <node_api.h>
extern "C" void nobody_has_it();
extern "C" NAPI_MODULE_EXPORT napi_value napi_register_module_v1(napi_env env, napi_value exports) {
    napi_value value;
    napi_create_int32(env, ANSWER, &value);
    napi_set_named_property(env, exports, "answer", value);
    NAME_THE_FUNCTION
    return exports;
}
`
const INFO =
  'napi_create_function(env, "info", 4, [](napi_env, napi_callback_info) -> napi_value { return nullptr; }, nullptr, &value); napi_set_named_property(env, exports, "info", value);'

const hasTools = ['cmake', 'c++', 'tar'].every((tool) => spawnSync(tool, ['--version']).status === 0)

function writeSources(root: string, addon: string): void {
  mkdirSync(root, { recursive: true })
  writeFileSync(join(root, 'CMakeLists.txt'), PROJECT_FILE)
  writeFileSync(join(root, 'addon.cpp'), addon)
}

const addon = (answer: number) => ADDON.replace('ANSWER', String(answer)).replace('NAME_THE_FUNCTION', INFO)

/** A package as installed: its sources in source.tgz only. */
function packed(name: string, source: string): string {
  const root = folder.path(name)
  const sources = folder.path(`${name}-sources`)
  writeSources(sources, source)
  mkdirSync(root)
  cpSync(join(PROJECT, 'node_modules', 'node-api-headers', 'include'), join(sources, 'include'), { recursive: true })
  writeFileSync(join(sources, 'include', 'napi.h'), '')
  spawnSync('tar', ['-czf', join(root, 'source.tgz'), '-C', sources, '.'])
  return root
}

function answerOf(path: string): number {
  const code = 'console.log(require(process.argv[1]).answer)'
  return Number(spawnSync(process.execPath, ['-e', code, path], { encoding: 'utf8' }).stdout)
}

describe.skipIf(!hasTools || process.platform === 'win32')('a build', () => {
  it('of the package uses its source.tgz', async () => {
    const root = packed('package', addon(42))
    const path = await buildFromSource({ root, jobs: 1 })
    expect(path).toBe(join(root, 'build', 'Release', 'onebit.node'))
    expect(answerOf(path)).toBe(42)
  })

  it('of a clone uses its files and the headers that are installed there', async () => {
    const root = folder.path('clone')
    writeSources(root, addon(1))
    const missing = await failure(() => buildFromSource({ root }))
    expect([missing.code, missing.hint]).toEqual(['ERR_BUILD', expect.stringContaining('npm ci --ignore-scripts')])
    symlinkSync(join(PROJECT, 'node_modules'), join(root, 'node_modules'), 'junction')
    expect(answerOf(await buildFromSource({ root }))).toBe(1)
    writeSources(root, addon(2))
    expect(answerOf(await buildFromSource({ root }))).toBe(2)
  })

  it.each([
    ['does not compile', 'this is not C++', 'Compiling failed'],
    [
      'does not load',
      ADDON.replace('ANSWER', '3').replace('NAME_THE_FUNCTION', 'nobody_has_it();'),
      'does not load here',
    ],
    ['is no addon of ours', ADDON.replace('ANSWER', '4').replace('NAME_THE_FUNCTION', ''), 'does not load here'],
  ])('that %s is an error and leaves the old addon', async (name, source, words) => {
    const root = packed(name, source)
    mkdirSync(join(root, 'build', 'Release'), { recursive: true })
    const old = join(root, 'build', 'Release', 'onebit.node')
    writeFileSync(old, 'old')
    const error = await failure(() => buildFromSource({ root, jobs: 1 }))
    expect(error.code).toBe('ERR_BUILD')
    expect(error.message).toContain(words)
    expect(error.hint).not.toBe('')
    expect(readFileSync(old, 'utf8')).toBe('old')
  })
})

describe('what is missing', () => {
  it.skipIf(!hasTools)('is told: the sources', async () => {
    const root = folder.path('nothing')
    mkdirSync(root)
    const { code, message } = await failure(() => buildFromSource({ root }))
    expect([code, message]).toEqual(['ERR_BUILD', expect.stringContaining('source.tgz')])
  })

  it('is told: CMake', () => {
    const { status, stderr } = program('onebit', ['build'], { env: { PATH: folder.path('nowhere') } })
    expect(status).toBe(1)
    expect(stderr).toMatch(/CMake was not found[\s\S]*apt install cmake/)
  })

  it('is told: a number of jobs that makes sense', () => {
    expect(onebit('build', '--jobs', '0')).toMatchObject({ status: 2, stderr: expect.stringContaining('--jobs') })
    expect(onebit('build', 'somewhere')).toMatchObject({ status: 2 })
  })
})

describe.skipIf(process.platform !== 'linux')('source.tgz', () => {
  let names: string[]
  beforeAll(() => {
    const path = folder.path('source.tgz')
    expect(packSources(path)).toBeLessThanOrEqual(600_000)
    names = spawnSync('tar', ['-tzf', path], { encoding: 'utf8' }).stdout.split('\n')
  })

  it('is the same whenever it is made', () => {
    packSources(folder.path('again.tgz'))
    expect(readFileSync(folder.path('again.tgz')).equals(readFileSync(folder.path('source.tgz')))).toBe(true)
    expect(existsSync(folder.path('again.tgz.folder'))).toBe(false)
  })

  it('has all that CMake needs, and the licences of what is not ours', () => {
    for (const name of ['napi.h', 'node_api.h', 'LICENSE.node-addon-api', 'LICENSE.node-api-headers'])
      expect(names).toContain(`include/${name}`)
    for (const name of ['CMakeLists.txt', 'LICENSE', 'binding/kernels/kernels.h', 'binding/napi/exports.map'])
      expect(names).toContain(name)
  })

  it.skipIf(!hasTools)('is understood by CMake', () => {
    const source = folder.path('unpacked')
    mkdirSync(source)
    spawnSync('tar', ['-xzf', folder.path('source.tgz'), '-C', source])
    const include = join(source, 'include')
    const argv = ['-S', source, '-B', folder.path('configured'), `-DCMAKE_JS_INC=${include}`, `-DADDON_API=${include}`]
    const { status, stderr } = spawnSync('cmake', argv, { encoding: 'utf8' })
    expect([status, stderr]).toEqual([0, ''])
  })
})
