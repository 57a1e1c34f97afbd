/** What goes into a step, and how much of prompts: pure functions at their limits. */
import { describe, expect, it } from 'vitest'
import { KnownScores } from '../dist/batch/known-scores.js'
import { Pace } from '../dist/batch/pace.js'
import { type Demand, planStep } from '../dist/batch/plan.js'
import { PrefixCache } from '../dist/batch/prefix-cache.js'
import type { NativeSession } from '../dist/native/native.js'

const answer: Demand = { answering: true, pending: 1, chunk: 0 }
const prompt = (pending: number, chunk = 0): Demand => ({ answering: false, pending, chunk })

describe('the plan of a step', () => {
  it('has one token of every answer that can go on', () => {
    expect(planStep([answer, { ...answer, pending: 0 }, answer], 100, 0)).toEqual([1, 0, 1])
    expect(planStep([], 100, 0)).toEqual([])
  })

  it('has of prompts what the budget says', () => {
    expect(planStep([prompt(1000), answer], 40, 0)).toEqual([40, 1])
    expect(planStep([prompt(10), answer], 40, 0)).toEqual([10, 1])
    expect(planStep([prompt(1000, 7)], 40, 0)).toEqual([7])
  })

  it('gives prompts equal shares, and what one leaves to the others', () => {
    expect(planStep([prompt(1000), prompt(1000)], 40, 0)).toEqual([20, 20])
    expect(planStep([prompt(1000), prompt(4), prompt(1000)], 40, 0)).toEqual([18, 4, 18])
    expect(planStep([prompt(1000, 5), prompt(1000)], 40, 0)).toEqual([5, 35])
  })

  it('lets prompts take turns where shares would be small', () => {
    const six = Array.from({ length: 6 }, () => prompt(1000))
    const served = new Map<number, number>()
    for (let turn = 0; turn < 6; turn++) {
      const counts = planStep(six, 16, turn)
      expect(counts.filter((count) => count > 0)).toEqual([8, 8])
      for (const [i, count] of counts.entries()) served.set(i, (served.get(i) ?? 0) + count)
    }
    expect([...served.values()]).toEqual([16, 16, 16, 16, 16, 16])
  })

  it('never has more than there is or may be, and no token of a budget is left over in vain', () => {
    let state = 7
    const random = (below: number) => {
      state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
      return state % below
    }
    for (let round = 0; round < 2000; round++) {
      const demands = Array.from({ length: random(12) }, () =>
        random(3) === 0 ? { ...answer, pending: random(2) } : prompt(random(300), random(2) * random(40)),
      )
      const budget = 1 + random(256)
      const counts = planStep(demands, budget, round)
      const want = demands.map(({ answering, pending, chunk }) =>
        answering ? 0 : Math.min(pending, chunk || Number.POSITIVE_INFINITY),
      )
      const given = counts.map((count, i) => (demands[i]!.answering ? 0 : count))
      const sum = (list: number[]) => list.reduce((a, b) => a + b, 0)
      expect(sum(given)).toBe(Math.min(budget, sum(want)))
      for (const [i, count] of given.entries()) expect(count).toBeLessThanOrEqual(want[i]!)
      for (const [i, { answering, pending }] of demands.entries()) if (answering) expect(counts[i]).toBe(pending)
    }
  })
})

/** A machine on which a step takes `fixed` ms and `token` ms for each token. */
function learned(fixed: number, token: number, answers: number): Pace {
  const pace = new Pace(2)
  for (let step = 0; step < 50; step++) {
    pace.observe(answers, 0, fixed + answers * token)
    const beside = pace.promptTokens(answers)
    pace.observe(answers, beside, fixed + (answers + beside) * token)
    const alone = pace.promptTokens(0)
    pace.observe(0, alone, fixed + alone * token)
  }
  return pace
}

