/**
 * Every field that an importer or the tokenizer reads, with values of each type: the model works, or an error says
 * which field is wrong. A field is never used before somebody has looked at it.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { convert } from '../../dist/convert/convert.js'
import { OnebitError } from '../../dist/errors.js'
import { Model } from '../../dist/run/model.js'
import { temporaryFolder } from '../tiny-model.js'
import { safetensorsFile, TINY, tinyHfConfig, tinyTensors, writeFolder } from '../tiny-source.js'
import { ggufString, u32, u64 } from './gguf-bytes.js'

/** All of them in long runs; otherwise every third, beginning with another one for each field. */
function some<T>(values: T[], field: number): T[] {
  return process.env.ONEBIT_LONG ? values : values.filter((_, i) => (i + field) % 3 === 0)
}

const folder = temporaryFolder()
afterAll(() => folder.remove())

/** Where a wrong field is found: a file that was written is one that can be run. */
const REFUSED = ['convert']

/** Converts, loads, encodes and decodes. Gives the code of the error that says why not. */
async function outcome(source: string): Promise<string> {
  const output = folder.path('out.obt')
  let where = 'convert'
  try {
    await convert(source, output)
    where = 'load'
    const model = await Model.load(output, { threads: 1 })
    try {
      where = 'use'
      if (!model.tokenizer) return 'no tokenizer'
      const ids = await model.encode('ab <a>')
      model.tokenizer.decode(ids)
      return 'works'
    } finally {
      await model.dispose()
    }
  } catch (error) {
    if (!(error instanceof OnebitError))
      throw new Error(`${where}: ${(error as Error).stack?.split('\n').slice(0, 3).join(' ')}`)
    expect(error.message.length).toBeLessThan(600)
    if (!REFUSED.includes(where)) throw new Error(`${where}: ${error.message}`)
    return error.code
  }
}

const LETTERS = ['a', 'b', 'Ġ', 'ab', '<a>', '</s>', '<s>']

describe('JSON of a Hugging Face folder', () => {
  const step = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
  const prepend = { type: 'Prepend', prepend: '▁' }
  const files = {
    'config.json': {
      ...tinyHfConfig(),
      head_dim: TINY.headDim,
      attention_bias: false,
      mlp_bias: false,
      sliding_window: null,
      use_sliding_window: false,
      bos_token_id: 6,
      eos_token_id: [5],
      rope_scaling: {
        rope_type: 'llama3',
        factor: 2,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 16,
      },
    },
    'generation_config.json': { eos_token_id: [5], temperature: 1 },
    'tokenizer_config.json': {
      bos_token: '<s>',
      eos_token: { content: '</s>', lstrip: false },
      unk_token: null,
      pad_token: null,
      add_bos_token: true,
      add_dummy_prefix: false,
      eos_token_ids: [5],
      chat_template: [{ name: 'default', template: 'x' }],
      added_tokens_decoder: { 4: { content: '<a>', special: false } },
    },
    'tokenizer.json': {
      added_tokens: [
        { id: 4, content: '<a>', special: false, normalized: true, lstrip: false, rstrip: true, single_word: false },
        { id: 5, content: '</s>', special: true },
        { id: 6, content: '<s>', special: true },
      ],
      normalizer: { type: 'Sequence', normalizers: [{ type: 'NFC' }] },
      pre_tokenizer: {
        type: 'Sequence',
        pretokenizers: [{ type: 'Split', pattern: { Regex: '\\d' }, behavior: 'Isolated', invert: false }, step],
      },
      post_processor: {
        type: 'Sequence',
        processors: [
          step,
          {
            type: 'TemplateProcessing',
            single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
          },
        ],
      },
      decoder: { type: 'ByteLevel' },
      model: {
        type: 'BPE',
        vocab: Object.fromEntries(LETTERS.slice(0, 4).map((text, id) => [text, id])),
        merges: [['a', 'b']],
        unk_token: null,
        byte_fallback: false,
        fuse_unk: false,
        ignore_merges: false,
      },
    },
  }
  /** A SentencePiece-like tokenizer.json has other steps. */
  const unigram = {
    added_tokens: [{ id: 0, content: '<unk>', special: true }],
    normalizer: {
      type: 'Sequence',
      normalizers: [prepend, { type: 'Replace', pattern: { String: ' ' }, content: '▁' }],
    },
    pre_tokenizer: null,
    post_processor: null,
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'Unigram',
      unk_id: 0,
      vocab: [
        ['<unk>', 0],
        ['a', -1],
        ['b', -2],
        ['▁', -3],
      ],
      byte_fallback: false,
    },
  }
  const VALUES = [null, true, 2, -1, 1.5, 'x', [], [null], {}, { x: null }]

  type Json = unknown
  function* paths(value: Json, at: (string | number)[] = []): Generator<(string | number)[]> {
    if (at.length > 0) yield at
    if (typeof value !== 'object' || value === null) return
    for (const [key, inner] of Object.entries(value))
      yield* paths(inner, [...at, Array.isArray(value) ? Number(key) : key])
  }
  function replaced(value: Json, [first, ...rest]: (string | number)[], by: Json): Json {
    const copy = (Array.isArray(value) ? [...value] : { ...(value as object) }) as Record<string | number, Json>
    copy[first!] = rest.length === 0 ? by : replaced(copy[first!], rest, by)
    return copy
  }

  const weights = safetensorsFile(tinyTensors())
  const source = folder.path('source')
  const write = (name: string, json: Json) => writeFileSync(join(source, name), JSON.stringify(json))
  const writeGood = (more: Record<string, Json> = {}) => {
    writeFolder(source, {}, { 'model.safetensors': weights })
    for (const [name, json] of Object.entries({ ...files, ...more })) write(name, json)
  }

  async function tryAll(name: string, good: Json): Promise<Set<string>> {
    const seen = new Set<string>()
    const faults: string[] = []
    for (const [field, path] of [...paths(good)].entries()) {
      for (const value of some(VALUES, field)) {
        write(name, replaced(good, path, value))
        try {
          seen.add(await outcome(source))
        } catch (error) {
          faults.push(`${path.join('.')} = ${JSON.stringify(value)}: ${(error as Error).message}`)
        }
      }
    }
    expect(faults).toEqual([])
    return seen
  }

  it.each(Object.keys(files) as (keyof typeof files)[])('%s', async (name) => {
    // The ends that it names count before those of the others.
    const ends = { 'generation_config.json': {}, 'config.json': tinyHfConfig() }
    writeGood(name === 'tokenizer_config.json' ? ends : {})
    expect(await outcome(source)).toBe('works')
    const seen = await tryAll(name, files[name])
    expect(seen.has('works')).toBe(true)
    // generation_config.json is advice: what is no advice is passed over.
    if (name !== 'generation_config.json') expect(seen.size).toBeGreaterThan(1)
  })

  it('tokenizer.json of the other kind', async () => {
    writeGood({ 'tokenizer.json': unigram, 'tokenizer_config.json': {}, 'generation_config.json': {} })
    expect(await outcome(source)).toBe('works')
    expect((await tryAll('tokenizer.json', unigram)).size).toBeGreaterThan(1)
  })
})

