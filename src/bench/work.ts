/** How many weights a token multiplies and how many bytes of them it reads: what speeds are divided by. */
import type { ModelConfig } from '../config/config.js'
import type { LinearKind } from '../config/kinds.js'
import { GATE_ROLES, layerRoles, linearKind, linearShape } from '../config/tensors.js'
import { decodeWeightBytes } from './shapes.js'

export interface WeightWork {
  /** bytes of the linears with their scales and of the head: read once for every pass, in the file's own layout */
  weightBytes: number
  /** stored weights of all linears (both stages of a chain): multiplied once for every token */
  linearWeights: number
  /** weights of the head: multiplied once for every token whose logits are wanted */
  headWeights: number
}

function storedWeights(kind: LinearKind, rows: number, cols: number): number {
  return kind.kind === 'sign' && kind.rank > 0 ? kind.rank * (rows + cols) : rows * cols
}

/** @returns the work of one token; norms, tokenizer and the embedding of an untied model are left out */
export function weightWork(config: ModelConfig): WeightWork {
  let linearWeights = 0
  for (let layer = 0; layer < config.n_layers; layer++) {
    for (const role of layerRoles(config, layer)) {
      const [rows, cols] = linearShape(config, role)
      linearWeights += storedWeights(linearKind(config, layer, role), rows, cols)
    }
  }
  const headWeights = config.vocab_size * config.dim
  return { weightBytes: decodeWeightBytes(config), linearWeights, headWeights }
}

export type WeightName = 'onebit' | 'chain' | 'q1_0' | 'ternary' | 'q8' | 'f16' | 'bf16' | 'f32' | 'mixed'

/** What the linears of a model are, in one word. */
export function weightName(config: ModelConfig): WeightName {
  const found = new Set<WeightName>()
  for (let layer = 0; layer < config.n_layers; layer++) {
    for (const role of layerRoles(config, layer)) {
      if (GATE_ROLES.includes(role)) continue // they are floats whatever the others are
      const kind = linearKind(config, layer, role)
      if (kind.kind === 'dense') found.add(kind.dtype)
      else if (kind.kind === 'q1_0' || kind.kind === 'ternary') found.add(kind.kind)
      else found.add(kind.rank > 0 ? 'chain' : 'onebit')
    }
  }
  return found.size === 1 ? [...found][0]! : 'mixed'
}

/** Signs are looked up in tables or multiplied as int8; int8 rows and ternary codes only the latter; floats neither. */
export function usesLookups(type: WeightName): boolean {
  return type === 'onebit' || type === 'chain' || type === 'q1_0'
}
