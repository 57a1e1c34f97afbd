/** "invalid ggml type 41" and worse: types and values nobody knows are errors that name them, never a guess. */
import { writeFileSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import { convert } from '../../dist/convert/convert.js'
import { failure } from '../expect-code.js'
import { temporaryFolder } from '../tiny-model.js'
import { ggufBytes, ggufString, type RawGguf, u32, u64 } from './gguf-bytes.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

function attempt(gguf: RawGguf) {
  writeFileSync(folder.path('x.gguf'), ggufBytes(gguf))
  return failure(() => convert(folder.path('x.gguf'), folder.path('out.obt')))
}

describe('GGUF tensor types', () => {
  test.each([
    [16, 'IQ2_XXS'],
    [39, 'MXFP4'],
    [29, 'IQ1_M'],
    [40, 'unknown type 40'],
    [4, 'unknown type 4'],
    [4294967295, 'unknown type 4294967295'],
  ])('%d', async (type, named) => {
    const tensors = [{ name: 'blk.0.attn_q.weight', dimensions: [256n], type, offset: 0n }]
    const { code, message } = await attempt({ tensors, data: 4096 })
    expect(code).toBe('ERR_UNSUPPORTED_TENSOR_TYPE')
    expect(message).toContain(named)
    expect(message).toContain('blk.0.attn_q.weight')
  })

  test('one that has two layouts, of which the sizes fit neither', async () => {
    const tensors = [{ name: 'blk.0.attn_q.weight', dimensions: [256n], type: 42, offset: 0n }]
    const { code, message } = await attempt({ tensors, data: 4096 })
    expect([code, message]).toEqual(['ERR_BAD_SOURCE', expect.stringContaining('fit none of the layouts')])
  })

  test('a row that is no whole number of blocks', async () => {
    const tensors = [{ name: 'blk.0.attn_q.weight', dimensions: [33n], type: 8, offset: 0n }]
    expect((await attempt({ tensors, data: 4096 })).code).toBe('ERR_BAD_SOURCE')
  })
})

describe('GGUF metadata', () => {
  const key = 'tokenizer.ggml.tokens'
  test.each<[string, RawGguf]>([
    ['a value of type 13', { metadata: [[key, u32(13), u64(0n)]], tensors: [] }],
    ['an array of arrays', { metadata: [[key, u32(9), u32(9), u64(1n)]], tensors: [] }],
    ['a truth value of 2', { metadata: [[key, u32(7), Buffer.from([2])]], tensors: [] }],
    [
      'a key twice',
      {
        metadata: [
          [key, u32(8), ggufString('a')],
          [key, u32(8), ggufString('b')],
        ],
        tensors: [],
      },
    ],
    ['version 1', { version: 1, tensors: [] }],
    ['version 4', { version: 4, tensors: [] }],
    ['version 3 of a big-endian machine', { version: 3 << 24, tensors: [] }],
  ])('%s', async (_, gguf) => {
    expect((await attempt(gguf)).code).toBe('ERR_BAD_SOURCE')
  })
})
