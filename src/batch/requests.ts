/** What can be asked of a Batch (batch.ts): many requests that share the steps of one model. */
import type { Constraint } from '../grammar/constraint.js'
import type { GenerateOptions } from '../run/generate-options.js'

export interface BatchOptions {
  /** requests that are computed together; default 4 */
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

export interface EmbedOptions {
  /** of the hidden states after the final norm: their mean, or the last token's; default mean */
  pooling?: 'mean' | 'last'
  /** length 1; default true */
  normalize?: boolean
  signal?: AbortSignal
}

/** For /metrics and /health. */
export interface BatchState {
  running: number
  waiting: number
  /** bytes of keys and values: of requests under way, and kept of those that have ended */
  runningBytes: number
  cacheBytes: number
  /** since the start */
  requests: number
  promptTokens: number
  cachedTokens: number
  newTokens: number
  steps: number
}
