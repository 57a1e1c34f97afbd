/** What goes into the next step. */

/** What a request could have computed now. */
export interface Demand {
  /** one token of an answer, which comes first */
  answering: boolean
  /** tokens that could be computed; 0: none for the time being */
  pending: number
  /** tokens of a prompt at once, at most; 0: no limit of its own */
  chunk: number
}

/** Less than this of a prompt is not worth a place in a step, where there are other prompts. */
const LEAST_SHARE = 8

/**
 * How many tokens of each request are computed in the next step: one of every answer, and `budget` of prompts in equal
 * shares. Where shares would be too small, some prompts have theirs in this turn and the others in the next.
 * @param turn counts the steps
 */
export function planStep(demands: readonly Demand[], budget: number, turn: number): number[] {
  const counts: number[] = demands.map(({ answering, pending }) => (answering && pending > 0 ? 1 : 0))
  const prompts = demands.flatMap(({ answering, pending }, i) => (!answering && pending > 0 ? [i] : []))
  const want = (i: number) => Math.min(demands[i]!.pending, demands[i]!.chunk || Number.POSITIVE_INFINITY)
  const first = prompts.length > 0 ? turn % prompts.length : 0
  const order = [...prompts.slice(first), ...prompts.slice(0, first)]
  let left = budget
  while (left > 0 && order.length > 0) {
    const served = order.splice(0, Math.max(1, Math.floor(left / LEAST_SHARE)))
    // Those that want least first: what they leave is for the others.
    served.sort((a, b) => want(a) - want(b))
    served.forEach((i, n) => {
      counts[i] = Math.min(want(i), Math.ceil(left / (served.length - n)))
      left -= counts[i]!
    })
  }
  return counts
}
