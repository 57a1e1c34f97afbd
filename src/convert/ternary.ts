/** Ternary weights on their way into our form: codes of two bits, and scales of groups of columns or of rows. */
import type { TernaryGroup } from '../config/kinds.js'
import { located } from '../import/located.js'
import { badSource, type SourceTensor } from '../import/source.js'
import { addon } from '../native/addon.js'
import type { TernaryBlocks } from '../native/native.js'
import { bytesOf, type Encoding, once, type Pieces, readPieces, scalesOf } from './pieces.js'

/** Columns of a scale in the blocks of GGUF files. */
const BLOCK_COLUMNS: Record<TernaryBlocks, Exclude<TernaryGroup, 0>> = {
  q2_0: 64,
  q2_0_g128: 128,
  tq1_0: 256,
  tq2_0: 256,
  ptq1_0: 128,
}

/** The group of a matrix, undefined where its weights are not ternary. A scale beside blocks of its own makes it 0. */
export function ternaryGroup({ type, scale }: SourceTensor): TernaryGroup | undefined {
  if (type === 'codes') return 0
  const columns = BLOCK_COLUMNS[type as TernaryBlocks]
  return columns === undefined || scale === undefined ? columns : 0
}

/**
 * @throws OnebitError ERR_TERNARY_CODE, ERR_NOT_FINITE, and ERR_BAD_SOURCE where the blocks of a row that has one scale
 *   have several, or the codes are no codes
 */
export function encodeTernary(weight: SourceTensor, group: TernaryGroup): Encoding {
  const { type } = weight
  if (type === 'codes') return encodeCodes(weight)
  const blocks = type as TernaryBlocks
  const groups = weight.cols / BLOCK_COLUMNS[blocks]
  const scales = new Uint16Array(weight.rows * groups)
  const codes = async function* (): Pieces {
    for await (const { source, first, count } of readPieces(weight)) {
      const made = located(weight.name, first, () => addon().splitTernary(source, blocks, count, weight.cols))
      scales.set(made.scale, first * groups)
      if (group === 0) checkRows(weight, made.codes, made.scale, first)
      yield made.codes
    }
  }
  if (group !== 0) return { codes, scale: () => once(bytesOf(scales)) }
  return { codes, scale: () => rowScales(weight, scales) }
}

function encodeCodes(weight: SourceTensor): Encoding {
  const zeros = new ZeroCount(weight)
  const codes = async function* (): Pieces {
    for await (const { source } of readPieces(weight)) {
      zeros.add(source)
      yield source
    }
    zeros.check()
  }
  return { codes, scale: () => rowScales(weight) }
}

/** f32, one a row: the matrix's own or each row's, times what the blocks say where those say something. */
async function* rowScales(weight: SourceTensor, blocks?: Uint16Array): Pieces {
  const scales = await scalesOf(weight)
  if (blocks !== undefined) {
    const { rows } = weight
    const own = addon().toF32(bytesOf(commonScales(blocks, rows)), 'f16', rows, 1)
    for (let row = 0; row < rows; row++) scales[row]! *= own[row]!
  }
  yield bytesOf(scales)
}

/** What the blocks of each row have in common (checkRows), as 16-bit floats. */
function commonScales(blocks: Uint16Array, rows: number): Uint16Array {
  const groups = blocks.length / rows
  return Uint16Array.from({ length: rows }, (_, row) => commonScale(blocks.subarray(row * groups, (row + 1) * groups)))
}

/** A block whose weights are all 0 may have the scale 0. */
function commonScale(own: Uint16Array): number {
  return own.find((bits) => bits !== 0) ?? 0
}

/** Blocks of a row with one scale have the same, or no weight other than 0. */
function checkRows(weight: SourceTensor, codes: Uint8Array, scales: Uint16Array, first: number): void {
  const groups = (scales.length * weight.cols) / (codes.length * 4)
  const bytes = weight.cols / groups / 4
  for (let row = 0; row * groups < scales.length; row++) {
    const own = scales.subarray(row * groups, (row + 1) * groups)
    const common = commonScale(own)
    for (let g = 0; g < groups; g++) {
      if (own[g] === common) continue
      const at = (row * groups + g) * bytes
      if (own[g] === 0 || codes.subarray(at, at + bytes).every((byte) => byte === ALL_ZERO)) continue
      throw badSource(
        `Tensor ${weight.name}, row ${first + row}: its blocks have several scales, and the matrix one of its own`,
        'A scale beside blocks is kept only where the blocks hold -1, 0 and 1 as they are.',
      )
    }
  }
}

/** Four codes of 1, the weight 0. */
const ALL_ZERO = 0b01010101

/** Codes in each byte that are 1: how many of its weights are 0. */
const ZEROS = Uint8Array.from({ length: 256 }, (_, byte) => {
  return [0, 2, 4, 6].reduce((sum, shift) => sum + (((byte >> shift) & 3) === 1 ? 1 : 0), 0)
})

/**
 * The share of zeros, which in a trained matrix is about a third. Codes in a layout that we take for another one are either
 * 3 in places, or stand for something else altogether.
 */
class ZeroCount {
  readonly #weight: SourceTensor
  #zeros = 0
  #all = 0

  constructor(weight: SourceTensor) {
    this.#weight = weight
  }

  add(codes: Uint8Array): void {
    this.#all += codes.length * 4
    for (const byte of codes) this.#zeros += ZEROS[byte]!
  }

  check(): void {
    const share = this.#zeros / this.#all
    if (this.#all < 4096 || (share > 0.01 && share < 0.99)) return
    throw badSource(
      `Tensor ${this.#weight.name}: ${(share * 100).toFixed(1)} % of its weights would be zero, so its codes mean something else`,
      'Files written by programs for ARM, or with other kernels, lay them out differently and do not say so.',
    )
  }
}
