/**
 * Tokenizers and chat templates of sources: what is found where, what is tried while converting, and that what `run` would
 * refuse is refused then, with the way out.
 */
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { type ConvertOptions, convert } from '../dist/convert/convert.js'
import { readObtHeader } from '../dist/obt/obt.js'
import { Model } from '../dist/run/model.js'
import { type Added, byteLevelJson } from './byte-level.js'
import { failure } from './expect-code.js'
import { encodeTensor, type GgufTensor, ggufFile, type MetadataValue } from './gguf-writer.js'
import { readBlob } from './read-blob.js'
import { field, type Piece, sentencePiece } from './sentencepiece-writer.js'
import { TINY_METADATA, tinyGgufTensors } from './tiny-gguf.js'
import { temporaryFolder } from './tiny-model.js'
import { type NamedTensor, safetensorsFile, tinyHfConfig, tinyTensors, writeFolder } from './tiny-source.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

const ROWS = 260

/** The small Llama with more rows in its embedding and head: numbers do not matter here. */
function tensorsWith(rows: number): NamedTensor[] {
  return tinyTensors().map((tensor) =>
    /embed_tokens|lm_head/.test(tensor.name)
      ? { ...tensor, shape: [rows, 16], values: new Float32Array(rows * 16).fill(0.125) }
      : tensor,
  )
}

let count = 0
type Files = Record<string, Buffer | string | object>

function hfSource(files: Files, rows = ROWS, config: Record<string, unknown> = {}): string {
  const texts = Object.entries(files).map(([name, body]) => {
    return [name, typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body)]
  })
  return writeFolder(folder.path(`hf${count++}`), tinyHfConfig({ vocab_size: rows, ...config }), {
    'model.safetensors': safetensorsFile(tensorsWith(rows)),
    ...Object.fromEntries(texts),
  })
}

function ggufSource(metadata: Record<string, MetadataValue>, rows = ROWS): string {
  const tensors = tinyGgufTensors().map((tensor): GgufTensor => {
    if (tensor.name !== 'token_embd.weight' && tensor.name !== 'output.weight') return tensor
    return { ...tensor, shape: [rows, 16], data: encodeTensor('f32', new Float32Array(rows * 16).fill(0.125)) }
  })
  const path = folder.path(`${count++}.gguf`)
  writeFileSync(path, ggufFile({ ...TINY_METADATA, ...metadata }, tensors))
  return path
}

const withTokens = (added: Added[] = [], change: Record<string, unknown> = {}) => byteLevelJson(added, change)
const special = (content: string): Added => ({ content, special: true })
const out = folder.path('out.obt')

async function converted<T>(
  source: string,
  use: (model: Model, warnings: string[]) => T,
  options: ConvertOptions = {},
) {
  const { warnings } = await convert(source, out, options)
  const model = await Model.load(out, { threads: 1 })
  try {
    return await use(model, warnings)
  } finally {
    await model.dispose()
  }
}

const templateOf = async (source: string, options: ConvertOptions = {}) => {
  const { warnings } = await convert(source, out, options)
  const bytes = await readBlob(await readObtHeader(out), 'chat_template')
  return { warnings, blob: bytes && (JSON.parse(Buffer.from(bytes).toString()) as Record<string, string>) }
}

const EOS = { eos_token: '</s>' }

