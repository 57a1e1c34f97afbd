/** A column of floats beside signs: in a config, in the table of tensors, in words, and in the engine. */
import { afterAll, describe, expect, it } from 'vitest'
import { validateConfig } from '../dist/config/config-check.js'
import { writtenConfig } from '../dist/config/fields.js'
import type { LinearKind } from '../dist/config/kinds.js'
import { linearKindSummary, modelSize } from '../dist/config/model-size.js'
import { modelWords } from '../dist/config/model-words.js'
import { matrixTensors, tensorTable } from '../dist/config/tensors.js'
import { Model } from '../dist/index.js'
import { failure } from './expect-code.js'
import { KINDS, temporaryFolder, tinyConfig, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(folder.remove)

const NO_BLOBS = { tokenizer: 0, chat_template: 0 }
const CHAIN: LinearKind = { ...KINDS.chain, column: true }

const withKind = (kind: object) => {
  const plain = tinyConfig({ layers: 1, kind: 'sign' })
  return { ...plain, linears: { ...plain.linears, wq: kind as LinearKind } }
}

describe('in a config', () => {
  it('is written behind the other fields, and left out where there is none', () => {
    const { linears } = writtenConfig(validateConfig(withKind({ half: true, column: true, ...KINDS.chain })))
    expect(JSON.stringify(linears.wq)).toBe(
      '{"kind":"sign","rank":64,"mid_scale":true,"layernorm":false,"bias":false,"column":true,"half":true}',
    )
    expect(Object.keys(writtenConfig(validateConfig(withKind(KINDS.sign))).linears.wq!)).not.toContain('column')
  })

  it.each<[string, object, string]>([
    ['a column that is false', { ...KINDS.sign, column: false }, 'column'],
    ['several columns', { ...KINDS.sign, column: 2 }, 'column'],
    ['halves that are null', { ...KINDS.sign, half: null }, 'half'],
    ['a column beside int8 rows', { ...KINDS.q8, column: true }, 'column'],
    ['halves of a ternary matrix', { kind: 'ternary', group: 0, bias: false, half: true }, 'half'],
  ])('%s is an error that names it', async (_, kind, name) => {
    const error = await failure(() => validateConfig(withKind(kind)))
    expect([error.code, error.message]).toEqual(['ERR_CONFIG', expect.stringContaining(`config.linears.wq.${name}`)])
  })
})

describe('its tensors', () => {
  const shapes = (kind: LinearKind) =>
    matrixTensors('w', kind, 24, 16, 'linear').map(({ name, dtype, shape }) => [name, dtype, ...shape])

  it('follow h', () => {
    expect(shapes({ ...KINDS.sign, column: true })).toEqual([
      ['w.g', 'F32', 16],
      ['w.sign', 'U8', 24, 2],
      ['w.h', 'F32', 24],
      ['w.u', 'F32', 24],
      ['w.v', 'F32', 16],
      ['w.bias', 'F32', 24],
    ])
    expect(shapes({ ...CHAIN, half: true }).map(([name, dtype]) => `${name} ${dtype}`)).toEqual([
      'w.g F16',
      'w.sign1 U8',
      'w.mid F16',
      'w.sign2 U8',
      'w.h F16',
      'w.u F16',
      'w.v F16',
    ])
  })

  it('are counted as they are stored', () => {
    const config = validateConfig(tinyConfig({ layers: 1, kind: 'column' }))
    const size = modelSize(config, NO_BLOBS, 1)
    const weights = size.linearParameters
    const linears = tensorTable(config, NO_BLOBS).filter(({ part }) => part === 'linear')
    const vectors = linears.filter(({ dtype }) => dtype === 'F16').reduce((sum, { shape }) => sum + shape[0]!, 0)
    expect(size.bitsPerLinearWeight).toBeCloseTo(1 + (16 * vectors) / weights, 12)
  })
})

it('is said in words', () => {
  const config = validateConfig(tinyConfig({ layers: 1, kind: 'column' }))
  expect(linearKindSummary(config)).toEqual([{ kind: 'signs with g and h (f16), a column of floats', count: 7 }])
  expect(modelWords(config, 1.1)).toContain('columns of floats beside the signs')
})

describe('the engine', () => {
  /** Logits of a prompt, the tensors that end so being zero. */
  async function logits(zeroed: string): Promise<number[]> {
    const path = folder.path(`column${zeroed}.obt`)
    await writeTinyModel(path, {
      kind: 'column',
      change: (name, bytes) => {
        if (zeroed !== '' && name.endsWith(zeroed)) bytes.fill(0)
      },
    })
    const model = await Model.load(path)
    const { data } = await model.createSession().logits(Int32Array.of(1, 2, 3, 4, 5))
    await model.dispose()
    return [...data]
  }

  it('adds it', async () => {
    const [whole, withoutU, withoutV] = [await logits(''), await logits('.u'), await logits('.v')]
    expect(withoutU).toEqual(withoutV)
    expect(whole).not.toEqual(withoutU)
  })

  it('refuses one that is not finite', async () => {
    const path = folder.path('infinite.obt')
    await writeTinyModel(path, {
      kind: 'column',
      change: (name, bytes) => {
        if (name === 'layers.1.w2.v') bytes.set([0, 0x7c], 2 * 9)
      },
    })
    const error = await failure(() => Model.load(path))
    expect([error.code, error.message]).toEqual(['ERR_NOT_FINITE', expect.stringContaining('layers.1.w2.v')])
    expect(error.message).toContain('element 9')
  })
})
