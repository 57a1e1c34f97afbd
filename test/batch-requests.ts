/** What a request gets from a batch, and from a session of its own. */
import type { Batch } from '../dist/batch/batch.js'
import type { BatchGenerateOptions } from '../dist/batch/requests.js'
import type { GenerateOptions, GenerationSummary, Model, Piece } from '../dist/index.js'

export interface Answer {
  pieces: Piece[]
  summary: GenerationSummary
}

export async function collect(stream: AsyncGenerator<Piece, GenerationSummary, undefined>): Promise<Answer> {
  const pieces: Piece[] = []
  for (;;) {
    const { value, done } = await stream.next()
    if (done) return { pieces, summary: value }
    pieces.push(value)
  }
}

/** Without what depends on time and on what was kept. */
export function comparable({ pieces, summary }: Answer) {
  const { promptTokens, newTokens } = summary.usage
  return { pieces, finishReason: summary.finishReason, promptTokens, newTokens }
}

export async function fromBatch(batch: Batch, ids: Int32Array | number[], options?: BatchGenerateOptions) {
  return collect(batch.generate(ids, options))
}

/** In a session of its own, as large as the batch's. */
export async function fromSession(
  model: Model,
  context: number,
  ids: Int32Array | number[],
  options?: GenerateOptions,
): Promise<Answer> {
  const session = model.createSession({ context })
  try {
    return await collect(session.generate(ids, options))
  } finally {
    session.dispose()
  }
}

/** xorshift32: the same numbers every time. */
export function randomNumbers(seed: number): (below: number) => number {
  let state = seed || 1
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

/** Looks at every turn of the event loop, and so at least once between two steps. */
export function until(condition: () => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = performance.now() + 60_000
    const look = () => {
      if (condition()) resolve()
      else if (performance.now() > end) reject(new Error(`never came true: ${condition}`))
      else setImmediate(look)
    }
    look()
  })
}
