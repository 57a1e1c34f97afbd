/**
 * Trail of Bits' findings about safetensors and their relatives: duplicate keys, other spellings of the same JSON, files
 * that are two formats at once. A `.obt` header has one legal form, byte for byte, so a second reader cannot see
 * anything else than we do.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import { withDefaults } from '../../dist/config/fields.js'
import { readObtHeader } from '../../dist/obt/obt.js'
import { codeOf, failure } from '../expect-code.js'
import { type Crafting, craftFile } from '../obt-crafter.js'
import { temporaryFolder, tinyConfig } from '../tiny-model.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())
const config = tinyConfig({ layers: 1 })
const configText = JSON.stringify(config)

const attempt = (bytes: Buffer | string) => {
  writeFileSync(folder.path('x.obt'), bytes)
  return codeOf(() => readObtHeader(folder.path('x.obt')))
}

/** Replaces spaces of the padding, so that the header keeps its length. */
const insert = (needle: string, replacement: string) => (text: string) => {
  const changed = text.replace(needle, () => replacement)
  expect(changed).not.toBe(text)
  const surplus = changed.length - text.length
  return surplus > 0 && changed.endsWith(' '.repeat(surplus)) ? changed.slice(0, -surplus) : changed
}

test('the file these attacks start from is good', async () => {
  writeFileSync(folder.path('good.obt'), craftFile({ config }))
  expect((await readObtHeader(folder.path('good.obt'))).config).toEqual(withDefaults(config))
})

const CASES: [string, Partial<Crafting>, string][] = [
  ['a feature that has its default', { configText: JSON.stringify({ ...config, window: 0 }) }, 'ERR_HEADER'],
  [
    'a default that follows from another field',
    { configText: JSON.stringify({ ...config, rope_dims: 32 }) },
    'ERR_HEADER',
  ],
  ['all features', { configText: JSON.stringify(withDefaults(config)) }, 'ERR_HEADER'],
  ['features in another order', { config: { ...config, window: 4, norm_bias: true } }, 'ERR_HEADER'],
  ['a key twice in the config', { configText: configText.replace('"dim":128', '"dim":64,"dim":128') }, 'ERR_HEADER'],
  [
    'a config in another order',
    { configText: JSON.stringify(Object.fromEntries(Object.entries(config).reverse())) },
    'ERR_HEADER',
  ],
  ['spaces in the config', { configText: JSON.stringify(config, null, 1) }, 'ERR_HEADER'],
  ['another spelling of a number', { configText: configText.replace('"dim":128', '"dim":1.28e2') }, 'ERR_HEADER'],
  ['an escape that need not be', { configText: configText.replace('"llama"', '"\\u006clama"') }, 'ERR_HEADER'],
  ['an unknown field', { configText: configText.replace('{', '{"extra":1,') }, 'ERR_CONFIG'],
  ['__proto__ in the config', { configText: configText.replace('{', '{"__proto__":{"dim":8},') }, 'ERR_CONFIG'],
  [
    '__proto__ among the kinds',
    { configText: configText.replace('"linears":{', '"linears":{"__proto__":{"kind":"q1_0","bias":false},') },
    'ERR_CONFIG',
  ],
  [
    'a kind for a layer that is not there',
    { configText: configText.replace('"linears":{', '"linears":{"9.wq":{"kind":"q1_0","bias":false},') },
    'ERR_CONFIG',
  ],
  [
    'a kind without its fields',
    { configText: JSON.stringify({ ...config, linears: { ...config.linears, wq: { kind: 'sign' } } }) },
    'ERR_CONFIG',
  ],
  [
    'an unknown kind',
    { configText: JSON.stringify({ ...config, linears: { ...config.linears, wq: { kind: 'ternary', bias: false } } }) },
    'ERR_CONFIG',
  ],
  ['a rank that is no multiple of 8', { configText: configText.replace('"rank":0', '"rank":12') }, 'ERR_CONFIG'],
  ['an epsilon of zero', { configText: configText.replace('"norm_eps":0.00001', '"norm_eps":0') }, 'ERR_CONFIG'],
  ['an infinite theta', { configText: configText.replace('"rope_theta":10000', '"rope_theta":1e999') }, 'ERR_CONFIG'],
  ['a config that is no object', { configText: '[]' }, 'ERR_CONFIG'],
  ['a config that is no JSON', { configText: '{' }, 'ERR_HEADER'],
  ['the provenance is a list', { provenanceText: '[]' }, 'ERR_HEADER'],
  ['__proto__ in the provenance', { provenanceText: '{"__proto__":{"source":"x"}}' }, 'ERR_HEADER'],
  ['a provenance nested deeply', { provenanceText: `{"a":${'['.repeat(1000)}${']'.repeat(1000)}}` }, 'ERR_HEADER'],
  [
    'a config nested deeply',
    { configText: configText.replace('"llama"', `${'['.repeat(1e5)}${']'.repeat(1e5)}`) },
    'ERR_HEADER',
  ],
  [
    'a tensor nested deeply',
    { text: (text) => text.replace('"shape":[', `"shape":[${'['.repeat(64e3)}${']'.repeat(64e3)},`) },
    'ERR_HEADER',
  ],
  [
    'a config nested deeply',
    { configText: configText.replace('"llama"', `${'['.repeat(1e5)}${']'.repeat(1e5)}`) },
    'ERR_HEADER',
  ],
  [
    'a tensor nested deeply',
    { text: (text) => text.replace('"shape":[', `"shape":[${'['.repeat(64e3)}${']'.repeat(64e3)},`) },
    'ERR_HEADER',
  ],
  ['a key twice in the provenance', { provenanceText: '{"a":1,"a":2}' }, 'ERR_HEADER'],
  ['__metadata__ twice', { text: insert('"norm":{', '"__metadata__":{},"norm":{') }, 'ERR_NOT_OBT'],
  ['a tensor twice', { text: insert('"norm":{', '"norm":{"dtype":"F32"},"norm":{') }, 'ERR_HEADER'],
  [
    'a field more in a tensor',
    { entries: (all) => [{ ...all[0]!, value: { ...all[0]!.value, extra: 1 } as never }, ...all.slice(1)] },
    'ERR_TENSOR_TABLE',
  ],
  ['a field more in the metadata', { metadata: (all) => ({ author: 'me', ...all }) }, 'ERR_HEADER'],
  ['metadata that is no text', { metadata: (all) => ({ ...all, config: 1 }) }, 'ERR_HEADER'],
  ['version 2', { metadata: (all) => ({ ...all, version: '2' }) }, 'ERR_VERSION'],
  ['no version', { metadata: ({ version, ...all }) => (version ? all : all) }, 'ERR_VERSION'],
  ['another format', { metadata: (all) => ({ ...all, format: 'pt' }) }, 'ERR_NOT_OBT'],
  ['no checksums', { metadata: ({ crc32c, ...all }) => (crc32c ? all : all) }, 'ERR_HEADER'],
  [
    'a checksum too few',
    { metadata: (all) => ({ ...all, crc32c: JSON.stringify({ tensors: '0'.repeat(8), header: '00000000' }) }) },
    'ERR_HEADER',
  ],
  [
    'checksums in capitals',
    {
      metadata: (all) => ({
        ...all,
        crc32c: (all.crc32c as string).replace(/[a-f]/, (c) => c.toUpperCase()).replace('TENSORS', 'tensors'),
      }),
    },
    'ERR_HEADER',
  ],
  ['a wrong checksum', { keepCrc: true }, 'ERR_CHECKSUM'],
  ['padding of another kind', { text: (text) => text.replace(/ $/, '\n') }, 'ERR_HEADER'],
  ['more padding than needed', { text: (text) => text.padEnd(text.length + 64, ' ') }, 'ERR_HEADER'],
  ['a byte order mark', { text: (text) => `\uFEFF${text}` }, 'ERR_NOT_OBT'],
]

