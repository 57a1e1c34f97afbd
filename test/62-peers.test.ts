/** What `npm run bench:peers` makes of its measurements: ratios within pairs, what is given up, and the table. */
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'
import { SHAPES, type ShapeName, shapeConfig } from '../dist/bench/shapes.js'
import { weightWork } from '../dist/bench/work.js'
import { PROJECT } from './data.js'
import { halfValue, SeededRandom } from './gguf-writer.js'

const load = (name: string) => import(pathToFileURL(join(PROJECT, 'bench', 'peers', name)).href)
const { fastest, isHopeless, sharesOfFastest, tableRow, tableRows } = await load('comparison.mjs')
const { markdown } = await load('markdown.mjs')
const { barsOf } = await load('bars.mjs')
const { CONTESTS } = await load('contests.mjs')
const { architectureOf, metadataOf, tensorsOf } = await load('gguf-models.mjs')
const { bitsPerWeight, fits, pieceOf, tailOf, tensorBytes, TYPES } = await load('gguf-types.mjs')
const { decodeBytes } = await load('random-gguf.mjs')

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
  return { engine: 'node-llama-cpp', type, bits: bitsPerWeight(type), threads, pairs }
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
      rounds: 3,
      shapes: [
        {
          shape: 'some-1b',
          type: 'onebit',
          peers: { 'node-llama-cpp': { version: 'peer 1', uses: ['AVX2', 'FMA'] } },
          work: { prompt: 512, warm: 1, tokens: 24 },
          misfits: ['TQ2_0'],
          configurations: [
            configuration('Q1_0', 2, speeds(1000, 2), [1, 1, 1]),
            { ...configuration('Q8_0', 1, speeds(1, 1), [1]), dropped: speeds(0.5, 0.25) },
            { engine: 'node-llama-cpp', type: 'Q4_0', bits: 4.5, threads: 2, pairs: [], refused: 'exit status 1' },
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
    expect(words).toContain("node-llama-cpp's Q4_0 on 2 threads could not be run: exit status 1")
    expect(words).toContain("node-llama-cpp's Q8_0 on 1 thread (0.50, 0.25)")
    expect(words).toContain('the columns do not fit TQ2_0')
  })
})

/** A ternary shape as it was measured: two engines, with shares of the memory's speed and this engine in 1 bit. */
function ternaryShape() {
  const of = (engine: string, type: string, peer: Speeds, peerShare: number) => {
    const one = configuration(type, 2, peer, [0.5, 1, 1])
    const pairs = one.pairs.map((pair) => ({
      ...pair,
      reference: { avx2: speeds(80, 60), avx512: speeds(160, 60) },
      shares: { peer: peerShare, ours: { avx2: 0.45, avx512: 0.9 } },
    }))
    return { ...one, engine, pairs }
  }
  return {
    shape: 'some-2b',
    type: 'ternary',
    reference: 'onebit',
    peers: { a: { version: 'a 1', uses: ['AVX2'] }, b: { version: 'b 2', uses: ['AVX512'] } },
    memory: [{ round: 1, threads: 2, gbps: 20 }],
    work: { prompt: 512, warm: 1, tokens: 24 },
    misfits: [],
    configurations: [
      of('a', 'TQ2_0', speeds(25, 20), 0.4),
      of('a', 'Q2_0', speeds(20, 10), 0.3),
      of('b', 'Q2_0', speeds(60, 40), 0.5),
    ],
  }
}