describe('tokens that a folder adds beside its vocabulary', () => {
  const letters = Array.from('abhi', (letter): Piece => [letter, -3, 1])
  const pieces: Piece[] = [['<unk>', 0, 2], ['<s>', 0, 3], ['</s>', 0, 3], ['▁', -2, 1], ...letters]
  const model = sentencePiece(2, pieces, [field(4, 0)])
  const size = pieces.length
  const template = '{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}'
  const decoder = {
    [size]: { content: '<|im_start|>', special: true },
    [size + 1]: { content: '<|im_end|>', special: true },
    [size + 2]: { content: '<tool>', special: false },
  }

  test.each<[string, Files]>([
    [
      'added_tokens_decoder',
      { 'tokenizer_config.json': { added_tokens_decoder: decoder, eos_token: '<|im_end|>', chat_template: template } },
    ],
    [
      'added_tokens.json and special_tokens_map.json',
      {
        'tokenizer_config.json': { chat_template: template },
        'added_tokens.json': { '<|im_start|>': size, '<|im_end|>': size + 1, '<tool>': size + 2 },
        'special_tokens_map.json': {
          eos_token: { content: '<|im_end|>' },
          additional_special_tokens: ['<|im_start|>'],
        },
      },
    ],
  ])('with tokenizer.model: %s', async (_, files) => {
    const source = hfSource({ 'tokenizer.model': model, ...files }, size + 3)
    await converted(source, async ({ tokenizer, ...model }, warnings) => {
      expect(warnings).toEqual([])
      expect(tokenizer!.eosIds).toEqual([2, size + 1])
      expect([...tokenizer!.specialTokens.keys()].sort()).toEqual([
        '</s>',
        '<s>',
        '<unk>',
        '<|im_end|>',
        '<|im_start|>',
      ])
      expect(tokenizer!.encode('<tool>', { bos: false })).toContain(size + 2)
      void model
    })
    await converted(source, async (model) => {
      const ids = [...(await model.encodeChat([{ role: 'user', content: 'hi' }]))]
      expect([ids[0], ids.at(-1)]).toEqual([size, size + 1])
    })
  })

  test('with tokenizer.json: those that it lacks, and the flags of the config', async () => {
    const added_tokens_decoder = {
      256: { content: '<a>', special: true, lstrip: true },
      257: { content: '<b>', special: true },
    }
    const source = hfSource({
      'tokenizer.json': withTokens([{ content: '<a>' }]),
      'tokenizer_config.json': { added_tokens_decoder, eos_token: '<b>' },
    })
    await converted(source, ({ tokenizer }) => {
      expect(tokenizer!.eosIds).toEqual([257])
      expect([...tokenizer!.encode('x <a>', { special: true })]).toEqual([120, 256])
    })
  })

  test('names that resolve to nothing are told', async () => {
    const source = hfSource({
      'tokenizer.json': withTokens(),
      'tokenizer_config.json': { eos_token: '<end>', bos_token: '<begin>', additional_special_tokens: ['<x>'] },
    })
    const { warnings } = await convert(source, out)
    expect(warnings).toEqual([
      expect.stringContaining('bos_token is "<begin>"'),
      expect.stringContaining('eos_token is "<end>"'),
      expect.stringContaining('special tokens <x>'),
      expect.stringContaining('No token is known to end an answer'),
    ])
  })

  test('an id that is taken already is told, an id that is none is refused', async () => {
    const config = { added_tokens_decoder: { 256: { content: '<b>' } }, ...EOS }
    const source = hfSource({ 'tokenizer.json': withTokens([special('</s>')]), 'tokenizer_config.json': config })
    expect((await convert(source, out)).warnings).toEqual([expect.stringContaining('<b> has the id of </s>')])
    const bad = hfSource({ 'tokenizer.json': withTokens(), 'added_tokens.json': { '<b>': 'two' } })
    expect(await failure(() => convert(bad, out))).toMatchObject({ code: 'ERR_TOKENIZER_FILE' })
  })
})

