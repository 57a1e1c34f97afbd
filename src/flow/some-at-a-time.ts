/** Does something for each, a few at a time, and gives the results in their order. */
export async function someAtATime<T, R>(
  list: readonly T[],
  atATime: number,
  work: (one: T, index: number) => Promise<R>,
): Promise<R[]> {
  const results: R[] = new Array(list.length)
  let next = 0
  const lane = async () => {
    for (let i = next++; i < list.length; i = next++) results[i] = await work(list[i]!, i)
  }
  await Promise.all(Array.from({ length: Math.min(atATime, list.length) }, lane))
  return results
}
