/** Parts of a tensor in which several matrices lie: `unit` rows of the first, as many of the second, and on, then again. */
import type { SourceTensor } from './source.js'

/**
 * The `index`th of `count` matrices. `fused` has `count` times as many rows, or, of a vector, elements.
 * @param unit how many rows of each lie together: those of a head, or all
 */
export function ofFused(fused: SourceTensor, unit: number, index: number, count: number): SourceTensor {
  // A vector is one row, and its elements are what the rows of a matrix are.
  const isVector = fused.rows === 1
  const rows = (isVector ? fused.cols : fused.rows) / count
  const place = (row: number) => Math.floor(row / unit) * count * unit + index * unit + (row % unit)
  if (isVector) return { ...fused, cols: rows, read: () => readElements(fused, rows, place) }
  return { ...fused, rows, read: (first, n) => readRows(fused, first, n, unit, place) }
}

/** Rows of one unit lie together, so they are read together. */
async function readRows(
  fused: SourceTensor,
  first: number,
  count: number,
  unit: number,
  place: (row: number) => number,
): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  for (let row = first; row < first + count; ) {
    const run = Math.min(unit - (row % unit), first + count - row)
    parts.push(await fused.read(place(row), run))
    row += run
  }
  return Buffer.concat(parts)
}

async function readElements(fused: SourceTensor, count: number, place: (row: number) => number): Promise<Uint8Array> {
  const all = await fused.read(0, 1)
  const size = all.length / fused.cols
  const out = new Uint8Array(count * size)
  for (let i = 0; i < count; i++) out.set(all.subarray(place(i) * size, (place(i) + 1) * size), i * size)
  return out
}
