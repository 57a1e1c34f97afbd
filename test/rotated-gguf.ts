/** A small model as a GGUF file with rotated weights, made by the definition of the rotation and not by what reads it. */
import { encodeTensor, type GgufTensor, type MetadataValue, SeededRandom } from './gguf-writer.js'

const HADAMARD = 'prism.hadamard.'

/** +1 and -1, made from a seed. */
export function someSigns(width: number, seed = width): number[] {
  const random = new SeededRandom(seed)
  return Array.from({ length: width }, () => (random.integer(2) === 0 ? 1 : -1))
}

/** Whether i & j has an odd number of bits. */
function isOdd(i: number, j: number): boolean {
  let odd = false
  for (let bits = i & j; bits !== 0; bits &= bits - 1) odd = !odd
  return odd
}

/** Rows w become w S H, so that w x = (w S H) (H S x): H has blocks, S the signs on its diagonal. */
export function rotated(values: Float32Array, cols: number, block: number, signs?: readonly number[]): Float32Array {
  return values.map((_, at) => {
    const [row, col] = [Math.floor(at / cols) * cols, at % cols]
    const base = col - (col % block)
    let sum = 0
    for (let j = 0; j < block; j++) {
      const w = values[row + base + j]! * (signs?.[base + j] ?? 1)
      sum += isOdd(col - base, j) ? -w : w
    }
    return sum / Math.sqrt(block)
  })
}

export interface RotationOptions {
  block: number
  /** without: sign_mode identity */
  signs?: boolean
  /** those that are rotated, of the matrices that have this name; default: all linears, the head and the embedding */
  only?: RegExp
}

/** f32 tensors with rotated ones among them, and the keys that say so. */
export function rotateTensors(
  tensors: readonly GgufTensor[],
  { block, signs = true, only = /./ }: RotationOptions,
): { tensors: GgufTensor[]; metadata: Record<string, MetadataValue> } {
  const isRotated = ({ name, shape }: GgufTensor) => shape.length === 2 && only.test(name)
  const widths = [...new Set(tensors.filter(isRotated).map(({ shape }) => shape[1]!))]
  const names = tensors.filter(isRotated).map(({ name }) => name)
  const embedding = 'token_embd.weight'
  const tied = names.includes(embedding) && !tensors.some(({ name }) => name === 'output.weight')
  return {
    tensors: tensors.map((tensor) => {
      if (!isRotated(tensor)) return tensor
      const cols = tensor.shape[1]!
      const values = new Float32Array(new Uint8Array(tensor.data).buffer)
      return { ...tensor, data: encodeTensor('f32', rotated(values, cols, block, signs ? someSigns(cols) : undefined)) }
    }),
    metadata: {
      [`${HADAMARD}version`]: { u32: tied ? 2 : 1 },
      [`${HADAMARD}block_size`]: { u32: block },
      [`${HADAMARD}transform`]: { string: 'normalized-sylvester-walsh-hadamard' },
      [`${HADAMARD}axis`]: { string: 'input-last-dimension' },
      [`${HADAMARD}sign_mode`]: { string: signs ? 'explicit' : 'identity' },
      ...(signs && {
        [`${HADAMARD}sign_widths`]: { i32s: widths },
        [`${HADAMARD}sign_values`]: { i32s: widths.flatMap((width) => someSigns(width)) },
      }),
      [`${HADAMARD}weight_names`]: { strings: names.filter((name) => name !== embedding) },
      ...(names.includes(embedding) && { [`${HADAMARD}inverse_weight_names`]: { strings: [embedding] } }),
      ...(tied && { [`${HADAMARD}tied_output`]: { bool: true } }),
    },
  }
}
