/** Files that say they are one of several: the others may be missing, another model's, or say something else. */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { Model } from '../../dist/index.js'
import { failure } from '../expect-code.js'
import { type GgufTensor, ggufFile, type MetadataValue } from '../gguf-writer.js'
import { partName, splitKeys, writeParts } from '../split-gguf.js'
import { TINY_METADATA, tinyGgufTensors } from '../tiny-gguf.js'
import { temporaryFolder } from '../tiny-model.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

const TENSORS = tinyGgufTensors()
const COUNT = 3
const [FIRST, SECOND, THIRD] = [1, 2, 3].map((part) => partName('m', part, COUNT)) as [string, string, string]

let made = 0
/** Three good parts in a folder of their own. */
function goodParts(): string {
  const path = folder.path(`parts${made++}`)
  mkdirSync(path)
  writeParts(path, 'm', TINY_METADATA, TENSORS, [5, 6, TENSORS.length - 11])
  return path
}

const attempt = (path: string) => failure(async () => (await Model.load(path)).dispose())

const write = (path: string, keys: Record<string, MetadataValue>, tensors: readonly GgufTensor[]) => {
  writeFileSync(path, ggufFile(keys, tensors))
}

test('the parts these attacks start from are good', async () => {
  await (await Model.load(join(goodParts(), FIRST))).dispose()
})

test.each([FIRST, SECOND, THIRD])('a part is missing: %s', async (missing) => {
  const path = goodParts()
  rmSync(join(path, missing))
  for (const given of [FIRST, SECOND, THIRD].filter((name) => name !== missing)) {
    const { code, message, hint } = await attempt(join(path, given))
    expect(code).toBe('ERR_FILE_NOT_FOUND')
    expect(message).toContain(missing)
    expect(hint).toBeDefined()
  }
})

test('a part is cut off', async () => {
  const path = goodParts()
  const bytes = readFileSync(join(path, THIRD))
  for (const length of [bytes.length - 40, 30]) {
    writeFileSync(join(path, THIRD), bytes.subarray(0, length))
    const { code, message } = await attempt(join(path, FIRST))
    expect([code, message]).toEqual(['ERR_TRUNCATED', expect.stringContaining(THIRD)])
  }
})

const CASES: [string, (path: string) => string | undefined, string][] = [
  [
    'a name that does not say where the others are',
    (path) => {
      renameSync(join(path, FIRST), join(path, 'model.gguf'))
      return 'model.gguf'
    },
    'NAME',
  ],
  [
    'a name of another number of parts',
    (path) => {
      renameSync(join(path, FIRST), join(path, partName('m', 1, 4)))
      return partName('m', 1, 4)
    },
    'name',
  ],
  ['two parts in each other’s place', (path) => swap(path, SECOND, THIRD), 'split.no'],
  ['one part twice', (path) => copy(path, SECOND, THIRD), 'split.no'],
  ['a part of a model in two', (path) => replace(path, SECOND, splitKeys(2, 2, TENSORS.length)), 'split.count'],
  ['a part that is a whole model', (path) => replace(path, SECOND, TINY_METADATA), 'split.count'],
  [
    'a tensor in two parts',
    (path) => replace(path, SECOND, splitKeys(2, COUNT, TENSORS.length), TENSORS.slice(4, 10)),
    TENSORS[4]!.name,
  ],
  ['fewer tensors than there should be', (path) => replace(path, SECOND, splitKeys(2, COUNT, 1), []), 'tensors'],
  ['a part number 7 of 3', (path) => copy(path, FIRST, partName('m', 7, COUNT)) && partName('m', 7, COUNT), '00007'],
]

function swap(path: string, a: string, b: string): undefined {
  const bytes = readFileSync(join(path, a))
  renameSync(join(path, b), join(path, a))
  writeFileSync(join(path, b), bytes)
}

function copy(path: string, from: string, to: string): string {
  writeFileSync(join(path, to), readFileSync(join(path, from)))
  return FIRST
}

function replace(
  path: string,
  name: string,
  keys: Record<string, MetadataValue>,
  tensors: readonly GgufTensor[] = TENSORS.slice(5, 11),
): undefined {
  write(join(path, name), keys, tensors)
}

test.each(CASES)('%s', async (_, change, about) => {
  const path = goodParts()
  const given = change(path) ?? FIRST
  const { code, message, hint } = await attempt(join(path, given))
  expect(code).toBe('ERR_BAD_SOURCE')
  expect(`${message} ${hint ?? ''}`).toContain(about)
})

test.each<[string, MetadataValue]>([
  ['none', { u32: 0 }],
  ['millions', { u32: 4_000_000_000 }],
  ['a fraction', { f32: 2.5 }],
  ['a text', { string: '3' }],
])('a number of parts that is %s', async (name, value) => {
  const path = folder.path(`${name}.gguf`)
  write(path, { ...TINY_METADATA, 'split.count': value }, TENSORS)
  if (name === 'none') await (await Model.load(path)).dispose()
  else expect((await attempt(path)).code).toBe('ERR_BAD_SOURCE')
})
