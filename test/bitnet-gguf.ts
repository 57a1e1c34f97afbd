/** A golden BitNet folder as a GGUF file in f32, written from the formats' descriptions and not by what reads them. */
import { readFileSync } from 'node:fs'
import { dataFile } from './data.js'
import { encodeTensor, type GgufTensor, ggufFile, type MetadataValue } from './gguf-writer.js'
import { fromBf16, ggufMetadata, ggufName, interleaveRows, readSafetensors } from './hf-to-gguf.js'

interface Named {
  name: string
  shape: number[]
  values: Float32Array
}

/** Four rows of codes lie in one of bytes: the first quarter of the rows in the lowest bits. */
function ternary(bytes: Buffer, [packedRows, cols]: readonly [number, number]): Float32Array {
  const out = new Float32Array(4 * packedRows * cols)
  for (let row = 0; row < 4 * packedRows; row++) {
    const [i, r] = [Math.floor(row / packedRows), row % packedRows]
    for (let c = 0; c < cols; c++) out[row * cols + c] = ((bytes[r * cols + c]! >> (2 * i)) & 3) - 1
  }
  return out
}

function readTensors(path: string): Named[] {
  return readSafetensors(path).map(({ name, dtype, shape, data }) => {
    if (dtype === 'U8') {
      const [rows, cols] = shape as [number, number]
      return { name, shape: [4 * rows, cols], values: ternary(data, [rows, cols]) }
    }
    if (dtype !== 'BF16') throw new Error(`${name} is ${dtype}`)
    return { name, shape, values: fromBf16(data) }
  })
}

export interface BitnetGgufOptions {
  /** weights of -1, 0, 1 with a tensor NAME.scale beside each; otherwise that is multiplied into them */
  scales?: boolean
  /** how a tensor is called instead */
  rename?: (name: string) => string
  metadata?: Record<string, MetadataValue>
}

/** Of a folder whose scales multiply. Architecture llama reorders the rows of q and k. */
export function bitnetGguf(name: string, architecture: string, options: BitnetGgufOptions = {}): Buffer {
  const folder = dataFile(`golden/bitnet/${name}/hf`)
  const config = JSON.parse(readFileSync(`${folder}/config.json`, 'utf8')) as Record<string, number>
  const size = config.hidden_size! / config.num_attention_heads!
  const all = readTensors(`${folder}/model.safetensors`).map((tensor) => {
    return { ...tensor, name: ggufName(tensor.name).replace(/\.weight_scale$/, '.scale') }
  })
  const scaleOf = (weight: string) => all.find((other) => other.name === weight.replace(/weight$/, 'scale'))?.values[0]
  const tensors = all.flatMap(({ name, shape, values }): GgufTensor[] => {
    if (name.endsWith('.scale') && !options.scales) return []
    const factor = options.scales ? 1 : (scaleOf(name) ?? 1)
    const isReordered = architecture === 'llama' && /attn_[qk]\.weight$/.test(name)
    const ordered = isReordered ? interleaveRows(values, shape[1]!, size) : values
    const data = encodeTensor(
      'f32',
      ordered.map((value) => value * factor),
    )
    return [{ name: options.rename?.(name) ?? name, type: 'f32', shape, data }]
  })
  return ggufFile({ ...ggufMetadata(architecture, config), ...options.metadata }, tensors)
}
