/** Mistral: a Llama whose positions see a sliding window. As a GGUF file it is a llama (llama.ts). */
import type { HfFields } from '../import/hf-fields.js'
import { unsupportedArchitecture } from '../import/source.js'
import type { Architecture } from './architecture.js'
import { biasesOf, HF_CHECKPOINT, readHf, readHfWindow } from './llama-family.js'

function readWindow(config: HfFields): number {
  // Mistral itself takes no notice of it, but who writes it means a window in some layers only.
  if (config.get('layer_types') !== undefined) throw unsupportedArchitecture('mistral with layer_types')
  return readHfWindow(config)
}

export const mistral: Architecture = {
  name: 'mistral',
  title: 'Mistral',
  huggingFace: {
    ...HF_CHECKPOINT,
    modelTypes: ['mistral'],
    read: (config) => ({
      structure: readHf(
        config,
        { architecture: 'mistral', window: readWindow(config) },
        { max_position_embeddings: 131072, num_key_value_heads: 8 },
      ),
      biases: biasesOf([]),
    }),
  },
}
