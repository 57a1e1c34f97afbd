/** Where a long text is cut for perplexity. */

/** Tokens from `start` to `end`, of which those from `scored` on count. */
export interface Window {
  start: number
  end: number
  /** the first that counts; what stands before it is context */
  scored: number
}

/** The GPTQ convention: blocks after one another, each from nothing; a last partial one is left out. */
export function blocks(tokens: number, ctx: number, most: number): Window[] {
  const count = Math.min(Math.floor(tokens / ctx), most)
  return Array.from({ length: count }, (_, i) => ({ start: i * ctx, end: (i + 1) * ctx, scored: i * ctx + 1 }))
}

/**
 * Windows of `ctx` tokens, each `stride` further than the one before, in which only what no earlier one had counts: every
 * token but the first is counted once (with a stride of `ctx` the first of each window is not), with as much in front of it as there is (the sliding window of Hugging Face's guide
 * to the perplexity of fixed-length models).
 */
export function slidingWindows(tokens: number, ctx: number, stride: number, most: number): Window[] {
  const windows: Window[] = []
  let counted = 1
  for (let start = 0; counted < tokens && windows.length < most; start += stride) {
    const end = Math.min(start + ctx, tokens)
    windows.push({ start, end, scored: Math.max(counted, start + 1) })
    counted = end
  }
  return windows
}

/**
 * Windows at random places of random texts, as C4 is measured: texts of at least `ctx` + 1 tokens, one drawn for each
 * window. The same seed gives the same windows on every machine. (The papers draw with Python's generator: theirs are others.)
 * @param draw an integer below its argument
 */
export function randomWindow(tokens: number, ctx: number, draw: (below: number) => number): Window {
  const start = draw(tokens - ctx)
  return { start, end: start + ctx, scored: start + 1 }
}
