/**
 * How large a model really is. Papers and peers quote the bits of the linear layers only; the embedding and the head can
 * weigh more than everything else, so both numbers are always given together.
 */
import type { ModelConfig } from './config.js'
import { describeFront } from './front.js'
import type { LinearKind } from './kinds.js'
import {
  type Blobs,
  deltaWidths,
  layerRoles,
  linearKind,
  modelParts,
  type TensorSpec,
  tensorBytes,
  tensorTable,
} from './tensors.js'

export interface ModelSize {
  /** weights of the matrices, norms and positions that the model stands for, whatever they are stored as */
  parameters: number
  linearParameters: number
  /** stored bits (signs, scales, biases) per weight of the linear layers */
  bitsPerLinearWeight: number
  /** all bytes of the file, tokenizer and header included, per parameter */
  bitsPerWeightOfFile: number
  /** of the file's tensors */
  bytes: Record<TensorSpec['part'], number>
  fileBytes: number
}

export function modelSize(config: ModelConfig, blobs: Blobs, fileBytes: number): ModelSize {
  const bytes = { embedding: 0, positions: 0, head: 0, linear: 0, norm: 0, rotation: 0, recurrence: 0, blob: 0 }
  for (const spec of tensorTable(config, blobs)) bytes[spec.part] += tensorBytes(spec)
  let [parameters, linearParameters] = [0, 0]
  for (const { part, shape } of modelParts(config)) {
    const count = shape[0] * (shape[1] ?? 1)
    parameters += count
    if (part === 'linear') linearParameters += count
  }
  return {
    parameters,
    linearParameters,
    bitsPerLinearWeight: (bytes.linear * 8) / linearParameters,
    bitsPerWeightOfFile: (fileBytes * 8) / parameters,
    bytes,
    fileBytes,
  }
}

/** What all layers of the delta rule remember of a session, in bytes: their states, and what their convolutions saw last. */
export function stateBytes(config: ModelConfig): number {
  const { delta_layers, delta_v_heads, delta_k_dim, delta_v_dim, delta_conv } = config
  if (delta_layers.length === 0) return 0
  const numbers = delta_v_heads * delta_k_dim * delta_v_dim + (delta_conv - 1) * deltaWidths(config).channels
  return 4 * delta_layers.length * numbers
}

/** A kind in words, e.g. "1 sign stage, LayerNorm" or "int8 rows". */
export function describeKind(kind: LinearKind): string {
  const bias = `${kind.bias ? ', bias' : ''}${describeFront(kind)}`
  if (kind.kind === 'dense') return `${kind.dtype === 'q8' ? 'int8 rows (q8)' : kind.dtype}${bias}`
  if (kind.kind === 'q1_0') return `signs, one f16 scale per 128 columns (q1_0)${bias}`
  if (kind.kind === 'ternary') {
    const scales = kind.group === 0 ? 'one scale a row' : `one f16 scale per ${kind.group} columns`
    return `ternary, ${scales}${bias}`
  }
  const stages = kind.rank === 0 ? 'signs with g and h' : `2 sign stages of rank ${kind.rank}`
  const column = kind.column ? ', a column of floats' : ''
  return `${stages}${kind.half ? ' (f16)' : ''}${column}${kind.layernorm ? ', LayerNorm' : ''}${bias}`
}

/** Kinds of the linears with the layers and roles that have them: usually one line. */
export function linearKindSummary(config: ModelConfig): { kind: string; count: number }[] {
  const counts = new Map<string, number>()
  for (let layer = 0; layer < config.n_layers; layer++) {
    for (const role of layerRoles(config, layer)) {
      const kind = describeKind(linearKind(config, layer, role))
      counts.set(kind, (counts.get(kind) ?? 0) + 1)
    }
  }
  return [...counts].map(([kind, count]) => ({ kind, count })).sort((a, b) => b.count - a.count)
}
