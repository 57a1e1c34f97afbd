/** A tensor whose numbers are computed from those of a source while they are read. */
import { addon } from '../native/addon.js'
import type { SourceType } from '../native/native.js'
import type { SourceTensor } from './source.js'

/** `change` of each number, as f32. */
export function adjusted(tensor: SourceTensor, change: (value: number) => number): SourceTensor {
  const read = async (first: number, count: number) => {
    const values = addon().toF32(await tensor.read(first, count), tensor.type as SourceType, count, tensor.cols)
    return new Uint8Array(values.map(change).buffer)
  }
  return { ...tensor, type: 'f32', read }
}
