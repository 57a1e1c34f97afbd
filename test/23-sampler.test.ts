/** Sampling: the right distribution, exact or looking at more, the same for the same seed, defined for every value. */
import { describe, expect, it } from 'vitest'
import { addon } from '../dist/native/addon.js'
import type { NativeSampler } from '../dist/native/native.js'
import {
  candidatesNeeded,
  checkSampling,
  nativeSampling,
  SAMPLING_NAMES,
  type SamplingOptions,
} from '../dist/run/sampler.js'

const LONG = process.env.ONEBIT_LONG !== undefined
const NO_TOKENS = new Int32Array(0)

/** `first`: how many candidates are looked at first; default: as many as the options need. */
function makeSampler(options: SamplingOptions, vocabSize: number, first?: number): NativeSampler {
  const native = nativeSampling(checkSampling(options, vocabSize), NO_TOKENS)
  return new (addon().Sampler)({ ...native, ...(first === undefined ? {} : { first }) })
}

/** The probabilities that the options define, written down over the whole vocabulary. */
function reference(logits: readonly number[], { temperature = 1, topK = 0, topP = 1, minP = 0 }: SamplingOptions) {
  let kept = logits
    .map((logit, id) => ({ id, p: Math.exp(logit / temperature) }))
    .sort((a, b) => b.p - a.p || a.id - b.id)
  if (topK > 0) kept = kept.slice(0, topK)
  const all = kept.reduce((sum, { p }) => sum + p, 0)
  let reached = 0
  kept = kept.filter(({ p }, index) => {
    const wanted = index === 0 || topP === 1 || reached < topP * all
    reached += p
    return wanted
  })
  kept = kept.filter(({ p }) => p >= minP * kept[0]!.p)
  const left = kept.reduce((sum, { p }) => sum + p, 0)
  const probabilities = new Array<number>(logits.length).fill(0)
  for (const { id, p } of kept) probabilities[id] = p / left
  return probabilities
}

/** How often each id is drawn, and how often all candidates had to be looked at. */
function draw(logits: readonly number[], options: SamplingOptions, first: number, draws: number) {
  const sampler = makeSampler({ topK: 0, topP: 1, minP: 0, temperature: 1, ...options }, logits.length, first)
  const values = Float32Array.from(logits)
  const counts = new Array<number>(logits.length).fill(0)
  let asked = 0
  for (let i = 0; i < draws; i++) {
    const { id, candidates } = sampler.choose(values)
    if (candidates > first) asked++
    counts[id]!++
  }
  return { counts, asked }
}

/** Chi-square over ids with an expectation of at least 5; the limit is the 0.9999 quantile (Wilson and Hilferty). */
function expectDistribution(counts: number[], probabilities: number[], draws: number): void {
  let statistic = 0
  let cells = 0
  for (const [id, p] of probabilities.entries()) {
    if (p === 0) expect(counts[id], `id ${id} cannot be drawn`).toBe(0)
    if (p * draws < 5) continue
    statistic += (counts[id]! - p * draws) ** 2 / (p * draws)
    cells++
  }
  const freedom = Math.max(1, cells - 1)
  const limit = freedom * (1 - 2 / (9 * freedom) + 3.72 * Math.sqrt(2 / (9 * freedom))) ** 3
  expect(statistic).toBeLessThan(limit)
}

/** Logits of a spread-out distribution over 500 ids, the best in the middle. */
const LOGITS = Array.from({ length: 500 }, (_, id) => Math.fround(6 * Math.cos(id * 0.7) - Math.abs(id - 250) / 40))

