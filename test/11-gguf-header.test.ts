/** The strings of a GGUF header, which are made only when somebody asks for them. */
import { closeSync, openSync, statSync, writeFileSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import { type GgufHeader, readGgufHeader } from '../dist/import/gguf-reader.js'
import { ggufFile, SeededRandom } from './gguf-writer.js'
import { temporaryFolder } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

const random = new SeededRandom(3)
const LETTERS = ['a', 'Ġ', '語', '😀', '\n', '']
const text = (length: number) => Array.from({ length }, () => LETTERS[random.integer(LETTERS.length)]).join('')

/** More than a window of the reader, which has 1 MiB, and single strings that are longer than one. */
const LISTS: Record<string, string[]> = {
  many: Array.from({ length: 60_000 }, () => text(random.integer(12))),
  none: [],
  long: ['', 'x'.repeat(3 << 20), text(50), 'y'.repeat(2 << 20), ''],
  more: Array.from({ length: 30_000 }, () => text(random.integer(30))),
}

const path = folder.path('strings.gguf')
const lists = Object.entries(LISTS).map(([key, strings]) => [key, { strings }])
writeFileSync(path, ggufFile({ first: { u32: 7 }, ...Object.fromEntries(lists), last: { string: 'z' } }, []))

function headerOf(): GgufHeader {
  const file = openSync(path, 'r')
  try {
    return readGgufHeader(path, file, statSync(path).size)
  } finally {
    closeSync(file)
  }
}

describe('the metadata of a header', () => {
  it('has every string, when the file has long been closed', () => {
    const { metadata } = headerOf()
    for (const [key, strings] of Object.entries(LISTS)) expect(metadata.get(key)).toEqual(strings)
    expect(metadata.get('many')).toBe(metadata.get('many'))
    expect([metadata.get('first'), metadata.get('last'), metadata.get('nothing')]).toEqual([7, 'z', undefined])
  })

  it('is a map like any other, in the order of the file', () => {
    const expected = [['first', 7], ...Object.entries(LISTS), ['last', 'z']]
    expect([...headerOf().metadata]).toEqual(expected)
    expect([...headerOf().metadata.entries()]).toEqual(expected)
    expect([...headerOf().metadata.values()]).toEqual(expected.map(([, value]) => value))
    expect([...headerOf().metadata.keys()]).toEqual(expected.map(([key]) => key))
    const each: unknown[] = []
    headerOf().metadata.forEach((value, key) => {
      each.push([key, value])
    })
    expect(each).toEqual(expected)
    expect([headerOf().metadata.size, headerOf().metadata.has('long')]).toEqual([6, true])
  })
})
