/** Numbers of a source that importers themselves have to look at. */
import { addon } from '../native/addon.js'
import type { SourceType } from '../native/native.js'
import { located } from './located.js'
import { badSource, type SourceTensor } from './source.js'

/** `count` rows from `first` on. @throws OnebitError ERR_NOT_FINITE, naming the tensor, and those of reading */
export async function floatRows(tensor: SourceTensor, first: number, count: number): Promise<Float32Array> {
  const { name, type, cols } = tensor
  const bytes = await tensor.read(first, count)
  return located(name, first, () => addon().toF32(bytes, type as SourceType, count, cols))
}

/** The only number of a tensor that multiplies a matrix. @throws OnebitError ERR_NOT_FINITE, ERR_BAD_SOURCE if it is 0 */
export async function oneScale(tensor: SourceTensor): Promise<number> {
  const [value] = await floatRows(tensor, 0, 1)
  if (value !== 0) return value!
  throw badSource(`Tensor ${tensor.name} is 0, which is no scale`)
}
