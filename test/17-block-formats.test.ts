/** GGUF's blocks to numbers: against ggml's own decoders where the data folder is, and against what those left here. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { addon } from '../dist/native/addon.js'
import type { SourceType } from '../dist/native/native.js'
import { dataFile, missing, readJson } from './data.js'
import { SeededRandom } from './gguf-writer.js'

const ELEMENTS = 1024
/**
 * Bytes of 1,024 elements, and the beginning of the SHA-256 of their values when the bytes are random (seed 5, each block's scales being
 * 0.5 or 1.5). Recorded when the decoders gave the values of golden/codecs to the bit.
 */
const RECORDED: [SourceType, number, number[], string][] = [
  ['q5_0', 22, [0], '275a669f61dc1708'],
  ['q5_1', 24, [0, 2], 'ea7f89b34020eb26'],
  ['q2_k', 84, [80, 82], '245203c4c9e4b9f8'],
  ['q3_k', 110, [108], '5a7c64633247ab89'],
  ['q4_k', 144, [0, 2], '93a84e810446498a'],
  ['q5_k', 176, [0, 2], '28885347ad258a62'],
  ['q6_k', 210, [208], 'c7974cb3863b4f7d'],
  ['iq4_nl', 18, [0], '79c1deda535e407f'],
  ['iq4_xs', 136, [0], '293498463419179c'],
  ['q2_0', 18, [0], '869ecfbeff5cb39b'],
  ['q2_0_g128', 34, [0], 'c72df595b5fdacbe'],
  ['tq1_0', 54, [52], '07d06dbb08ced3cf'],
  ['tq2_0', 66, [64], '7e649588973f8dd6'],
  ['ptq1_0', 28, [26], 'b765131251ec4d94'],
]
const BLOCK: Partial<Record<SourceType, number>> = {
  q5_0: 32,
  q5_1: 32,
  iq4_nl: 32,
  q2_0: 64,
  q2_0_g128: 128,
  ptq1_0: 128,
}

function randomBlocks(type: SourceType, bytes: number, scales: readonly number[]): Uint8Array {
  const random = new SeededRandom(5)
  const source = Buffer.alloc((ELEMENTS / (BLOCK[type] ?? 256)) * bytes)
  for (let i = 0; i < source.length; i++) source[i] = random.integer(256)
  for (let block = 0; block < source.length; block += bytes) {
    for (const at of scales) source.writeUInt16LE(random.integer(2) ? 0x3800 : 0x3e00, block + at)
  }
  return source
}

const hashOf = (values: Float32Array) =>
  createHash('sha256').update(new Uint8Array(values.buffer)).digest('hex').slice(0, 16)

describe('random blocks', () => {
  it.each(RECORDED)('of %s', (type, bytes, scales, expected) => {
    const source = randomBlocks(type, bytes, scales)
    expect([type, hashOf(addon().toF32(source, type, 4, ELEMENTS / 4))]).toEqual([type, expected])
    // Every byte counts.
    for (const at of [0, bytes >> 1, bytes - 1, source.length - 1]) {
      const changed = Uint8Array.from(source)
      changed[at]! ^= 0x28
      expect(hashOf(addon().toF32(changed, type, 4, ELEMENTS / 4))).not.toBe(expected)
    }
  })

  it('with a scale that is no number are refused', () => {
    for (const [type, bytes, [at]] of RECORDED) {
      const source = Buffer.from(randomBlocks(type, bytes, [at!]))
      source.writeUInt16LE(0x7e00, bytes + at!)
      const elements = BLOCK[type] ?? 256
      expect(() => addon().toF32(source, type, ELEMENTS / elements, elements)).toThrow(/row 1, column 0 is NaN/)
    }
  })
})

const CODECS = 'golden/codecs/index.json'
const OTHER_NAMES: Record<string, SourceType> = { 'Q2_0-legacy-g128': 'q2_0_g128', PQ2_0: 'q2_0_g128' }
/** Whole tensors, whose scale does not lie in blocks. */
const NO_BLOCKS = ['I2_S', 'HF-packed']

describe.skipIf(missing(CODECS))('the values of other decoders', () => {
  const index = missing(CODECS) ? {} : readJson<Record<string, { shape: [number, number] }>>(dataFile(CODECS))
  const names = Object.keys(index).filter((name) => !NO_BLOCKS.includes(name))
  it.each(names)('to the bit: %s', (name) => {
    const [rows, cols] = index[name]!.shape
    const numpy = readFileSync(dataFile(`golden/codecs/${name}.npy`))
    const from = 10 + numpy.readUInt16LE(8)
    const expected = new Uint32Array(numpy.buffer.slice(numpy.byteOffset + from, numpy.byteOffset + numpy.length))
    const type = OTHER_NAMES[name] ?? (name.toLowerCase() as SourceType)
    const found = addon().toF32(readFileSync(dataFile(`golden/codecs/${name}.bin`)), type, rows, cols)
    expect(new Uint32Array(found.buffer)).toEqual(expected)
  })
})
