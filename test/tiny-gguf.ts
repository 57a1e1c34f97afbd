/** The small Llama of tiny-source.ts as a GGUF file. */
import { encodeTensor, type GgmlType, type GgufTensor, ggufFile, type MetadataValue } from './gguf-writer.js'
import { TINY, tinyTensors } from './tiny-source.js'

const NAMES: Record<string, string> = {
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
  input_layernorm: 'attn_norm',
  post_attention_layernorm: 'ffn_norm',
  'model.layers': 'blk',
  'model.norm': 'output_norm',
  'model.embed_tokens': 'token_embd',
  lm_head: 'output',
}

/** A name of Hugging Face's, or a part of one, as GGUF files have it. */
export function ggufName(name: string): string {
  return Object.entries(NAMES).reduce((made, [theirs, ours]) => made.replace(theirs, ours), name)
}

/** The tensors of the small Llama in f32, under GGUF's names. */
export function tinyGgufTensors(options: { tied?: boolean; bias?: boolean } = {}): GgufTensor[] {
  return tinyTensors(options).map(({ name, shape, values }) => {
    return { name: ggufName(name), type: 'f32', shape, data: encodeTensor('f32', values) }
  })
}

/** What a file of it says about itself. */
export const TINY_METADATA: Record<string, MetadataValue> = {
  'general.architecture': { string: 'llama' },
  'llama.context_length': { u32: TINY.context },
  'llama.embedding_length': { u32: TINY.dim },
  'llama.block_count': { u32: TINY.layers },
  'llama.feed_forward_length': { u32: TINY.hidden },
  'llama.attention.head_count': { u32: TINY.heads },
  'llama.attention.head_count_kv': { u32: TINY.kvHeads },
  'llama.attention.layer_norm_rms_epsilon': { f32: 1e-5 },
  'llama.rope.freq_base': { f32: 10000 },
}

/** A whole file of it, with numbers of a type in its matrices. */
export function tinyGguf(type: GgmlType = 'f32', metadata: Record<string, MetadataValue> = {}): Buffer {
  const tensors = tinyGgufTensors().map((tensor) => {
    const values = new Float32Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.length / 4)
    return tensor.shape.length === 2 ? { ...tensor, type, data: encodeTensor(type, values) } : tensor
  })
  return ggufFile({ ...TINY_METADATA, ...metadata }, tensors)
}