describe('the pace', () => {
  it('lets answers wait for 100 ms or two of their own steps at most, whatever the machine', () => {
    for (const fixed of [0.1, 1, 5, 20, 60, 200, 1000]) {
      for (const token of [0.01, 0.1, 1, 5, 20]) {
        for (const answers of [1, 2, 8, 64]) {
          const tokens = learned(fixed, token, answers).promptTokens(answers)
          const own = fixed + answers * token
          // Four tokens are computed even where they take too long: prompts have to go on.
          const least = fixed + (answers + 4) * token
          expect(own + tokens * token).toBeLessThanOrEqual(Math.max(100, 2 * own, least) + 1e-6)
          expect(tokens).toBeGreaterThanOrEqual(1)
          expect(answers + tokens).toBeLessThanOrEqual(256)
        }
      }
    }
  })

  it('uses the time there is', () => {
    expect(learned(5, 1, 1).promptTokens(1)).toBeGreaterThan(20)
    expect(learned(20, 0.5, 8).promptTokens(8)).toBeGreaterThan(40)
    expect(learned(200, 5, 1).promptTokens(1)).toBeGreaterThan(20)
  })

  it('does not believe a single step', () => {
    const pace = learned(20, 1, 8)
    const before = pace.promptTokens(8)
    pace.observe(8, 0, 2000)
    expect(pace.promptTokens(8)).toBeLessThanOrEqual(1.5 * before)
    pace.observe(8, before, 0.01)
    expect(pace.promptTokens(8)).toBeLessThanOrEqual(2 * before)
  })

  it('has large pieces of prompts where nobody waits, but no longer than about 100 ms', () => {
    expect(learned(5, 0.1, 1).promptTokens(0)).toBe(256)
    expect(learned(5, 1, 1).promptTokens(0)).toBe(80)
    expect(learned(100, 10, 1).promptTokens(0)).toBe(32) // fewer take hardly less
  })

  it('begins with little, and at most doubles', () => {
    const pace = new Pace(2)
    expect(pace.promptTokens(0)).toBe(64)
    expect(pace.promptTokens(3)).toBeLessThanOrEqual(8)
    pace.observe(0, 64, 0.001)
    expect(pace.promptTokens(0)).toBe(128)
    const before = pace.promptTokens(3)
    pace.observe(3, before, 0.001)
    expect(pace.promptTokens(3)).toBeLessThanOrEqual(2 * before + 8)
  })

  it('asks for at least one token beside as many answers as a step holds', () => {
    expect(new Pace(1).promptTokens(255)).toBe(1)
  })
})

function session(usedBytes: number) {
  let disposed = false
  const native = { usedBytes, dispose: () => (disposed = true) } as unknown as NativeSession
  return { native, gone: () => disposed }
}

const text = (...parts: [number, number][]) => Int32Array.from(parts.flatMap(([id, n]) => Array<number>(n).fill(id)))

describe('kept sessions', () => {
  it('go when there is no room, the one that was not used for longest first', () => {
    const cache = new PrefixCache(3500)
    const [a, b, c, d] = [session(1000), session(1000), session(1000), session(1000)]
    cache.add(a.native, text([1, 20]), undefined)
    cache.add(b.native, text([2, 20]), undefined)
    cache.add(c.native, text([3, 20]), undefined)
    cache.touch(cache.entries[0]!)
    cache.add(d.native, text([4, 20]), undefined)
    expect([a.gone(), b.gone(), c.gone(), d.gone()]).toEqual([false, true, false, false])
    expect(cache.bytes).toBe(3 * 1080)
    const kept = cache.entries[0]!
    cache.take(kept)
    expect([kept.native, c.gone(), cache.bytes]).toEqual([c.native, false, 2 * 1080])
    expect([cache.clear(), cache.clear(), cache.bytes]).toEqual([true, false, 0])
    expect([a.gone(), d.gone()]).toEqual([true, true])
  })

  it('are not kept when they are short, too large, or nothing may be', () => {
    for (const [most, bytes, length] of [
      [5000, 1000, 15],
      [5000, 5000, 20],
      [0, 1, 20],
    ] as const) {
      const cache = new PrefixCache(most)
      const one = session(bytes)
      cache.add(one.native, text([1, length]), undefined)
      expect([one.gone(), cache.bytes, cache.entries.length]).toEqual([true, 0, 0])
    }
  })

  it('give way to those that can do the same and more', () => {
    const cache = new PrefixCache(1e6)
    const [short, long, scored, again] = [session(10), session(20), session(20), session(20)]
    cache.add(short.native, text([1, 20]), undefined)
    cache.add(long.native, text([1, 20], [2, 5]), undefined)
    expect([short.gone(), long.gone()]).toEqual([true, false])
    const scores = new KnownScores(25, 1)
    scores.known = 25
    cache.add(scored.native, text([1, 20], [2, 5]), scores)
    expect([long.gone(), scored.gone()]).toEqual([true, false])
    cache.add(again.native, text([1, 20], [2, 4]), undefined)
    expect([again.gone(), scored.gone(), cache.entries.length]).toEqual([true, false, 1])
  })
})
