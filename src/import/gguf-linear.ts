/** What stands beside a linear's weight in a GGUF file: one number that multiplies it, and the norm in front of it. */
import { addon } from '../native/addon.js'
import type { SourceType } from '../native/native.js'
import type { ReadLinear, Taker } from './map-tensors.js'
import { badSource, type SourceTensor } from './source.js'

async function numberOf({ name, type, read }: SourceTensor): Promise<number> {
  const [value] = addon().toF32(await read(0, 1), type as SourceType, 1, 1)
  if (Number.isFinite(value)) return value!
  throw badSource(`Tensor ${name} is ${value}, which is no scale`)
}

/** As llama.cpp multiplies a matrix with a tensor of its name and `.scale`: the seam to kinds that keep the scale apart. */
function scaled(weight: SourceTensor, scale: SourceTensor): SourceTensor {
  return {
    ...weight,
    type: 'f32',
    async read(first, count) {
      const factor = await numberOf(scale)
      const values = addon().toF32(await weight.read(first, count), weight.type as SourceType, count, weight.cols)
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
