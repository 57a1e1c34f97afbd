/** A golden Hugging Face folder as a GGUF file, written from the format's description and not by what reads it. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { dataFile } from './data.js'
import { FAMILY } from './family.js'
import { encodeTensor, type GgufTensor, ggufFile, halfValue, type MetadataValue } from './gguf-writer.js'
import { fromBf16, ggufMetadata, ggufName, halvesOf, interleaveRows, readSafetensors } from './hf-to-gguf.js'

/** A folder's tensors as f32. */
function readHalves(path: string): { name: string; shape: number[]; values: Float32Array }[] {
  return readSafetensors(path).map(({ name, dtype, shape, data }) => {
    if (dtype === 'F16') return { name, shape, values: Float32Array.from(halvesOf(data), halfValue) }
    if (dtype !== 'BF16') throw new Error(`${name} is ${dtype}`)
    return { name, shape, values: fromBf16(data) }
  })
}

/** `llama` or a name under which the rows of q and k stay as they are; `more` adds metadata. */
export function familyGguf(model: string, architecture: string, more: Record<string, MetadataValue> = {}): Buffer {
  const folder = dataFile(join(FAMILY, model, 'hf'))
  const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as Record<string, number>
  const size = config.head_dim ?? config.hidden_size! / config.num_attention_heads!
  const tensors = readHalves(join(folder, 'model.safetensors')).map(({ name, shape, values }): GgufTensor => {
    const isReordered = architecture === 'llama' && /[qk]_proj\.weight$/.test(name)
    const rows = isReordered ? interleaveRows(values, shape[1]!, size) : values
    return { name: ggufName(name), type: 'f32', shape, data: encodeTensor('f32', rows) }
  })
  const keys = { ...ggufMetadata(architecture, config), [`${architecture}.attention.key_length`]: { u32: size } }
  return ggufFile({ ...keys, ...more }, tensors)
}

const NEOX_NAMES: [RegExp, string][] = [
  [/^gpt_neox\.embed_in/, 'token_embd'],
  [/^gpt_neox\.final_layer_norm/, 'output_norm'],
  [/^embed_out/, 'output'],
  [/^gpt_neox\.layers\.(\d+)\.input_layernorm/, 'blk.$1.attn_norm'],
  [/^gpt_neox\.layers\.(\d+)\.post_attention_layernorm/, 'blk.$1.ffn_norm'],
  [/^gpt_neox\.layers\.(\d+)\.attention\.query_key_value/, 'blk.$1.attn_qkv'],
  [/^gpt_neox\.layers\.(\d+)\.attention\.dense/, 'blk.$1.attn_output'],
  [/^gpt_neox\.layers\.(\d+)\.mlp\.dense_h_to_4h/, 'blk.$1.ffn_up'],
  [/^gpt_neox\.layers\.(\d+)\.mlp\.dense_4h_to_h/, 'blk.$1.ffn_down'],
]

/** Of each head q, k and v, to all of q, all of k, all of v. */
function queriesFirst(values: Float32Array, cols: number, heads: number): Float32Array {
  const size = values.length / cols / heads / 3
  const parts = [0, 1, 2].flatMap((part) =>
    Array.from({ length: heads }, (_, head) => {
      const from = (head * 3 + part) * size * cols
      return [...values.subarray(from, from + size * cols)]
    }),
  )
  return Float32Array.from(parts.flat())
}

/** The golden GPT-NeoX as llama.cpp's converter writes one. */
export function neoxGguf(more: Record<string, MetadataValue> = {}): Buffer {
  const folder = dataFile(join(FAMILY, 'gpt_neox', 'hf'))
  const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as Record<string, number>
  const heads = config.num_attention_heads!
  const tensors = readHalves(join(folder, 'model.safetensors')).map(({ name, shape, values }): GgufTensor => {
    const isFused = name.includes('query_key_value')
    const rows = isFused ? queriesFirst(values, shape[1] ?? 1, heads) : values
    return { name: ggufName(name, NEOX_NAMES), type: 'f32', shape, data: encodeTensor('f32', rows) }
  })
  const metadata = {
    'general.architecture': { string: 'gptneox' },
    'gptneox.context_length': { u32: config.max_position_embeddings! },
    'gptneox.embedding_length': { u32: config.hidden_size! },
    'gptneox.block_count': { u32: config.num_hidden_layers! },
    'gptneox.feed_forward_length': { u32: config.intermediate_size! },
    'gptneox.attention.head_count': { u32: heads },
    'gptneox.attention.layer_norm_epsilon': { f32: config.layer_norm_eps! },
    'gptneox.rope.dimension_count': { u32: (config.hidden_size! / heads) * config.rotary_pct! },
    'gptneox.use_parallel_residual': { bool: true },
    ...more,
  }
  return ggufFile(metadata, tensors)
}
