/** A golden BitNet folder as a GGUF file in f32, written from the formats' descriptions and not by what reads them. */
import { readFileSync } from 'node:fs'
import { dataFile } from './data.js'
import { encodeTensor, type GgufTensor, ggufFile, type MetadataValue } from './gguf-writer.js'

interface Entry {
  dtype: string
  shape: number[]
  data_offsets: [number, number]
}

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
  const bytes = readFileSync(path)
  const length = Number(bytes.readBigUInt64LE())
  const { __metadata__, ...entries } = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<string, Entry>
  return Object.entries(entries).map(([name, { dtype, shape, data_offsets }]) => {
    const data = bytes.subarray(8 + length + data_offsets[0], 8 + length + data_offsets[1])
    if (dtype === 'U8') {
      const [rows, cols] = shape as [number, number]
      return { name, shape: [4 * rows, cols], values: ternary(data, [rows, cols]) }
    }
    if (dtype !== 'BF16') throw new Error(`${name} is ${dtype}`)
    const halves = Uint32Array.from({ length: data.length / 2 }, (_, i) => data.readUInt16LE(2 * i) * 65536)
    return { name, shape, values: new Float32Array(halves.buffer) }
  })
}

const NAMES: [RegExp, string][] = [
  [/^model\.embed_tokens/, 'token_embd'],
  [/^model\.norm/, 'output_norm'],
  [/^lm_head/, 'output'],
  [/^model\.layers\.(\d+)\.input_layernorm/, 'blk.$1.attn_norm'],
  [/^model\.layers\.(\d+)\.post_attention_layernorm/, 'blk.$1.ffn_norm'],
  [/^model\.layers\.(\d+)\.self_attn\.attn_sub_norm/, 'blk.$1.attn_sub_norm'],
  [/^model\.layers\.(\d+)\.mlp\.ffn_sub_norm/, 'blk.$1.ffn_sub_norm'],
  [/^model\.layers\.(\d+)\.self_attn\.([qkv])_proj/, 'blk.$1.attn_$2'],
  [/^model\.layers\.(\d+)\.self_attn\.o_proj/, 'blk.$1.attn_output'],
  [/^model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj/, 'blk.$1.ffn_$2'],
]

function ggufName(name: string): string {
  const [pattern, replacement] = NAMES.find(([pattern]) => pattern.test(name))!
  return name.replace(pattern, replacement).replace(/\.weight_scale$/, '.scale')
}

/** Rows of each head of `size` so that pairs (i, i + size / 2) become neighbours, as llama files have q and k. */
function interleaved(values: Float32Array, cols: number, size: number): Float32Array {
  const out = new Float32Array(values.length)
  for (let row = 0; row < values.length / cols; row++) {
    const [head, within] = [Math.floor(row / size), row % size]
    const source = head * size + (within % 2) * (size / 2) + (within >> 1)
    out.set(values.subarray(source * cols, (source + 1) * cols), row * cols)
  }
  return out
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
  const all = readTensors(`${folder}/model.safetensors`).map((tensor) => ({ ...tensor, name: ggufName(tensor.name) }))
  const scaleOf = (weight: string) => all.find((other) => other.name === weight.replace(/weight$/, 'scale'))?.values[0]
  const tensors = all.flatMap(({ name, shape, values }): GgufTensor[] => {
    if (name.endsWith('.scale') && !options.scales) return []
    const factor = options.scales ? 1 : (scaleOf(name) ?? 1)
    const isReordered = architecture === 'llama' && /attn_[qk]\.weight$/.test(name)
    const ordered = isReordered ? interleaved(values, shape[1]!, size) : values
    const data = encodeTensor(
      'f32',
      ordered.map((value) => value * factor),
    )
    return [{ name: options.rename?.(name) ?? name, type: 'f32', shape, data }]
  })
  const metadata = {
    'general.architecture': { string: architecture },
    [`${architecture}.context_length`]: { u32: config.max_position_embeddings! },
    [`${architecture}.embedding_length`]: { u32: config.hidden_size! },
    [`${architecture}.block_count`]: { u32: config.num_hidden_layers! },
    [`${architecture}.feed_forward_length`]: { u32: config.intermediate_size! },
    [`${architecture}.attention.head_count`]: { u32: config.num_attention_heads! },
    [`${architecture}.attention.head_count_kv`]: { u32: config.num_key_value_heads! },
    [`${architecture}.attention.layer_norm_rms_epsilon`]: { f32: config.rms_norm_eps! },
    [`${architecture}.rope.freq_base`]: { f32: config.rope_theta! },
    ...options.metadata,
  }
  return ggufFile(metadata, tensors)
}
