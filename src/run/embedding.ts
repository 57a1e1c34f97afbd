/** From hidden states to one vector for a text. */
import type { EmbedOptions } from '../batch/requests.js'
import { booleanOption, choiceOption, optionFields, signalOption } from '../options.js'

export const POOLINGS = ['mean', 'last'] as const

/** @throws OnebitError ERR_BAD_OPTION */
export function checkEmbedOptions(options: EmbedOptions | undefined) {
  const fields = optionFields('options', options, ['pooling', 'normalize', 'signal'])
  return {
    pooling: choiceOption(fields, 'pooling', POOLINGS) ?? 'mean',
    normalize: booleanOption(fields, 'normalize') ?? true,
    signal: signalOption(fields),
  }
}

/**
 * @param hidden (dim) the sum of `count` hidden states
 * @returns (dim) their mean, of length 1 with `normalize`. Nothing but zeros stays what it is.
 */
export function pooled(hidden: Float64Array, count: number, normalize: boolean): Float32Array {
  const mean = hidden.map((x) => x / count)
  // In order, so that every machine rounds alike; Math.hypot may differ.
  let squares = 0
  for (const x of mean) squares += x * x
  const length = normalize && squares > 0 ? Math.sqrt(squares) : 1
  return Float32Array.from(mean, (x) => x / length)
}
