/** Qwen2 and Qwen2.5: a Llama with biases on q, k and v. */
import type { Architecture } from './architecture.js'
import { biasesOf, GGUF_NAMES, HF_CHECKPOINT, QKV, readGguf, readHf, readQwenWindow } from './llama-family.js'

export const qwen2: Architecture = {
  name: 'qwen2',
  title: 'Qwen2',
  huggingFace: {
    ...HF_CHECKPOINT,
    modelTypes: ['qwen2'],
    read: (config) => ({
      structure: readHf(
        config,
        { architecture: 'qwen2', window: readQwenWindow(config) },
        { max_position_embeddings: 32768, num_key_value_heads: 32 },
      ),
      biases: biasesOf(QKV),
    }),
  },
  gguf: {
    architectures: ['qwen2'],
    names: GGUF_NAMES,
    read: (keys, facts) => ({
      structure: readGguf(keys, facts, { architecture: 'qwen2', rope_style: 'half' }),
      biases: biasesOf(QKV),
    }),
  },
}
