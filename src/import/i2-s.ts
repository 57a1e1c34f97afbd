/** Microsoft's I2_S: the codes of a whole tensor, of which a row may begin within a block, and one scale behind them. */
import { addon } from '../native/addon.js'
import { located } from './located.js'
import { badSource, type SourceTensor } from './source.js'

const BLOCK_ELEMENTS = 128
const BLOCK_BYTES = 32

/**
 * read: of the tensor's bytes. Only the layout of the official files (made on x86) is read: others say nothing by which
 * they could be told apart but codes that are none.
 */
export function i2sTensor(
  name: string,
  rows: number,
  cols: number,
  read: (at: number, length: number) => Promise<Uint8Array>,
): SourceTensor {
  if ((rows * cols) % BLOCK_ELEMENTS !== 0) {
    throw badSource(`Tensor ${name} has ${rows} x ${cols} weights, which are no whole blocks of ${BLOCK_ELEMENTS}`)
  }
  return {
    name,
    type: 'codes',
    rows,
    cols,
    async read(first, count) {
      const [start, end] = [first * cols, (first + count) * cols]
      const block = Math.floor(start / BLOCK_ELEMENTS)
      const blocks = Math.ceil(end / BLOCK_ELEMENTS) - block
      const bytes = await read(block * BLOCK_BYTES, blocks * BLOCK_BYTES)
      return located(name, first, () => addon().i2sCodes(bytes, start - block * BLOCK_ELEMENTS, count, cols))
    },
    scale: { name: `${name} (its scale)`, type: 'f32', rows: 1, cols: 1, read: () => read((rows * cols) / 4, 4) },
  }
}
