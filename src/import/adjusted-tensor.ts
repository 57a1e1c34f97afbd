/** A tensor whose numbers are computed from those of a source while they are read. */
import { floatRows } from './float-rows.js'
import type { SourceTensor } from './source.js'

/** `change` of each number, as f32. */
export function adjusted(tensor: SourceTensor, change: (value: number) => number): SourceTensor {
  const read = async (first: number, count: number) => {
    const values = await floatRows(tensor, first, count)
    return new Uint8Array(values.map(change).buffer)
  }
  return { ...tensor, type: 'f32', read }
}
