/**
 * BitNet b1.58 (Ma et al. 2024, arXiv 2402.17764): a Llama with a norm before the last matrix of attention and of the
 * feed-forward, over their whole width, whose weights are ternary. The model of 2 billion weights has the square of ReLU,
 * the older ones have SiLU.
 */
import type { Features } from '../config/config.js'
import type { GgufKeys } from '../import/gguf-keys.js'
import type { HfFields } from '../import/hf-fields.js'
import { unsupportedArchitecture } from '../import/source.js'
import { shown } from '../shown-value.js'
import type { Architecture } from './architecture.js'
import { GGUF_NAMES, HF_CHECKPOINT, HF_NAMES, OPTIONAL_BIASES, readGguf, readHf, readHfBiases } from './llama-family.js'

const NORMS = { attention_inner_norm: true, ffn_inner_norm: true } as const

const ACTIVATIONS: Readonly<Record<string, Features['activation']>> = { relu2: 'relu2', silu: 'silu', swish: 'silu' }

function activationOf(found: unknown, wrong: () => Error): Features['activation'] {
  if (typeof found === 'string' && Object.hasOwn(ACTIVATIONS, found)) return ACTIVATIONS[found]!
  throw wrong()
}

function readHfActivation(config: HfFields): Features['activation'] {
  const found = config.get('hidden_act') ?? 'relu2'
  return activationOf(found, () => unsupportedArchitecture(`bitnet with hidden_act ${shown(found)}`))
}

/** No converter writes it, so its name is not settled; without it the name of the architecture says it. */
function readGgufActivation(keys: GgufKeys, usual: Features['activation']): Features['activation'] {
  const found = ['hidden_act', 'hidden_activation'].filter((key) => keys.get(key) !== undefined)
  const [key] = found
  return key === undefined ? usual : activationOf(keys.get(key), () => keys.unsupported(key))
}

export const bitnet: Architecture = {
  name: 'bitnet',
  title: 'BitNet',
  huggingFace: {
    ...HF_CHECKPOINT,
    modelTypes: ['bitnet'],
    names: {
      ...HF_NAMES,
      'layers.*.attention_inner_norm': 'model.layers.*.self_attn.attn_sub_norm',
      'layers.*.ffn_inner_norm': 'model.layers.*.mlp.ffn_sub_norm',
    },
    read: (config) => ({
      structure: readHf(
        config,
        { architecture: 'bitnet', ...NORMS, activation: readHfActivation(config) },
        { max_position_embeddings: 2048, num_key_value_heads: 5 },
      ),
      biases: readHfBiases(config),
    }),
  },
  gguf: {
    names: {
      ...GGUF_NAMES,
      'layers.*.attention_inner_norm': 'blk.*.attn_sub_norm',
      'layers.*.ffn_inner_norm': 'blk.*.ffn_sub_norm',
    },
    // The first is the older one, with SiLU.
    architectures: ['bitnet', 'bitnet-b1.58', 'bitnet-25'],
    read: (keys, facts) => {
      const activation = readGgufActivation(keys, keys.architecture === 'bitnet' ? 'silu' : 'relu2')
      return {
        structure: readGguf(keys, facts, { architecture: 'bitnet', ...NORMS, activation, rope_style: 'half' }),
        biases: OPTIONAL_BIASES,
      }
    },
  },
}
