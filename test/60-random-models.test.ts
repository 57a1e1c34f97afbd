/** Models of a shape with random weights, their sizes, and the measuring of what the machine can do. */
import { describe, expect, it } from 'vitest'
import { randomModel } from '../dist/bench/random-model.js'
import {
  chainRank,
  decodeWeightBytes,
  kvBytesPerPosition,
  parseWeightType,
  SHAPE_NAMES,
  SHAPES,
  type Shape,
  shapeConfig,
  type WeightType,
} from '../dist/bench/shapes.js'
import type { ModelConfig } from '../dist/config/config.js'
import { modelSize } from '../dist/config/model-size.js'
import { addon } from '../dist/native/addon.js'
import { codeOf, failure } from './expect-code.js'

const TINY: Shape = {
  vocab_size: 300,
  dim: 128,
  hidden_dim: 256,
  n_layers: 2,
  n_heads: 4,
  n_kv_heads: 2,
  head_dim: 32,
  context_length: 8192,
  rope_theta: 10000,
  norm_eps: 1e-5,
  tied_head: true,
}
const TYPES: WeightType[] = ['onebit', 'chain:2', 'chain:0.5', 'q1_0', 'f16', 'q8']
const PROMPT = [1, 2, 3, 250]

const usable = () =>
  addon()
    .info()
    .isas.filter(({ state }) => state === 'usable')

async function logits(options: Parameters<typeof randomModel>[1], shape: Shape = TINY): Promise<Float32Array> {
  const model = await randomModel(shape, options)
  try {
    return (await model.createSession().logits(PROMPT, { all: true })).data
  } finally {
    await model.dispose()
  }
}

describe('random weights', () => {
  it.each(TYPES)('%s: the same seed gives the same logits on every instruction set and thread count', async (type) => {
    for (const activations of ['int8', 'f32'] as const) {
      const seen = new Set<string>()
      for (const { name: isa } of usable()) {
        for (const threads of [1, 2]) {
          const data = await logits({ type, activations, isa, threads, seed: 42 })
          expect(data.length).toBe(PROMPT.length * TINY.vocab_size)
          const size = Math.sqrt(data.reduce((sum, x) => sum + x * x, 0) / data.length)
          expect(size).toBeGreaterThan(0.1)
          expect(size).toBeLessThan(10)
          seen.add(Buffer.from(data.buffer).toString('base64'))
        }
      }
      expect(seen.size).toBe(1)
    }
    expect(await logits({ type, seed: 42 })).not.toEqual(await logits({ type, seed: 43 }))
  })

  it('keep their size through many layers', async () => {
    const data = await logits({ type: 'onebit' }, { ...TINY, n_layers: 40 })
    const largest = data.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
    expect(largest).toBeLessThan(20)
    expect(largest).toBeGreaterThan(0.5)
  })

  it('make a model that works with ids and says what it is', async () => {
    await using model = await randomModel(TINY, { seed: 5, threads: 1 })
    expect(model.info).toMatchObject({ path: '', fileBytes: 0, threads: 1, context: 4096, activations: 'int8' })
    expect(model.info.weightBytes).toBeGreaterThanOrEqual(decodeWeightBytes(model.config))
    expect(model.provenance.source).toContain('seed 5')
    const { ids } = await model.createSession({ context: 64 }).complete(PROMPT, { maxTokens: 3, temperature: 0 })
    expect(ids.length).toBe(3)
    expect(await codeOf(() => model.createSession().complete('text'))).toBe('ERR_NO_TOKENIZER')
  })

  it('leave JavaScript free while they are made', async () => {
    let turns = 0
    const timer = setInterval(() => turns++, 1)
    const model = await randomModel({ ...TINY, dim: 1024, n_heads: 32, hidden_dim: 4096, n_layers: 8 }, { type: 'f16' })
    clearInterval(timer)
    await model.dispose()
    expect(turns).toBeGreaterThan(0)
  })
})

