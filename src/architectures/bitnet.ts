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

/** The older models have the model_type llama, SiLU, and other names of the two norms. */
const isOlder = (config: HfFields) => config.get('model_type') !== 'bitnet'

function checkOlder(config: HfFields): void {
  for (const [key, known] of [
    ['weight_bits', 1],
    ['input_bits', 8],
  ] as const) {
    if (config.get(key) === known) continue
    throw unsupportedArchitecture(`bitnet of model_type llama with ${key} ${shown(config.get(key))}`)
  }
}

const OLDER_NAMES = {
  ...HF_NAMES,
  'layers.*.attention_inner_norm': 'model.layers.*.self_attn.inner_attn_ln',
  'layers.*.ffn_inner_norm': 'model.layers.*.mlp.ffn_layernorm',
}

function readHfActivation(config: HfFields): Features['activation'] {
  const found = config.get('hidden_act') ?? (isOlder(config) ? 'silu' : 'relu2')
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
    classes: ['BitnetForCausalLM'],
    names: {
      ...HF_NAMES,
      'layers.*.attention_inner_norm': 'model.layers.*.self_attn.attn_sub_norm',
      'layers.*.ffn_inner_norm': 'model.layers.*.mlp.ffn_sub_norm',
    },
    read(config) {
      if (isOlder(config)) checkOlder(config)
      const defaults = { max_position_embeddings: 2048, ...(!isOlder(config) && { num_key_value_heads: 5 }) }
      const described = { architecture: 'bitnet', ...NORMS, activation: readHfActivation(config) } as const
      return {
        structure: readHf(config, described, defaults),
        biases: readHfBiases(config),
        ...(isOlder(config) && { names: OLDER_NAMES }),
      }
    },
  },
  gguf: {
    names: {
      ...GGUF_NAMES,
      'layers.*.attention_inner_norm': 'blk.*.attn_sub_norm',
      'layers.*.ffn_inner_norm': 'blk.*.ffn_sub_norm',
    },
    // The last is the older one, with SiLU.
    architectures: ['bitnet-b1.58', 'bitnet-25', 'bitnet'],
    read: (keys, facts) => {
      const activation = readGgufActivation(keys, keys.architecture === 'bitnet' ? 'silu' : 'relu2')
      return {
        structure: readGguf(keys, facts, { architecture: 'bitnet', ...NORMS, activation, rope_style: 'half' }),
        biases: OPTIONAL_BIASES,
      }
    },
  },
}
