import type { GenerationSummary } from '../run/session.js'
import { formatRate } from './format.js'

/** One line on stderr: what was computed, what the cache already held, how fast. */
export function reportSpeed(last: GenerationSummary | undefined): void {
  if (!last) return
  const { promptTokens, cachedTokens, newTokens } = last.usage
  const cached = cachedTokens > 0 ? ` (${cachedTokens} cached)` : ''
  const computed = promptTokens - cachedTokens
  const prefill = `${promptTokens} prompt tokens${cached}, ${formatRate(computed, last.timings.prefillMs)}`
  const decode = `${newTokens} new, ${formatRate(newTokens, last.timings.decodeMs)}`
  process.stderr.write(`[${prefill}; ${decode}; ended by ${last.finishReason}]\n`)
}
