/** Keys of rotated weights that contradict the file or each other: run without its rotation a model would talk nonsense. */
import { writeFileSync } from 'node:fs'
import { afterAll, expect, it } from 'vitest'
import { Model } from '../../dist/index.js'
import { failure } from '../expect-code.js'
import { ggufFile, type MetadataValue } from '../gguf-writer.js'
import { rotateTensors, someSigns } from '../rotated-gguf.js'
import { TINY_METADATA, tinyGgufTensors } from '../tiny-gguf.js'
import { temporaryFolder } from '../tiny-model.js'

const folder = temporaryFolder()
afterAll(folder.remove)

const UNSUPPORTED = 'ERR_UNSUPPORTED_ARCHITECTURE'
const BAD = 'ERR_BAD_SOURCE'
const NAMES = tinyGgufTensors().flatMap(({ name, shape }) => (shape.length === 2 ? [name] : []))
const LINEARS = NAMES.filter((name) => name !== 'token_embd.weight')

/** undefined: the key is left out */
it.each<[string, string, MetadataValue | undefined, string, boolean?]>([
  ['version', 'is missing', undefined, UNSUPPORTED],
  ['version', 'is of the future', { u32: 3 }, UNSUPPORTED],
  ['version', 'is a word', { string: '1' }, UNSUPPORTED],
  ['version', 'is 2 with an own head', { u32: 2 }, BAD],
  ['version', 'is 1 with a tied head', { u32: 1 }, BAD, true],
  ['block_size', 'is missing', undefined, BAD],
  ['block_size', 'is no power of two', { u32: 12 }, BAD],
  ['block_size', 'is 1', { u32: 1 }, BAD],
  ['block_size', 'is larger than any matrix', { u32: 2 ** 31 }, BAD],
  ['block_size', 'does not divide the widths', { u32: 16 }, BAD],
  ['transform', 'is missing', undefined, UNSUPPORTED],
  ['transform', 'is another', { string: 'cosine' }, UNSUPPORTED],
  ['axis', 'is missing', undefined, UNSUPPORTED],
  ['axis', 'is another', { string: 'output-first-dimension' }, UNSUPPORTED],
  ['sign_mode', 'is missing', undefined, UNSUPPORTED],
  ['sign_mode', 'is another', { string: 'random' }, UNSUPPORTED],
  ['sign_widths', 'is missing', undefined, BAD],
  ['sign_widths', 'is no list', { u32: 16 }, BAD],
  ['sign_widths', 'has one twice', { i32s: [16, 16] }, BAD],
  ['sign_widths', 'has one that no block divides', { i32s: [12, 28] }, BAD],
  ['sign_widths', 'has a negative one', { i32s: [-16, 56] }, BAD],
  ['sign_widths', 'lacks one', { i32s: [40] }, BAD],
  ['sign_values', 'is missing', undefined, BAD],
  ['sign_values', 'has too few', { i32s: someSigns(39) }, BAD],
  ['sign_values', 'has too many', { i32s: someSigns(41) }, BAD],
  ['sign_values', 'has a zero', { i32s: [...someSigns(39), 0] }, BAD],
  ['sign_values', 'has fractions', { f32s: someSigns(40).map((sign) => sign * 1.5) }, BAD],
  ['weight_names', 'is missing', undefined, BAD],
  ['weight_names', 'is empty', { strings: [] }, BAD],
  ['weight_names', 'is no list', { string: LINEARS[0]! }, BAD],
  ['weight_names', 'holds numbers', { i32s: [1, 2] }, BAD],
  ['weight_names', 'has one twice', { strings: [...LINEARS, LINEARS[0]!] }, BAD],
  ['weight_names', 'has one that is not there', { strings: [...LINEARS, 'blk.2.attn_q.weight'] }, BAD],
  ['weight_names', 'has the embedding', { strings: NAMES }, BAD],
  ['weight_names', 'has a norm', { strings: [...LINEARS, 'output_norm.weight'] }, BAD],
  ['inverse_weight_names', 'is the head', { strings: ['output.weight'] }, BAD],
  ['inverse_weight_names', 'has one twice', { strings: ['token_embd.weight', 'token_embd.weight'] }, BAD],
  ['inverse_weight_names', 'lacks a head that is tied', undefined, BAD, true],
  ['tied_output', 'is true with an own head', { bool: true }, BAD],
  ['tied_output', 'is false with a tied one', { bool: false }, BAD, true],
  ['tied_output', 'is a number', { u32: 1 }, BAD],
  ['gdn_v_grouped', 'is a number', { u32: 1 }, BAD],
  ['scale', 'is no known key', { f32: 2 }, UNSUPPORTED],
])('%s %s', async (key, _, value, code, tied = false) => {
  const { tensors, metadata } = rotateTensors(tinyGgufTensors({ tied }), { block: 8 })
  const all: Record<string, MetadataValue> = { ...TINY_METADATA, ...metadata }
  const path = folder.path('wrong.gguf')
  writeFileSync(path, ggufFile(all, tensors))
  await (await Model.load(path)).dispose() // right until the key changes
  if (value === undefined) delete all[`prism.hadamard.${key}`]
  else all[`prism.hadamard.${key}`] = value
  writeFileSync(path, ggufFile(all, tensors))
  const error = await failure(() => Model.load(path))
  expect([error.code, error.message]).toEqual([code, expect.stringContaining('prism.hadamard.')])
  expect(error.message.length).toBeLessThan(400)
})
