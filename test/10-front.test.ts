/** What stands in front of a matrix: a norm of its own, a rotation. In a config, in the table of tensors, and in the engine. */
import { afterAll, describe, expect, it } from 'vitest'
import type { WrittenConfig } from '../dist/config/config.js'
import { validateConfig } from '../dist/config/config-check.js'
import { writtenConfig } from '../dist/config/fields.js'
import type { Front } from '../dist/config/front.js'
import type { LinearKind } from '../dist/config/kinds.js'
import { linearKindSummary } from '../dist/config/model-size.js'
import { tensorTable } from '../dist/config/tensors.js'
import { Model } from '../dist/index.js'
import { addon } from '../dist/native/addon.js'
import { writeObt } from '../dist/obt/obt.js'
import { nativeModelOptions } from '../dist/run/loaded-model.js'
import { checkModelOptions } from '../dist/run/model-options.js'
import { codeOf, failure } from './expect-code.js'
import { KINDS, type KindName, temporaryFolder, tinyConfig } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(folder.remove)

const NO_BLOBS = { tokenizer: 0, chat_template: 0 }
const ROTATED = { rotation: { block: 64, signs: true } }

/** A small model whose wq and w2 have something in front of them, and its embedding too. */
function withFront(front: Front, embedding: Front = {}, kind: KindName = 'f32'): WrittenConfig {
  const plain = tinyConfig({ layers: 1, kind, embedding: 'f32' })
  const table = { ...plain.embedding, ...embedding } as LinearKind
  const linears = { ...plain.linears, wq: { ...KINDS[kind], ...front }, w2: { ...KINDS[kind], ...front } }
  return { ...plain, embedding: table, head: table, linears }
}

describe('in a config', () => {
  it('is left out where there is none, and written in one order', () => {
    const plain = tinyConfig({ layers: 1 })
    expect(JSON.stringify(writtenConfig(validateConfig(plain)))).toBe(JSON.stringify(plain))
    const given = withFront({ rotation: { signs: false, block: 8 } as Front['rotation'] & object, norm_in: true })
    const { linears } = writtenConfig(validateConfig(given))
    expect(JSON.stringify(linears.wq)).toBe(
      '{"kind":"dense","dtype":"f32","bias":false,"norm_in":true,"rotation":{"block":8,"signs":false}}',
    )
  })

  it.each(Object.keys(KINDS) as KindName[])('may stand before %s', (kind) => {
    const config = validateConfig(withFront({ norm_in: true, ...ROTATED }, ROTATED, kind))
    expect(config.linears.wq).toEqual({ ...KINDS[kind], norm_in: true, ...ROTATED })
    expect(linearKindSummary(config)[1]!.kind).toContain(', norm in front, rotated in blocks of 64')
  })

  it.each<[string, object, string]>([
    ['a block that is no power of two', { rotation: { block: 24, signs: false } }, 'wq.rotation.block'],
    ['a block that does not divide', { rotation: { block: 256, signs: false } }, 'wq.rotation.block'],
    ['a block of 1', { rotation: { block: 1, signs: false } }, 'wq.rotation.block'],
    ['signs that are no truth value', { rotation: { block: 8, signs: 1 } }, 'wq.rotation.signs'],
    ['a rotation without signs or not', { rotation: { block: 8 } }, 'wq.rotation.signs'],
    ['a rotation that is null', { rotation: null }, 'wq.rotation'],
    ['more than is known', { rotation: { block: 8, signs: true, axis: 1 } }, 'wq.rotation.axis'],
    ['a norm that is false', { norm_in: false }, 'wq.norm_in'],
    ['another key', { norm_out: true }, 'wq.norm_out'],
  ])('%s is an error that names it', async (_, front, name) => {
    const error = await failure(() => validateConfig(withFront(front as Front)))
    expect([error.code, error.message]).toEqual(['ERR_CONFIG', expect.stringContaining(`config.linears.${name}`)])
  })

  it('an embedding has no norm in front', async () => {
    const error = await failure(() => validateConfig(withFront({}, { norm_in: true })))
    expect([error.code, error.message]).toEqual(['ERR_CONFIG', expect.stringContaining('config.embedding.norm_in')])
  })
})

describe('the tensors of it', () => {
  it('are a norm before the weight, and one set of signs for each width', () => {
    const table = tensorTable(validateConfig(withFront({ norm_in: true, ...ROTATED }, ROTATED)), NO_BLOBS)
    const found = table.filter(({ name }) => name.includes('.wq') || name.includes('rotation'))
    expect(found.map(({ name, dtype, shape, part }) => [name, dtype, shape, part])).toEqual([
      ['layers.0.wq.norm_in', 'F32', [128], 'linear'],
      ['layers.0.wq.weight', 'F32', [128, 128], 'linear'],
      ['rotation_signs.128', 'U8', [16], 'rotation'],
      ['rotation_signs.256', 'U8', [32], 'rotation'],
    ])
    expect(table.at(-1)!.name).toBe('rotation_signs.256')
  })

  it('are none without signs', () => {
    const table = tensorTable(validateConfig(withFront({ rotation: { block: 64, signs: false } })), NO_BLOBS)
    expect(table.some(({ name }) => name.startsWith('rotation'))).toBe(false)
  })
})

describe('the engine', () => {
  const tried = (front: Front, embedding: Front = {}) => {
    const config = { ...validateConfig(tinyConfig({ layers: 1 })), ...withFront(front, embedding) }
    return codeOf(() => addon().fillModel(nativeModelOptions(config, checkModelOptions({}))))
  }

  it.each<[string, Front, Front]>([
    ['a block that does not divide', { rotation: { block: 256, signs: true } }, {}],
    ['a block that is no power of two', { rotation: { block: 12, signs: true } }, {}],
    ['a block of 1', { rotation: { block: 1, signs: true } }, {}],
    ['a norm before the embedding', {}, { norm_in: true }],
  ])('refuses %s by itself too', async (_, front, embedding) => {
    expect(await tried(front, embedding)).toBe('ERR_CONFIG')
  })

  it('loads it from a file', async () => {
    const random = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 37 + 11) % 251)
    const bytes = (name: string, size: number) =>
      name.startsWith('rotation')
        ? random(size)
        : new Uint8Array(Float32Array.from({ length: size / 4 }, (_, i) => 0.1 + ((i * 7) % 13) / 100).buffer)
    const path = folder.path('front.obt')
    const config = withFront({ norm_in: true, ...ROTATED }, ROTATED)
    await writeObt(
      path,
      { config, provenance: {}, tokenizer: undefined, chatTemplate: undefined },
      async function* (spec) {
        yield bytes(
          spec.name,
          spec.shape.reduce((product, size) => product * size, spec.dtype === 'U8' ? 1 : 4),
        )
      },
    )
    const model = await Model.load(path)
    expect(model.config.linears.wq).toMatchObject({ norm_in: true, ...ROTATED })
    expect((await model.createSession().logits([1, 2, 3])).data.every(Number.isFinite)).toBe(true)
    await model.dispose()
  })
})