describe('what run would refuse is refused while converting', () => {
  const split = { type: 'Split', pattern: { String: ' ' }, behavior: 'MergedWithPrevious', invert: false }
  const model = (change: object) => ({ model: { ...withTokens().model, ...change } })
  test.each<[string, Record<string, unknown>, string]>([
    ['a pre-tokenizer', { pre_tokenizer: { type: 'Whitespace' } }, 'ERR_UNSUPPORTED_TOKENIZER'],
    ['a normalizer', { normalizer: { type: 'Precompiled', precompiled_charsmap: '' } }, 'ERR_UNSUPPORTED_TOKENIZER'],
    ['a split', { pre_tokenizer: { type: 'Sequence', pretokenizers: [split] } }, 'ERR_UNSUPPORTED_TOKENIZER'],
    [
      'an expression',
      { pre_tokenizer: { ...split, pattern: { Regex: '(' }, behavior: 'Isolated' } },
      'ERR_UNSUPPORTED_TOKENIZER',
    ],
    ['a decoder', { decoder: { type: 'WordPiece', prefix: '##' } }, 'ERR_UNSUPPORTED_TOKENIZER'],
    ['no decoder', { decoder: null }, 'ERR_UNSUPPORTED_TOKENIZER'],
    ['a kind of model', { model: { type: 'WordPiece', vocab: { a: 0 } } }, 'ERR_UNSUPPORTED_TOKENIZER'],
    ['a merge', model({ merges: ['abc'] }), 'ERR_TOKENIZER_FILE'],
    ['an id', model({ vocab: { a: -1 } }), 'ERR_TOKENIZER_FILE'],
    ['more tokens than rows', model({ vocab: { a: 0, b: ROWS } }), 'ERR_TOKENIZER_FILE'],
  ])('%s', async (_, change, code) => {
    const source = hfSource({ 'tokenizer.json': withTokens([], change), 'tokenizer_config.json': {} })
    const path = folder.path('refused.obt')
    const error = await failure(() => convert(source, path))
    expect(error.code).toBe(code)
    expect(error.hint).toMatch(/`onebit convert`.*--tokenizer FILE.*--tokenizer none/)
    expect(existsSync(path)).toBe(false)
    // The way out.
    await converted(
      source,
      (model, warnings) => {
        expect(model.tokenizer).toBeUndefined()
        expect(warnings).toEqual([expect.stringContaining('token ids only')])
      },
      { tokenizer: 'none' },
    )
  })

  test('a merge of a GGUF file that is none', async () => {
    const source = ggufSource({ ...ggufVocabulary(), 'tokenizer.ggml.merges': { strings: ['abc'] } })
    expect(await failure(() => convert(source, out))).toMatchObject({ code: 'ERR_TOKENIZER_FILE' })
  })

  test('added tokens that are null are none, those without a row are left out and told', async () => {
    await converted(hfSource({ 'tokenizer.json': { ...withTokens(), added_tokens: null } }), ({ tokenizer }) => {
      expect(tokenizer!.vocabSize).toBe(256)
    })
    const source = hfSource({ 'tokenizer.json': withTokens([special('</s>'), special('<pad>')]) }, 257)
    await converted(source, async (model, warnings) => {
      expect(warnings).toEqual([expect.stringContaining('<pad> (257)')])
      const ids = [...(await model.encode('</s><pad>'))]
      expect(ids).toEqual([256, ...Buffer.from('<pad>')])
    })
  })

  test('ids of ends beyond the model are left out and told', async () => {
    const source = hfSource({
      'tokenizer.json': withTokens([special('</s>')]),
      'tokenizer_config.json': EOS,
      'generation_config.json': { eos_token_id: [256, 999] },
    })
    await converted(source, ({ tokenizer }, warnings) => {
      expect(tokenizer!.eosIds).toEqual([256])
      expect(warnings).toEqual([expect.stringContaining('999')])
    })
  })
})

/** Byte-level, with the given tokens behind the bytes. */
function ggufVocabulary(added: [string, number][] = [['</s>', 3]]): Record<string, MetadataValue> {
  const bytes = Object.keys(withTokens().model.vocab)
  return {
    'tokenizer.ggml.model': { string: 'gpt2' },
    'tokenizer.ggml.pre': { string: 'gpt-2' },
    'tokenizer.ggml.tokens': { strings: [...bytes, ...added.map(([token]) => token)] },
    'tokenizer.ggml.token_type': { i32s: [...bytes.map(() => 1), ...added.map(([, type]) => type)] },
    'tokenizer.ggml.merges': { strings: [] },
    'tokenizer.ggml.eos_token_id': { u32: 256 },
  }
}

