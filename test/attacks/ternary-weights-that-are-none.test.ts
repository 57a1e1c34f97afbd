/** Packed ternary folders whose bytes are no ternary weights, or whose scales are no numbers. */
import { afterAll, expect, it } from 'vitest'
import { Model } from '../../dist/index.js'
import { failure } from '../expect-code.js'
import { temporaryFolder } from '../tiny-model.js'
import { encodeFloats, TINY_LINEARS, tinyHfConfig, tinyTensors, writeFolder } from '../tiny-source.js'

const folder = temporaryFolder()
afterAll(folder.remove)

interface Written {
  dtype: string
  shape: number[]
  bytes: Buffer
}

/** The small model with packed linears: codes 0, 1 and 2, a scale of a half. */
function packedTensors(): Map<string, Written> {
  const out = new Map<string, Written>()
  for (const { name, shape, values } of tinyTensors()) {
    const linear = TINY_LINEARS.find(([linear]) => name.includes(linear))
    if (linear === undefined) {
      out.set(name, { dtype: 'F32', shape, bytes: encodeFloats('F32', values) })
      continue
    }
    const [, rows, cols] = linear
    const bytes = Buffer.from(
      Array.from({ length: (rows / 4) * cols }, (_, i) => [0b00_01_10_01, 0b10_10_01_00][i % 2]!),
    )
    out.set(name, { dtype: 'U8', shape: [rows / 4, cols], bytes })
    out.set(`${name}_scale`, { dtype: 'F32', shape: [1], bytes: encodeFloats('F32', new Float32Array([0.5])) })
  }
  return out
}

function file(tensors: Map<string, Written>): Buffer {
  let at = 0
  const header: Record<string, object> = {}
  for (const [name, { dtype, shape, bytes }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [at, at + bytes.length] }
    at += bytes.length
  }
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  return Buffer.concat([length, text, ...[...tensors.values()].map(({ bytes }) => bytes)])
}

let files = 0
function write(change: (tensors: Map<string, Written>) => void): string {
  const tensors = packedTensors()
  change(tensors)
  const config = tinyHfConfig({ quantization_config: { quant_method: 'bitnet' } })
  return writeFolder(folder.path(`${files++}`), config, { 'model.safetensors': file(tensors) })
}

const WEIGHT = 'model.layers.1.mlp.up_proj.weight'
const scale = (value: number) => (tensors: Map<string, Written>) => {
  tensors.get(`${WEIGHT}_scale`)!.bytes.writeFloatLE(value)
}

it('the folder is right before it is changed', async () => {
  const model = await Model.load(write(() => {}))
  expect((await model.createSession().logits([1, 2, 3])).data.every(Number.isFinite)).toBe(true)
  await model.dispose()
})

it.each<[string, (tensors: Map<string, Written>) => void, string]>([
  ['a code of 3', (tensors) => tensors.get(WEIGHT)!.bytes.writeUInt8(0b01_11_01_01, 7), 'ERR_TERNARY_CODE'],
  [
    'a code of 3 in the last byte',
    (tensors) => tensors.get(WEIGHT)!.bytes.writeUInt8(0b11_00_00_00, 95),
    'ERR_TERNARY_CODE',
  ],
  ['a scale of zero', scale(0), 'ERR_BAD_SOURCE'],
  ['a scale that is no number', scale(Number.NaN), 'ERR_NOT_FINITE'],
  ['an infinite scale', scale(Number.POSITIVE_INFINITY), 'ERR_NOT_FINITE'],
  ['no scale', (tensors) => tensors.delete(`${WEIGHT}_scale`), 'ERR_MISSING_TENSOR'],
  [
    'a scale for every row',
    (tensors) => Object.assign(tensors.get(`${WEIGHT}_scale`)!, { shape: [24], bytes: Buffer.alloc(96, 1) }),
    'ERR_TENSOR_SHAPE',
  ],
  [
    'rows that are not packed',
    (tensors) => Object.assign(tensors.get(WEIGHT)!, { shape: [24, 16], bytes: Buffer.alloc(384) }),
    'ERR_TENSOR_SHAPE',
  ],
  ['weights of another type', (tensors) => Object.assign(tensors.get(WEIGHT)!, { dtype: 'I8' }), 'ERR_BAD_SOURCE'],
  ['a weight that is not there', (tensors) => tensors.delete(WEIGHT), 'ERR_MISSING_TENSOR'],
])('%s', async (_, change, code) => {
  const error = await failure(() => Model.load(write(change)))
  expect([error.code, error.message]).toEqual([code, expect.stringContaining('model.layers.1.mlp.up_proj')])
})
