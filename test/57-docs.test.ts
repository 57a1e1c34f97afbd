/**
 * The API reference: it has every entry point of the package, and a docstring for everything that these export. Without TypeDoc,
 * which is a package of its own (docs/api), the reference is not made; `node scripts/docs.mjs --install` gets it.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { PROJECT, readJson } from './data.js'
import { temporaryFolder } from './tiny-model.js'

const script = pathToFileURL(join(PROJECT, 'scripts', 'docs.mjs')).href
const { missingTool, OPTIONS, runTypeDoc } = (await import(script)) as {
  missingTool(): string | undefined
  OPTIONS: string
  runTypeDoc(file: string, options?: string[]): { status: number | null; output: string }
}

const folder = temporaryFolder()
afterAll(() => folder.remove())

/** Entry points of the package that TypeScript programs import: what each is called, and its source. */
function entryPoints(): [name: string, source: string][] {
  const { exports } = readJson<{ exports: Record<string, string | { types?: string }> }>(join(PROJECT, 'package.json'))
  return Object.entries(exports).flatMap(([path, target]) => {
    const types = typeof target === 'string' ? undefined : target.types
    if (types === undefined) return []
    return [[path.replace(/^\./, 'onebit-run'), types.replace(/^\.\/dist\/(.*)\.d\.ts$/, 'src/$1.ts')]]
  })
}

describe('the entry points', () => {
  const sources = entryPoints().map(([, source]) => `../../${source}`)

  it.each([
    ['typedoc.json', 'entryPoints'],
    ['tsconfig.json', 'include'],
  ])('of package.json are those of docs/api/%s', (file, field) => {
    expect(sources.length).toBeGreaterThan(3)
    const listed = readJson<Record<string, string[]>>(join(PROJECT, 'docs/api', file))[field]!
    expect(listed.filter((path) => !path.endsWith('.d.ts')).sort()).toEqual([...sources].sort())
  })

  it.each(entryPoints())('%s is called so in the reference', (name, source) => {
    const [, called] = /^ \* @module (.*)$/m.exec(readFileSync(join(PROJECT, source), 'utf8')) ?? []
    expect(called).toBe(name)
  })
})

const missing = missingTool()
if (missing !== undefined) console.warn(`skipped: ${missing}`)

describe.skipIf(missing !== undefined)('the reference', () => {
  it('is made without a warning', () => {
    const out = folder.path('reference')
    const { status, output } = runTypeDoc(OPTIONS, ['--out', out])
    expect([status, output]).toEqual([0, ''])
    for (const page of ['index', 'classes/onebit-run.Model', 'functions/onebit-run_server.serve'])
      expect(existsSync(join(out, `${page}.html`)), page).toBe(true)
  })

  it('would not be made of what has no docstring, or names a type that nobody can import', () => {
    writeFileSync(folder.path('package.json'), JSON.stringify({ name: 'bare', version: '1.0.0' }))
    writeFileSync(folder.path('bare.ts'), 'interface Hidden {}\nexport function bare(): Hidden {\n  return {}\n}\n')
    writeFileSync(
      folder.path('tsconfig.json'),
      JSON.stringify({ compilerOptions: { types: [], lib: ['ES2023'] }, files: ['bare.ts'] }),
    )
    const others = { entryPoints: ['bare.ts'], tsconfig: 'tsconfig.json', emit: 'none', readme: 'none' }
    const options = folder.path('typedoc.json')
    writeFileSync(options, JSON.stringify({ extends: [OPTIONS], ...others, projectDocuments: [] }))
    const { status, output } = runTypeDoc(options)
    expect(output).toMatch(/bare \(CallSignature\).* does not have any documentation/)
    expect(output).toMatch(/Hidden.* is referenced by .*bare but not included/)
    expect(status).not.toBe(0)
  })
})
