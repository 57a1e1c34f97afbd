/**
 * Does something for each, a few at a time, and gives the results in their order. The first that fails ends all: the signal that
 * work gets is aborted, nothing more is begun, and the error is thrown when nothing is under way any more.
 * @param signal of the caller, which aborts too
 */
export async function someAtATime<T, R>(
  list: readonly T[],
  atATime: number,
  work: (one: T, index: number, signal: AbortSignal) => Promise<R>,
  signal?: AbortSignal,
): Promise<R[]> {
  const results: R[] = new Array(list.length)
  const failed = new AbortController()
  const either = signal ? AbortSignal.any([signal, failed.signal]) : failed.signal
  const errors: unknown[] = []
  let next = 0
  const lane = async () => {
    for (let i = next++; i < list.length && errors.length === 0; i = next++)
      results[i] = await work(list[i]!, i, either)
  }
  const lanes = Array.from({ length: Math.min(atATime, list.length) }, () =>
    lane().catch((error: unknown) => {
      errors.push(error)
      failed.abort(error)
    }),
  )
  await Promise.all(lanes)
  if (errors.length > 0) throw errors[0]
  return results
}
