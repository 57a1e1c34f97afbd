/** What `npm run bench:peers` makes of its measurements: ratios within pairs, what is given up, and the table. */
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'
import { PROJECT } from './data.js'

const load = (name: string) => import(pathToFileURL(join(PROJECT, 'bench', 'peers', name)).href)
const { fastest, isHopeless, sharesOfFastest, tableRow, tableRows } = await load('comparison.mjs')
const { markdown } = await load('markdown.mjs')
const { bitsPerWeight, fits, TYPES } = await load('random-gguf.mjs')

interface Speeds {
  prefill: number
  decode: number
}

const speeds = (prefill: number, decode: number): Speeds => ({ prefill, decode })

/** One configuration of the peer; `phases`: how fast the machine was in each round. */
function configuration(type: string, threads: number, peer: Speeds, phases: number[], ours = speeds(100, 50)) {
  const scaled = ({ prefill, decode }: Speeds, by: number) => speeds(prefill * by, decode * by)
  const pairs = phases.map((phase, i) => ({
    round: i + 1,
    peer: scaled(peer, phase),
    ours: { avx2: scaled(ours, phase / 2), avx512: scaled(ours, phase) },
  }))
  return { type, bits: bitsPerWeight(type), threads, pairs }
}

const ISAS = ['avx2', 'avx512']

describe('a table of peers', () => {
  it('takes ratios within a pair, whatever phase the machine was in', () => {
    // Q4_0 happened to be measured in slow phases only: its tokens a second are fewer, its share of ours is not.
    const slow = configuration('Q4_0', 2, speeds(50, 10), [0.2, 0.3, 0.5])
    const quick = configuration('Q8_0', 2, speeds(40, 9), [1, 1, 1])
    expect(fastest([quick, slow], 'prefill', 'avx512')).toBe(slow)
    const { prefill, decode } = tableRow([quick, slow], ISAS)
    expect(prefill.type).toBe('Q4_0')
    expect(prefill.speed).toBeCloseTo(15, 9)
    expect(prefill.ours.avx512.ratio).toBeCloseTo(2, 9)
    expect(prefill.ours.avx2.ratio).toBeCloseTo(1, 9)
    expect(decode.ours.avx512.speed).toBeCloseTo(15, 9)
    expect(decode.ours.avx512.ratio).toBeCloseTo(5, 9)
  })

  it('finds the fastest of each figure by itself, and the one with the fewest bits beside it', () => {
    const configurations = [
      configuration('Q1_0', 2, speeds(10, 9), [1]),
      configuration('TQ2_0', 2, speeds(20, 30), [1]),
      configuration('Q4_0', 1, speeds(30, 20), [1]),
      // Given up: it must not come back as the fastest of anything.
      { ...configuration('Q8_0', 2, speeds(90, 90), [1]), dropped: speeds(0.1, 0.1) },
      { type: 'IQ1_S', bits: bitsPerWeight('IQ1_S'), threads: 1, pairs: [], refused: 'it does not like it' },
    ]
    const rows = tableRows({ configurations }, ISAS)
    expect(rows).toMatchObject([
      { what: 'fastest', prefill: { type: 'Q4_0', threads: 1 }, decode: { type: 'TQ2_0' } },
      { what: 'nearest to 1 bit', prefill: { type: 'Q1_0' }, decode: { type: 'Q1_0' } },
    ])
    expect(rows).toHaveLength(2)
    const only = tableRows({ configurations: configurations.slice(0, 1) }, ISAS)
    expect(only).toHaveLength(1)
  })

  it('gives up what is below 0.7 of the fastest in both figures of its better try', () => {
    const best = configuration('Q4_0', 2, speeds(100, 100), [1])
    const half = configuration('Q8_0', 2, speeds(69, 69), [1])
    const oneFigure = configuration('IQ4_NL', 2, speeds(10, 71), [1])
    const all = [best, half, oneFigure]
    expect(all.map((one) => isHopeless(one, all, 'avx512'))).toEqual([false, true, false])
    expect(sharesOfFastest(half, all, 'avx512').decode).toBeCloseTo(0.69, 9)
    const disturbed = configuration('Q8_0', 2, speeds(10, 10), [1])
    const again = { ...disturbed, pairs: [...disturbed.pairs, ...configuration('Q8_0', 2, speeds(80, 80), [1]).pairs] }
    expect(isHopeless(disturbed, [best, disturbed], 'avx512')).toBe(true)
    expect(isHopeless(again, [best, again], 'avx512')).toBe(false)
  })

  it('names types, threads, the processor, the date, and what was left out', () => {
    const report = {
      date: '2026-11-28',
      machine: { cpu: 'A Processor', logical_cpus: 2 },
      onebit: { isas: ISAS, threads: 2 },
      peer: { version: 'peer 1', uses: ['AVX2', 'FMA'], threads: [1, 2] },
      rounds: 3,
      shapes: [
        {
          shape: 'some-1b',
          work: { prompt: 512, warm: 1, tokens: 24 },
          misfits: ['TQ2_0'],
          configurations: [
            configuration('Q1_0', 2, speeds(1000, 2), [1]),
            { ...configuration('Q8_0', 1, speeds(1, 1), [1]), dropped: speeds(0.5, 0.25) },
            { type: 'Q4_0', bits: 4.5, threads: 2, pairs: [], refused: 'exit status 1' },
          ],
        },
      ],
    }
    const text = markdown(report)
    for (const line of text.split('\n')) if (!line.startsWith('|')) expect(line.length).toBeLessThanOrEqual(120)
    const words = text.replaceAll(/\s+/g, ' ')
    expect(words).toContain('2026-11-28, 2 cores of A Processor,')
    expect(words).toContain('peer 1 with AVX2, FMA, at the better of 1 and 2 threads')
    expect(words).toContain('medians of 3 rounds')
    expect(text).toContain('| onebit-run 1 bit, AVX2 | onebit-run 1 bit, AVX-512 |\n|---|---|---:|---:|---:|')
    expect(text).toContain(
      '| some-1b | fastest, and nearest to 1 bit: Q1_0 (1.13 bits) | 1,000, 2.00 | ' +
        '50.0, 25.0 (0.1 ×, 12.5 ×) | 100, 50.0 (0.1 ×, 25.0 ×) |',
    )
    expect(words).toContain('could not run Q4_0 on 2 threads: exit status 1')
    expect(words).toContain('Q8_0 on 1 thread (0.50, 0.25)')
    expect(words).toContain('the columns do not fit TQ2_0')
  })
})

it('random files: which types fit the columns of a shape', () => {
  const shape = { dim: 576, hidden_dim: 1536, n_heads: 9, head_dim: 64 }
  expect(Object.keys(TYPES).filter((type) => fits(type, shape))).toEqual(['Q4_0', 'Q8_0', 'IQ4_NL', 'Q2_0'])
  expect(['Q1_0', 'TQ2_0', 'Q8_0'].map(bitsPerWeight)).toEqual([1.125, 2.0625, 8.5])
})
