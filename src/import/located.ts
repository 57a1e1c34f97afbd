/** Native conversions say which row of a piece is wrong; this says of which tensor. */
import { OnebitError } from '../errors.js'

/** first: the piece's first row in the tensor of this name. */
export function located<T>(name: string, first: number, convert: () => T): T {
  try {
    return convert()
  } catch (cause) {
    if (!(cause instanceof OnebitError)) throw cause
    throw new OnebitError(cause.code, `Tensor ${name}, counted from row ${first}: ${cause.message}`, {
      hint: 'The source is damaged, or of a kind that cannot be converted to this type.',
      cause,
    })
  }
}