describe('metadata of a GGUF file', () => {
  const strings = (...list: string[]) => [u32(9), u32(8), u64(BigInt(list.length)), ...list.map(ggufString)]
  const numbers = (type: number, ...list: Buffer[]) => [u32(9), u32(type), u64(BigInt(list.length)), ...list]
  const float = (value: number) => {
    const bytes = Buffer.alloc(4)
    bytes.writeFloatLE(value)
    return bytes
  }
  const double = (value: number) => {
    const bytes = Buffer.alloc(8)
    bytes.writeDoubleLE(value)
    return bytes
  }
  const byteLevel: Record<string, Buffer[]> = {
    'tokenizer.ggml.model': [u32(8), ggufString('gpt2')],
    'tokenizer.ggml.pre': [u32(8), ggufString('gpt-2')],
    'tokenizer.ggml.tokens': strings(...LETTERS),
    'tokenizer.ggml.token_type': numbers(5, ...[1, 1, 1, 1, 4, 3, 3].map(u32)),
    'tokenizer.ggml.merges': strings('a b'),
  }
  const sentencePiece: Record<string, Buffer[]> = {
    'tokenizer.ggml.model': [u32(8), ggufString('llama')],
    'tokenizer.ggml.tokens': strings('<unk>', 'a', '</s>', '▁', '<s>'),
    'tokenizer.ggml.scores': numbers(6, ...[0, -1, 0, -2, 0].map(float)),
    'tokenizer.ggml.token_type': numbers(5, ...[2, 1, 3, 1, 3].map(u32)),
    'tokenizer.ggml.add_space_prefix': [u32(7), Buffer.of(1)],
    'tokenizer.ggml.remove_extra_whitespaces': [u32(7), Buffer.of(0)],
  }
  const common: Record<string, Buffer[]> = {
    'general.architecture': [u32(8), ggufString('llama')],
    'general.alignment': [u32(4), u32(32)],
    'general.name': [u32(8), ggufString('tiny')],
    'llama.context_length': [u32(4), u32(TINY.context)],
    'llama.embedding_length': [u32(4), u32(TINY.dim)],
    'llama.block_count': [u32(4), u32(TINY.layers)],
    'llama.feed_forward_length': [u32(4), u32(TINY.hidden)],
    'llama.attention.head_count': [u32(4), u32(TINY.heads)],
    'llama.attention.head_count_kv': [u32(4), u32(TINY.kvHeads)],
    'llama.attention.layer_norm_rms_epsilon': [u32(6), float(1e-6)],
    'llama.attention.key_length': [u32(4), u32(TINY.headDim)],
    'llama.attention.value_length': [u32(4), u32(TINY.headDim)],
    'llama.rope.dimension_count': [u32(4), u32(TINY.headDim)],
    'llama.rope.freq_base': [u32(6), float(10000)],
    'llama.rope.scaling.type': [u32(8), ggufString('yarn')],
    'llama.rope.scaling.factor': [u32(6), float(2)],
    'llama.rope.scaling.original_context_length': [u32(4), u32(16)],
    'llama.rope.scaling.attn_factor': [u32(6), float(1)],
    'split.count': [u32(2), Buffer.of(0, 0)],
    'tokenizer.ggml.bos_token_id': [u32(4), u32(4)],
    'tokenizer.ggml.eos_token_id': [u32(4), u32(2)],
    'tokenizer.ggml.eot_token_id': [u32(4), u32(2)],
    'tokenizer.ggml.unknown_token_id': [u32(4), u32(0)],
    'tokenizer.ggml.add_bos_token': [u32(7), Buffer.of(1)],
    'tokenizer.chat_template': [u32(8), ggufString('x')],
  }
  const VALUES: Record<string, Buffer[]> = {
    u8: [u32(0), Buffer.of(1)],
    i8: [u32(1), Buffer.of(255)],
    u32: [u32(4), u32(3)],
    i32: [u32(5), u32(-1)],
    f32: [u32(6), float(0.5)],
    'f32 NaN': [u32(6), float(Number.NaN)],
    bool: [u32(7), Buffer.of(1)],
    string: [u32(8), ggufString('x')],
    'empty string': [u32(8), ggufString('')],
    u64: [u32(10), u64(32n)],
    'large u64': [u32(10), u64(2n ** 63n)],
    i64: [u32(11), u64(-1n)],
    f64: [u32(12), double(Number.POSITIVE_INFINITY)],
    'no values': numbers(4),
    'u64 values': numbers(10, u64(32n), u64(1n)),
    'many u64 values': numbers(10, ...Array.from({ length: 5000 }, (_, i) => u64(BigInt(i)))),
    'f32 values': numbers(6, float(Number.NaN)),
    'bool values': numbers(7, Buffer.of(1)),
    strings: strings('x', ''),
  }
  const NAMES: [RegExp, string][] = [
    [/model\.layers/, 'blk'],
    [/self_attn\.([qkv])_proj/, 'attn_$1'],
    [/self_attn\.o_proj/, 'attn_output'],
    [/mlp\.(gate|up|down)_proj/, 'ffn_$1'],
    [/input_layernorm/, 'attn_norm'],
    [/post_attention_layernorm/, 'ffn_norm'],
    [/model\.norm/, 'output_norm'],
    [/model\.embed_tokens/, 'token_embd'],
    [/lm_head/, 'output'],
  ]
  const tensors = tinyTensors().map(({ name, shape, values }) => ({
    name: NAMES.reduce((made, [theirs, ours]) => made.replace(theirs, ours), name),
    shape,
    data: Buffer.from(values.buffer, values.byteOffset, values.byteLength),
  }))

  function file(metadata: Record<string, Buffer[]>): Buffer {
    const parts = [Buffer.from('GGUF'), u32(3), u64(BigInt(tensors.length)), u64(BigInt(Object.keys(metadata).length))]
    for (const [key, value] of Object.entries(metadata)) parts.push(ggufString(key), ...value)
    const data: Buffer[] = []
    let at = 0
    for (const { name, shape, data: bytes } of tensors) {
      const sizes = [...shape].reverse().map((size) => u64(BigInt(size)))
      parts.push(ggufString(name), u32(shape.length), ...sizes, u32(0), u64(BigInt(at)))
      const padding = (32 - (bytes.length % 32)) % 32
      data.push(bytes, Buffer.alloc(padding))
      at += bytes.length + padding
    }
    const header = Buffer.concat(parts)
    return Buffer.concat([header, Buffer.alloc((32 - (header.length % 32)) % 32), ...data])
  }

  const source = folder.path('model.gguf')
  it.each([
    ['byte-level', byteLevel],
    ['SentencePiece', sentencePiece],
  ])('with a tokenizer of the kind %s', async (_, tokenizer) => {
    const good = { ...common, ...tokenizer }
    writeFileSync(source, file(good))
    expect(await outcome(source)).toBe('works')
    const seen = new Set<string>()
    const faults: string[] = []
    for (const [field, key] of Object.keys(good).entries()) {
      for (const [what, value] of some(Object.entries(VALUES), field)) {
        writeFileSync(source, file({ ...good, [key]: value }))
        try {
          seen.add(await outcome(source))
        } catch (error) {
          faults.push(`${key} as ${what}: ${(error as Error).message}`)
        }
      }
    }
    expect(faults).toEqual([])
    expect([...seen]).toEqual(expect.arrayContaining(['works', 'ERR_BAD_SOURCE', 'ERR_TOKENIZER_FILE']))
  })
})
