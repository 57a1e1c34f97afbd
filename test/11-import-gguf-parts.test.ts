/** A model in several GGUF files: any of them stands for it, and it is the same as in one. */
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { convert } from '../dist/convert/convert.js'
import { readGgufText } from '../dist/import/gguf-text.js'
import { Model } from '../dist/index.js'
import { program } from './command.js'
import { ggufFile, type MetadataValue } from './gguf-writer.js'
import { writeParts } from './split-gguf.js'
import { TINY_METADATA, tinyGgufTensors } from './tiny-gguf.js'
import { temporaryFolder } from './tiny-model.js'
import { TINY } from './tiny-source.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

const TENSORS = tinyGgufTensors()
const VOCABULARY: Record<string, MetadataValue> = {
  'tokenizer.ggml.model': { string: 'gpt2' },
  'tokenizer.ggml.pre': { string: 'gpt-2' },
  'tokenizer.ggml.tokens': { strings: Array.from('abcdefghijklmnopqrstuvwx') },
  'tokenizer.ggml.merges': { strings: [] },
}

function parts(name: string, counts: readonly number[]): string[] {
  const path = folder.path(name)
  mkdirSync(path)
  return writeParts(path, 'tiny', { ...TINY_METADATA, ...VOCABULARY }, TENSORS, counts)
}

function whole(): string {
  const path = folder.path('whole.gguf')
  writeFileSync(path, ggufFile({ ...TINY_METADATA, ...VOCABULARY }, TENSORS))
  return path
}

async function logitsOf(path: string): Promise<{ logits: Float32Array; model: Model }> {
  const model = await Model.load(path, { threads: 1 })
  const ids = Int32Array.from({ length: 9 }, (_, i) => (i * 5) % TINY.vocab)
  const { data } = await model.createSession().logits(ids, { all: true })
  await model.dispose()
  return { logits: data, model }
}

describe('a model in parts', () => {
  it.each([
    ['two', [7, TENSORS.length - 7]],
    ['three, the first without tensors', [0, 12, TENSORS.length - 12]],
    ['as many as tensors', TENSORS.map(() => 1)],
  ])('%s', async (name, counts) => {
    const expected = await logitsOf(whole())
    const paths = parts(name, counts)
    const sizes = paths.reduce((sum, path) => sum + statSync(path).size, 0)
    const identities = new Set<string>()
    for (const path of [paths[0]!, paths[1]!, paths.at(-1)!]) {
      const { logits, model } = await logitsOf(path)
      expect(logits).toEqual(expected.logits)
      expect(model.info.fileBytes).toBe(sizes)
      expect(model.tokenizer?.vocabSize).toBe(TINY.vocab)
      identities.add(model.info.identity)
    }
    expect(identities.size).toBe(1)
    await convert(paths[1]!, folder.path('parts.obt'))
    expect((await logitsOf(folder.path('parts.obt'))).logits).toEqual(expected.logits)
  })

  it('has the identity that all its parts make', async () => {
    const paths = parts('identity', [7, TENSORS.length - 7])
    const before = (await logitsOf(paths[0]!)).model.info.identity
    const bytes = readFileSync(paths[1]!)
    bytes[bytes.length - 5]! ^= 1
    writeFileSync(paths[1]!, bytes)
    expect((await logitsOf(paths[0]!)).model.info.identity).not.toBe(before)
  })

  it('lends its tokenizer, whichever part is named', async () => {
    for (const path of parts('text', [7, TENSORS.length - 7])) {
      expect(await (await readGgufText(path)).readTokenizer()).toBeDefined()
    }
  })

  it('is described by info with all its files', () => {
    const [first] = parts('info', [7, TENSORS.length - 7])
    const { provenance } = JSON.parse(program('onebit', ['info', first!, '--json']).stdout)
    expect(provenance.files.map(({ name }: { name: string }) => name)).toEqual([
      'tiny-00001-of-00002.gguf',
      'tiny-00002-of-00002.gguf',
    ])
  })

  it('of which there is one is a file like any other, whatever its name', async () => {
    const [path] = parts('single', [TENSORS.length])
    const renamed = join(folder.path('single'), 'model.gguf')
    writeFileSync(renamed, readFileSync(path!))
    expect((await logitsOf(renamed)).logits).toEqual((await logitsOf(whole())).logits)
  })
})
