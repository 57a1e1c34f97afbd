/**
 * Every field of a config in the order in which a file has them, with its range and its default. Checking, completing
 * and writing a config all go by this list. fields.json beside it is the same list for programs that are not
 * JavaScript (distill/, binding/); test/09-config.test.ts keeps it the same.
 */
import type { Features, ModelConfig, WrittenConfig } from './config.js'
import { LIMITS } from './limits.js'

/** A value, or what it follows from. */
type Default = string | number | boolean | readonly number[] | { same_as: 'head_dim' } | { architecture_is: string }

type Field = { name: string; default?: Default } & (
  | { type: 'integer'; min: number; max: number; multiple_of?: number }
  | { type: 'number'; above: number; max: number }
  | { type: 'boolean' }
  | { type: 'choice'; values: readonly string[] }
  | { type: 'text'; pattern: string }
  /** numbers of layers, ascending */
  | { type: 'layers' }
  /** an object with fields of its own: RopeScaling, LinearKind, and LinearKind by role */
  | { type: 'rope_scaling' | 'kind' | 'kinds' }
)

export const FIELDS = [
  { name: 'architecture', type: 'text', pattern: '^[a-z0-9][a-z0-9._-]{0,59}$' },
  { name: 'vocab_size', type: 'integer', min: 1, max: LIMITS.vocab },
  { name: 'dim', type: 'integer', min: 1, max: LIMITS.dim },
  { name: 'hidden_dim', type: 'integer', min: 1, max: LIMITS.dim },
  { name: 'n_layers', type: 'integer', min: 1, max: LIMITS.layers },
  { name: 'n_heads', type: 'integer', min: 1, max: LIMITS.heads },
  { name: 'n_kv_heads', type: 'integer', min: 1, max: LIMITS.heads },
  { name: 'head_dim', type: 'integer', min: 2, max: LIMITS.head_dim, multiple_of: 2 },
  { name: 'context_length', type: 'integer', min: 1, max: LIMITS.context },
  { name: 'norm_eps', type: 'number', above: 1e-30, max: 1 },
  { name: 'rope_theta', type: 'number', above: 1, max: 1e12 },
  { name: 'rope_style', type: 'choice', values: ['half', 'interleaved'] },
  { name: 'rope_scaling', type: 'rope_scaling' },
  { name: 'tied_head', type: 'boolean' },
  { name: 'embedding', type: 'kind' },
  { name: 'head', type: 'kind' },
  { name: 'linears', type: 'kinds' },
  { name: 'norm', type: 'choice', values: ['rms', 'layer'], default: 'rms' },
  { name: 'norm_bias', type: 'boolean', default: false },
  { name: 'positions', type: 'choice', values: ['rotary', 'learned'], default: 'rotary' },
  { name: 'position_offset', type: 'integer', min: 0, max: LIMITS.position_offset, default: 0 },
  {
    name: 'rope_dims',
    type: 'integer',
    min: 2,
    max: LIMITS.head_dim,
    multiple_of: 2,
    default: { same_as: 'head_dim' },
  },
  // Files of before this field said it by their architecture alone.
  { name: 'qk_norm', type: 'boolean', default: { architecture_is: 'qwen3' } },
  { name: 'attention_inner_norm', type: 'boolean', default: false },
  { name: 'window', type: 'integer', min: 0, max: LIMITS.context, default: 0 },
  { name: 'output_gate', type: 'boolean', default: false },
  { name: 'feed_forward', type: 'choice', values: ['gated', 'plain'], default: 'gated' },
  { name: 'activation', type: 'choice', values: ['silu', 'relu', 'relu2', 'gelu', 'gelu_tanh'], default: 'silu' },
  { name: 'ffn_inner_norm', type: 'boolean', default: false },
  { name: 'parallel_residual', type: 'boolean', default: false },
  { name: 'delta_layers', type: 'layers', default: [] },
  { name: 'delta_k_heads', type: 'integer', min: 0, max: LIMITS.heads, default: 0 },
  { name: 'delta_v_heads', type: 'integer', min: 0, max: LIMITS.heads, default: 0 },
  { name: 'delta_k_dim', type: 'integer', min: 0, max: LIMITS.head_dim, default: 0 },
  { name: 'delta_v_dim', type: 'integer', min: 0, max: LIMITS.head_dim, default: 0 },
  { name: 'delta_conv', type: 'integer', min: 0, max: LIMITS.conv, default: 0 },
  { name: 'delta_head_order', type: 'choice', values: ['grouped', 'tiled'], default: 'grouped' },
] as const satisfies readonly Field[]

type Listed = (typeof FIELDS)[number]
type ValueOf<F extends Listed> = F extends { values: readonly (infer V)[] }
  ? V
  : F extends { type: 'boolean' }
    ? boolean
    : F extends { type: 'integer' | 'number' }
      ? number
      : F extends { type: 'text' }
        ? string
        : ModelConfig[F['name']]
type FromList = { [F in Listed as F['name']]: ValueOf<F> }
type Holds<T extends true> = T
/** Does not compile when the list and ModelConfig differ. */
export type SameAsModelConfig = Holds<
  ModelConfig extends FromList ? (FromList extends ModelConfig ? true : false) : false
>

export const FEATURES = FIELDS.filter((field) => 'default' in field)

function defaultOf(
  { default: value }: (typeof FEATURES)[number],
  config: Pick<ModelConfig, 'architecture' | 'head_dim'>,
): string | number | boolean | readonly number[] {
  if (typeof value !== 'object') return value
  if ('same_as' in value) return config[value.same_as]
  return 'architecture_is' in value ? config.architecture === value.architecture_is : value
}

/** The same with every feature that it does not have, or has as undefined. */
export function withDefaults<T extends Pick<ModelConfig, 'architecture' | 'head_dim'> & Partial<Features>>(
  config: T,
): T & Features {
  const features = FEATURES.map((field) => [field.name, config[field.name] ?? defaultOf(field, config)])
  return { ...config, ...Object.fromEntries(features) }
}

/** The one form in which a file has this config: no feature that has its default, and the order of FIELDS. */
export function writtenConfig(config: ModelConfig): WrittenConfig {
  const isWritten = (field: Listed) =>
    !('default' in field) || JSON.stringify(config[field.name]) !== JSON.stringify(defaultOf(field, config))
  const entries = FIELDS.filter(isWritten).map(({ name }) => [name, config[name]])
  return Object.fromEntries(entries)
}
