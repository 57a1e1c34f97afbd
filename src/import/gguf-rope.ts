/** How a GGUF file says that a rotation is stretched. The rules are llama.cpp's, which reads these keys. */
import { LIMITS } from '../config/limits.js'
import { type RopeScaling, yarnMagnitude } from '../config/rope.js'
import { OnebitError } from '../errors.js'
import { shown } from '../shown-value.js'
import type { GgufKeys } from './gguf-keys.js'
import { badSource, wrongShape } from './source.js'

/** 0 and nothing mean that positions stay as they are. */
function factorOf(keys: GgufKeys): number {
  const old = keys.number('rope.scale_linear', 1)
  return keys.number('rope.scaling.factor', old) || 1
}

function yarn(keys: GgufKeys, factor: number, context: number): RopeScaling {
  keys.mustBe('rope.scaling.yarn_ext_factor', 1)
  keys.mustBe('rope.scaling.yarn_attn_factor', 1)
  // The usual magnitude is multiplied by it, not replaced.
  const attention = keys.number('rope.scaling.attn_factor', 1)
  return {
    type: 'yarn',
    factor,
    original_context: keys.size('rope.scaling.original_context_length', LIMITS.context, context),
    beta_fast: keys.number('rope.scaling.yarn_beta_fast', 32),
    beta_slow: keys.number('rope.scaling.yarn_beta_slow', 1),
    attention_factor: attention === 1 ? 0 : attention * yarnMagnitude(factor),
  }
}

/** Asks for the keys that only YaRN looks at, so that they do not count as unknown. */
function passOver(keys: GgufKeys): void {
  for (const key of ['original_context_length', 'yarn_beta_fast', 'yarn_beta_slow', 'yarn_ext_factor']) {
    keys.get(`rope.scaling.${key}`)
  }
  // Cosines and sines are multiplied by it whatever the type is.
  keys.mustBe('rope.scaling.attn_factor', 1)
  keys.mustBe('rope.scaling.yarn_attn_factor', 1)
}

/**
 * @param factors rope_freqs.weight, if the file has it
 * @throws OnebitError ERR_UNSUPPORTED_ROPE, ERR_UNSUPPORTED_ARCHITECTURE, ERR_TENSOR_SHAPE, ERR_BAD_SOURCE
 */
export function readGgufRope(
  keys: GgufKeys,
  factors: number[] | undefined,
  { rope_dims, context }: { rope_dims: number; context: number },
): RopeScaling {
  const factor = factorOf(keys)
  const named = keys.get('rope.scaling.type')
  const type = named ?? (factor === 1 ? 'none' : 'linear')
  keys.mustBe('rope.scaling.alpha', 0)
  keys.mustBe('rope.scaling.yarn_log_multiplier', 0)
  if (type !== 'none' && type !== 'linear' && type !== 'yarn') {
    throw new OnebitError('ERR_UNSUPPORTED_ROPE', `RoPE scaling of type ${shown(type)}`, {
      hint: 'linear, yarn and rope_freqs.weight can be converted.',
    })
  }
  if (factors !== undefined) {
    if (factors.length !== rope_dims / 2) throw wrongShape('rope_freqs.weight', [factors.length], [rope_dims / 2])
    if (type === 'yarn') throw badSource('rope_freqs.weight together with RoPE scaling of type yarn')
    passOver(keys)
    return { type: 'factors', factors: type === 'none' ? factors : factors.map((each) => each * factor) }
  }
  if (type === 'yarn') return yarn(keys, factor, context)
  passOver(keys)
  return type === 'none' ? { type } : { type, factor }
}
