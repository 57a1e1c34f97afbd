/**
 * Files of version 1: models from before a config named features, and a saved session. They open, mean the same, and are written
 * byte for byte.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { validateConfig } from '../dist/config/config-check.js'
import { Model, Session } from '../dist/index.js'
import { readObtHeader, writeObt } from '../dist/obt/obt.js'
import { PROJECT } from './data.js'
import { readBlob } from './read-blob.js'
import { readTensors } from './read-tensors.js'
import { temporaryFolder } from './tiny-model.js'

const FOLDER = join(PROJECT, 'test/fixtures/version-1')
const folder = temporaryFolder()
afterAll(() => folder.remove())

const expected = JSON.parse(readFileSync(join(FOLDER, 'logits.json'), 'utf8')) as {
  ids: number[]
  models: Record<string, { last_logits: number[] }>
}

describe.each(Object.keys(expected.models))('%s', (name) => {
  const path = join(FOLDER, `${name}.obt`)

  it('opens, with every feature as it was', async () => {
    const { config } = await readObtHeader(path)
    expect(config).toMatchObject({
      norm: 'rms',
      norm_bias: false,
      positions: 'rotary',
      position_offset: 0,
      rope_dims: config.head_dim,
      qk_norm: name === 'qwen3-q1_0',
      attention_inner_norm: false,
      window: 0,
      output_gate: false,
      feed_forward: 'gated',
      activation: 'silu',
      ffn_inner_norm: false,
      parallel_residual: false,
    })
    expect(validateConfig(config)).toEqual(config)
  })

  it('is written again byte for byte', async () => {
    const header = await readObtHeader(path)
    const tensors = await readTensors(path)
    const out = folder.path(`${name}.obt`)
    const { config, provenance } = header
    const chatTemplate = await readBlob(header, 'chat_template')
    await writeObt(out, { config, provenance, chatTemplate }, async function* (spec) {
      yield tensors.get(spec.name)!
    })
    expect(readFileSync(out).equals(readFileSync(path))).toBe(true)
  })

  it('gives the logits of the engine of that day', async () => {
    const model = await Model.load(path, { activations: 'f32', kv: 'f32' })
    const { data } = await model.createSession().logits(expected.ids)
    const { last_logits } = expected.models[name]!
    expect(data.length).toBe(last_logits.length)
    for (const [i, logit] of last_logits.entries()) expect(Math.abs(data[i]! - logit)).toBeLessThan(2e-5)
    await model.dispose()
  })
})

it('a session that was saved goes on, and is written again byte for byte', async () => {
  await using model = await Model.load(join(FOLDER, 'dense-bias-yarn.obt'))
  const path = join(FOLDER, 'dense-bias-yarn.session')
  const session = await Session.restore(model, path)
  expect([...session.tokens]).toEqual(expected.ids)
  expect(session.extra).toBe('of version 0.1.0')
  const out = folder.path('again.session')
  await session.save(out, { extra: session.extra! })
  expect(readFileSync(out).equals(readFileSync(path))).toBe(true)
  // A later engine may round otherwise, so this is not about bytes.
  const { data } = await session.logits([1])
  const { data: afresh } = await model.createSession().logits([...expected.ids, 1])
  for (const [i, logit] of afresh.entries()) expect(Math.abs(data[i]! - logit)).toBeLessThan(1e-3)
})
