/** Rotated weights (Bonsai 2) against transformers on the weights before the rotation, by every way to the same logits. */
import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import { Model } from '../dist/index.js'
import { dataFile, missing } from './data.js'
import { expectClose, goldenRuns, WAYS } from './family.js'
import { temporaryFolder } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(folder.remove)

const GOLDEN = 'golden/prism-hadamard'
/** As the README of the golden files says. */
const TOLERANCE = { max: 2e-3, rms: 2e-4 }
const EXACT = { activations: 'f32', kv: 'f32' } as const

const CASES: Golden[] = [
  { name: 'tied-v2', file: 'model.f32.gguf', order: 'grouped', block: 32, signs: true },
  { name: 'partial-identity', file: 'model.f32.gguf', order: 'tiled', block: 64, signs: false },
  { name: 'bonsai', file: 'model.pq2_0.gguf', order: 'grouped', block: 128, signs: true, group: 128 },
  { name: 'bonsai', file: 'model.ptq1_0.gguf', order: 'grouped', block: 128, signs: true, group: 128 },
  { name: 'bonsai', file: 'model.q2_0.gguf', order: 'grouped', block: 128, signs: true, group: 64 },
]

interface Golden {
  name: string
  file: string
  order: string
  block: number
  signs: boolean
  /** columns of a scale, of ternary ones */
  group?: number
}

const isMissing = missing(...CASES.map(({ name }) => `${GOLDEN}/${name}/logits-a.npy`))

describe.skipIf(isMissing).each(CASES)('$name, $file', ({ name, file, order, block, signs, group }) => {
  const source = dataFile(`${GOLDEN}/${name}/${file}`)
  let loaded: Promise<Model> | undefined
  const model = () => (loaded ??= Model.load(source, EXACT))
  afterAll(async () => (await loaded)?.dispose())

  it('is what its keys say', async () => {
    const { linears, delta_head_order } = (await model()).config
    expect(delta_head_order).toBe(order)
    const kinds = [linears.w3, linears['1.w3']]
    expect(kinds.map((kind) => kind?.rotation)).toContainEqual({ block, signs })
    expect(linears.w1).toMatchObject(group === undefined ? { kind: 'dense' } : { kind: 'ternary', group })
    expect([linears.w_beta!.rotation, linears.w_alpha!.rotation]).toEqual([undefined, undefined])
  })

  it.each(Object.keys(WAYS))('gives its logits %s', async (way) => {
    for (const { ids, logits } of goldenRuns(`${GOLDEN}/${name}`)) {
      expectClose(await WAYS[way]!(await model(), ids), logits, TOLERANCE)
    }
  })
})

describe.skipIf(isMissing)('a rotated Qwen3.5', () => {
  const tied = () => readFileSync(dataFile(`${GOLDEN}/tied-v2/model.f32.gguf`))

  it('without the order of its value heads is another model', async () => {
    const path = folder.path('tiled.gguf')
    const bytes = tied()
    // The switch is the byte behind the name and the type of its value.
    const at = bytes.indexOf('prism.hadamard.gdn_v_grouped') + 'prism.hadamard.gdn_v_grouped'.length + 4
    expect(bytes[at]).toBe(1)
    bytes[at] = 0
    writeFileSync(path, bytes)
    const model = await Model.load(path, EXACT)
    expect(model.config.delta_head_order).toBe('tiled')
    const [run] = goldenRuns(`${GOLDEN}/tied-v2`)
    const found = await WAYS['at once']!(model, run!.ids)
    expect(() => expectClose(found, run!.logits, { max: 1, rms: 1 })).toThrow()
    await model.dispose()
  })
})
