/** The types that tensors of GGUF files have: what we read of each, and how many bytes it takes. */
import { OnebitError } from '../errors.js'
import type { SourceType } from '../native/native.js'
import type { GgufHeader, GgufTensorInfo } from './gguf-reader.js'
import { badSource } from './source.js'

export interface GgufType {
  /** i2_s: codes of the whole tensor, four to a byte, and behind them 32 bytes that begin with their f32 scale */
  type: SourceType | 'i2_s'
  /** of a block */
  elements: number
  bytes: number
}

/** By ggml's id. Those from 100 on are of PrismML's fork, 36 is of Microsoft's. */
const TYPES: Record<number, GgufType> = {
  0: { type: 'f32', elements: 1, bytes: 4 },
  1: { type: 'f16', elements: 1, bytes: 2 },
  2: { type: 'q4_0', elements: 32, bytes: 18 },
  3: { type: 'q4_1', elements: 32, bytes: 20 },
  6: { type: 'q5_0', elements: 32, bytes: 22 },
  7: { type: 'q5_1', elements: 32, bytes: 24 },
  8: { type: 'q8_0', elements: 32, bytes: 34 },
  10: { type: 'q2_k', elements: 256, bytes: 84 },
  11: { type: 'q3_k', elements: 256, bytes: 110 },
  12: { type: 'q4_k', elements: 256, bytes: 144 },
  13: { type: 'q5_k', elements: 256, bytes: 176 },
  14: { type: 'q6_k', elements: 256, bytes: 210 },
  20: { type: 'iq4_nl', elements: 32, bytes: 18 },
  23: { type: 'iq4_xs', elements: 256, bytes: 136 },
  30: { type: 'bf16', elements: 1, bytes: 2 },
  34: { type: 'tq1_0', elements: 256, bytes: 54 },
  35: { type: 'tq2_0', elements: 256, bytes: 66 },
  36: { type: 'i2_s', elements: 4, bytes: 1 },
  41: { type: 'q1_0', elements: 128, bytes: 18 },
  142: { type: 'q2_0_g128', elements: 128, bytes: 34 },
  143: { type: 'ptq1_0', elements: 128, bytes: 28 },
}

/** One id for two layouts: ggml's, and the one that PrismML's files had before. The sizes of tensors tell. */
const Q2_0 = 42
const Q2_0_LAYOUTS: readonly GgufType[] = [
  { type: 'q2_0', elements: 64, bytes: 18 },
  { type: 'q2_0_g128', elements: 128, bytes: 34 },
]

/** Names of the types we do not read, for the message; ggml has no others in use. */
const OTHER_TYPES: Record<number, string> = {
  9: 'Q8_1',
  15: 'Q8_K',
  16: 'IQ2_XXS',
  17: 'IQ2_XS',
  18: 'IQ3_XXS',
  19: 'IQ1_S',
  21: 'IQ3_S',
  22: 'IQ2_S',
  29: 'IQ1_M',
  39: 'MXFP4',
}

const READ_TYPES =
  'F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL, IQ4_XS, Q1_0, Q2_0, TQ1_0, TQ2_0, I2_S, PQ2_0 and ' +
  'PTQ1_0 can be read.'

const I2_S_TAIL = 32

const elementsOf = ({ dimensions }: GgufTensorInfo) => dimensions.reduce((product, size) => product * size, 1)

/** Of a tensor whose rows are whole blocks. */
export function tensorBytes(tensor: GgufTensorInfo, { type, elements, bytes }: GgufType): number {
  return (elementsOf(tensor) / elements) * bytes + (type === 'i2_s' ? I2_S_TAIL : 0)
}

/** What each tensor of a file is. tensors: by offset. */
export class GgufTypes {
  readonly #path: string
  readonly #q2_0: GgufType | undefined

  /** @throws OnebitError ERR_BAD_SOURCE where a file has Q2_0 and the tensors' sizes fit both of its layouts, or none */
  constructor(path: string, header: GgufHeader, tensors: readonly GgufTensorInfo[]) {
    this.#path = path
    if (tensors.some(({ type }) => type === Q2_0)) this.#q2_0 = q2_0Layout(path, header, tensors)
  }

  /** @throws OnebitError ERR_UNSUPPORTED_TENSOR_TYPE, naming it */
  of({ name, type }: GgufTensorInfo): GgufType {
    const known = type === Q2_0 ? this.#q2_0 : TYPES[type]
    if (known !== undefined) return known
    const what = OTHER_TYPES[type] ?? `the unknown type ${type}`
    throw new OnebitError('ERR_UNSUPPORTED_TENSOR_TYPE', `${this.#path}: tensor ${name} has type ${what}`, {
      hint: READ_TYPES,
    })
  }
}

/** The layout in which every Q2_0 tensor reaches exactly to the next tensor, or to the end of the file. */
function q2_0Layout(path: string, header: GgufHeader, tensors: readonly GgufTensorInfo[]): GgufType {
  const alignment = Number(header.metadata.get('general.alignment') ?? 32)
  const aligned = (bytes: number) => Math.ceil(bytes / alignment) * alignment
  const fits = (layout: GgufType) => {
    return tensors.every((tensor, i) => {
      if (tensor.type !== Q2_0) return true
      if (tensor.dimensions[0]! % layout.elements !== 0) return false
      const bytes = tensorBytes(tensor, layout)
      const next = tensors[i + 1]
      if (next !== undefined) return next.offset - tensor.offset === aligned(bytes)
      const rest = header.fileBytes - tensor.offset
      return rest === bytes || rest === aligned(bytes)
    })
  }
  const [found, another] = Q2_0_LAYOUTS.filter(fits)
  if (found !== undefined && another === undefined) return found
  throw badSource(
    `${path}: its Q2_0 tensors ${found === undefined ? 'fit neither' : 'could be in'} blocks of 64 ${found === undefined ? 'nor' : 'and'} of 128 columns`,
    'The two layouts have the same type id and are told apart by the sizes of tensors. The file may have been cut off.',
  )
}