describe('ternary comparisons', () => {
  it('have a row for each engine, with the shares of the memory speed', () => {
    const rows = tableRows(ternaryShape(), ISAS)
    expect(rows).toMatchObject([
      { what: 'a on 2 threads', decode: { type: 'TQ2_0', share: 0.4, ours: { avx512: { ratio: 2.5, share: 0.9 } } } },
      { what: 'b on 2 threads', decode: { type: 'Q2_0', share: 0.5, ours: { avx2: { ratio: 0.625, share: 0.45 } } } },
    ])
    expect(rows[0].prefill.share).toBeUndefined()
    const report = {
      date: '2026-11-29',
      machine: { cpu: 'A Processor', logical_cpus: 2 },
      onebit: { isas: ISAS, threads: 2 },
      shapes: [{ ...ternaryShape(), bars: barsOf(ternaryShape(), CONTESTS['qwen3-8b'].bars, ISAS) }],
    }
    const text: string = markdown(report)
    expect(text).toContain(
      '| some-2b | a on 2 threads: TQ2_0 (2.06 bits) | 25.0, 20.0 (40 %) | ' +
        '50.0, 25.0 (2.0 ×, 1.3 ×; 45 %) | 100, 50.0 (4.0 ×, 2.5 ×; 90 %) |',
    )
    const words = text.replaceAll(/\s+/g, ' ')
    expect(words).toContain('The peers are a 1 with AVX2; b 2 with AVX512; both sides have 2 threads')
    expect(words).toContain("decode 90 % of the memory's read speed (at least 85 %): yes")
    expect(words).toContain('(at least 2.00 ×): no, but the bar is for a peer that reaches less of the memory')
  })

  it('say for each bar what both sides reached, and whether it holds', () => {
    const memory = { figure: 'decode', against: 'memory', least: 0.95 }
    expect(barsOf(ternaryShape(), [memory], ISAS)).toMatchObject([{ isa: 'avx512', ratio: 0.9, holds: false }])
    const oneBit = [
      { figure: 'prefill', against: 'one bit', least: 0.6, isas: /^avx512/ },
      { figure: 'prefill', against: 'one bit', least: 0.7, isas: /^avx2$/ },
    ]
    expect(barsOf(ternaryShape(), oneBit, ISAS)).toMatchObject([
      { isa: 'avx512', ratio: 0.625, holds: true, ours: 100, other: 160 },
      { isa: 'avx2', ratio: 0.625, holds: false },
    ])
    const peer = { figure: 'decode', against: 'peer', least: 2, where: { peerShareAtMost: 0.42 } }
    expect(barsOf(ternaryShape(), [peer], ISAS)).toMatchObject([
      { against: 'a TQ2_0', ratio: 2.5, peerShare: 0.4, counts: true, holds: true, ours: 50, other: 20 },
      { against: 'b Q2_0', ratio: 1.25, peerShare: 0.5, counts: false, holds: false },
    ])
  })

  it('know an engine for every candidate, and a bar for every ternary shape', () => {
    for (const { type, candidates, bars } of Object.values<(typeof CONTESTS)[string]>(CONTESTS)) {
      if (type === 'ternary') expect(bars.length).toBeGreaterThan(1)
      for (const { engine } of candidates) {
        expect(['node-llama-cpp', 'ik-llama-cpp-python', 'llama-cpp-py-sync']).toContain(engine)
      }
    }
  })
})

