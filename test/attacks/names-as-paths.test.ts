/** CVE-2024-37032 and relatives: a name in a file that is used as a path. An index may name files of its own folder. */
import { writeFileSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import { convert } from '../../dist/convert/convert.js'
import { failure } from '../expect-code.js'
import { temporaryFolder } from '../tiny-model.js'
import { safetensorsFile, tinyHfConfig, tinyTensors, writeFolder } from '../tiny-source.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

test.each([
  '../secret.safetensors',
  '/etc/passwd',
  'sub/model.safetensors',
  '..\\secret',
  'C:secret',
  '.hidden',
  '',
  'a\0b',
  'con\n',
  7,
  null,
])('a shard called %j', async (name) => {
  writeFileSync(folder.path('secret.safetensors'), safetensorsFile(tinyTensors()))
  const index = JSON.stringify({ weight_map: { 'model.norm.weight': name } })
  const source = writeFolder(folder.path('model'), tinyHfConfig(), { 'model.safetensors.index.json': index })
  const { code, message } = await failure(() => convert(source, folder.path('out.obt')))
  expect(code).toBe('ERR_BAD_SOURCE')
  expect(message).toContain('not a plain file name')
})
