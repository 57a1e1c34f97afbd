/**
 * A figure that a busy machine can only make worse: measured at least `times` times, and again until it is below
 * `limit` or there is no hope. Returns the best; the code is slow when even that is too much.
 */
export async function bestOf(
  { limit, times = 1, atMost = 30 }: { limit: number; times?: number; atMost?: number },
  measure: (round: number) => Promise<number>,
): Promise<number> {
  let best = Number.POSITIVE_INFINITY
  for (let round = 0; round < times || (best >= limit && round < atMost); round++) {
    best = Math.min(best, await measure(round))
  }
  return best
}
