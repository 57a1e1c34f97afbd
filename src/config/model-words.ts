/** A model in words that its user knows: what its name says, what its numbers are, what is unusual about it. */
import type { ModelConfig } from './config.js'
import type { LinearKind } from './kinds.js'
import { layerRoles, linearKind, linearShape } from './tensors.js'

/** Names that people search for. The first that fits is said instead of the whole name. */
const FAMILIES: readonly [RegExp, string][] = [
  // "Bonsai 27B" and "Bonsai 2B" are sizes of the first one.
  [/bonsai[\s_-]*2(?![\d.]*b\b)/i, 'Bonsai 2'],
  [/bonsai/i, 'Bonsai'],
  [/bitnet/i, 'BitNet'],
  [/falcon[\s_-]*e\b/i, 'Falcon-E'],
]

/** By kind, and by type of dense ones; others are called by the name of their kind. */
const KIND_WORDS: Readonly<Record<string, string>> = {
  sign: '1-bit',
  q1_0: '1-bit',
  f32: '32-bit floats',
  f16: '16-bit floats',
  bf16: 'bfloat16',
  q8: '8-bit',
}

/** What is unusual about how a model computes; undefined where it is not. */
const FEATURES: readonly ((config: ModelConfig) => string | undefined)[] = [
  ({ linears }) => (Object.values(linears).some((kind) => kind.rotation) ? 'rotated' : undefined),
  ({ linears }) => (Object.values(linears).some(isChain) ? 'chains of two' : undefined),
  ({ linears }) => (Object.values(linears).some(hasColumn) ? 'columns of floats beside the signs' : undefined),
  ({ linears }) => (Object.values(linears).some((kind) => kind.norm_in) ? 'norms in front of matrices' : undefined),
  ({ delta_layers: { length }, n_layers }) =>
    length > 0 ? `recurrent (DeltaNet) in ${length} of ${n_layers} layers` : undefined,
  ({ window }) => (window > 0 ? `sees ${window} positions back` : undefined),
]

function isChain(kind: LinearKind): boolean {
  return kind.kind === 'sign' && kind.rank > 0
}

function hasColumn(kind: LinearKind): boolean {
  return kind.kind === 'sign' && kind.column === true
}

function kindWord(kind: LinearKind): string {
  const name = kind.kind === 'dense' ? kind.dtype : kind.kind
  return KIND_WORDS[name] ?? name
}

/** The word for most of the linears' weights. */
function mostlyOf(config: ModelConfig): string {
  const weights = new Map<string, number>()
  for (let layer = 0; layer < config.n_layers; layer++) {
    for (const role of layerRoles(config, layer)) {
      const [rows, cols] = linearShape(config, role)
      const word = kindWord(linearKind(config, layer, role))
      weights.set(word, (weights.get(word) ?? 0) + rows * cols)
    }
  }
  return [...weights].sort((a, b) => b[1] - a[1])[0]![0]
}

/** Such as Bonsai 2; undefined: the source has no name. */
function familyOf(name: unknown): string | undefined {
  if (typeof name !== 'string' || name.trim() === '') return undefined
  return FAMILIES.find(([pattern]) => pattern.test(name))?.[1] ?? name.trim().slice(0, 60)
}

/**
 * Such as "ternary, 2.125 bits per weight, Bonsai 2, rotated".
 * @param bits per weight of the linears
 * @param name what the source calls the model
 */
export function modelWords(config: ModelConfig, bits: number, name?: unknown): string {
  const features = FEATURES.map((word) => word(config))
  const words = [mostlyOf(config), `${Number(bits.toFixed(3))} bits per weight`, familyOf(name), ...features]
  return words.filter((word) => word !== undefined).join(', ')
}

/** BitNet's recipe trains with activations of 8 bits, and with one scale for a whole matrix: others that follow it have it too. */
function isTrainedFor8Bits({ architecture, linears }: ModelConfig): boolean {
  const kinds = Object.values(linears)
  return architecture.startsWith('bitnet') || kinds.every((kind) => kind.kind === 'ternary' && kind.group === 0)
}

/** What `activations: 'int8'`, the default, means for a model: a sentence without its full stop. */
export function activationWords(config: ModelConfig): string {
  const kinds = [...Object.values(config.linears), config.embedding, config.head]
  if (kinds.every((kind) => kind.kind === 'dense' && kind.dtype !== 'q8')) return 'floats: nothing is rounded'
  if (isTrainedFor8Bits(config)) return '8 bits by default, as the model was trained'
  return '8 bits by default; the model was made for floats (--activations f32 computes with them, slower)'
}
