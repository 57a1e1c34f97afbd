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
}

interface SharedType {
  name: string
  layouts: readonly GgufType[]
}

/**
 * Ids that stand for more than one layout; the sizes of tensors tell. 42 is ggml's Q2_0 and the one that PrismML's files had
 * before; 143 is PrismML's, and another type, which is not read, in another fork.
 */
const SHARED_TYPES: Record<number, SharedType> = {
  42: {
    name: 'Q2_0',
    layouts: [
      { type: 'q2_0', elements: 64, bytes: 18 },
      { type: 'q2_0_g128', elements: 128, bytes: 34 },
    ],
  },
  143: { name: 'PTQ1_0', layouts: [{ type: 'ptq1_0', elements: 128, bytes: 28 }] },
}

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
  readonly #shared = new Map<number, GgufType>()

  /** @throws OnebitError ERR_BAD_SOURCE where tensors' sizes fit no layout, or several, of a type that shares its id */
  constructor(path: string, header: GgufHeader, tensors: readonly GgufTensorInfo[]) {
    this.#path = path
    for (const [id, shared] of Object.entries(SHARED_TYPES)) {
      const type = Number(id)
      if (tensors.some((tensor) => tensor.type === type)) {
        this.#shared.set(type, layoutBySizes(path, header, tensors, type, shared))
      }
    }
  }

  /** @throws OnebitError ERR_UNSUPPORTED_TENSOR_TYPE, naming it */
  of({ name, type }: GgufTensorInfo): GgufType {
    const known = this.#shared.get(type) ?? TYPES[type]
    if (known !== undefined) return known
    const what = OTHER_TYPES[type] ?? `the unknown type ${type}`
    throw new OnebitError('ERR_UNSUPPORTED_TENSOR_TYPE', `${this.#path}: tensor ${name} has type ${what}`, {
      hint: READ_TYPES,
    })
  }
}

/** The layout in which every tensor of this type reaches exactly to the next tensor, or to the end of the file. */
function layoutBySizes(
  path: string,
  header: GgufHeader,
  tensors: readonly GgufTensorInfo[],
  type: number,
  { name, layouts }: SharedType,
): GgufType {
  const alignment = Number(header.metadata.get('general.alignment') ?? 32)
  const aligned = (bytes: number) => Math.ceil(bytes / alignment) * alignment
  const fits = (layout: GgufType) => {
    return tensors.every((tensor, i) => {
      if (tensor.type !== type) return true
      if (tensor.dimensions[0]! % layout.elements !== 0) return false
      const bytes = tensorBytes(tensor, layout)
      const next = tensors[i + 1]
      if (next !== undefined) return next.offset - tensor.offset === aligned(bytes)
      const rest = header.fileBytes - tensor.offset
      // What was cut off is said by its size, where earlier tensors tell the layout.
      const isCut = rest < bytes && tensors.findIndex((other) => other.type === type) < i
      return rest === bytes || rest === aligned(bytes) || isCut
    })
  }
  const found = layouts.filter(fits)
  if (found.length === 1) return found[0]!
  const columns = layouts.map(({ elements }) => elements).join(' and of ')
  const problem = found.length > 1 ? 'could be in several of' : 'fit none of'
  throw badSource(
    `${path}: its ${name} tensors ${problem} the layouts known of type ${type}, blocks of ${columns} columns`,
    'Types that share an id are told apart by the sizes of tensors. The file may have been cut off.',
  )
}