describe('the distribution', () => {
  const cases: SamplingOptions[] = [
    {},
    { temperature: 0.5 },
    { temperature: 2 },
    { topK: 7 },
    { topP: 0.8 },
    { topP: 0.3, temperature: 1.5 },
    { minP: 0.2 },
    { minP: 0.02, temperature: 0.7 },
    { topK: 40, topP: 0.95, minP: 0.05, temperature: 0.8 },
    { topP: 0.999 },
    { topP: 0.99, minP: 0.001 },
  ]
  const draws = LONG ? 1_000_000 : 10_000

  it.each(cases)(
    'is that of the whole vocabulary: %o',
    (options) => {
      const probabilities = reference(LOGITS, { temperature: 1, ...options })
      for (const first of [5, 64, 500]) {
        const { counts, asked } = draw(LOGITS, { ...options, seed: 11 }, Math.max(first, options.topK ?? 0), draws)
        expectDistribution(counts, probabilities, draws)
        if (first === 500) expect(asked).toBe(0)
      }
    },
    300_000,
  )

  it('does not depend on how many candidates came first', () => {
    for (const options of cases) {
      const [few, some, all] = [8, 100, 500].map((k) =>
        draw(LOGITS, { ...options, seed: 5 }, Math.max(k, options.topK ?? 0), 3000),
      )
      expect(few!.counts).toEqual(all!.counts)
      expect(some!.counts).toEqual(all!.counts)
    }
  })

  it('rarely asks for more than a few hundred candidates', () => {
    const peaked = Array.from({ length: 50_000 }, (_, id) => Math.fround(12 - 2.5 * Math.log(1 + id)))
    for (const options of [{}, { topP: 0.9 }, { minP: 0.05 }, { temperature: 0.7, topP: 0.95 }]) {
      expect(draw(peaked, { ...options, seed: 3 }, 256, 200).asked).toBeLessThan(10)
    }
    expect(draw(peaked, { seed: 3 }, 2, 200).asked).toBeGreaterThan(0)
  })

  it('is uniform for equal logits, and zero for impossible ones', () => {
    const equal = draw([1, 1, 1, 1, 1, 1, 1, 1], { seed: 1 }, 8, draws)
    expectDistribution(equal.counts, new Array(8).fill(1 / 8), draws)
    const half = draw([2, -Infinity, 2, -Infinity], { seed: 1, temperature: 5 }, 4, draws)
    expectDistribution(half.counts, [0.5, 0, 0.5, 0], draws)
    // The half of four equal ones is two of them: those with the lower ids.
    expect(draw([1, 1, 1, 1], { topP: 0.5, seed: 2 }, 4, 2000).counts.map((count) => count > 0)).toEqual([
      true,
      true,
      false,
      false,
    ])
  })
})

describe('edges', () => {
  it.each<SamplingOptions>([{ temperature: 0 }, { topK: 1 }, { topP: 0 }, { minP: 1 }, { temperature: 1e-30 }])(
    'takes the likeliest, the lower id of equals: %o',
    (options) => {
      const logits = options.temperature === 1e-30 ? [1, 3, 2, 2.9] : [1, 3, 2, 3]
      if (options.minP === 1) logits[3] = 2.99
      expect(draw(logits, { ...options, seed: 9 }, 4, 200).counts).toEqual([0, 200, 0, 0])
    },
  )

  it('fails with a code when no logit is a number', () => {
    const bad = [
      [Number.NaN, 1],
      [1, Number.NaN],
      [-Infinity, -Infinity],
      [Infinity, 1],
    ]
    for (const logits of bad) {
      const choose = () => makeSampler({}, 2).choose(Float32Array.from(logits))
      expect(choose).toThrow(expect.objectContaining({ code: 'ERR_BAD_LOGITS' }))
    }
  })

  it('tells the probability that the model itself gives', () => {
    const logits = Float32Array.from(LOGITS)
    const total = Math.log(LOGITS.reduce((sum, logit) => sum + Math.exp(logit), 0))
    const sampler = makeSampler({ temperature: 2, topK: 5, logitBias: { 3: 5 }, presencePenalty: 1 }, 500)
    for (let i = 0; i < 50; i++) {
      const { id, logprob } = sampler.choose(logits)
      expect(logprob).toBeCloseTo(LOGITS[id]! - total, 5)
    }
  })
})

