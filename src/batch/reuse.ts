/** Where a request finds tokens computed already: in a kept session, or in that of another request. */
import { commonPrefix, type Kept, LEAST_SHARED, type PrefixCache, reachable } from './prefix-cache.js'
import type { BatchRequest } from './request.js'

/**
 * So many tokens of a kept session may be lost when a request takes it over; a copy costs time and memory. Choices of
 * answers to one question follow each other, and each loses no more than the one before it.
 */
const MOST_LOST = 8
const MOST_LOST_CHOICE = 64

export interface Found {
  /** tokens that can be used */
  tokens: number
  /** one of both */
  kept: Kept | undefined
  running: BatchRequest | undefined
}

/** The session that has most of what the request needs; undefined when none has enough. */
export function findSession(
  request: BatchRequest,
  cache: PrefixCache,
  running: readonly BatchRequest[],
): Found | undefined {
  let best: Found | undefined
  const look = (tokens: number, kept: Kept | undefined, other: BatchRequest | undefined) => {
    const lost = kept && kept.ids.length - tokens
    const before = best?.kept && best.kept.ids.length - best.tokens
    const closer = tokens === best?.tokens && lost !== undefined && !(before !== undefined && before <= lost)
    if (tokens >= LEAST_SHARED && (tokens > (best?.tokens ?? 0) || closer)) best = { tokens, kept, running: other }
  }
  for (const kept of cache.entries) {
    const usable = request.usable(commonPrefix(kept.ids, request.prompt), kept.scores)
    look(reachable(kept.native, usable), kept, undefined)
  }
  for (const other of running) {
    if (other === request || !other.native || other.spoilt) continue
    const usable = request.usable(commonPrefix(other.computed, request.prompt), other.scores)
    look(reachable(other.native, usable), undefined, other)
  }
  return best
}

/** Whether the request takes the kept session itself, or a copy. */
export function takesOver(request: BatchRequest, { ids, scores }: Kept, tokens: number): boolean {
  const choice = request.scores !== undefined && scores !== undefined
  return ids.length - tokens <= (choice ? MOST_LOST_CHOICE : MOST_LOST)
}

/**
 * A request that left the queue before this one and is about to compute what this one needs: waiting for it is quicker
 * than computing the same beside it.
 * @param found tokens that can be had now
 */
export function findLeader(
  request: BatchRequest,
  found: number,
  running: readonly BatchRequest[],
): BatchRequest['leader'] {
  let best: BatchRequest['leader']
  for (const other of running) {
    if (other.order >= request.order || other.over || other.answering || !other.serves(request)) continue
    const common = Math.min(commonPrefix(other.prompt, request.prompt), other.prompt.length - 1)
    const usable = request.usable(common, other.scores && { top: other.scores.top, known: other.prompt.length })
    if (usable < Math.max(found, best?.tokens ?? 0) + LEAST_SHARED) continue
    // It is past that, and cannot be gone back to there.
    const { native } = other
    if (native && native.length > common && reachable(native, common) < common) continue
    best = { request: other, tokens: usable }
  }
  return best
}
