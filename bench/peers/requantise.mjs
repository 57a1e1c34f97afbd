// The peer's best form of the same model: a GGUF's matrices dequantised and written again as Q8_0, all else kept.
import { openSync, readSync, writeFileSync } from 'node:fs'
import { GGMLQuantizationType, GGUFValueType, gguf } from '@huggingface/gguf'
import { importTypeScript } from '../../scripts/import-typescript.mjs'

const { encodeTensor, ggufFile, halfValue } = await importTypeScript('test/gguf-writer.ts')

/** Bytes per block and how to add its numbers to `out`. Blocks have 32 columns but f32's. */
const BLOCKS = {
  F32: {
    columns: 1,
    bytes: 4,
    read: (block, out, at) => {
      out[at] = block.readFloatLE(0)
    },
  },
  Q8_0: {
    columns: 32,
    bytes: 34,
    read: (block, out, at) => {
      const scale = halfValue(block.readUInt16LE(0))
      for (let i = 0; i < 32; i++) out[at + i] = scale * block.readInt8(2 + i)
    },
  },
  // scale, minimum, then 16 bytes whose low nibbles are columns 0..15 and whose high nibbles are 16..31
  Q4_1: {
    columns: 32,
    bytes: 20,
    read: (block, out, at) => {
      const scale = halfValue(block.readUInt16LE(0))
      const minimum = halfValue(block.readUInt16LE(2))
      for (let i = 0; i < 16; i++) {
        out[at + i] = scale * (block[4 + i] & 15) + minimum
        out[at + i + 16] = scale * (block[4 + i] >> 4) + minimum
      }
    },
  },
}

function dequantise(bytes, { columns, bytes: size, read }) {
  const blocks = bytes.length / size
  const out = new Float32Array(blocks * columns)
  for (let block = 0; block < blocks; block++) {
    read(bytes.subarray(block * size, (block + 1) * size), out, block * columns)
  }
  return out
}

function metadataValue(key, { value, type, subType }) {
  switch (type) {
    case GGUFValueType.UINT32:
      return { u32: key === 'general.file_type' ? 7 : value } // 7: mostly Q8_0
    case GGUFValueType.FLOAT32:
      return { f32: value }
    case GGUFValueType.BOOL:
      return { bool: value }
    case GGUFValueType.STRING:
      return { string: value }
    case GGUFValueType.ARRAY:
      if (subType === GGUFValueType.STRING) return { strings: value }
      if (subType === GGUFValueType.INT32) return { i32s: value }
      if (subType === GGUFValueType.FLOAT32) return { f32s: value }
  }
  throw new Error(`${key}: metadata of type ${type} is not carried over`)
}

/** Writes `target` from the GGUF file `source`. */
export async function toQ8(source, target) {
  const { typedMetadata, tensorInfos, tensorDataOffset } = await gguf(source, {
    allowLocalFile: true,
    typedMetadata: true,
  })
  const own = ['version', 'tensor_count', 'kv_count']
  const metadata = Object.fromEntries(
    Object.entries(typedMetadata)
      .filter(([key]) => !own.includes(key))
      .map(([key, entry]) => [key, metadataValue(key, entry)]),
  )
  const file = openSync(source, 'r')
  const tensors = tensorInfos.map(({ name, shape, dtype, offset }) => {
    const form = BLOCKS[GGMLQuantizationType[dtype]]
    if (!form) throw new Error(`${name}: type ${GGMLQuantizationType[dtype]} is not read here`)
    const sizes = shape.map(Number).reverse()
    const count = sizes.reduce((product, size) => product * size, 1)
    const bytes = Buffer.alloc((count / form.columns) * form.bytes)
    readSync(file, bytes, 0, bytes.length, Number(tensorDataOffset + offset))
    const type = sizes.length > 1 ? 'q8_0' : 'f32'
    return { name, type, shape: sizes, data: encodeTensor(type, dequantise(bytes, form)) }
  })
  writeFileSync(target, ggufFile(metadata, tensors))
}
