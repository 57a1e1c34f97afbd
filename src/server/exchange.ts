/** One request and its answer, as the endpoints see them. */
import type { GenerationSummary } from '../run/generation.js'
import type { Fields } from './body.js'
import type { EventStream } from './events.js'
import type { ServedModels } from './served.js'

export interface Exchange {
  /** of the body; empty for requests without one */
  readonly fields: Fields
  /** what stands behind the endpoint's own path */
  readonly rest: string
  readonly models: ServedModels
  /** aborts when the client has gone */
  readonly signal: AbortSignal
  /** special tokens written out in raw prompts are special tokens */
  readonly parseSpecial: boolean
  reply(value: unknown): void
  text(value: string, type: string): void
  /** the answer comes in events */
  events(): EventStream
}

export type Endpoint = (exchange: Exchange) => Promise<void> | void

export function usageOf(promptTokens: number, cachedTokens: number, newTokens: number) {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: newTokens,
    total_tokens: promptTokens + newTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  }
}

/** As llama.cpp's server tells them. */
export function timingsOf({ usage, timings }: GenerationSummary) {
  const { prefillMs, decodeMs } = timings
  const computed = usage.promptTokens - usage.cachedTokens
  const per = (count: number, ms: number) => (ms > 0 ? (1000 * count) / ms : 0)
  const decoded = Math.max(0, usage.newTokens - 1)
  return {
    cache_n: usage.cachedTokens,
    prompt_n: computed,
    prompt_ms: prefillMs,
    prompt_per_second: per(computed, prefillMs),
    predicted_n: usage.newTokens,
    predicted_ms: decodeMs,
    predicted_per_second: timings.tokensPerSecond || per(decoded, decodeMs),
  }
}
