/**
 * The 1-bit chat models that people download (Bonsai) are Qwen3 with every matrix in Q1_0. The same random model of
 * that kind, run by llama.cpp, gave the logits in fixtures/qwen3-q1_0.json (how: scripts/make-q1_0-fixture.mjs).
 */
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { convert } from '../dist/convert/convert.js'
import { Model } from '../dist/index.js'
import { PROJECT } from './data.js'
import { type TinyQwen3Options, tinyQwen3, tinyQwen3Prompt } from './fixtures/tiny-qwen3.js'

interface Fixture {
  gguf_sha256: string
  tokens: number[]
  positions: number[]
  vocab_size: number
  logits_f32le_base64: string
}

const fixture = JSON.parse(readFileSync(join(PROJECT, 'test/fixtures/qwen3-q1_0.json'), 'utf8')) as Fixture
const { vocab_size: V, positions, tokens } = fixture

/** One row of V logits per position of the fixture. */
function peerRows(): Float32Array[] {
  const bytes = Buffer.from(fixture.logits_f32le_base64, 'base64')
  return positions.map((_, row) => Float32Array.from({ length: V }, (_, id) => bytes.readFloatLE((row * V + id) * 4)))
}

/** Cosine after taking the mean away: softmax does not see a constant, and it would hide a difference. */
function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const mean = (v: ArrayLike<number>) => Array.from(v).reduce((sum, x) => sum + x, 0) / v.length
  const [meanA, meanB] = [mean(a), mean(b)]
  let [ab, aa, bb] = [0, 0, 0]
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i]! - meanA, b[i]! - meanB]
    ab += x * y
    aa += x * x
    bb += y * y
  }
  return ab / Math.sqrt(aa * bb)
}

function ranking(row: Float32Array): { top: number; margin: number } {
  const order = Array.from(row.keys()).sort((a, b) => row[b]! - row[a]!)
  return { top: order[0]!, margin: row[order[0]!]! - row[order[1]!]! }
}

describe('a Q1_0 model with Qwen3 architecture', () => {
  const peer = peerRows()
  let folder = ''
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'onebit-qwen3-'))
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  /** Our logits at the fixture's positions, in f32 mode. */
  async function ourRows(name: string, options: TinyQwen3Options): Promise<Float32Array[]> {
    const source = join(folder, `${name}.gguf`)
    const target = join(folder, `${name}.obt`)
    writeFileSync(source, tinyQwen3(options))
    await convert(source, target)
    const model = await Model.load(target, { activations: 'f32' })
    try {
      const session = model.createSession({ kv: 'f32' })
      const { data: logits } = await session.logits(tokens, { all: true })
      return positions.map((position) => logits.subarray(position * V, (position + 1) * V))
    } finally {
      await model.dispose()
    }
  }

  const meanCosine = (ours: Float32Array[]) =>
    ours.reduce((sum, row, i) => sum + cosine(row, peer[i]!), 0) / ours.length

  it('is the same file that llama.cpp read', () => {
    expect(createHash('sha256').update(tinyQwen3()).digest('hex')).toBe(fixture.gguf_sha256)
    expect(tinyQwen3Prompt()).toEqual(tokens)
  })

  it('gives llama.cpp’s logits: cosine >= 0.999 at every position, the same first choice where it is clear', async () => {
    const ours = await ourRows('same', {})
    const clear = ours.map(ranking).filter(({ margin }) => margin > 0.1)
    expect(clear.length).toBeGreaterThan(positions.length / 2)
    ours.forEach((row, i) => {
      expect(cosine(row, peer[i]!), `position ${positions[i]}`).toBeGreaterThanOrEqual(0.999)
      const { top, margin } = ranking(row)
      if (margin > 0.1) expect(top, `position ${positions[i]}`).toBe(ranking(peer[i]!).top)
    })
  })

  // Were these not noticed, the comparison above could not fail for what it is there to catch.
  it.each<[string, TinyQwen3Options]>([
    ['without q norm weights', { qNorm: false }],
    ['with another RoPE theta', { ropeTheta: 100 }],
    ['with positions scaled away', { ropeLinearFactor: 1e6 }],
  ])('differs %s: mean cosine < 0.99', async (name, options) => {
    expect(meanCosine(await ourRows(name.replaceAll(' ', '-'), options))).toBeLessThan(0.99)
  })
})
