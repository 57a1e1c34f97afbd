/** BitNet and other ternary folders against transformers, by every way to the same logits; and GGUF files of them. */
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Model } from '../dist/index.js'
import { dataFile, missing } from './data.js'
import { failure } from './expect-code.js'
import { expectClose, goldenRuns, loadExactly, WAYS } from './family.js'
import { temporaryFolder } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(folder.remove)

const BITNET = 'golden/bitnet'
const EXACT = { activations: 'f32', kv: 'f32' } as const

/** As the golden files' README says. */
const TOLERANCE = { max: 5e-4, rms: 5e-5 }

const CASES = {
  'offline-2b4t': { architecture: 'bitnet', activation: 'relu2', attention_inner_norm: true, ffn_inner_norm: true },
  'online-master': { architecture: 'bitnet', activation: 'relu2', attention_inner_norm: true, ffn_inner_norm: true },
  'silu-arch-bitnet': { architecture: 'bitnet', activation: 'silu', attention_inner_norm: true, ffn_inner_norm: true },
  'falcon-style': { architecture: 'llama', activation: 'silu', attention_inner_norm: false, ffn_inner_norm: false },
} as const

const isMissing = missing(...Object.keys(CASES).map((name) => `${BITNET}/${name}/logits-float-a.npy`))

describe.skipIf(isMissing).each(Object.entries(CASES))('%s', (name, features) => {
  const source = dataFile(`${BITNET}/${name}/hf`)
  let model: Model
  beforeAll(async () => {
    model = await loadExactly(source, folder.path(`${name}.obt`))
  })
  afterAll(() => model?.dispose())

  it('is what its config says', () => {
    expect(model.config).toMatchObject(features)
  })

  it.each(Object.keys(WAYS))('gives its logits %s', async (way) => {
    for (const { ids, logits } of goldenRuns(`${BITNET}/${name}`, 'logits-float')) {
      expectClose(await WAYS[way]!(model, ids), logits, TOLERANCE)
    }
  })

  it('runs from its folder as it is', async () => {
    const direct = await Model.load(source, EXACT)
    for (const { ids, logits } of goldenRuns(`${BITNET}/${name}`, 'logits-float')) {
      expectClose(await WAYS['at once']!(direct, ids), logits, TOLERANCE)
    }
    await direct.dispose()
  })
})
