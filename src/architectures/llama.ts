/** Llama; and the OneBit authors' own checkpoints (bitllama), which are Llamas whose linears are signs. */
import { LIMITS } from '../config/limits.js'
import { checkDimension } from '../import/source.js'
import type { Architecture } from './architecture.js'
import { GGUF_NAMES, HF_CHECKPOINT, OPTIONAL_BIASES, readGguf, readHf, readHfBiases } from './llama-family.js'

export const llama: Architecture = {
  name: 'llama',
  title: 'Llama',
  huggingFace: {
    ...HF_CHECKPOINT,
    modelTypes: ['llama', 'bitllama'],
    // The authors' trainer saves its teacher too.
    isIgnored: (name) => HF_CHECKPOINT.isIgnored(name) || name.startsWith('teacher_model.'),
    signs: { modelTypes: ['bitllama'], g: 'input_factor', h: 'weight_scale' },
    read: (config) => ({
      structure: readHf(config, { architecture: 'llama' }, { max_position_embeddings: 2048 }),
      biases: readHfBiases(config),
    }),
  },
  gguf: {
    // Mistral comes under this name too.
    architectures: ['llama'],
    names: GGUF_NAMES,
    read(keys, facts) {
      const window = keys.number('attention.sliding_window', 0)
      if (window !== 0) checkDimension('llama.attention.sliding_window', window, LIMITS.context)
      return {
        // The converter reorders the rows of q and k for a rotation of neighbours.
        structure: readGguf(keys, facts, { architecture: 'llama', rope_style: 'interleaved', window }),
        biases: OPTIONAL_BIASES,
      }
    },
  },
}
