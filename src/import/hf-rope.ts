/** How config.json says which rotation a model has. */
import { type RopeScaling, yarnMagnitude } from '../config/rope.js'
import { OnebitError } from '../errors.js'
import { shown } from '../shown-value.js'
import { HfFields, isObject } from './hf-fields.js'
import { badSource } from './source.js'

export function unsupportedRope(problem: string): OnebitError {
  return new OnebitError('ERR_UNSUPPORTED_ROPE', `config.json: ${problem}`, {
    hint: 'RoPE scaling of the types linear, llama3 and yarn can be converted.',
  })
}

function yarn(rope: HfFields, maxPositions: number): RopeScaling {
  const original_context = rope.number('original_max_position_embeddings', maxPositions)
  const factor = rope.number('factor', maxPositions / original_context)
  if (rope.get('truncate') === false) throw unsupportedRope('yarn with truncate: false')
  const given = rope.get('attention_factor') !== undefined
  let attention_factor = given ? rope.number('attention_factor') : 0
  if (given && attention_factor <= 0) throw unsupportedRope(`yarn with attention_factor ${attention_factor}`)
  const [mscale, all] = [rope.number('mscale', 0), rope.number('mscale_all_dim', 0)]
  if (!given && mscale !== 0 && all !== 0) {
    attention_factor = yarnMagnitude(factor, mscale) / yarnMagnitude(factor, all)
  }
  return {
    type: 'yarn',
    factor,
    original_context,
    beta_fast: rope.number('beta_fast', 32),
    beta_slow: rope.number('beta_slow', 1),
    attention_factor,
  }
}

export interface HfRope {
  theta: number
  scaling: RopeScaling
  /** the share of each head that is rotated */
  partial: number
}

/**
 * `rope_scaling` of old configs and `rope_parameters` of new ones say the same in different places.
 * @throws OnebitError ERR_UNSUPPORTED_ROPE, ERR_BAD_SOURCE
 */
export function readHfRope(config: HfFields, maxPositions: number): HfRope {
  const parameters = config.get('rope_parameters')
  const fields = parameters ?? config.get('rope_scaling') ?? {}
  if (!isObject(fields)) throw badSource('config.json: rope_scaling must be an object')
  const rope = new HfFields(fields)
  const theta = (isObject(parameters) ? config.within(parameters) : config).number('rope_theta', 10000)
  const partial = config.within(fields).number('partial_rotary_factor', 1)
  return { theta, scaling: readScaling(rope, maxPositions), partial }
}

function readScaling(rope: HfFields, maxPositions: number): RopeScaling {
  const type = rope.get('rope_type') ?? rope.get('type') ?? 'default'
  switch (type) {
    case 'default':
    case 'none':
      return { type: 'none' }
    case 'linear':
      return { type: 'linear', factor: rope.number('factor') }
    case 'llama3':
      return {
        type: 'llama3',
        factor: rope.number('factor'),
        low_freq_factor: rope.number('low_freq_factor'),
        high_freq_factor: rope.number('high_freq_factor'),
        original_context: rope.number('original_max_position_embeddings'),
      }
    case 'yarn':
      return yarn(rope, maxPositions)
    default:
      throw unsupportedRope(`RoPE scaling of type ${shown(type)}`)
  }
}
