/** Checkpoints in the two layouts of the official OneBit code. */

import { afterAll, describe, expect, test } from 'vitest'
import { convert } from '../dist/convert/convert.js'
import { readObtHeader } from '../dist/obt/obt.js'
import { Model } from '../dist/run/model.js'
import { golden } from './data.js'
import { codeOf } from './expect-code.js'
import { SeededRandom } from './gguf-writer.js'
import { floats, readTensors } from './read-tensors.js'
import { type Piece, sentencePiece } from './sentencepiece-writer.js'
import { temporaryFolder } from './tiny-model.js'
import {
  encodeFloats,
  type NamedTensor,
  ourName,
  safetensorsFile,
  TINY_LINEARS,
  tinyHfConfig,
  tinyTensors,
  writeFolder,
} from './tiny-source.js'
import { type TorchTensor, torchFile } from './torch-writer.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

const CONFIG = tinyHfConfig({ model_type: 'bitllama', architectures: ['BitLlamaForCausalLMInf'] })

/** The training layout: latent weights (some exactly zero, of both signs) and two vectors for each linear. */
function trainingTensors(): NamedTensor[] {
  const random = new SeededRandom(99)
  const vector = (name: string, size: number): NamedTensor => {
    return { name, shape: [size], values: Float32Array.from({ length: size }, () => random.integer(64) / 64) }
  }
  return tinyTensors().flatMap((tensor) => {
    const linear = TINY_LINEARS.find(([name]) => tensor.name.endsWith(`${name}.weight`))
    if (linear === undefined) return [tensor]
    const values = tensor.values.map((value, i) => (i % 7 === 0 ? (i % 2 === 0 ? 0 : -0) : value))
    const prefix = tensor.name.replace('.weight', '')
    const [, rows, cols] = linear
    return [{ ...tensor, values }, vector(`${prefix}.weight_scale`, rows), vector(`${prefix}.input_factor`, cols)]
  })
}

const isLinear = (name: string) => TINY_LINEARS.some(([linear]) => name.endsWith(`${linear}.weight`))

/** Eight signs a byte, the first in the lowest bit, 1 for negative. */
function pack(values: Float32Array): Buffer {
  const out = Buffer.alloc(values.length / 8)
  values.forEach((value, i) => {
    if (value < 0) out[i >> 3]! |= 1 << (i & 7)
  })
  return out
}

function asTorch(tensors: NamedTensor[], layout: 'training' | 'packed'): TorchTensor[] {
  return tensors.map(({ name, shape, values }) => {
    if (layout === 'training' || !isLinear(name))
      return { name, shape, type: 'FloatStorage', data: encodeFloats('F32', values) }
    return { name, shape: [shape[0]!, shape[1]! / 8], type: 'CharStorage', data: pack(values) }
  })
}

