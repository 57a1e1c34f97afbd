import type { SourceTensor } from './source.js'

/** A piece is converted in a few milliseconds, during which nothing else in this thread runs. */
const PIECE_ELEMENTS = 1 << 20

export interface RowRange {
  first: number
  count: number
}

/** The rows of a tensor in pieces, each at least one row. */
export function* rowRanges({ rows, cols }: Pick<SourceTensor, 'rows' | 'cols'>): Generator<RowRange> {
  const step = Math.max(1, Math.floor(PIECE_ELEMENTS / cols))
  for (let first = 0; first < rows; first += step) yield { first, count: Math.min(step, rows - first) }
}