describe('seeds', () => {
  const first = (seed: number | bigint) => {
    const sampler = makeSampler({ seed, temperature: 1, topK: 0, topP: 1, minP: 0 }, 500)
    return Array.from({ length: 32 }, () => sampler.choose(Float32Array.from(LOGITS)).id)
  }

  it('repeat', () => {
    expect(first(1234)).toEqual(first(1234))
    expect(first(1234)).toEqual(first(1234n))
    // Frozen: another value here means that users' seeds no longer give their texts.
    const rank = [...LOGITS.keys()].sort((a, b) => LOGITS[b]! - LOGITS[a]! || a - b)
    expect(first(42).slice(0, 8)).toEqual([22, 75, 8, 7, 3, 4, 0, 30].map((place) => rank[place]))
  })

  it('differ, neighbours and high bits included', () => {
    const seeds = [0, 1, 2, 2 ** 32, 2 ** 53 - 1, 2n ** 64n - 1n]
    expect(new Set(seeds.map((seed) => first(seed).join())).size).toBe(seeds.length)
  })

  it('are random and reported when not given', () => {
    const seeds = Array.from({ length: 4 }, () => checkSampling({}, 10).seed)
    expect(new Set(seeds).size).toBe(4)
  })
})

describe('what native code is asked for', () => {
  it('is as few candidates as will do', () => {
    const needed = (options: SamplingOptions) => candidatesNeeded(checkSampling(options, 49152))
    expect(needed({ temperature: 0, topK: 0 })).toBe(1)
    expect(needed({ topK: 40 })).toBe(40)
    expect(needed({ topK: 0 })).toBe(256)
    expect(needed({ topK: 1_000_000 })).toBe(49152)
  })

  it('looks at the last tokens when a penalty is on', () => {
    const tokens = Int32Array.of(9, 5, 6, 5, 7)
    const asked = (options: SamplingOptions) => nativeSampling(checkSampling(options, 10), tokens)
    expect(asked({})).toMatchObject({ repeat_last_n: 0, recent: NO_TOKENS })
    const on = asked({ repeatPenalty: 1.1, repeatLastN: 4 })
    expect(on).toMatchObject({ repeat_last_n: 4, recent: Int32Array.of(5, 6, 5, 7) })
    expect(asked({ presencePenalty: 1, repeatLastN: 0 })).toMatchObject({ repeat_last_n: 0, recent: NO_TOKENS })
    const bias = asked({ logitBias: { 3: -100, 7: 1.5 } })
    expect([bias.bias_ids, bias.bias_values]).toEqual([Int32Array.of(3, 7), Float32Array.of(-100, 1.5)])
  })

  it('counts each of them, and those it has chosen', () => {
    const penalised = (options: SamplingOptions, recent: number[]) => {
      const checked = checkSampling({ temperature: 0, ...options }, 4)
      return new (addon().Sampler)(nativeSampling(checked, Int32Array.from(recent)))
    }
    const logits = Float32Array.of(4, 3.5, 3, 0)
    const ids = (sampler: NativeSampler, count: number) =>
      Array.from({ length: count }, () => sampler.choose(logits).id)
    // 4 - 1, then 3.5 - 1, then 3 - 1; all have the same penalty then.
    expect(ids(penalised({ presencePenalty: 1 }, []), 4)).toEqual([0, 1, 0, 0])
    // What has left the window counts no more.
    expect(ids(penalised({ presencePenalty: 10, repeatLastN: 1 }, []), 4)).toEqual([0, 1, 0, 1])
    expect(ids(penalised({ frequencyPenalty: 0.4 }, [0, 0]), 3)).toEqual([1, 0, 1])
    expect(ids(penalised({ repeatPenalty: 2 }, [0]), 2)).toEqual([1, 2])
  })
})

