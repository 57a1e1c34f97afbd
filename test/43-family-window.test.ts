/** Mistral against transformers: a sliding window of 8 in every layer. A GGUF file of the same weights is a llama. */
import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Model } from '../dist/index.js'
import { dataFile, missing } from './data.js'
import { expectClose, FAMILY, familyRuns, loadExactly, WAYS } from './family.js'
import { familyGguf } from './family-gguf.js'
import { temporaryFolder } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(folder.remove)

describe.skipIf(missing(`${FAMILY}/mistral/logits-a.npy`))('Mistral', () => {
  let model: Model
  beforeAll(async () => {
    model = await loadExactly(dataFile(`${FAMILY}/mistral/hf`), folder.path('mistral.obt'))
  })
  afterAll(() => model?.dispose())

  it('has a window of 8', () => {
    expect(model.config).toMatchObject({ architecture: 'mistral', window: 8, head_dim: 32, tied_head: false })
  })

  it.each(Object.keys(WAYS))('gives its logits %s', async (way) => {
    for (const { ids, logits } of familyRuns('mistral')) expectClose(await WAYS[way]!(model, ids), logits)
  })

  it.each([
    ['the same window', 8, true],
    ['a window of one more', 9, false],
    ['no window', 0, false],
  ])('a llama GGUF file with %s', async (_, window, same) => {
    const path = folder.path(`window-${window}.gguf`)
    writeFileSync(path, familyGguf('mistral', 'llama', { 'llama.attention.sliding_window': { u32: window } }))
    const other = await loadExactly(path, folder.path(`window-${window}.obt`))
    expect(other.config).toMatchObject({ architecture: 'llama', rope_style: 'interleaved', window })
    for (const { ids, logits } of familyRuns('mistral')) {
      const found = await WAYS['at once']!(other, ids)
      if (same) expectClose(found, logits)
      else expect(() => expectClose(found, logits)).toThrow()
    }
    await other.dispose()
  })
})
