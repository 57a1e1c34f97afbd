/** Hugging Face folders: every float type, shards, PyTorch files, and what config.json can say. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { convert } from '../dist/convert/convert.js'
import { readHfConfig } from '../dist/import/hf.js'
import { readObtHeader } from '../dist/obt/obt.js'
import { codeOf } from './expect-code.js'
import { readBlob } from './read-blob.js'
import { floats, readTensors } from './read-tensors.js'
import { temporaryFolder } from './tiny-model.js'
import { encodeFloats, ourName, safetensorsFile, tinyHfConfig, tinyTensors, writeFolder } from './tiny-source.js'
import { torchFile } from './torch-writer.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

const tensors = tinyTensors()
const out = folder.path('out.obt')

async function expectSameNumbers(source: ReturnType<typeof tinyTensors>): Promise<void> {
  const written = await readTensors(out)
  expect(written.size).toBe(source.length)
  for (const { name, values } of source) expect(floats(written.get(ourName(name))), name).toEqual(values)
}

describe('the numbers arrive', () => {
  test.each(['F32', 'F16', 'BF16'] as const)('from safetensors in %s', async (type) => {
    const source = writeFolder(folder.path(type), tinyHfConfig(), {
      'model.safetensors': safetensorsFile(tensors, type),
    })
    const report = await convert(source, out)
    await expectSameNumbers(tensors)
    expect(report.format).toBe('huggingface')
    expect(report.config.rope_style).toBe('half')
  })

  test('from shards', async () => {
    const halves = [tensors.slice(0, 9), tensors.slice(9)]
    const names = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']
    const map = Object.fromEntries(halves.flatMap((half, i) => half.map(({ name }) => [name, names[i]!])))
    const source = writeFolder(folder.path('shards'), tinyHfConfig(), {
      'model.safetensors.index.json': JSON.stringify({ metadata: {}, weight_map: map }),
      [names[0]!]: safetensorsFile(halves[0]!),
      [names[1]!]: safetensorsFile(halves[1]!),
    })
    const report = await convert(source, out)
    await expectSameNumbers(tensors)
    const { provenance } = await readObtHeader(out)
    expect(provenance.files).toHaveLength(2)
    expect(report.sourceBytes).toBeGreaterThan(0)
  })

  test.each([false, true])('from a PyTorch file (zip64: %s), with a tensor inside a larger storage', async (zip64) => {
    const torch = tensors.map(({ name, shape, values }, i) => {
      const data = encodeFloats('F32', values)
      if (i !== 3) return { name, type: 'FloatStorage', shape, data } as const
      return { name, type: 'FloatStorage', shape, data: Buffer.concat([Buffer.alloc(20, 1), data]), offset: 5 } as const
    })
    const file = torchFile(torch, { zip64 })
    await convert(writeFolder(folder.path(`torch${zip64}`), tinyHfConfig(), { 'pytorch_model.bin': file }), out)
    await expectSameNumbers(tensors)
  })

  test('biases and a tied head', async () => {
    const biased = tinyTensors({ bias: true, tied: true })
    const config = tinyHfConfig({ attention_bias: true, mlp_bias: true, tie_word_embeddings: true })
    const source = writeFolder(folder.path('bias'), config, { 'model.safetensors': safetensorsFile(biased) })
    const report = await convert(source, out)
    await expectSameNumbers(biased)
    expect(report.config.tied_head).toBe(true)
    expect(report.config.linears.w2).toMatchObject({ bias: true })
  })

  test('q8: within half a step of the largest of each row', async () => {
    const source = writeFolder(folder.path('q8'), tinyHfConfig(), { 'model.safetensors': safetensorsFile(tensors) })
    await convert(source, out, { type: 'q8' })
    const written = await readTensors(out)
    const { values } = tensors.find(({ name }) => name === 'model.layers.1.mlp.down_proj.weight')!
    const scales = floats(written.get('layers.1.w2.scale'))
    const ints = written.get('layers.1.w2.weight')!
    values.forEach((value, i) => {
      const scale = scales[Math.floor(i / 24)]!
      expect(Math.abs(ints.readInt8(i) * scale - value)).toBeLessThanOrEqual(scale * 0.5001)
    })
    const last = values.subarray(15 * 24)
    expect(scales[15]).toBeCloseTo(Math.max(...last.map(Math.abs)) / 127, 7)
  })

  test('onebit: signs, g and h that rebuild the matrix as well as reported', async () => {
    const source = writeFolder(folder.path('onebit'), tinyHfConfig(), { 'model.safetensors': safetensorsFile(tensors) })
    const report = await convert(source, out, { type: 'onebit' })
    expect(report.errors.map(({ name }) => name)).toContain('layers.1.w2')
    expect(report.errors).toHaveLength(14)
    const written = await readTensors(out)
    for (const { name, relativeError } of report.errors) {
      const { values, shape } = tensors.find((tensor) => ourName(tensor.name) === `${name}.weight`)!
      const [g, h, sign] = [
        floats(written.get(`${name}.g`)),
        floats(written.get(`${name}.h`)),
        written.get(`${name}.sign`)!,
      ]
      let [gap, total] = [0, 0]
      values.forEach((value, i) => {
        const [row, col] = [Math.floor(i / shape[1]!), i % shape[1]!]
        const made = (sign[i >> 3]! >> (i & 7)) & 1 ? -1 : 1
        gap += (value - made * h[row]! * g[col]!) ** 2
        total += value ** 2
      })
      expect(Math.sqrt(gap / total), name).toBeCloseTo(relativeError, 5)
    }
  })
})

test('the tokenizer files of a folder arrive in one blob, the template in another', async () => {
  const model = { type: 'BPE', vocab: { a: 0, '<s>': 1, '</s>': 2 }, merges: [] }
  const decoder = { type: 'ByteLevel' }
  const tokenizer = { version: '1.0', added_tokens: [], pre_tokenizer: decoder, decoder, model }
  const source = writeFolder(folder.path('text'), tinyHfConfig({ eos_token_id: 3 }), {
    'model.safetensors': safetensorsFile(tensors),
    'tokenizer.json': JSON.stringify(tokenizer),
    'tokenizer_config.json': JSON.stringify({ bos_token: { content: '<s>' }, eos_token: '</s>', chat_template: 'hi' }),
    'generation_config.json': JSON.stringify({ eos_token_id: [2, 5] }),
  })
  await convert(source, out)
  const header = await readObtHeader(out)
  const json = async (name: 'tokenizer' | 'chat_template') =>
    JSON.parse(Buffer.from((await readBlob(header, name))!).toString()) as Record<string, Record<string, unknown>>
  const blob = await json('tokenizer')
  expect(blob.tokenizer).toEqual(tokenizer)
  expect(blob.config!.eos_token_ids).toEqual([2, 5])
  expect(await json('chat_template')).toEqual({ template: 'hi', bos_token: '<s>', eos_token: '</s>' })
  writeFileSync(join(source, 'chat_template.jinja'), 'newer')
  await convert(source, out)
  const again = await readObtHeader(out)
  expect(JSON.parse(Buffer.from((await readBlob(again, 'chat_template'))!).toString())).toMatchObject({
    template: 'newer',
  })
})

describe('config.json', () => {
  const scaling = (rope_scaling: unknown, more = {}) =>
    readHfConfig(tinyHfConfig({ rope_scaling, ...more })).structure.rope_scaling
  const llama3 = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 }

  test('RoPE scaling in its old and new places', () => {
    expect(scaling(null)).toEqual({ type: 'none' })
    expect(scaling({ rope_type: 'default' })).toEqual({ type: 'none' })
    expect(scaling({ type: 'linear', factor: 2 })).toEqual({ type: 'linear', factor: 2 })
    const expected = { type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_context: 8192 }
    expect(scaling({ rope_type: 'llama3', ...llama3 })).toEqual(expected)
    const { structure: config } = readHfConfig(
      tinyHfConfig({ rope_parameters: { rope_type: 'llama3', rope_theta: 5e5, ...llama3 }, rope_theta: undefined }),
    )
    expect(config.rope_scaling).toEqual(expected)
    expect(config.rope_theta).toBe(5e5)
    const yarn = { type: 'yarn', factor: 4, original_max_position_embeddings: 8 }
    const plain = { type: 'yarn', factor: 4, original_context: 8, beta_fast: 32, beta_slow: 1, attention_factor: 0 }
    expect(scaling(yarn)).toEqual(plain)
    expect(scaling({ ...yarn, beta_fast: 16, attention_factor: 1.5 })).toEqual({
      ...plain,
      beta_fast: 16,
      attention_factor: 1.5,
    })
    const mscale = scaling({ ...yarn, mscale: 1, mscale_all_dim: 0.5 })
    expect((mscale as { attention_factor: number }).attention_factor).toBeCloseTo(
      (0.1 * Math.log(4) + 1) / (0.05 * Math.log(4) + 1),
      12,
    )
  })

  test.each([
    ['another family', { model_type: 'gpt2' }, 'ERR_UNSUPPORTED_ARCHITECTURE'],
    ['no family', { model_type: undefined }, 'ERR_UNSUPPORTED_ARCHITECTURE'],
    ['another activation', { hidden_act: 'gelu' }, 'ERR_UNSUPPORTED_ARCHITECTURE'],
    ['dynamic RoPE scaling', { rope_scaling: { type: 'dynamic', factor: 2 } }, 'ERR_UNSUPPORTED_ROPE'],
    ['half of RoPE', { partial_rotary_factor: 0.5 }, 'ERR_UNSUPPORTED_ROPE'],
    ['quantised weights', { quantization_config: { quant_method: 'gptq' } }, 'ERR_UNSUPPORTED_TENSOR_TYPE'],
    ['no width', { hidden_size: undefined }, 'ERR_BAD_SOURCE'],
    ['a width of 2^53', { hidden_size: 2 ** 53 }, 'ERR_BAD_SOURCE'],
    ['negative layers', { num_hidden_layers: -1 }, 'ERR_BAD_SOURCE'],
    ['heads in words', { num_attention_heads: 'two' }, 'ERR_BAD_SOURCE'],
    ['an epsilon in words', { rms_norm_eps: 'small' }, 'ERR_BAD_SOURCE'],
  ])('%s is an error', async (_, more, code) => {
    expect(await codeOf(() => readHfConfig(tinyHfConfig(more)))).toBe(code)
  })

  test('what may be left out has the defaults of the family', () => {
    const bare = {
      num_key_value_heads: undefined,
      rope_theta: undefined,
      rms_norm_eps: undefined,
      tie_word_embeddings: undefined,
    }
    const { structure: config } = readHfConfig(tinyHfConfig(bare))
    expect(config).toMatchObject({ n_kv_heads: 2, rope_theta: 10000, norm_eps: 1e-6, tied_head: false, head_dim: 8 })
    expect(readHfConfig(tinyHfConfig({ model_type: 'qwen3' })).structure).toMatchObject({
      head_dim: 128,
      architecture: 'qwen3',
    })
  })
})

describe('sources that do not fit their config', () => {
  const source = (name: string, change: (list: typeof tensors) => typeof tensors, more = {}) =>
    writeFolder(folder.path(name), tinyHfConfig(more), { 'model.safetensors': safetensorsFile(change([...tensors])) })
  const convertCode = (path: string) => codeOf(() => convert(path, out))

  test('a tensor missing, of another shape, one too many, a bias that should be there', async () => {
    expect(await convertCode(source('missing', (list) => list.slice(1)))).toBe('ERR_MISSING_TENSOR')
    const extra = { name: 'model.layers.0.self_attn.q_norm.weight', shape: [8], values: new Float32Array(8) }
    expect(await convertCode(source('extra', (list) => [...list, extra]))).toBe('ERR_BAD_SOURCE')
    expect(await convertCode(source('shape', (list) => list, { vocab_size: 25 }))).toBe('ERR_TENSOR_SHAPE')
    expect(await convertCode(source('no bias', (list) => list, { attention_bias: true }))).toBe('ERR_MISSING_TENSOR')
  })

  test('a folder without config, without weights, and a file without its folder', async () => {
    expect(await convertCode(folder.path('.'))).toBe('ERR_UNKNOWN_FORMAT')
    expect(await convertCode(writeFolder(folder.path('empty'), tinyHfConfig(), {}))).toBe('ERR_BAD_SOURCE')
    expect(
      await convertCode(
        join(
          source('alone', (list) => list),
          'model.safetensors',
        ),
      ),
    ).toBe('ERR_UNKNOWN_FORMAT')
    expect(await convertCode(folder.path('nowhere'))).toBe('ERR_FILE_NOT_FOUND')
  })

  test('JSON that is none, is no object, or is nested deeply', async () => {
    for (const text of ['{', '[]', '7', `{"model_type":${'['.repeat(1e5)}${']'.repeat(1e5)}}`, '\xff']) {
      const path = folder.path('json')
      writeFolder(path, tinyHfConfig(), { 'config.json': Buffer.from(text, 'latin1') })
      expect(await convertCode(path), text.slice(0, 20)).toBe('ERR_BAD_SOURCE')
    }
  })

  test('options that make no sense', async () => {
    const good = source('good', (list) => list)
    for (const options of [
      { type: 'q3' },
      { embed: 'bf16' },
      { type: 'q8', split: 0.5 },
      { type: 'onebit', split: 2 },
      { layernorm: true },
    ]) {
      expect(await codeOf(() => convert(good, out, options as never)), JSON.stringify(options)).toBe('ERR_BAD_OPTION')
    }
    expect(await codeOf(() => convert(good, good))).toBe('ERR_BAD_OPTION')
    expect(await codeOf(() => convert(good, folder.path('absent/out.obt')))).toBe('ERR_NO_FOLDER')
  })
})
