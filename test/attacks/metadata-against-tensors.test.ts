/**
 * A GGUF file says twice what it is: by its metadata and by its tensors. Where they differ nothing may be guessed, and
 * what the engine does not know has to be named, with what it does know.
 */
import { writeFileSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import { ARCHITECTURES } from '../../dist/architectures/list.js'
import { OnebitError } from '../../dist/errors.js'
import { Model } from '../../dist/index.js'
import { program } from '../command.js'
import { failure } from '../expect-code.js'
import { tinyQwen3 } from '../fixtures/tiny-qwen3.js'
import { encodeTensor, type GgufTensor, ggufFile, type MetadataValue } from '../gguf-writer.js'
import { TINY_METADATA, tinyGgufTensors } from '../tiny-gguf.js'
import { temporaryFolder } from '../tiny-model.js'
import { safetensorsFile, TINY, tinyHfConfig, tinyTensors, writeFolder } from '../tiny-source.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

function write(metadata: Record<string, MetadataValue>, tensors: readonly GgufTensor[] = tinyGgufTensors()): string {
  const path = folder.path('x.gguf')
  writeFileSync(path, ggufFile(metadata, tensors))
  return path
}

const load = async (path: string) => (await Model.load(path, { threads: 1 })).dispose()
const without = (key: string) => Object.fromEntries(Object.entries(TINY_METADATA).filter(([name]) => name !== key))
const zeros = (name: string, ...shape: number[]): GgufTensor => {
  const count = shape.reduce((product, size) => product * size, 1)
  return { name, type: 'f32', shape, data: encodeTensor('f32', new Float32Array(count)) }
}
/** The tensors with one of them in another shape. */
const reshaped = (name: string, ...shape: number[]) =>
  tinyGgufTensors().map((tensor) => (tensor.name === name ? zeros(name, ...shape) : tensor))

test('the file these attacks start from is good', () => load(write(TINY_METADATA)))

describe('a key that has to be there is not', () => {
  test.each([
    'general.architecture',
    'llama.context_length',
    'llama.embedding_length',
    'llama.block_count',
    'llama.feed_forward_length',
    'llama.attention.head_count',
    'llama.attention.layer_norm_rms_epsilon',
  ])('%s', async (key) => {
    const { code, message } = await failure(() => load(write(without(key))))
    expect([code, message]).toEqual(['ERR_BAD_SOURCE', expect.stringContaining(key)])
  })
})

describe('metadata that contradict the tensors', () => {
  const u32 = (key: string, value: number) => ({ ...TINY_METADATA, [`llama.${key}`]: { u32: value } })
  const { dim, hidden, layers, heads, headDim, vocab } = TINY
  const CASES: [string, Record<string, MetadataValue>, string, string][] = [
    ['a layer more than there is', u32('block_count', layers + 1), 'ERR_MISSING_TENSOR', `blk.${layers}.`],
    ['a layer fewer', u32('block_count', layers - 1), 'ERR_BAD_SOURCE', `blk.${layers - 1}.`],
    ['another width', u32('embedding_length', dim * 2), 'ERR_TENSOR_SHAPE', 'token_embd'],
    ['another feed-forward', u32('feed_forward_length', hidden + 8), 'ERR_TENSOR_SHAPE', 'ffn_'],
    ['twice the heads for keys', u32('attention.head_count_kv', heads), 'ERR_TENSOR_SHAPE', 'attn_k'],
    ['heads of half the size', u32('attention.key_length', headDim / 2), 'ERR_TENSOR_SHAPE', 'attn_'],
    [
      'heads of another size for values',
      u32('attention.value_length', 4),
      'ERR_UNSUPPORTED_ARCHITECTURE',
      'value_length',
    ],
    ['a prediction layer', u32('nextn_predict_layers', 1), 'ERR_UNSUPPORTED_ARCHITECTURE', 'nextn_predict_layers'],
    ['a key that nobody knows', u32('attention.temperature_length', 8), 'ERR_UNSUPPORTED_ARCHITECTURE', 'temperature'],
  ]
  test.each(CASES)('%s', async (_, metadata, code, about) => {
    const error = await failure(() => load(write(metadata)))
    expect([error.code, error.message]).toEqual([code, expect.stringContaining(about)])
  })

  const TENSOR_CASES: [string, GgufTensor[], string, string][] = [
    ['an embedding of one dimension', reshaped('token_embd.weight', vocab * dim), 'ERR_BAD_SOURCE', 'vocabulary'],
    ['an embedding that is turned', reshaped('token_embd.weight', dim, vocab), 'ERR_TENSOR_SHAPE', 'token_embd'],
    ['a head of another vocabulary', reshaped('output.weight', vocab + 8, dim), 'ERR_TENSOR_SHAPE', 'output.weight'],
    ['a norm of another length', reshaped('blk.1.ffn_norm.weight', dim + 8), 'ERR_TENSOR_SHAPE', 'blk.1.ffn_norm'],
    ['a norm that is a matrix', reshaped('output_norm.weight', 1, dim), 'ERR_TENSOR_SHAPE', 'output_norm'],
    ['a tensor of no layer', [...tinyGgufTensors(), zeros('blk.x.attn_q.weight', 16, 16)], 'ERR_BAD_SOURCE', 'blk.x'],
    ['experts', [...tinyGgufTensors(), zeros('blk.0.ffn_gate_exps.weight', 2, 24, 16)], 'ERR_BAD_SOURCE', 'exps'],
  ]
  test.each(TENSOR_CASES)('%s', async (_, tensors, code, about) => {
    const error = await failure(() => load(write(TINY_METADATA, tensors)))
    expect([error.code, error.message]).toEqual([code, expect.stringContaining(about)])
  })

  test('any number in any place: an error with a code, or a model that runs', async () => {
    const numbers = Object.entries(TINY_METADATA).filter(([, value]) => 'u32' in value)
    let loaded = 0
    for (const [key] of numbers) {
      for (const value of [0, 1, 2, 3, 7, 8, 16, 17, 24, 65536, 2 ** 31, 2 ** 32 - 1]) {
        try {
          await load(write({ ...TINY_METADATA, [key]: { u32: value } }))
          loaded++
        } catch (error) {
          expect(error, `${key} ${value}`).toBeInstanceOf(OnebitError)
        }
      }
    }
    expect(loaded).toBeGreaterThan(4)
  })
})

describe('an architecture that nobody knows', () => {
  const known = (text: string | undefined) => {
    for (const { title } of ARCHITECTURES) expect(text).toContain(title)
  }

  test.each(['gemma4', 'LLAMA', '', 'constructor', '__proto__'])('of a GGUF file: %j', async (name) => {
    const { code, message, hint } = await failure(() =>
      load(write({ ...TINY_METADATA, 'general.architecture': { string: name } })),
    )
    expect([code, message]).toEqual(['ERR_UNSUPPORTED_ARCHITECTURE', expect.stringContaining(JSON.stringify(name))])
    known(hint)
  })

  test.each(['gemma4', 7, null, ['llama']])('of a folder: %j', async (name) => {
    const path = writeFolder(folder.path('hf'), tinyHfConfig({ model_type: name }), {
      'model.safetensors': safetensorsFile(tinyTensors()),
    })
    const { code, hint } = await failure(() => load(path))
    expect(code).toBe('ERR_UNSUPPORTED_ARCHITECTURE')
    known(hint)
  })
})

test('a type that nobody knows is named, and the others are listed', async () => {
  const bytes = ggufFile(TINY_METADATA, tinyGgufTensors())
  const at = bytes.indexOf('blk.0.attn_q.weight') + 'blk.0.attn_q.weight'.length + 4 + 2 * 8
  bytes.writeUInt32LE(39, at)
  writeFileSync(folder.path('x.gguf'), bytes)
  const { code, message, hint } = await failure(() => load(folder.path('x.gguf')))
  expect([code, message]).toEqual(['ERR_UNSUPPORTED_TENSOR_TYPE', expect.stringMatching(/blk\.0\.attn_q.*MXFP4/)])
  expect(hint).toMatch(/Q8_0.*Q4_K|Q8_0.*Q2_K/)
})

test('activations of 8 bits, asked of a model that was made for floats: info says it', () => {
  writeFileSync(folder.path('q1.gguf'), tinyQwen3())
  const { status, stdout } = program('onebit', ['info', folder.path('q1.gguf')])
  expect([status, stdout]).toEqual([0, expect.stringMatching(/activations +8 bits by default; .*made for floats/)])
})
