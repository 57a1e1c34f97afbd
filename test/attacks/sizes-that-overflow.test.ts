/**
 * CVE-2025-53630, CVE-2026-27940, CVE-2026-33298 and their later variants: sizes that are products of numbers from the
 * file. Ours are recomputed from a config with caps, so every product stays exact.
 */
import { writeFileSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import { convert } from '../../dist/convert/convert.js'
import { readObtHeader } from '../../dist/obt/obt.js'
import { codeOf, failure } from '../expect-code.js'
import { type Crafting, craftHeader, type Entry } from '../obt-crafter.js'
import { temporaryFolder, tinyConfig } from '../tiny-model.js'
import { ggufBytes, u32, u64 } from './gguf-bytes.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

const config = tinyConfig({ layers: 1 })

async function codeOfHeader(crafting: Crafting): Promise<string> {
  const path = folder.path('x.obt')
  writeFileSync(path, craftHeader(crafting).header)
  return codeOf(() => readObtHeader(path))
}

const withConfig = (more: object): Crafting => ({ config, configText: JSON.stringify({ ...config, ...more }) })
const entry = (index: number, change: (value: Entry['value']) => object): Crafting => ({
  config,
  entries: (all) => {
    all[index]!.value = { ...all[index]!.value, ...change(all[index]!.value) }
    return all
  },
})

describe('.obt', () => {
  test.each([
    ['a width above the cap', { dim: 65537 }],
    ['a width of 2^32', { dim: 2 ** 32 }],
    ['a width of 2^53 + 1', { dim: 2 ** 53 + 2 }],
    ['a vocabulary of 2^31', { vocab_size: 2 ** 31 }],
    ['2^20 layers', { n_layers: 2 ** 20 }],
    ['heads whose width is above the cap', { n_heads: 1024, n_kv_heads: 1024, head_dim: 1024 }],
    ['a context of 2^40', { context_length: 2 ** 40 }],
    ['no layers', { n_layers: 0 }],
    ['a width of zero', { dim: 0 }],
    ['a negative width', { hidden_dim: -8 }],
    ['half a width', { hidden_dim: 0.5 }],
    ['a width in words', { hidden_dim: '256' }],
  ])('%s', async (_, more) => {
    expect(await codeOfHeader(withConfig(more))).toBe('ERR_CONFIG')
  })

  test.each([
    ['a shape whose product wraps to the right size in 64 bits', () => ({ shape: [2 ** 33, 2 ** 31] })],
    ['a shape of 2^63', () => ({ shape: [2 ** 63] })],
    ['a negative shape', () => ({ shape: [-1, -259] })],
    ['no shape', () => ({ shape: [] })],
    ['offsets above 2^53', () => ({ data_offsets: [2 ** 60, 2 ** 60 + 1] })],
    ['negative offsets', () => ({ data_offsets: [-64, 0] })],
  ])('%s', async (_, change) => {
    expect(await codeOfHeader(entry(0, change))).toBe('ERR_TENSOR_TABLE')
  })

  test.each([
    ['2^63', 2n ** 63n],
    ['2^64 - 1', 2n ** 64n - 1n],
    ['4 MiB + 1', (4n << 20n) + 1n],
  ])('a header of %s bytes', async (_, length) => {
    const path = folder.path('long.obt')
    writeFileSync(path, craftHeader({ config, length }).header)
    const { code, message } = await failure(() => readObtHeader(path))
    expect(code).toBe('ERR_HEADER')
    expect(message).toContain(String(length))
  })
})

describe('GGUF', () => {
  const attempt = async (bytes: Buffer) => {
    const path = folder.path('x.gguf')
    writeFileSync(path, bytes)
    return codeOf(() => convert(path, folder.path('x.obt')))
  }
  const tensor = (dimensions: bigint[], offset = 0n, type = 0) => ({
    name: 'token_embd.weight',
    dimensions,
    type,
    offset,
  })

  test.each([
    ['2^64 elements that wrap to none', [tensor([2n ** 32n, 2n ** 32n])]],
    ['2^63 elements', [tensor([2n ** 63n])]],
    ['a row of Q4_0 whose bytes wrap', [tensor([2n ** 62n], 0n, 2)]],
    ['four dimensions whose product wraps', [tensor([65536n, 65536n, 65536n, 65536n])]],
    ['no rows', [tensor([16n, 0n])]],
    ['an offset of 2^64 - 32', [tensor([16n], 2n ** 64n - 32n)]],
    ['an offset that is not aligned', [tensor([16n], 7n)]],
    ['no dimensions', [tensor([])]],
    ['five dimensions', [tensor([1n, 1n, 1n, 1n, 1n])]],
  ])('%s', async (_, tensors) => {
    expect(await attempt(ggufBytes({ tensors, data: 4096 }))).toBe('ERR_BAD_SOURCE')
  })

  test.each([0, 1, 3, 24, 2 ** 31])('an alignment of %d', async (alignment) => {
    const bytes = ggufBytes({ metadata: [['general.alignment', u32(4), u32(alignment)]], tensors: [] })
    expect(await attempt(bytes)).toBe('ERR_BAD_SOURCE')
  })

  test.each([
    ['tensors', { tensorCount: 2n ** 61n }],
    ['metadata entries', { metadataCount: 2n ** 61n }],
  ])('2^61 %s', async (_, counts) => {
    expect(await attempt(ggufBytes({ tensors: [], ...counts }))).toBe('ERR_BAD_SOURCE')
  })

  test('lengths of 4 GB and of 2^64 - 1', async () => {
    for (const length of [2n ** 32n, 2n ** 64n - 1n]) {
      const string = ggufBytes({ metadata: [['general.name', u32(8), u64(length)]], tensors: [] })
      expect(await attempt(string)).toBe('ERR_BAD_SOURCE')
      const array = ggufBytes({ metadata: [['tokenizer.ggml.tokens', u32(9), u32(8), u64(length)]], tensors: [] })
      expect(await attempt(array)).toBe('ERR_BAD_SOURCE')
    }
  })
})