describe('what cannot be made', () => {
  it('is an error with a code', async () => {
    const shape = await failure(() => randomModel('smollm2-135m', { type: 'q1_0' }))
    expect([shape.code, shape.message]).toEqual(['ERR_SHAPE', expect.stringContaining('576 columns')])
    expect(shape.hint).toContain('128')
    const huge = { ...TINY, dim: 65536, hidden_dim: 65536, n_heads: 512, head_dim: 128, n_layers: 1000 }
    const memory = await failure(() => randomModel(huge, { type: 'f16' }))
    expect([memory.code, memory.message]).toEqual([
      'ERR_OUT_OF_MEMORY',
      expect.stringMatching(/needs \d+ MiB, and only/),
    ])
    expect(await codeOf(() => randomModel(TINY, { memoryLimit: 1000 }))).toBe('ERR_MEMORY_LIMIT')
    expect(await codeOf(() => randomModel(TINY, { isa: 'sse9' }))).toBe('ERR_ISA')
    expect(await codeOf(() => randomModel({ ...TINY, n_kv_heads: 3 }))).toBe('ERR_CONFIG')
  })

  it.each([
    ['type', 'q4_0'],
    ['type', 'chain:9'],
    ['type', 'chain:'],
    ['type', 1],
    ['seed', -1],
    ['seed', 0.5],
    ['context', 8193],
    ['onProgress', () => {}],
  ])('option %s = %s', async (name, value) => {
    const error = await failure(() => randomModel(TINY, { [name]: value } as object))
    expect([error.code, error.message]).toEqual(['ERR_BAD_OPTION', expect.stringContaining(name)])
  })

  it('an unknown shape', async () => {
    expect(await codeOf(() => randomModel('llama-3b' as 'llama-7b'))).toBe('ERR_BAD_OPTION')
    expect(await codeOf(() => randomModel(undefined as unknown as 'llama-7b'))).toBe('ERR_BAD_OPTION')
  })

  it('stops when its signal says so', async () => {
    const reason = new Error('enough')
    await expect(randomModel(TINY, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    const stop = new AbortController()
    const making = randomModel('smollm2-135m', { type: 'f16', signal: stop.signal })
    stop.abort(reason)
    await expect(making).rejects.toBe(reason)
  })
})

describe('sizes', () => {
  it('of the shapes are those of the models they are named after', () => {
    const parameters = (name: (typeof SHAPE_NAMES)[number]) =>
      modelSize(shapeConfig(name, 'f16'), { tokenizer: 0, chat_template: 0 }, 0).parameters
    expect(SHAPE_NAMES.map(parameters)).toEqual([
      134_515_008, 1_100_048_384, 6_738_415_616, 13_015_864_320, 1_720_574_976, 8_190_735_360, 2_412_820_480,
      1_881_825_088, 8_953_803_264,
    ])
  })

  it('of the weights that decoding reads: signs and scales of the linears, and the head', () => {
    const rows = 128 + 64 + 64 + 128 + 256 + 256 + 128 // wq wk wv wo w1 w3 w2
    const weights = 128 * (128 + 64 + 64 + 128 + 256 + 256) + 256 * 128
    const cols = 128 * 6 + 256
    const head = 300 * 128
    const bytes = (type: WeightType) => decodeWeightBytes(shapeConfig(TINY, type))
    expect(bytes('onebit')).toBe(2 * (weights / 8 + 4 * (rows + cols)) + head + 300 * 4)
    expect(bytes('q1_0')).toBe(2 * (weights / 8 + (weights / 128) * 2) + head + 300 * 4)
    expect(bytes('q8')).toBe(2 * (weights + 4 * rows) + head + 300 * 4)
    expect(bytes('f16')).toBe(2 * 2 * weights + 2 * head)
    const untied: ModelConfig = { ...shapeConfig(TINY, 'f16'), tied_head: false }
    expect(decodeWeightBytes(untied)).toBe(bytes('f16'))
    expect(kvBytesPerPosition(untied, 'f16')).toBe(2 * 2 * 64 * 2)
    expect(kvBytesPerPosition(untied, 'f32')).toBe(2 * 2 * 64 * 4)
  })

  it('of a chain are about the bits asked for', () => {
    for (const bits of [0.5, 1, 2, 4]) {
      for (const [rows, cols] of [
        [4096, 4096],
        [11008, 4096],
        [4096, 11008],
      ] as const) {
        const rank = chainRank(rows, cols, bits)
        expect(rank % 128).toBe(0)
        expect((rank * (rows + cols)) / (rows * cols)).toBeCloseTo(bits, 1)
      }
    }
    expect(chainRank(192, 576, 0.5)).toBe(128) // never none
    expect(parseWeightType('chain:2.0')).toBe('chain:2')
  })

  it('fits every shape with every type that fits', () => {
    for (const shape of SHAPE_NAMES) {
      for (const type of TYPES) {
        if (type === 'q1_0' && shape === 'smollm2-135m') continue
        expect(decodeWeightBytes(shapeConfig(shape, type))).toBeGreaterThan(SHAPES[shape].dim)
      }
    }
  })
})

describe('peaks of the machine', () => {
  it('are measured off the main thread', async () => {
    let turns = 0
    const timer = setInterval(() => turns++, 1)
    const peaks = await addon().measurePeaks({ threads: 1, isa: '', dram_bytes: 2 ** 22 })
    clearInterval(timer)
    expect(turns).toBeGreaterThan(5)
    expect(peaks).toMatchObject({ isa: addon().info().chosen, threads: 1 })
    expect(peaks.dram!.map(({ pages, loop }) => `${pages} ${loop}`)).toHaveLength(6)
    expect(peaks.dram_gbps).toBe(Math.max(...peaks.dram!.map(({ gbps }) => gbps)))
    for (const name of ['dram_gbps', 'int8_peak_gmacs', 'lookup_peak_gws', 'f32_peak_gmacs'] as const) {
      expect(peaks[name]).toBeGreaterThan(0.01)
      expect(peaks[name]).toBeLessThan(1e5)
    }
  })

  it('are those of the instruction set and the probes that were asked for', async () => {
    for (const { name: isa, runs } of usable()) {
      const peaks = await addon().measurePeaks({ threads: 2, isa, what: ['int8'] })
      expect(Object.keys(peaks).sort()).toEqual(['int8_peak_gmacs', 'isa', 'threads'])
      expect(peaks.isa).toBe(runs)
    }
  })

  it('refuse what makes no sense', async () => {
    const measure = (options: object) => async () =>
      addon().measurePeaks({ threads: 1, isa: '', what: ['int8'], ...options } as never)
    await expect(measure({ dram_bytes: 1 })()).rejects.toMatchObject({ code: 'ERR_BAD_ARGUMENT' })
    await expect(measure({ what: ['disk'] })()).rejects.toMatchObject({ code: 'ERR_BAD_ARGUMENT' })
    await expect(measure({ what: 'int8' })()).rejects.toMatchObject({ code: 'ERR_BAD_ARGUMENT' })
    await expect(measure({ threads: 1000 })()).rejects.toMatchObject({ code: 'ERR_BAD_ARGUMENT' })
    await expect(measure({ cancel: {} })()).rejects.toMatchObject({ code: 'ERR_BAD_ARGUMENT' })
    expect(await codeOf(measure({ isa: 'sse9' }))).toBe('ERR_ISA')
    expect(await codeOf(measure({ what: ['dram'], dram_bytes: 2 ** 50 }))).toBe('ERR_OUT_OF_MEMORY')
    const cancel = new (addon().Cancel)()
    const measuring = measure({ cancel, what: undefined })()
    cancel.cancel()
    await expect(measuring).rejects.toMatchObject({ code: 'ERR_ABORTED' })
  })

  it('know how much memory is free', () => {
    const bytes = addon().availableMemory()
    expect(Number.isInteger(bytes)).toBe(true)
    if (process.platform === 'linux') expect(bytes).toBeGreaterThan(2 ** 24)
  })
})