describe('--tokenizer FILE', () => {
  const chat_template = '{% for m in messages %}{{ bos_token }}{{ m.content }}<|im_end|>{% endfor %}'
  const file = () => {
    const path = folder.path(`other${count++}/tokenizer.json`)
    writeFolder(
      join(path, '..'),
      {},
      { 'tokenizer.json': JSON.stringify(withTokens([special('<s>'), special('<|im_end|>')])) },
    )
    return path
  }

  test('replaces what the source has before that is read; its template and ends stay', async () => {
    const source = hfSource({
      'tokenizer.json': withTokens([], { pre_tokenizer: { type: 'Whitespace' } }),
      'tokenizer_config.json': { chat_template, bos_token: '<s>', eos_token: '<|im_end|>' },
      'generation_config.json': { eos_token_id: [257, 3] },
    })
    await converted(
      source,
      async (model, warnings) => {
        expect(warnings).toEqual([])
        expect(model.tokenizer!.eosIds).toEqual([3, 257])
        expect([...(await model.encodeChat([{ role: 'user', content: 'a' }]))]).toEqual([256, 97, 257])
      },
      { tokenizer: file() },
    )
  })

  test('the same for a GGUF file', async () => {
    const source = ggufSource({
      ...ggufVocabulary([
        ['<s>', 3],
        ['<|im_end|>', 3],
      ]),
      'tokenizer.ggml.pre': { string: 'unheard-of' },
      'tokenizer.ggml.eos_token_id': { u32: 257 },
      'tokenizer.ggml.bos_token_id': { u32: 256 },
      'tokenizer.ggml.eot_token_id': { u32: 3 },
      'tokenizer.chat_template': { string: chat_template },
    })
    const error = await failure(() => convert(source, out))
    expect([error.code, error.hint]).toEqual(['ERR_UNSUPPORTED_TOKENIZER', expect.stringContaining('--tokenizer FILE')])
    await converted(
      source,
      async (model) => {
        expect(model.tokenizer!.eosIds).toEqual([3, 257])
        expect([...(await model.encodeChat([{ role: 'user', content: 'a' }]))]).toEqual([256, 97, 257])
      },
      { tokenizer: file() },
    )
  })

  test('a pre-tokenizer that is not named is told as that', async () => {
    const { 'tokenizer.ggml.pre': _, ...rest } = ggufVocabulary()
    const error = await failure(() => convert(ggufSource(rest), out))
    expect(error.message).toContain('does not name its pre-tokenizer')
    expect(error.message).not.toContain('none')
  })
})

