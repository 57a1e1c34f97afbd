/** GPT-NeoX (Pythia) against transformers: one matrix for queries, keys and values, parallel residual, a quarter of each head rotated. */
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Model } from '../dist/index.js'
import { dataFile, missing } from './data.js'
import { failure } from './expect-code.js'
import { expectClose, FAMILY, familyRuns, loadExactly, WAYS } from './family.js'
import { neoxGguf } from './family-gguf.js'
import { temporaryFolder } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(folder.remove)

describe.skipIf(missing(`${FAMILY}/gpt_neox/logits-a.npy`))('GPT-NeoX', () => {
  const source = dataFile(`${FAMILY}/gpt_neox/hf`)
  let model: Model
  beforeAll(async () => {
    model = await loadExactly(source, folder.path('neox.obt'))
  })
  afterAll(() => model?.dispose())

  it('is what its config says', () => {
    expect(model.config).toMatchObject({
      architecture: 'gpt_neox',
      norm: 'layer',
      norm_bias: true,
      rope_dims: 8,
      head_dim: 32,
      feed_forward: 'plain',
      activation: 'gelu',
      parallel_residual: true,
      tied_head: false,
    })
    expect(Object.values(model.config.linears).every(({ bias }) => bias)).toBe(true)
  })

  it.each(Object.keys(WAYS))('gives its logits %s', async (way) => {
    for (const { ids, logits } of familyRuns('gpt_neox')) expectClose(await WAYS[way]!(model, ids), logits)
  })

  it('runs from its folder as it is', async () => {
    const direct = await Model.load(source, { activations: 'f32', kv: 'f32' })
    for (const { ids, logits } of familyRuns('gpt_neox')) expectClose(await WAYS['at once']!(direct, ids), logits)
    await direct.dispose()
  })

  it('runs from a GGUF file too', async () => {
    const path = folder.path('neox.gguf')
    writeFileSync(path, neoxGguf())
    const other = await Model.load(path, { activations: 'f32', kv: 'f32' })
    expect(other.config).toMatchObject({ ...model.config, norm_eps: 1e-5 })
    for (const { ids, logits } of familyRuns('gpt_neox')) expectClose(await WAYS['at once']!(other, ids), logits)
    await other.dispose()
    writeFileSync(path, neoxGguf({ 'gptneox.use_parallel_residual': { bool: false } }))
    const sequential = await Model.load(path)
    expect(sequential.config.parallel_residual).toBe(false)
    await sequential.dispose()
    writeFileSync(path, neoxGguf({ 'gptneox.attention.clamp_kqv': { f32: 8 } }))
    expect((await failure(() => Model.load(path))).message).toContain('attention.clamp_kqv')
  })

  it('that computes something else is refused by the key', async () => {
    const other = folder.path('other')
    cpSync(source, other, { recursive: true })
    const config = JSON.parse(readFileSync(`${source}/config.json`, 'utf8'))
    for (const [key, value] of [['hidden_act', 'silu']]) {
      writeFileSync(`${other}/config.json`, JSON.stringify({ ...config, [key as string]: value }))
      const error = await failure(() => Model.load(other))
      expect([error.code, error.message]).toEqual([
        'ERR_UNSUPPORTED_ARCHITECTURE',
        expect.stringContaining(`gpt_neox with ${key} ${JSON.stringify(value)}`),
      ])
    }
  })
})
