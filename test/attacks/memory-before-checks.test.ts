/**
 * Ollama #17042 and the like: a few bytes that make a reader reserve gigabytes. Rejecting any file may take at most
 * 32 MiB, whatever it claims (T6).
 */
import { writeFileSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import { convert } from '../../dist/convert/convert.js'
import { readStateDict } from '../../dist/import/pickle.js'
import { readObtHeader } from '../../dist/obt/obt.js'
import { codeOf } from '../expect-code.js'
import { craftHeader } from '../obt-crafter.js'
import { temporaryFolder, tinyConfig } from '../tiny-model.js'
import { ggufBytes, u32, u64 } from './gguf-bytes.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

const config = tinyConfig({ layers: 1 })
const huge = { ...config, vocab_size: 1 << 20, dim: 1 << 16, hidden_dim: 1 << 16 }

function write(name: string, bytes: Buffer): string {
  writeFileSync(folder.path(name), bytes)
  return folder.path(name)
}

const gguf = (metadata: [string, ...Buffer[]][], counts = {}) => {
  return () =>
    convert(write('x.gguf', ggufBytes({ metadata, tensors: [], data: 1 << 16, ...counts })), folder.path('out.obt'))
}

let files = 0
const ALMOST_4_MIB = (4 << 20) - 100

/** A header as long as headers may be, of nothing that belongs into one. */
function filled(content: string): () => unknown {
  const text = Buffer.from(`{"__metadata__":{"format":"obt"},"a":[${content}]}`)
  const path = write(`filled-${files++}.obt`, Buffer.concat([u64(BigInt(text.length)), text]))
  return () => readObtHeader(path)
}

const CASES: [string, () => unknown][] = [
  ['a .obt header of 4 MiB of nested lists', filled('['.repeat(ALMOST_4_MIB / 2) + ']'.repeat(ALMOST_4_MIB / 2))],
  ['a .obt header of 4 MiB of empty lists', filled(`${'[],'.repeat(ALMOST_4_MIB / 3)}1`)],
  ['a .obt header of 4 MiB of empty objects', filled(`${'{},'.repeat(ALMOST_4_MIB / 3)}1`)],
  [
    'a .obt of 2^45 bytes that has only its header',
    () => readObtHeader(write('x.obt', craftHeader({ config: huge }).header)),
  ],
  [
    'a .obt header of 4 MiB that is not there',
    () => readObtHeader(write('x.obt', craftHeader({ config, length: 4n << 20n }).header)),
  ],
  ['a GGUF string of 4 GB', gguf([['general.name', u32(8), u64(1n << 32n)]])],
  ['a GGUF string of 16 MiB that is not there', gguf([['general.name', u32(8), u64(1n << 24n)]])],
  ['a GGUF array of 4 million strings', gguf([['tokenizer.ggml.tokens', u32(9), u32(8), u64(1n << 22n)]])],
  ['2^18 GGUF tensors', gguf([], { tensorCount: 1n << 18n })],
  ['a pickle with a string of 4 GB', () => readStateDict(Buffer.from('\x80\x02X\xff\xff\xff\xff.', 'latin1'))],
]

test.each(CASES)('%s', async (_, attempt) => {
  await codeOf(attempt) // warm: code and buffers of the reader itself
  const before = process.memoryUsage.rss()
  for (let i = 0; i < 3; i++) expect(await codeOf(attempt)).toMatch(/^ERR_/)
  expect(process.memoryUsage.rss() - before).toBeLessThan(32 << 20)
})
