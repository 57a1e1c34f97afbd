/** llama2.c's `.bin`, where only the size of the file says whether it is one. */
import { writeFileSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import { convert } from '../dist/convert/convert.js'
import { Model } from '../dist/run/model.js'
import { golden } from './data.js'
import { codeOf } from './expect-code.js'
import { encodeTensor } from './gguf-writer.js'
import { floats, readTensors } from './read-tensors.js'
import { temporaryFolder } from './tiny-model.js'
import { ourName, TINY, tinyTensors } from './tiny-source.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())
const out = folder.path('out.obt')

/** The file's order: all layers of one tensor after another. */
function llama2cFile(tied: boolean): Buffer {
  const numbers = [
    TINY.dim,
    TINY.hidden,
    TINY.layers,
    TINY.heads,
    TINY.kvHeads,
    tied ? TINY.vocab : -TINY.vocab,
    TINY.context,
  ]
  const all = tinyTensors({ tied })
  const named = (suffix: string) => all.filter(({ name }) => name.endsWith(suffix))
  const order = [
    'embed_tokens.weight',
    'input_layernorm.weight',
    'q_proj.weight',
    'k_proj.weight',
    'v_proj.weight',
    'o_proj.weight',
    'post_attention_layernorm.weight',
    'gate_proj.weight',
    'down_proj.weight',
    'up_proj.weight',
    'model.norm.weight',
  ].flatMap(named)
  const tables = Buffer.alloc(TINY.context * TINY.headDim * 4, 0xff) // NaN: nobody may read them
  const parts = order.map(({ values }) => encodeTensor('f32', values))
  const head = named('lm_head.weight').map(({ values }) => encodeTensor('f32', values))
  return Buffer.concat([Buffer.from(Int32Array.from(numbers).buffer), ...parts, tables, ...head])
}

function write(name: string, bytes: Buffer): string {
  writeFileSync(folder.path(name), bytes)
  return folder.path(name)
}

test.each([true, false])('the numbers arrive (tied head: %s)', async (tied) => {
  const report = await convert(write('model.bin', llama2cFile(tied)), out)
  expect(report.format).toBe('llama2c')
  expect(report.config).toMatchObject({ rope_style: 'interleaved', tied_head: tied, head_dim: 8, norm_eps: 1e-5 })
  expect(report.warnings.join()).toContain('no tokenizer')
  const written = await readTensors(out)
  const source = tinyTensors({ tied })
  expect(written.size).toBe(source.length)
  for (const { name, values } of source) expect(floats(written.get(ourName(name))), name).toEqual(values)
})

test('one byte too few or too many, other formats, and nothing at all', async () => {
  const good = llama2cFile(true)
  const cases = {
    'short.bin': good.subarray(0, good.length - 1),
    'long.bin': Buffer.concat([good, Buffer.alloc(1)]),
    'empty.bin': Buffer.alloc(0),
    'text.bin': Buffer.from('once upon a time there was a file that was not a model'),
    'zeros.bin': Buffer.alloc(100),
  }
  for (const [name, bytes] of Object.entries(cases)) {
    expect(await codeOf(() => convert(write(name, bytes), out)), name).toBe('ERR_UNKNOWN_FORMAT')
  }
  expect(await codeOf(() => convert(write('v1.bin', Buffer.concat([Buffer.from('24ka'), good])), out))).toBe(
    'ERR_BAD_SOURCE',
  )
})

test('stories260K has its tokenizer inside and stays f32', async () => {
  const tokenizer = golden('stories260K/tok512.bin')
  const report = await convert(golden('stories260K/stories260K.bin'), out, { tokenizer })
  expect(report.hasTokenizer).toBe(true)
  expect(report.config.linears.w2).toEqual({ kind: 'dense', dtype: 'f32', bias: false })
  expect(report.bitsPerLinearWeight).toBe(32)
  const model = await Model.load(out)
  expect((await model.encode('Once upon a time')).length).toBeGreaterThan(3)
  await model.dispose()
})
