/** What stands in front of a matrix, whatever its kind. A file leaves out what there is not. */
import { type Fields, fail, fieldsOf, flag, integer, trueOrAbsent } from './field-check.js'
import { LIMITS } from './limits.js'

/** x -> H (s x): the normalised Walsh-Hadamard transform in blocks, in Sylvester's order, of x with turned signs. */
export interface Rotation {
  /** columns of a block, a power of two that divides the matrix's columns */
  block: number
  /** s: the model's for this width (tensor rotation_signs.WIDTH, a bit each, 1 = -1); false: all +1 */
  signs: boolean
}

/** What the matrix multiplies is first normed, then rotated. */
export interface Front {
  /** RMSNorm of the input with weights of its own (tensor NAME.norm_in) and the model's norm_eps */
  norm_in?: true
  /**
   * The matrix is stored rotated: W H s. The rows of an embedding are too, so what is looked up is turned back; if it is the
   * head too, that rotates like any other matrix.
   */
  rotation?: Rotation
}

export const FRONT_KEYS = ['norm_in', 'rotation'] as const

function checkRotation(path: string, value: unknown, cols: number): Rotation {
  const fields = fieldsOf(path, value, ['block', 'signs'])
  const block = integer(`${path}.block`, fields.block, 2, LIMITS.dim)
  if ((block & (block - 1)) !== 0) fail(`${path}.block`, `must be a power of two, found ${block}`)
  if (cols % block !== 0) fail(`${path}.block`, `must divide the ${cols} columns, found ${block}`)
  return { block, signs: flag(`${path}.signs`, fields.signs) }
}

/** The fields of Front among those of a kind. @throws OnebitError ERR_CONFIG, naming the field */
export function checkFront(path: string, fields: Fields, cols: number): Front {
  const { rotation } = fields
  return {
    ...trueOrAbsent(path, fields, 'norm_in'),
    ...(rotation !== undefined && { rotation: checkRotation(`${path}.rotation`, rotation, cols) }),
  }
}

/** In words, for behind those of the kind: ", rotated in blocks of 1024". */
export function describeFront({ norm_in, rotation }: Front): string {
  return `${norm_in ? ', norm in front' : ''}${rotation ? `, rotated in blocks of ${rotation.block}` : ''}`
}
