/** What a program gets that installs the package: what is in it, declarations that compile, maps that lead to the sources. */
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { PROJECT } from './data.js'
import { temporaryFolder } from './tiny-model.js'

const folder = temporaryFolder()
const consumer = folder.path('consumer')
afterAll(() => folder.remove())

/** Everything in the public declarations that needs types of Node, and some that does not. */
const PROGRAM = `
import { Chat, Model, OnebitError, readObtHeader, type GenerateOptions, type Piece } from 'onebit-run'

const stop = new AbortController()
const options: GenerateOptions = { maxTokens: 3, temperature: 0, signal: stop.signal }
const model: Model = await Model.load('model.obt', { threads: 1 })
const pieces: Piece[] = []
for await (const piece of model.createSession().generate('a', options)) pieces.push(piece)
for await (const { text } of new Chat(model, { system: 'b' }).send('c', options)) text satisfies string
const ids: Int32Array | undefined = model.tokenizer?.encode('d')
const { fileBytes } = await readObtHeader('model.obt')
await model[Symbol.asyncDispose]()
export const seen: unknown[] = [ids, fileBytes satisfies number, OnebitError, process.version]
`

const inDist = (ending: string) =>
  readdirSync(join(PROJECT, 'dist'), { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith(ending))

function link(name: string): void {
  const target = join(consumer, 'node_modules', name)
  mkdirSync(dirname(target), { recursive: true })
  if (!existsSync(target)) symlinkSync(join(PROJECT, 'node_modules', name), target, 'junction')
}

function compile(options: Record<string, unknown> = {}) {
  const compilerOptions = {
    target: 'ES2022',
    module: 'NodeNext',
    moduleResolution: 'NodeNext',
    strict: true,
    noEmit: true,
    skipLibCheck: false,
    ...options,
  }
  writeFileSync(join(consumer, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['main.ts'] }))
  const tsc = join(PROJECT, 'node_modules', 'typescript', 'bin', 'tsc')
  const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', consumer], { encoding: 'utf8' })
  return { status, stdout }
}

describe('declarations', () => {
  beforeAll(() => {
    const installed = join(consumer, 'node_modules', 'onebit-run')
    mkdirSync(installed, { recursive: true })
    cpSync(join(PROJECT, 'dist'), join(installed, 'dist'), { recursive: true })
    cpSync(join(PROJECT, 'package.json'), join(installed, 'package.json'))
    writeFileSync(join(consumer, 'package.json'), '{"type": "module"}')
    writeFileSync(join(consumer, 'main.ts'), PROGRAM)
  })

  it('without the types of Node say that these are missing', () => {
    const { status, stdout } = compile({ types: [] })
    expect(stdout).toContain("Cannot find type definition file for 'node'")
    expect(status).not.toBe(0)
  })

  it.each([
    ['as TypeScript is', {}],
    ['with no types named', { types: [] }],
    ['with all that is new in the language', { target: 'ESNext', types: ['node'] }],
    ['beside those of browsers', { lib: ['ES2022', 'DOM'], types: [] }],
  ])('compile %s', (_, options) => {
    link('@types/node')
    link('undici-types')
    expect(compile(options)).toEqual({ status: 0, stdout: '' })
  })

  it('of the AI SDK compile where that is', () => {
    const program = `
import type { LanguageModelV4, ProviderV4 } from '@ai-sdk/provider'
import { createOnebit } from 'onebit-run/ai-sdk'

const onebit = createOnebit({ models: { smol: 'smol.obt' }, load: { threads: 1 } })
const provider: ProviderV4 = onebit
export const model: LanguageModelV4 = onebit('smol')
export const seen: unknown[] = [provider, onebit.state('smol')?.running satisfies number | undefined]
`
    for (const name of ['@types/node', 'undici-types', '@ai-sdk/provider']) link(name)
    writeFileSync(join(consumer, 'main.ts'), program)
    expect(compile({ skipLibCheck: true })).toEqual({ status: 0, stdout: '' })
  })

  it('need what the package says that it needs', () => {
    const manifest = JSON.parse(readFileSync(join(PROJECT, 'package.json'), 'utf8'))
    expect(manifest.peerDependencies).toEqual({ '@ai-sdk/provider': '^4.0.0', '@types/node': '>=20' })
    // Programs in JavaScript do without types, and all but those of the AI SDK without its.
    const optional = { optional: true }
    expect(manifest.peerDependenciesMeta).toEqual({ '@ai-sdk/provider': optional, '@types/node': optional })
  })
})

it('source maps, which a clone that is installed as a package has, bring their sources', () => {
  const sources = readdirSync(join(PROJECT, 'src'), { recursive: true, encoding: 'utf8' }).filter((name) =>
    /(?<!\.d)\.ts$/.test(name),
  )
  expect(sources.length).toBeGreaterThan(100)
  const brought = new Map<string, string>()
  for (const name of inDist('.js.map')) {
    const path = join(PROJECT, 'dist', name)
    const map = JSON.parse(readFileSync(path, 'utf8')) as { sources: string[]; sourcesContent: string[] }
    map.sources.forEach((source, i) => {
      brought.set(join(dirname(path), source), map.sourcesContent[i]!)
    })
  }
  for (const name of sources) {
    const path = join(PROJECT, 'src', name)
    expect(brought.get(path), name).toBe(readFileSync(path, 'utf8'))
  }
})

