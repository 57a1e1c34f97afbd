/**
 * A figure that a busy machine can only make worse: measured at least `times` times, and again until one is below
 * `limit` or there is no hope. Returns the best; the code is slow when even that is too much. No run may reach `most`:
 * what is slow nine times of ten has a good best, too. `most` is far above what a busy machine does to a figure, and
 * far below what the fault would that the caller has in mind.
 */
export async function bestOf(
  { limit, most, times = 1, atMost = 30 }: { limit: number; most: number; times?: number; atMost?: number },
  measure: (round: number) => Promise<number>,
): Promise<number> {
  let best = Number.POSITIVE_INFINITY
  for (let round = 0; round < times || (best >= limit && round < atMost); round++) {
    const figure = await measure(round)
    if (!(figure < most)) throw new Error(`run ${round + 1} took ${figure.toFixed(1)}; no run may take ${most}`)
    best = Math.min(best, figure)
  }
  return best
}
