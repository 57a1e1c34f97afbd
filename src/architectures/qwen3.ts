/** Qwen3: a Llama with a norm of every head of q and k. Bonsai's 1-bit models are of this kind. */
import type { Architecture } from './architecture.js'
import {
  GGUF_NAMES,
  HF_CHECKPOINT,
  OPTIONAL_BIASES,
  readGguf,
  readHf,
  readHfBiases,
  readQwenWindow,
} from './llama-family.js'

export const qwen3: Architecture = {
  name: 'qwen3',
  title: 'Qwen3',
  huggingFace: {
    ...HF_CHECKPOINT,
    modelTypes: ['qwen3'],
    read: (config) => ({
      structure: readHf(
        config,
        { architecture: 'qwen3', qk_norm: true, window: readQwenWindow(config) },
        { max_position_embeddings: 32768, num_key_value_heads: 32, head_dim: 128 },
      ),
      biases: readHfBiases(config),
    }),
  },
  gguf: {
    architectures: ['qwen3'],
    names: GGUF_NAMES,
    read: (keys, facts) => ({
      structure: readGguf(keys, facts, { architecture: 'qwen3', qk_norm: true, rope_style: 'half' }),
      biases: OPTIONAL_BIASES,
    }),
  },
}
