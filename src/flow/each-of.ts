/** Everything that a generator gives, and what it returns. */
export async function eachOf<T, R>(
  generator: AsyncGenerator<T, R, undefined>,
  take: (one: T) => Promise<void> | void,
): Promise<R> {
  try {
    for (;;) {
      const { value, done } = await generator.next()
      if (done) return value
      await take(value)
    }
  } finally {
    // Whoever was to take them has failed: nobody else wants them.
    await generator.return(undefined as never)
  }
}
