/** OPT against transformers: LayerNorm with biases, learned positions, ReLU, by every way to the same logits. */
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Model } from '../dist/index.js'
import { dataFile, missing } from './data.js'
import { failure } from './expect-code.js'
import { expectClose, FAMILY, familyRuns, loadExactly, WAYS } from './family.js'
import { temporaryFolder } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(folder.remove)

describe.skipIf(missing(`${FAMILY}/opt/logits-a.npy`))('OPT', () => {
  const source = dataFile(`${FAMILY}/opt/hf`)
  let model: Model
  beforeAll(async () => {
    model = await loadExactly(source, folder.path('opt.obt'))
  })
  afterAll(() => model?.dispose())

  it('is what its config says', () => {
    expect(model.config).toMatchObject({
      architecture: 'opt',
      norm: 'layer',
      norm_bias: true,
      positions: 'learned',
      position_offset: 2,
      feed_forward: 'plain',
      activation: 'relu',
      tied_head: true,
    })
    expect(Object.values(model.config.linears).every(({ bias }) => bias)).toBe(true)
  })

  it.each(Object.keys(WAYS))('gives its logits %s', async (way) => {
    for (const { ids, logits } of familyRuns('opt')) expectClose(await WAYS[way]!(model, ids), logits)
  })

  it('runs from its folder as it is', async () => {
    const direct = await Model.load(source, { activations: 'f32', kv: 'f32' })
    for (const { ids, logits } of familyRuns('opt')) expectClose(await WAYS['at once']!(direct, ids), logits)
    await direct.dispose()
  })

  it('may hold the number that the first checkpoints had in their decoder', async () => {
    const other = folder.path('version')
    cpSync(source, other, { recursive: true })
    const bytes = readFileSync(`${source}/model.safetensors`)
    const end = 8 + Number(bytes.readBigUInt64LE())
    const header = JSON.parse(bytes.toString('utf8', 8, end))
    const data = bytes.subarray(end)
    header['model.decoder.version'] = { dtype: 'F32', shape: [1], data_offsets: [data.length, data.length + 4] }
    const text = Buffer.from(JSON.stringify(header))
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(text.length))
    rmSync(`${other}/model.safetensors`)
    writeFileSync(`${other}/model.safetensors`, Buffer.concat([length, text, data, Buffer.alloc(4)]))
    await (await Model.load(other)).dispose()
  })

  it('that computes something else is refused by the key', async () => {
    const other = folder.path('other')
    cpSync(source, other, { recursive: true })
    const config = JSON.parse(readFileSync(`${source}/config.json`, 'utf8'))
    for (const [key, value] of [
      ['do_layer_norm_before', false],
      ['_remove_final_layer_norm', true],
      ['layer_norm_elementwise_affine', false],
      ['word_embed_proj_dim', 32],
      ['activation_function', 'silu'],
    ]) {
      writeFileSync(`${other}/config.json`, JSON.stringify({ ...config, [key as string]: value }))
      const error = await failure(() => Model.load(other))
      expect([error.code, error.message]).toEqual([
        'ERR_UNSUPPORTED_ARCHITECTURE',
        expect.stringContaining(`opt with ${key} ${JSON.stringify(value)}`),
      ])
    }
  })
})
