/** A small Llama as its tensors in numbers, and as the files that importers read. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { encodeTensor, SeededRandom } from './gguf-writer.js'

export const TINY = {
  vocab: 24,
  dim: 16,
  hidden: 24,
  layers: 2,
  heads: 2,
  kvHeads: 1,
  headDim: 8,
  context: 32,
} as const

export interface NamedTensor {
  name: string
  shape: number[]
  values: Float32Array
}

/** config.json of the model below; `more` adds or replaces fields. */
export function tinyHfConfig(more: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    model_type: 'llama',
    vocab_size: TINY.vocab,
    hidden_size: TINY.dim,
    intermediate_size: TINY.hidden,
    num_hidden_layers: TINY.layers,
    num_attention_heads: TINY.heads,
    num_key_value_heads: TINY.kvHeads,
    max_position_embeddings: TINY.context,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    tie_word_embeddings: false,
    hidden_act: 'silu',
    ...more,
  }
}

/** Shapes of the linears of a layer by Hugging Face's names. */
export const TINY_LINEARS = [
  ['self_attn.q_proj', 16, 16],
  ['self_attn.k_proj', 8, 16],
  ['self_attn.v_proj', 8, 16],
  ['self_attn.o_proj', 16, 16],
  ['mlp.gate_proj', 24, 16],
  ['mlp.up_proj', 24, 16],
  ['mlp.down_proj', 16, 24],
] as const

/** All tensors of the model under Hugging Face's names; multiples of 1/64, so that every float type holds them. */
export function tinyTensors(options: { tied?: boolean; bias?: boolean; seed?: number } = {}): NamedTensor[] {
  const random = new SeededRandom(options.seed ?? 7)
  const tensor = (name: string, ...shape: number[]): NamedTensor => {
    const values = new Float32Array(shape.reduce((product, size) => product * size, 1))
    return { name, shape, values: values.map(() => (random.integer(127) - 63) / 64) }
  }
  const all = [tensor('model.embed_tokens.weight', TINY.vocab, TINY.dim)]
  for (let layer = 0; layer < TINY.layers; layer++) {
    const prefix = `model.layers.${layer}`
    all.push(tensor(`${prefix}.input_layernorm.weight`, TINY.dim))
    all.push(tensor(`${prefix}.post_attention_layernorm.weight`, TINY.dim))
    for (const [name, rows, cols] of TINY_LINEARS) {
      all.push(tensor(`${prefix}.${name}.weight`, rows, cols))
      if (options.bias) all.push(tensor(`${prefix}.${name}.bias`, rows))
    }
  }
  all.push(tensor('model.norm.weight', TINY.dim))
  if (!options.tied) all.push(tensor('lm_head.weight', TINY.vocab, TINY.dim))
  return all
}

export type FloatType = 'F32' | 'F16' | 'BF16'

export function encodeFloats(type: FloatType, values: Float32Array): Buffer {
  if (type === 'F32') return encodeTensor('f32', values)
  if (type === 'F16') return encodeTensor('f16', values)
  const out = Buffer.alloc(values.length * 2)
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
  bits.forEach((value, i) => {
    out.writeUInt16LE(value >>> 16, 2 * i) // exact for these numbers
  })
  return out
}

export interface SafetensorsEntry {
  dtype: string
  shape: unknown
  data_offsets: unknown
}

/** A safetensors file; `change` may spoil the header. */
export function safetensorsFile(
  tensors: readonly NamedTensor[],
  type: FloatType = 'F32',
  change: (header: Record<string, SafetensorsEntry>) => void = () => {},
): Buffer {
  const header: Record<string, SafetensorsEntry> = {}
  const parts: Buffer[] = []
  let at = 0
  for (const { name, shape, values } of tensors) {
    const bytes = encodeFloats(type, values)
    header[name] = { dtype: type, shape, data_offsets: [at, at + bytes.length] }
    at += bytes.length
    parts.push(bytes)
  }
  change(header)
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  return Buffer.concat([length, text, ...parts])
}

/** Makes a model folder of config.json and other files. */
export function writeFolder(
  folder: string,
  config: Record<string, unknown>,
  files: Record<string, Buffer | string>,
): string {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(folder, name), bytes)
  return folder
}

/** Our name of a tensor with a Hugging Face name. */
export function ourName(name: string): string {
  const roles: Record<string, string> = {
    'self_attn.q_proj': 'wq',
    'self_attn.k_proj': 'wk',
    'self_attn.v_proj': 'wv',
    'self_attn.o_proj': 'wo',
    'mlp.gate_proj': 'w1',
    'mlp.down_proj': 'w2',
    'mlp.up_proj': 'w3',
  }
  let ours = name
    .replace(/^model\./, '')
    .replace('embed_tokens', 'tok_embeddings')
    .replace('lm_head', 'output')
  for (const [theirs, role] of Object.entries(roles)) ours = ours.replace(theirs, role)
  return ours
    .replace('input_layernorm.weight', 'attention_norm')
    .replace('post_attention_layernorm.weight', 'ffn_norm')
    .replace(/^norm\.weight$/, 'norm')
    .replace('weight_scale', 'h')
    .replace('input_factor', 'g')
}