describe('random files', () => {
  interface Tensor {
    name: string
    shape: number[]
    kind: string
  }
  const elements = ({ shape }: Tensor) => shape.reduce((product, size) => product * size, 1)

  it.each([
    ['tinyllama-1.1b', 'Q4_0', 'Q8_0'],
    ['qwen3-1.7b', 'TQ2_0', 'TQ2_0'],
    ['qwen3-8b', 'TQ2_0', 'TQ2_0'],
    ['bitnet-2b4t', 'IQ2_BN', 'Q8_0'],
    ['qwen35-2b', 'Q2_0', 'Q2_0'],
    ['qwen35-9b', 'Q2_0', 'Q2_0'],
  ])('%s has as many weights as this engine counts', (name, type, tables) => {
    const shape = name as ShapeName
    const form = { shape, arch: architectureOf(shape), type, tables }
    const tensors: Tensor[] = tensorsOf(form)
    const { vocab_size, dim, tied_head } = SHAPES[shape]
    const tableNames = ['token_embd.weight', 'output.weight']
    const work = weightWork(shapeConfig(shape, 'ternary'))
    const linears = tensors.filter(
      ({ name: one, shape: size }) => size.length === 2 && !tableNames.includes(one) && !one.includes('conv1d'),
    )
    expect(linears.reduce((sum, one) => sum + elements(one), 0)).toBe(work.linearWeights)
    const ofTables = tensors.filter(({ name: one }) => tableNames.includes(one))
    expect(ofTables).toHaveLength(tied_head ? 1 : 2)
    for (const one of ofTables) expect(one).toMatchObject({ shape: [vocab_size, dim], kind: tables })
    expect(new Set(tensors.map(({ name: one }) => one)).size).toBe(tensors.length)
    const all = tensors.reduce((sum, one) => sum + tensorBytes(one), 0)
    const unread = tied_head ? 0 : tensorBytes(ofTables[0])
    const vectors = tensors.filter(({ shape: size }) => size.length === 1)
    expect(decodeBytes(form)).toBe(all - unread - vectors.reduce((sum, one) => sum + tensorBytes(one), 0))
  })

  it('rotated ones name every matrix but the gates, and a sign for each column', () => {
    const form = { shape: 'qwen35-2b', arch: 'qwen35', type: 'Q2_0', tables: 'Q2_0' }
    const metadata = metadataOf(form, tensorsOf(form))
    const names: string[] = metadata['prism.hadamard.weight_names'].strings
    // 18 recurrent layers and 6 with attention, of 6 and of 7 matrices.
    expect(names).toHaveLength(18 * 6 + 6 * 7)
    expect(names.some((one) => /alpha|beta|conv|embd/.test(one))).toBe(false)
    expect(metadata).toMatchObject({
      'general.architecture': { string: 'qwen35' },
      'prism.hadamard.version': { u32: 2 },
      'prism.hadamard.block_size': { u32: 2048 },
      'prism.hadamard.sign_widths': { i32s: [2048, 6144] },
    })
    const signs: number[] = metadata['prism.hadamard.sign_values'].i32s
    expect(signs).toHaveLength(2048 + 6144)
    expect(new Set(signs)).toEqual(new Set([-1, 1]))
  })

  it('two-bit types have no fourth code, and scales where each type has them', () => {
    const shape = [4, 512]
    const scale = 1 / (0.7 * Math.sqrt(512))
    const codesOf = (bytes: Buffer) => [...bytes].flatMap((byte) => [0, 2, 4, 6].map((shift) => (byte >> shift) & 3))
    const pieces = Object.fromEntries(
      ['TQ2_0', 'Q2_0', 'IQ2_BN', 'I2_S'].map((kind) => [
        kind,
        pieceOf({ shape, kind }, new SeededRandom(3)) as Buffer,
      ]),
    ) as Record<string, Buffer>
    const codes = [
      ...codesOf(pieces.TQ2_0!.subarray(0, 64)),
      ...codesOf(pieces.Q2_0!.subarray(2, 18)),
      ...codesOf(pieces.IQ2_BN!.subarray(4, 132)),
      ...codesOf(pieces.I2_S!.subarray(0, 128)),
    ]
    expect(new Set(codes)).toEqual(new Set([0, 1, 2]))
    expect(halfValue(pieces.TQ2_0!.readUInt16LE(64))).toBeCloseTo(scale, 3)
    expect(halfValue(pieces.Q2_0!.readUInt16LE(18))).toBeCloseTo(scale, 3)
    expect(pieces.IQ2_BN!.readFloatLE(132)).toBeCloseTo(scale, 6)
    const tail: Buffer = tailOf({ shape, kind: 'I2_S' })
    expect([tail.length, tail.readFloatLE(0)]).toEqual([32, Math.fround(scale)])
    const bytes = (kind: string): number => tensorBytes({ shape, kind })
    expect(['TQ2_0', 'Q2_0', 'IQ2_BN', 'I2_S'].map(bytes)).toEqual([528, 576, 528, 544])
  })

  it('which types fit the columns of a shape', () => {
    const shape = { dim: 576, hidden_dim: 1536, n_heads: 9, head_dim: 64 }
    const fitting = Object.keys(TYPES).filter((type) => fits(type, shape))
    expect(fitting).toEqual(['Q4_0', 'Q8_0', 'IQ4_NL', 'Q2_0', 'IQ2_BN'])
    expect(['Q1_0', 'TQ2_0', 'Q8_0'].map(bitsPerWeight)).toEqual([1.125, 2.0625, 8.5])
  })
})