describe('chat templates', () => {
  const tokenizer = { 'tokenizer.json': withTokens([special('</s>')]) }
  const config = (chat_template: unknown) => ({ 'tokenizer_config.json': { chat_template, ...EOS } })

  test('in all the places where they are kept, the newest first', async () => {
    const places: Files[] = [
      { 'chat_template.json': { chat_template: 'processor' } },
      config('config'),
      { 'chat_template.jinja': '\ufefffile' },
    ]
    let files: Files = { ...tokenizer, 'tokenizer_config.json': EOS }
    for (const [index, expected] of ['processor', 'config', 'file'].entries()) {
      files = { ...files, ...places[index] }
      expect((await templateOf(hfSource(files))).blob).toEqual({ template: expected, ...EOS })
    }
  })

  test('of a list the one called default, or the first with a word', async () => {
    const list = [
      { name: 'rag', template: 'A' },
      { name: 'default', template: 'B' },
    ]
    const good = await templateOf(hfSource({ ...tokenizer, ...config(list) }))
    expect([good.blob!.template, good.warnings]).toEqual(['B', []])
    const named = [
      { name: 'rag', template: 'A' },
      { name: 'tools', template: 'C' },
    ]
    const first = await templateOf(hfSource({ ...tokenizer, ...config(named) }))
    expect([first.blob!.template, first.warnings]).toEqual([
      'A',
      [expect.stringMatching(/rag, tools.*--chat-template FILE/)],
    ])
  })

  test.each([
    ['{% for m in messages %}', /line 1: .*endfor/],
    ['a\n{% include "x" %}', /line 2: .*include/],
    ['{{ messages | xmlattr }}', /xmlattr/],
    ["{{ messages[0].content.encode('utf-8') }}", /encode/],
    ['{{ 1 ? 2 }}', /line 1: unexpected/],
  ])('that cannot be used are refused, with the construct and the way out: %s', async (template, message) => {
    const source = hfSource({ ...tokenizer, ...config(template) })
    const error = await failure(() => convert(source, out))
    expect([error.code, error.message]).toEqual(['ERR_TEMPLATE', expect.stringMatching(message)])
    expect(error.hint).toMatch(/`onebit convert`.*--chat-template FILE.*--chat-template none/)
    const { blob, warnings } = await templateOf(source, { chatTemplate: 'none' })
    expect([blob, warnings]).toEqual([undefined, []])
    const other = folder.path('other.jinja')
    writeFileSync(other, '{{ messages[0].content }}')
    expect((await templateOf(source, { chatTemplate: other })).blob).toMatchObject({
      template: '{{ messages[0].content }}',
    })
  })

  test('that fail for a plain question, or write markers in letters, are told', async () => {
    const failing = await templateOf(hfSource({ ...tokenizer, ...config("{{ raise_exception('only with tools') }}") }))
    expect(failing.warnings).toEqual([expect.stringMatching(/only with tools.*--chat-template FILE/)])
    const lettered = await templateOf(hfSource({ ...tokenizer, ...config("{{ '<|im_start|>' }}</s>") }))
    expect(lettered.warnings).toEqual([expect.stringContaining('<|im_start|>')])
  })

  test('of a GGUF file with names only: the first, with a word', async () => {
    const source = ggufSource({ ...ggufVocabulary(), 'tokenizer.chat_template.rag': { string: 'R' } })
    const { blob, warnings } = await templateOf(source)
    expect([blob!.template, warnings]).toEqual(['R', [expect.stringContaining('rag')]])
  })

  test('that are no UTF-8 are refused', async () => {
    const source = hfSource({ ...tokenizer, 'chat_template.jinja': Buffer.from([0xff, 0x41]) })
    expect(await failure(() => convert(source, out))).toMatchObject({ code: 'ERR_BAD_SOURCE' })
    const path = folder.path('bad.jinja')
    writeFileSync(path, Buffer.from([0xff]))
    const options = { chatTemplate: path }
    expect(await failure(() => convert(hfSource(tokenizer), out, options))).toMatchObject({ code: 'ERR_BAD_SOURCE' })
  })
})

describe('a Git LFS pointer in the place of a file', () => {
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 4976698672\n`

  test.each(['model.safetensors', 'tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja'])(
    '%s',
    async (name) => {
      const source = hfSource({ 'tokenizer.json': withTokens(), [name]: pointer })
      const error = await failure(() => convert(source, out))
      expect([error.code, error.message]).toEqual(['ERR_LFS_POINTER', expect.stringContaining(name)])
      expect(error.hint).toContain('git lfs pull')
    },
  )

  test('a model file, and a file of an option', async () => {
    const path = folder.path('model.gguf')
    writeFileSync(path, pointer)
    expect(await failure(() => convert(path, out))).toMatchObject({ code: 'ERR_LFS_POINTER' })
    expect(await failure(() => Model.load(path))).toMatchObject({ code: 'ERR_LFS_POINTER' })
    const source = hfSource({ 'tokenizer.json': withTokens() })
    expect(await failure(() => convert(source, out, { tokenizer: path }))).toMatchObject({ code: 'ERR_LFS_POINTER' })
  })
})
