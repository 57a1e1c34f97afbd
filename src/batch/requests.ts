/** What can be asked of a Batch (batch.ts): many requests that share the steps of one model. */
import type { Constraint } from '../grammar/constraint.js'
import type { GenerateOptions } from '../run/generate-options.js'

/** How many requests share the steps of a model, and what is kept of them. */
export interface BatchOptions {
  /** requests that are computed together, 1 to 128; default 4 */
  parallel?: number
  /** requests that wait for a place; one more is ERR_QUEUE_FULL. Default 16 */
  queue?: number
  /** MiB of keys and values that are kept of requests that have ended; default 512 */
  cacheMiB?: number
  /** positions of a request; default: the model's `context` */
  context?: number
}

export interface BatchGenerateOptions extends GenerateOptions {
  /** which tokens may come; disposed of by the batch when the request has ended */
  constraint?: Constraint
  /** told once when the request has left the queue */
  onStart?: () => void
  /** told after each chunk of the prompt: tokens that need no computing any more, and all of them */
  onPrompt?: (done: number, total: number) => void
}

export interface BatchScoreOptions {
  /** likeliest tokens for each position */
  top?: number
  /** also tell what the likeliest tokens after the last id are */
  next?: boolean
  signal?: AbortSignal
}

export interface BatchScores {
  /** logprobs[i] of ids[i]; NaN for the first */
  logprobs: Float32Array
  /** (ids, top) descending; nothing for the first id: its row is ids -1 and NaN. One row more with `next`. */
  topIds: Int32Array
  topLogprobs: Float32Array
  cachedTokens: number
}

/** How a vector is made of a text. */
export interface EmbedOptions {
  /** of the hidden states after the final norm: their mean, or the last token's; default mean */
  pooling?: 'mean' | 'last'
  /** length 1; default true */
  normalize?: boolean
  /** stops within a chunk; the call rejects with the signal's reason */
  signal?: AbortSignal
}

/** What is under way on a model, and what was done since the start: the server's /metrics and /health tell it. */
export interface BatchState {
  /** requests that are computed now */
  running: number
  /** requests that wait for a place */
  waiting: number
  /** bytes of keys and values of requests under way */
  runningBytes: number
  /** bytes of keys and values that are kept of requests that have ended */
  cacheBytes: number
  /** requests that were taken, those that wait included */
  requests: number
  /** tokens of the prompts of those that got a place */
  promptTokens: number
  /** of these, found in the cache */
  cachedTokens: number
  /** tokens that were generated */
  newTokens: number
  /** steps of the model, each for all requests under way */
  steps: number
}
