/** How a rotation's frequencies are stretched for contexts longer than those of training. */
import { type Fields, fail, fieldsOf, integer, oneOf, positive } from './field-check.js'
import { LIMITS } from './limits.js'

/**
 * How a rotation's frequencies are stretched for contexts longer than those of training. Names and formulas are those of Hugging
 * Face's `rope_scaling`.
 */
export type RopeScaling = NoScaling | LinearScaling | Llama3Scaling | YarnScaling | FactorScaling

/** Frequencies stay as they are. */
export interface NoScaling {
  /** what tells the ways apart */
  type: 'none'
}

/** Every frequency is divided by `factor`. */
export interface LinearScaling {
  /** what tells the ways apart */
  type: 'linear'
  /** of the context */
  factor: number
}

/** Slow rotations are stretched, fast ones stay, with a slope between the two. */
export interface Llama3Scaling {
  /** what tells the ways apart */
  type: 'llama3'
  /** by which slow rotations are divided */
  factor: number
  /** wave lengths above original_context / low_freq_factor are slow */
  low_freq_factor: number
  /** wave lengths below original_context / high_freq_factor are fast */
  high_freq_factor: number
  /** positions of the training before */
  original_context: number
}

/** YaRN (arXiv 2309.00071): as llama3, with the slope by turns in the original context. */
export interface YarnScaling {
  /** what tells the ways apart */
  type: 'yarn'
  /** by which slow rotations are divided */
  factor: number
  /** positions of the training before */
  original_context: number
  /** rotations with more turns in the original context stay */
  beta_fast: number
  /** rotations with fewer turns are divided by `factor` */
  beta_slow: number
  /** cosines and sines are multiplied by it; 0: by 0.1 ln(factor) + 1 */
  attention_factor: number
}

/** Every frequency is divided by a factor of its own (GGUF's rope_freqs.weight). */
export interface FactorScaling {
  /** what tells the ways apart */
  type: 'factors'
  /** rope_dims / 2 numbers */
  factors: number[]
}

/** YaRN's usual magnitude: 0.1 m ln(factor) + 1, and 1 where nothing is stretched (factor <= 1). */
export function yarnMagnitude(factor: number, mscale = 1): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1
}

const KEYS = {
  none: ['type'],
  linear: ['type', 'factor'],
  llama3: ['type', 'factor', 'low_freq_factor', 'high_freq_factor', 'original_context'],
  yarn: ['type', 'factor', 'original_context', 'beta_fast', 'beta_slow', 'attention_factor'],
  factors: ['type', 'factors'],
} as const

/** No model stretches its context by more; the point is that nothing overflows, nor becomes 0 as f32. */
const MAX_NUMBER = 1e6
const MIN_NUMBER = 1e-6

function checkFactors(path: string, value: unknown, rope_dims: number): number[] {
  if (!Array.isArray(value) || value.length !== rope_dims / 2) fail(path, `must be ${rope_dims / 2} numbers`)
  return value.map((factor, i) => positive(`${path}.${i}`, factor, MAX_NUMBER, MIN_NUMBER))
}

/** @throws OnebitError ERR_CONFIG, naming the field */
export function checkScaling(path: string, value: unknown, rope_dims: number): RopeScaling {
  const types = ['none', 'linear', 'llama3', 'yarn', 'factors'] as const
  const type = oneOf(`${path}.type`, (value as Fields | null | undefined)?.type, types)
  const fields = fieldsOf(path, value, KEYS[type])
  const number = (name: string) => positive(`${path}.${name}`, fields[name], MAX_NUMBER, MIN_NUMBER)
  const context = () => integer(`${path}.original_context`, fields.original_context, 1, LIMITS.context)
  switch (type) {
    case 'none':
      return { type }
    case 'linear':
      return { type, factor: number('factor') }
    case 'llama3': {
      const [factor, low_freq_factor, high_freq_factor] = [
        number('factor'),
        number('low_freq_factor'),
        number('high_freq_factor'),
      ]
      if (low_freq_factor >= high_freq_factor) fail(`${path}.low_freq_factor`, 'must be below high_freq_factor')
      return { type, factor, low_freq_factor, high_freq_factor, original_context: context() }
    }
    case 'yarn': {
      const [beta_fast, beta_slow] = [number('beta_fast'), number('beta_slow')]
      if (beta_slow >= beta_fast) fail(`${path}.beta_slow`, 'must be below beta_fast')
      const attention_factor = fields.attention_factor === 0 ? 0 : number('attention_factor')
      return { type, factor: number('factor'), original_context: context(), beta_fast, beta_slow, attention_factor }
    }
    case 'factors':
      return { type, factors: checkFactors(`${path}.factors`, fields.factors, rope_dims) }
  }
}
