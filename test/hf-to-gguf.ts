/** What golden Hugging Face folders need to become GGUF files, written from the formats' descriptions and not by what reads them. */
import { readFileSync } from 'node:fs'
import type { MetadataValue } from './gguf-writer.js'

interface Entry {
  dtype: string
  shape: number[]
  data_offsets: [number, number]
}

export interface StoredTensor {
  name: string
  dtype: string
  shape: number[]
  data: Buffer
}

export function readSafetensors(path: string): StoredTensor[] {
  const bytes = readFileSync(path)
  const length = Number(bytes.readBigUInt64LE())
  const { __metadata__, ...entries } = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<string, Entry>
  return Object.entries(entries).map(([name, { dtype, shape, data_offsets }]) => {
    const [from, to] = data_offsets
    return { name, dtype, shape, data: bytes.subarray(8 + length + from, 8 + length + to) }
  })
}

/** Whole numbers of 16 bits. */
export function halvesOf(data: Buffer): number[] {
  return Array.from({ length: data.length / 2 }, (_, i) => data.readUInt16LE(2 * i))
}

/** bf16 is the upper half of an f32. */
export function fromBf16(data: Buffer): Float32Array {
  return new Float32Array(Uint32Array.from(halvesOf(data), (half) => half * 65536).buffer)
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

export function ggufName(name: string, names = NAMES): string {
  const [pattern, replacement] = names.find(([pattern]) => pattern.test(name))!
  return name.replace(pattern, replacement)
}

/** Rows of each head of `size` so that pairs (i, i + size / 2) become neighbours, as llama files have q and k. */
export function interleaveRows(values: Float32Array, cols: number, size: number): Float32Array {
  const out = new Float32Array(values.length)
  for (let row = 0; row < values.length / cols; row++) {
    const [head, within] = [Math.floor(row / size), row % size]
    const source = head * size + (within % 2) * (size / 2) + (within >> 1)
    out.set(values.subarray(source * cols, (source + 1) * cols), row * cols)
  }
  return out
}

export function ggufMetadata(architecture: string, config: Record<string, number>): Record<string, MetadataValue> {
  return {
    'general.architecture': { string: architecture },
    [`${architecture}.context_length`]: { u32: config.max_position_embeddings! },
    [`${architecture}.embedding_length`]: { u32: config.hidden_size! },
    [`${architecture}.block_count`]: { u32: config.num_hidden_layers! },
    [`${architecture}.feed_forward_length`]: { u32: config.intermediate_size! },
    [`${architecture}.attention.head_count`]: { u32: config.num_attention_heads! },
    [`${architecture}.attention.head_count_kv`]: { u32: config.num_key_value_heads! },
    [`${architecture}.attention.layer_norm_rms_epsilon`]: { f32: config.rms_norm_eps! },
    [`${architecture}.rope.freq_base`]: { f32: config.rope_theta! },
  }
}