test.each(CASES)('%s', async (_, crafting, code) => {
  expect(await attempt(craftFile({ config, ...crafting }))).toBe(code)
})

test('other formats, and files that are none', async () => {
  expect(await attempt(Buffer.alloc(0))).toBe('ERR_TRUNCATED')
  expect(await attempt('GGUF and so on, a file of some length')).toBe('ERR_NOT_OBT')
  expect(await attempt(Buffer.alloc(4096))).toBe('ERR_NOT_OBT')
  const zip = craftFile({ config })
  expect(await attempt(Buffer.concat([Buffer.from('PK\x03\x04'), zip]))).toBe('ERR_NOT_OBT')
  expect(await attempt(Buffer.concat([zip, Buffer.from('PK\x05\x06'), Buffer.alloc(18)]))).toBe('ERR_FILE_SIZE')
  const invalid = Buffer.from(zip)
  invalid[40] = 0xff
  expect(await attempt(invalid)).toBe('ERR_HEADER')
})

test('paths that are no files', async () => {
  mkdirSync(folder.path('folder.obt'))
  expect(await codeOf(() => readObtHeader(folder.path('folder.obt')))).toBe('ERR_IS_DIRECTORY')
  expect(await codeOf(() => readObtHeader(folder.path('absent.obt')))).toBe('ERR_FILE_NOT_FOUND')
  expect(await codeOf(() => readObtHeader(folder.path('good.obt/x')))).toBe('ERR_FILE_NOT_FOUND')
  if (process.platform !== 'win32') expect(await codeOf(() => readObtHeader('/dev/zero'))).toBe('ERR_NOT_A_FILE')
})

test('the message says which byte differs', async () => {
  writeFileSync(folder.path('x.obt'), craftFile({ config, text: (text) => text.replace(/ $/, '\n') }))
  const { message, hint } = await failure(() => readObtHeader(folder.path('x.obt')))
  expect(message).toMatch(/at byte \d+$/)
  expect(message.startsWith(folder.path('x.obt'))).toBe(true)
  expect(hint).toBeDefined()
})
