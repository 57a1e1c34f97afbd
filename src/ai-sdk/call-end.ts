/** How a call ended and what it cost, as the AI SDK tells it. */
import type { LanguageModelV4FinishReason, LanguageModelV4Usage, SharedV4ProviderMetadata } from '@ai-sdk/provider'
import type { ChatEnd } from '../batch-chat/answer-chat.js'
import type { Model } from '../run/model.js'

export interface CallEnd {
  finishReason: LanguageModelV4FinishReason
  usage: LanguageModelV4Usage
  providerMetadata: SharedV4ProviderMetadata
}

export function endOf({ finish, summary, reasoningTokens }: ChatEnd, model: Model): CallEnd {
  const { promptTokens, cachedTokens, newTokens } = summary.usage
  const { prefillMs, decodeMs, tokensPerSecond } = summary.timings
  return {
    finishReason: { unified: finish === 'tool_calls' ? 'tool-calls' : finish, raw: summary.finishReason },
    usage: {
      inputTokens: {
        total: promptTokens,
        noCache: promptTokens - cachedTokens,
        cacheRead: cachedTokens,
        cacheWrite: undefined,
      },
      outputTokens: { total: newTokens, text: newTokens - reasoningTokens, reasoning: reasoningTokens },
    },
    providerMetadata: {
      onebit: { isa: model.isa, threads: model.threads, prefillMs, decodeMs, tokensPerSecond },
    },
  }
}

export const NO_USAGE: LanguageModelV4Usage = {
  inputTokens: { total: undefined, noCache: undefined, cacheRead: undefined, cacheWrite: undefined },
  outputTokens: { total: undefined, text: undefined, reasoning: undefined },
}
