/** The JSON and text files of a Hugging Face folder as Python and editors write them. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { convert } from '../dist/convert/convert.js'
import { Model } from '../dist/run/model.js'
import { failure } from './expect-code.js'
import { temporaryFolder } from './tiny-model.js'
import { safetensorsFile, tinyHfConfig, tinyTensors, writeFolder } from './tiny-source.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

const weights = safetensorsFile(tinyTensors())
const out = folder.path('out.obt')
const source = folder.path('source')
const TOKENIZER = {
  added_tokens: [{ id: 2, content: '</s>', special: true }],
  pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
  decoder: { type: 'ByteLevel' },
  model: { type: 'BPE', vocab: { a: 0, b: 1 }, merges: [] },
}

function write(files: Record<string, string | Uint8Array>): void {
  const all = { 'model.safetensors': weights, 'tokenizer.json': JSON.stringify(TOKENIZER), ...files }
  writeFolder(source, tinyHfConfig(), {})
  for (const [name, content] of Object.entries(all)) writeFileSync(join(source, name), content)
}

/** config.json with a line more, which Python may have written and JSON.stringify would not. */
const configWith = (line: string) => JSON.stringify(tinyHfConfig(), null, 2).replace('{', `{\n  ${line},`)

describe('numbers that only Python writes', () => {
  test.each(['"initializer_range": NaN', '"loss": {"scale": [Infinity, -Infinity, NaN]}'])(
    'do not matter in fields that do not: %s',
    async (line) => {
      write({
        'config.json': configWith(line),
        'tokenizer_config.json': '{"model_max_length": Infinity, "eos_token": "</s>"}',
        'generation_config.json': '{"temperature": NaN, "eos_token_id": 2}',
      })
      await convert(source, out)
      const model = await Model.load(out)
      expect(Array.from(await model.encode('ab'))).toEqual([0, 1])
      await model.dispose()
    },
  )

  test.each([
    ['rms_norm_eps', 'NaN'],
    ['rope_theta', 'Infinity'],
    ['hidden_size', '-Infinity'],
    ['max_position_embeddings', 'NaN'],
  ])('%s: %s is an error that names the field and what it found', async (field, value) => {
    const config = JSON.stringify({ ...tinyHfConfig(), [field]: 'HERE' }).replace('"HERE"', value)
    write({ 'config.json': config })
    const { code, message } = await failure(() => convert(source, out))
    expect(code).toBe('ERR_BAD_SOURCE')
    expect(message).toContain(`config.json: ${field} `)
    expect(message).toContain(`found ${value}`)
  })
})

describe('a file that is wrong', () => {
  test('says in which line', async () => {
    write({ 'config.json': configWith('"hidden_act": silu') })
    const { code, message } = await failure(() => convert(source, out))
    expect(code).toBe('ERR_BAD_SOURCE')
    expect(message).toBe(
      `${join(source, 'config.json')} is not valid JSON: line 2, column 17: a value must be here, not "s"`,
    )
  })

  test('is no text at all', async () => {
    write({ 'config.json': Buffer.from([0x7b, 0xff, 0x7d]) })
    expect((await failure(() => convert(source, out))).message).toContain('config.json is not UTF-8 text')
  })

  test('is no ordinary file', async ({ skip }) => {
    if (process.platform === 'win32') return skip('Windows has no named pipes of this kind')
    write({})
    mkdirSync(folder.path('pipes'))
    writeFolder(folder.path('pipes'), tinyHfConfig(), { 'model.safetensors': weights })
    // Reading it would wait for ever.
    execFileSync('mkfifo', [join(folder.path('pipes'), 'tokenizer.json')])
    expect((await failure(() => convert(folder.path('pipes'), out))).code).toBe('ERR_NOT_A_FILE')
  })
})

test('a byte order mark and line ends of Windows are no part of a file', async () => {
  const windows = (text: string) => `\ufeff${text.replaceAll('\n', '\r\n')}`
  write({
    'config.json': windows(JSON.stringify(tinyHfConfig(), null, 2)),
    'tokenizer.json': windows(JSON.stringify(TOKENIZER, null, 2)),
    'chat_template.jinja': windows('a\n{{ messages[0].content }}\nb'),
  })
  await convert(source, out)
  const model = await Model.load(out)
  expect(model.chatTemplate!.source).toBe('a\n{{ messages[0].content }}\nb')
  await model.dispose()
})