describe('what a start loads', () => {
  const script = (name: string) => readFileSync(join(PROJECT, 'dist', name), 'utf8')
  const start = script('start.js')

  it('is one file, but for those that only give on what it has', () => {
    const loaded = new Set<string>()
    const load = (name: string) => {
      if (loaded.has(name)) return
      loaded.add(name)
      for (const [, path] of script(name).matchAll(/^(?:import|export) .*?['"](\.[^'"]+)['"]/gm))
        load(join(dirname(name), path!))
    }
    for (const name of ['cli/onebit-run.js', 'cli/run.js', 'text/tokenizer.js']) load(name)
    expect([...loaded].sort()).toEqual([
      'cli/main.js',
      'cli/onebit-run.js',
      'cli/run.js',
      'start.js',
      'text/tokenizer.js',
    ])
    expect(start.length).toBeGreaterThan(100_000)
  })

  it('is the same by either name, and nothing in it is anywhere else', async () => {
    const given = (await import('../dist/start.js' as string)) as Record<string, unknown>
    const modules = inDist('.js').filter((name) => script(name).includes("start.js'"))
    expect(modules.length).toBeGreaterThan(50)
    let names = 0
    for (const name of modules.filter((one) => !one.startsWith('cli'))) {
      const exported = (await import(join(PROJECT, 'dist', name))) as Record<string, unknown>
      for (const [key, value] of Object.entries(exported)) {
        expect(given[`${name.replace(/\.js$/, '').replaceAll(/\W/g, '_')}__${key}`], `${name} ${key}`).toBe(value)
        names++
      }
    }
    expect(names).toBeGreaterThan(100)
  })

  it('looks for files where the modules that it is made of lie', () => {
    const own = [...start.matchAll(/new URL\("(\.\/[^"]+)", import\.meta\.url\)\.href/g)].map(([, path]) => path!)
    expect(own).toContain('./run/default-model.js')
    for (const path of own) expect(existsSync(join(PROJECT, 'dist', path)), path).toBe(true)
    expect(start.replaceAll(/new URL\("\.\/[^"]+", import\.meta\.url\)\.href/g, '')).not.toContain('import.meta')
    for (const [, path] of start.matchAll(/import\("(\.[^"]+)"\)/g))
      expect(existsSync(join(PROJECT, 'dist', path!)), path).toBe(true)
  })
})

describe.skipIf(process.platform !== 'linux')('the tarball', () => {
  interface Packed {
    filename: string
    files: { path: string }[]
    size: number
    unpackedSize: number
  }
  let packed: Packed
  let manifest: Record<string, unknown>

  beforeAll(async () => {
    const script = pathToFileURL(join(PROJECT, 'scripts', 'package.mjs')).href
    const { pack } = (await import(script)) as { pack: (folder: string) => Packed }
    packed = pack(folder.path('.'))
    const argv = ['-xzOf', folder.path(packed.filename), 'package/package.json']
    manifest = JSON.parse(spawnSync('tar', argv, { encoding: 'utf8' }).stdout)
  })

  it('has nothing that npm would run, and nothing that only a clone needs', () => {
    expect(Object.keys(manifest)).not.toContain('scripts')
    expect(Object.keys(manifest)).not.toContain('devDependencies')
    expect(Object.keys(manifest)).not.toContain('gypfile')
    // With this file npm would call node-gyp although no script asks for it.
    expect(packed.files.map(({ path }) => path)).not.toContain('binding.gyp')
  })

  it('has what is listed, and no more', () => {
    const tops = new Set(packed.files.map(({ path }) => path.split('/')[0]))
    tops.delete('prebuilds') // there when they have been made
    const files = ['CHANGELOG.md', 'LICENSE', 'README.md', 'SECURITY.md', 'package.json', 'source.tgz']
    expect([...tops].sort()).toEqual([...files, 'dist', 'models', 'page'].sort())
    for (const name of ['dist/index.js', 'dist/index.d.ts', 'dist/cli/onebit-run.js', 'models/stories-5M.obt'])
      expect(packed.files.map(({ path }) => path)).toContain(name)
  })

  it('has every file that its package.json leads to, but for addons that were not made', () => {
    const paths = JSON.stringify([manifest.exports, manifest.bin]).match(/(?<=")(\.\/|dist\/)[^"]+\.\w+(?=")/g) ?? []
    const leads = new Set(paths.map((path) => path.replace(/^\.\//, '')))
    expect(leads.size).toBeGreaterThan(15)
    const files = new Set(packed.files.map(({ path }) => path))
    const missing = [...leads].filter(
      (path) => !files.has(path) && !path.startsWith('addon/') && !path.endsWith('.node'),
    )
    expect(missing).toEqual([])
  })

  it('has no source maps, and nothing that asks for one', () => {
    expect(packed.files.map(({ path }) => path).filter((path) => path.endsWith('.map'))).toEqual([])
    const argv = ['-xzOf', folder.path(packed.filename), 'package/dist/index.js', 'package/dist/cli/onebit.js']
    const { stdout } = spawnSync('tar', argv, { encoding: 'utf8' })
    expect(stdout).toContain('defaultModelPath')
    expect(stdout).not.toContain('sourceMappingURL')
  })

  it('is small', () => {
    expect(packed.size).toBeLessThan(10e6)
    expect(packed.unpackedSize).toBeLessThan(25e6)
  })

  it('depends on packages that run no script when they are installed', () => {
    const lock = JSON.parse(readFileSync(join(PROJECT, 'package-lock.json'), 'utf8')).packages as Record<
      string,
      { dev?: boolean; hasInstallScript?: boolean; peer?: boolean }
    >
    const shipped = Object.entries(lock).filter(([name, { dev }]) => name !== '' && !dev)
    expect(shipped.length).toBeGreaterThan(4)
    expect(shipped.filter(([, { hasInstallScript }]) => hasInstallScript).map(([name]) => name)).toEqual([])
  })
})
