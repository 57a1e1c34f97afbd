/** Qwen2 against transformers: a folder and a GGUF file of the same weights, by every way to the same logits. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Model } from '../dist/index.js'
import { dataFile, missing } from './data.js'
import { codeOf } from './expect-code.js'
import { expectClose, FAMILY, familyRuns, loadExactly, WAYS } from './family.js'
import { familyGguf } from './family-gguf.js'
import { temporaryFolder } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(folder.remove)

describe.skipIf(missing(`${FAMILY}/qwen2/logits-a.npy`))('Qwen2', () => {
  let model: Model
  beforeAll(async () => {
    model = await loadExactly(dataFile(`${FAMILY}/qwen2/hf`), folder.path('qwen2.obt'))
  })
  afterAll(() => model?.dispose())

  it('has biases on q, k and v only, and no window that it does not use', () => {
    const { architecture, qk_norm, window, linears } = model.config
    expect({ architecture, qk_norm, window }).toEqual({ architecture: 'qwen2', qk_norm: false, window: 0 })
    const biased = Object.entries(linears).filter(([, { bias }]) => bias)
    expect(biased.map(([role]) => role)).toEqual(['wq', 'wk', 'wv'])
  })

  it.each(Object.keys(WAYS))('gives its logits %s', async (way) => {
    for (const { ids, logits } of familyRuns('qwen2')) expectClose(await WAYS[way]!(model, ids), logits)
  })

  it('gives them from a GGUF file too', async () => {
    const path = folder.path('qwen2.gguf')
    writeFileSync(path, familyGguf('qwen2', 'qwen2'))
    const other = await loadExactly(path, folder.path('qwen2-gguf.obt'))
    expect(other.config).toMatchObject({ architecture: 'qwen2', rope_style: 'half', window: 0 })
    for (const { ids, logits } of familyRuns('qwen2')) expectClose(await WAYS['at once']!(other, ids), logits)
    await other.dispose()
  })

  it('is not a Llama: read as one, its biases are taken and its rotation is another', async () => {
    const path = folder.path('llama.gguf')
    // The rows of q and k are reordered as llama files have them, but not their biases.
    writeFileSync(path, familyGguf('qwen2', 'llama'))
    const other = await loadExactly(path, folder.path('llama.obt'))
    const [run] = familyRuns('qwen2')
    const found = await WAYS['at once']!(other, run!.ids)
    expect(() => expectClose(found, run!.logits)).toThrow()
    await other.dispose()
  })

  it('without one of its biases is an error', async () => {
    const path = folder.path('no-bias.gguf')
    const whole = familyGguf('qwen2', 'qwen2')
    // The name is as long, so everything stays where it is.
    whole.write('blk.3.attn_x.bias', whole.indexOf('blk.3.attn_k.bias'))
    writeFileSync(path, whole)
    expect(await codeOf(() => loadExactly(path, join(folder.path('x.obt'))))).toBe('ERR_MISSING_TENSOR')
  })
})