describe('made here', () => {
  const training = trainingTensors()
  const teacher = training.slice(0, 3).map((tensor) => ({ ...tensor, name: `teacher_model.${tensor.name}` }))
  const source = (layout: 'training' | 'packed', name: string = layout) => {
    const torch = asTorch(layout === 'training' ? [...training, ...teacher] : training, layout)
    return writeFolder(folder.path(name), CONFIG, { 'pytorch_model.bin': torchFile(torch) })
  }

  test('both layouts give the same signs, g and h, byte for byte', async () => {
    const [a, b] = [folder.path('a.obt'), folder.path('b.obt')]
    expect((await convert(source('training'), a)).format).toBe('onebit-training')
    const report = await convert(source('packed'), b)
    expect(report.format).toBe('onebit-packed')
    expect(report.config.linears.wq).toEqual({ kind: 'sign', rank: 0, mid_scale: false, layernorm: true, bias: false })
    const [first, second] = [await readTensors(a), await readTensors(b)]
    expect([...first.keys()]).toEqual([...second.keys()])
    for (const [name, bytes] of first) expect(bytes.equals(second.get(name)!), name).toBe(true)
    for (const { name, values } of training) {
      const ours = ourName(name)
      if (isLinear(name)) expect(first.get(ours.replace('.weight', '.sign'))!.equals(pack(values)), name).toBe(true)
      else expect(floats(first.get(ours)), name).toEqual(values)
    }
  })

  test('a packed layout in safetensors is read too', async () => {
    // The writer of tests knows floats only, so the packed bytes are smuggled in as numbers of one byte each.
    const parts = asTorch(training, 'packed')
    let at = 0
    const header: Record<string, unknown> = {}
    for (const { name, shape, type, data } of parts) {
      header[name] = { dtype: type === 'CharStorage' ? 'I8' : 'F32', shape, data_offsets: [at, at + data.length] }
      at += data.length
    }
    const text = Buffer.from(JSON.stringify(header))
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(text.length))
    const file = Buffer.concat([length, text, ...parts.map(({ data }) => data)])
    const [a, b] = [folder.path('c.obt'), folder.path('d.obt')]
    await convert(writeFolder(folder.path('safe'), CONFIG, { 'model.safetensors': file }), a)
    await convert(source('packed', 'again'), b)
    const second = await readTensors(b)
    for (const [name, bytes] of await readTensors(a)) expect(bytes.equals(second.get(name)!), name).toBe(true)
  })

  test('--type is refused: the signs are all there is', async () => {
    expect(await codeOf(() => convert(source('packed', 'typed'), folder.path('x.obt'), { type: 'q8' }))).toBe(
      'ERR_BAD_OPTION',
    )
  })

  test('floats without scales are no such checkpoint', async () => {
    const dense = writeFolder(folder.path('dense'), CONFIG, { 'model.safetensors': safetensorsFile(tinyTensors()) })
    expect(await codeOf(() => convert(dense, folder.path('x.obt')))).toBe('ERR_MISSING_TENSOR')
  })
})

test('tokenizer.model, which is all the released checkpoints have', async () => {
  const letters = Array.from('helo', (letter): Piece => [letter, -3, 1])
  const pieces: Piece[] = [['<unk>', 0, 2], ['<s>', 0, 3], ['</s>', 0, 3], ['▁', -2, 1], ...letters]
  const files = { 'pytorch_model.bin': torchFile(asTorch(trainingTensors(), 'packed')) }
  const source = writeFolder(folder.path('spm'), CONFIG, {
    ...files,
    'tokenizer.model': sentencePiece(2, pieces),
    'tokenizer_config.json': JSON.stringify({ add_bos_token: true }),
  })
  const report = await convert(source, folder.path('spm.obt'))
  expect(report.hasTokenizer).toBe(true)
  const model = await Model.load(folder.path('spm.obt'))
  expect([...(await model.encode('hello'))]).toEqual([1, 3, 4, 5, 6, 6, 7])
  await model.dispose()
})

describe('the golden checkpoints, as PyTorch wrote them', () => {
  test('both layouts become the same tensors', async () => {
    const [a, b] = [folder.path('train.obt'), folder.path('packed.obt')]
    expect((await convert(golden('onebit-tiny/train'), a)).format).toBe('onebit-training')
    expect((await convert(golden('onebit-tiny/packed'), b)).format).toBe('onebit-packed')
    const second = await readTensors(b)
    for (const [name, bytes] of await readTensors(a)) expect(bytes.equals(second.get(name)!), name).toBe(true)
    expect((await readObtHeader(a)).config).toEqual((await readObtHeader(b)).config)
  })

  test('tokenizer.model, which is all the released checkpoints have', async () => {
    const out = folder.path('spm.obt')
    expect((await convert(golden('onebit-en10/packed'), out)).hasTokenizer).toBe(true)
    const model = await Model.load(out)
    const ids = await model.encode('hello there')
    expect(ids.length).toBeGreaterThan(10) // BOS and, in a vocabulary of 105, hardly more than letters
    await model.dispose()
  })
})
