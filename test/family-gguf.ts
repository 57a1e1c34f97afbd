/** A golden Hugging Face folder as a GGUF file, written from the format's description and not by what reads it. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { dataFile } from './data.js'
import { FAMILY } from './family.js'
import { encodeTensor, type GgufTensor, ggufFile, halfValue, type MetadataValue } from './gguf-writer.js'

interface Entry {
  dtype: string
  shape: number[]
  data_offsets: [number, number]
}

/** A folder's tensors as f32; bf16 is the upper half of one. */
function readHalves(path: string): { name: string; shape: number[]; values: Float32Array }[] {
  const bytes = readFileSync(path)
  const length = Number(bytes.readBigUInt64LE())
  const { __metadata__, ...entries } = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<string, Entry>
  return Object.entries(entries).map(
    ([
      name,
      {
        dtype,
        shape,
        data_offsets: [from, to],
      },
    ]) => {
      const data = bytes.subarray(8 + length + from, 8 + length + to)
      const halves = Array.from({ length: data.length / 2 }, (_, i) => data.readUInt16LE(2 * i))
      if (dtype === 'F16') return { name, shape, values: Float32Array.from(halves, halfValue) }
      if (dtype !== 'BF16') throw new Error(`${name} is ${dtype}`)
      return { name, shape, values: new Float32Array(Uint32Array.from(halves, (half) => half * 65536).buffer) }
    },
  )
}

const NAMES: [RegExp, string][] = [
  [/^model\.embed_tokens/, 'token_embd'],
  [/^model\.norm/, 'output_norm'],
  [/^lm_head/, 'output'],
  [/^model\.layers\.(\d+)\.input_layernorm/, 'blk.$1.attn_norm'],
  [/^model\.layers\.(\d+)\.post_attention_layernorm/, 'blk.$1.ffn_norm'],
  [/^model\.layers\.(\d+)\.self_attn\.([qkv])_proj/, 'blk.$1.attn_$2'],
  [/^model\.layers\.(\d+)\.self_attn\.o_proj/, 'blk.$1.attn_output'],
  [/^model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj/, 'blk.$1.ffn_$2'],
]

function ggufName(name: string): string {
  const [pattern, replacement] = NAMES.find(([pattern]) => pattern.test(name))!
  return name.replace(pattern, replacement)
}

/** Rows of each head of `size` so that pairs (i, i + size/2) become neighbours, as llama files have q and k. */
function interleaveRows(values: Float32Array, cols: number, size: number): Float32Array {
  const out = new Float32Array(values.length)
  for (let row = 0; row < values.length / cols; row++) {
    const [head, within] = [Math.floor(row / size), row % size]
    const source = head * size + (within % 2) * (size / 2) + (within >> 1)
    out.set(values.subarray(source * cols, (source + 1) * cols), row * cols)
  }
  return out
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
  const metadata = {
    'general.architecture': { string: architecture },
    [`${architecture}.context_length`]: { u32: config.max_position_embeddings! },
    [`${architecture}.embedding_length`]: { u32: config.hidden_size! },
    [`${architecture}.block_count`]: { u32: config.num_hidden_layers! },
    [`${architecture}.feed_forward_length`]: { u32: config.intermediate_size! },
    [`${architecture}.attention.head_count`]: { u32: config.num_attention_heads! },
    [`${architecture}.attention.head_count_kv`]: { u32: config.num_key_value_heads! },
    [`${architecture}.attention.key_length`]: { u32: size },
    [`${architecture}.attention.layer_norm_rms_epsilon`]: { f32: config.rms_norm_eps! },
    [`${architecture}.rope.freq_base`]: { f32: config.rope_theta! },
    ...more,
  }
  return ggufFile(metadata, tensors)
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
    const [pattern, replacement] = NEOX_NAMES.find(([pattern]) => pattern.test(name))!
    const isFused = name.includes('query_key_value')
    const rows = isFused ? queriesFirst(values, shape[1] ?? 1, heads) : values
    return { name: name.replace(pattern, replacement), type: 'f32', shape, data: encodeTensor('f32', rows) }
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