describe('bad options', () => {
  const empty = {}
  const values: unknown[] = [Number.NaN, -1, 0.5, 1e308, 2 ** 31, 2 ** 53 + 2, Infinity, '1', null, [], empty, true, 5n]
  const good: Record<string, unknown[]> = {
    temperature: [0.5],
    topK: [],
    topP: [0.5],
    minP: [0.5],
    repeatPenalty: [0.5],
    repeatLastN: [],
    presencePenalty: [-1, 0.5],
    frequencyPenalty: [-1, 0.5],
    logitBias: [empty],
    seed: [2 ** 31, 5n],
  }

  it.each(SAMPLING_NAMES.map((name) => [name]))('%s', (name) => {
    for (const value of values) {
      const check = () => checkSampling({ [name]: value }, 100)
      const fine = good[name]!.includes(value)
      if (fine) expect(check).not.toThrow()
      else {
        expect(check, `${name}: ${String(value)}`).toThrow(
          expect.objectContaining({ code: 'ERR_BAD_OPTION', message: expect.stringContaining(name) }),
        )
      }
    }
  })

  it('logitBias entries', () => {
    const bad = [
      { 100: 1 },
      { '-1': 1 },
      { a: 1 },
      { '01': 1 },
      { 1: Number.NaN },
      { 1: '1' },
      { 1: 1001 },
      { 1: null },
    ]
    for (const logitBias of bad) {
      expect(() => checkSampling({ logitBias: logitBias as never }, 100)).toThrow(
        expect.objectContaining({ code: 'ERR_BAD_OPTION', message: expect.stringContaining('logitBias') }),
      )
    }
  })
})

describe('a mask', () => {
  const allowing = (ids: Iterable<number>) => {
    const mask = new Int32Array(Math.ceil(LOGITS.length / 32))
    for (const id of ids) mask[id >> 5]! |= 1 << (id & 31)
    return mask
  }
  const values = Float32Array.from(LOGITS)
  const best = LOGITS.indexOf(Math.max(...LOGITS))

  it('leaves the distribution of the tokens that it allows', () => {
    const allowed = LOGITS.map((_, id) => id).filter((id) => id % 7 === 3 || id > 480)
    const masked = LOGITS.map((logit, id) => (allowed.includes(id) ? logit : Number.NEGATIVE_INFINITY))
    for (const options of [
      {},
      { temperature: 0.5 },
      { topK: 7 },
      { topP: 0.8 },
      { minP: 0.1 },
    ] satisfies SamplingOptions[]) {
      const all = { topK: 0, topP: 1, minP: 0, temperature: 1, seed: 5, ...options }
      const sampler = makeSampler(all, LOGITS.length, 20)
      sampler.allow(allowing(allowed))
      const counts = new Array<number>(LOGITS.length).fill(0)
      for (let i = 0; i < 3000; i++) counts[sampler.choose(values).id]!++
      expectDistribution(counts, reference(masked, all), 3000)
    }
  })

  it('is stronger than any bias, and leaves the log-probability alone', () => {
    const ids = [3, 499]
    const sampler = makeSampler({ temperature: 0, logitBias: { [best]: 1000, 3: 2 } }, LOGITS.length)
    const free = makeSampler({ temperature: 0 }, LOGITS.length)
    sampler.allow(allowing(ids))
    const { id, logprob } = sampler.choose(values)
    expect(ids).toContain(id)
    expect(logprob - free.choose(values).logprob).toBeCloseTo(LOGITS[id]! - LOGITS[best]!, 4)
    sampler.allow(undefined)
    expect(sampler.choose(values).id).toBe(best)
  })

  it('that allows nothing is an error, and the sampler works on', () => {
    const sampler = makeSampler({ temperature: 1 }, LOGITS.length)
    sampler.allow(allowing([]))
    expect(() => sampler.choose(values)).toThrow(
      expect.objectContaining({ code: 'ERR_BAD_LOGITS', message: expect.stringMatching(/forbidden/) }),
    )
    const mask = allowing([17])
    sampler.allow(mask)
    mask.fill(0) // was copied
    expect(sampler.choose(values).id).toBe(17)
  })
})
