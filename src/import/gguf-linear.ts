/** What stands beside a linear's weight in a GGUF file: one number that multiplies it, and the norm in front of it. */
import { floatRows, oneScale } from './float-rows.js'
import type { ReadLinear, Taker } from './map-tensors.js'
import type { SourceTensor } from './source.js'

/** As llama.cpp multiplies a matrix with a tensor of its name and `.scale`: the seam to kinds that keep the scale apart. */
function scaled(weight: SourceTensor, scale: SourceTensor): SourceTensor {
  return {
    ...weight,
    type: 'f32',
    async read(first, count) {
      const factor = await oneScale(scale)
      const values = await floatRows(weight, first, count)
      return new Uint8Array(values.map((value) => value * factor).buffer)
    },
  }
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
