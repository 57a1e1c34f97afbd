/** The house itself: no file of src imports, by whatever way, a file that imports it. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { expect, test } from 'vitest'
import { PROJECT } from './data.js'

type Imports = Map<string, string[]>

/** Every relative import of each file, types included, at the top or in the middle of a function. */
function importsOf(root: string): Imports {
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((file) => /(?<!\.d)\.ts$/.test(file))
  return new Map(
    files.map((file) => {
      const text = readFileSync(join(root, file), 'utf8')
      const targets = [...text.matchAll(/(?:\bfrom|\bimport\(|\bimport)\s*'(\.[^']*)\.js'/g)]
      return [normalize(file), targets.map(([, target]) => normalize(join(dirname(file), `${target}.ts`)))]
    }),
  )
}

/** A way of imports that ends where it began; undefined when there is none. */
function findCircle(imports: Imports): string[] | undefined {
  const done = new Set<string>()
  const visit = (file: string, way: readonly string[]): string[] | undefined => {
    if (way.includes(file)) return [...way.slice(way.indexOf(file)), file]
    if (done.has(file)) return undefined
    for (const target of imports.get(file) ?? []) {
      const circle = visit(target, [...way, file])
      if (circle !== undefined) return circle
    }
    done.add(file)
  }
  for (const file of imports.keys()) {
    const circle = visit(file, [])
    if (circle !== undefined) return circle
  }
}

test('src has no import circles', () => {
  const imports = importsOf(join(PROJECT, 'src'))
  const targets = [...imports.values()].flat()
  expect(targets.length).toBeGreaterThan(300)
  expect(targets.filter((target) => !imports.has(target))).toEqual([])
  expect(findCircle(imports)).toBeUndefined()
})

test('a circle would be found', () => {
  const imports: Imports = new Map([
    ['a.ts', ['b.ts', 'c.ts']],
    ['b.ts', []],
    ['c.ts', ['b.ts', 'd.ts']],
    ['d.ts', ['c.ts']],
  ])
  expect(findCircle(imports)).toEqual(['c.ts', 'd.ts', 'c.ts'])
})
