/** What stands beside a linear's weight in a GGUF file: one number that multiplies it, and the norm in front of it. */
import type { ReadLinear, Taker } from './map-tensors.js'
import { badSource, type SourceTensor } from './source.js'

/** As llama.cpp multiplies a matrix with a tensor of its name and `.scale`. */
function scaled(weight: SourceTensor, scale: SourceTensor): SourceTensor {
  if (weight.scale === undefined) return { ...weight, scale }
  throw badSource(`Tensor ${weight.name} has a scale of its own, and ${scale.name} is another`)
}

export function readGgufLinear(take: Taker<unknown>): ReadLinear {
  return function* (theirs, rows, cols) {
    const weight = take.required(`${theirs}.weight`, rows, cols)
    const scale = take.optional(`${theirs}.scale`, 1)
    yield ['weight', scale === undefined ? weight : scaled(weight, scale)]
    // BitNet's embedding models have one before every linear.
    const norm = take.optional(`${theirs}_norm_in.weight`, cols)
    if (norm !== undefined) yield ['norm_in', norm]
  }
}
