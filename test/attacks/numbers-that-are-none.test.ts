/** NaN and infinity in weights and scales: they would spread to every logit. Found when converting and when loading. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import { writtenConfig } from '../../dist/config/fields.js'
import { convert } from '../../dist/convert/convert.js'
import { readObtHeader } from '../../dist/obt/obt.js'
import { Model } from '../../dist/run/model.js'
import { codeOf, failure } from '../expect-code.js'
import { craftFile } from '../obt-crafter.js'
import { temporaryFolder, writeTinyModel } from '../tiny-model.js'
import { safetensorsFile, tinyHfConfig, tinyTensors, writeFolder } from '../tiny-source.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

describe('in a source', () => {
  test.each([
    ['NaN', Number.NaN, 'f32'],
    ['infinity', Number.POSITIVE_INFINITY, 'q8'],
    ['NaN', Number.NaN, 'q8'],
    ['NaN', Number.NaN, 'onebit'],
    ['NaN', Number.NaN, 'bf16'],
    ['a number too large for f16', 70000, 'f16'],
  ] as const)('%s, converted to %3$s', async (_, value, type) => {
    const tensors = tinyTensors()
    const spoiled = tensors.find(({ name }) => name.endsWith('1.mlp.up_proj.weight'))!
    spoiled.values[5 * 16 + 3] = value
    const source = writeFolder(folder.path('model'), tinyHfConfig(), { 'model.safetensors': safetensorsFile(tensors) })
    const { code, message } = await failure(() => convert(source, folder.path('out.obt'), { type }))
    expect(code).toBe('ERR_NOT_FINITE')
    expect(message).toContain('model.layers.1.mlp.up_proj.weight')
    expect(message).toContain('row 5, column 3')
    expect(existsSync(folder.path('out.obt'))).toBe(false)
  })
})

describe('in a .obt file with right checksums', () => {
  test.each(['layers.0.wq.h', 'layers.1.w2.g', 'layers.0.attention_norm', 'norm', 'tok_embeddings.scale'])(
    '%s',
    async (name) => {
      const path = folder.path('good.obt')
      await writeTinyModel(path, { kind: 'sign' })
      const header = await readObtHeader(path)
      const data = readFileSync(path).subarray(header.headerBytes)
      const { offset } = header.tensors.find(({ spec }) => spec.name === name)!
      for (const value of [Number.NaN, Number.NEGATIVE_INFINITY]) {
        data.writeFloatLE(value, offset - header.headerBytes + 4)
        const { blobs } = header
        const config = writtenConfig(header.config)
        writeFileSync(
          folder.path('bad.obt'),
          craftFile({ config, blobs, provenanceText: JSON.stringify(header.provenance), data }),
        )
        expect(await codeOf(() => Model.load(folder.path('bad.obt')))).toBe('ERR_NOT_FINITE')
      }
    },
  )
})
