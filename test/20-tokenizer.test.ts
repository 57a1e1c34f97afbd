/** Text to ids and back: golden tokenisations, special tokens, long texts, malformed vocabularies. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readGgufText } from '../dist/import/gguf-text.js'
import { openObt } from '../dist/obt/obt.js'
import { tokenizerFromGguf } from '../dist/text/gguf-vocabulary.js'
import { tokenizerFromLlama2c } from '../dist/text/llama2c-vocabulary.js'
import { tokenizerFromSentencePiece } from '../dist/text/sentencepiece.js'
import { Tokenizer } from '../dist/text/tokenizer.js'
import { type BpeModel, parseTokenizerBlob, type TokenizerBlob } from '../dist/text/tokenizer-json.js'
import { parseWithVocabulary } from '../dist/text/vocabulary-json.js'
import { dataFile, missing } from './data.js'
import { field, sentencePiece } from './sentencepiece-writer.js'

const SMOLLM = 'weights/SmolLM2-135M-Instruct.Q4_1.gguf'
const TOK512 = 'tokenizers/tok512.model'

async function fromGguf(name: string): Promise<Tokenizer> {
  const { blob } = (await (await readGgufText(dataFile(name))).readTokenizer())!
  return Tokenizer.fromBlob(blob)
}

/** A byte-level vocabulary small enough to check by hand. */
function smallMetadata(): Record<string, unknown> {
  const letters = Array.from('abcdefghijklmnopqrstuvwxyz<>|_/0123456789ĠĊ!,.')
  const tokens = [...letters, 'th', 'the', 'Ġthe', '<|im_start|>', '<|im_end|>', '<think>', '12']
  return {
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': 'smollm',
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.token_type': tokens.map((token) => (/^<\|/.test(token) ? 3 : token === '<think>' ? 4 : 1)),
    'tokenizer.ggml.merges': ['t h', 'th e', 'Ġ the', '1 2'],
    'tokenizer.ggml.bos_token_id': tokens.indexOf('<|im_start|>'),
    'tokenizer.ggml.eos_token_id': tokens.indexOf('<|im_end|>'),
  }
}

const names = (tokenizer: Tokenizer, ids: Int32Array) => Array.from(ids, (id) => tokenizer.idToToken(id))

describe.skipIf(missing('gguf/ggml-vocab-gpt-2.gguf', 'gguf/ggml-vocab-llama-spm.gguf'))(
  'llama.cpp golden files',
  () => {
    it.each(['gpt-2', 'llama-spm'])('%s: ids and the way back', async (name) => {
      const tokenizer = await fromGguf(`gguf/ggml-vocab-${name}.gguf`)
      const inputs = readFileSync(dataFile(`gguf/ggml-vocab-${name}.gguf.inp`), 'utf8').split('\n__ggml_vocab_test__\n')
      const outputs = readFileSync(dataFile(`gguf/ggml-vocab-${name}.gguf.out`), 'utf8').split('\n')
      expect(inputs.length).toBeGreaterThan(40)
      for (const [index, text] of inputs.entries()) {
        const ids = tokenizer.encode(text, { bos: false })
        expect(Array.from(ids).join(' '), JSON.stringify(text)).toBe(outputs[index]!.trim())
        expect(tokenizer.decode(ids)).toBe(text)
      }
    })

    it('follows the flag for BOS', async () => {
      const tokenizer = await fromGguf('gguf/ggml-vocab-llama-spm.gguf')
      expect(tokenizer.addsBos).toBe(true)
      expect(Array.from(tokenizer.encode('Hello'))).toEqual([1, 15043])
      expect(Array.from(tokenizer.encode('<s>Hello', { special: true }))).toEqual([1, 15043])
      expect(Array.from(tokenizer.encode('Hello', { bos: false }))).toEqual([15043])
    })
  },
)

describe.skipIf(missing(SMOLLM))("the teacher's tokenizer", () => {
  let tokenizer: Tokenizer
  beforeAll(async () => {
    tokenizer = await fromGguf(SMOLLM)
  })
  afterAll(() => tokenizer.dispose())

  it('knows its own flags', () => {
    expect(tokenizer.addsBos).toBe(false)
    expect(tokenizer.eosIds).toEqual([0, 2])
    expect(tokenizer.vocabSize).toBe(49152)
    expect(tokenizer.tokenToId('<|im_start|>')).toBe(1)
  })

  it.skipIf(missing('golden/smollm2-135m-logits.json'))('gives the ids of the golden prompts', () => {
    const { cases } = JSON.parse(readFileSync(dataFile('golden/smollm2-135m-logits.json'), 'utf8'))
    for (const { text, ids, greedy_ids, greedy_text } of cases) {
      expect(Array.from(tokenizer.encode(text, { special: true }))).toEqual(ids)
      expect(tokenizer.decode(greedy_ids)).toBe(greedy_text)
    }
  })

  it.skipIf(missing('text/war-and-peace.txt'))('encodes War and Peace off the main thread, exactly', async () => {
    const text = readFileSync(dataFile('text/war-and-peace.txt'), 'utf8')
    const before = performance.eventLoopUtilization()
    const ids = await tokenizer.encodeLong(text)
    const { utilization } = performance.eventLoopUtilization(before)
    expect(ids.length).toBe(799_447)
    const bytes = new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength)
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(
      '575dc848a3d780105a5f5ef1184480ff277e4dc17487db37ba636d19ffca35fa',
    )
    expect(tokenizer.decode(ids)).toBe(text)
    // The thread was free nearly all the time; a share does not depend on how busy the machine is.
    expect(utilization).toBeLessThan(0.25)
  })

  it('never makes a special id from text unless asked', () => {
    const specials = [...tokenizer.specialTokens.keys()]
    expect(specials.length).toBe(17)
    for (const special of specials) {
      for (const text of [special, `a ${special} b`, `${special}${special}`, special.slice(0, -1) + special]) {
        const ids = tokenizer.encode(text)
        expect(Array.from(ids).filter((id) => tokenizer.isSpecial(id))).toEqual([])
        expect(tokenizer.decode(ids)).toBe(text)
      }
      expect(Array.from(tokenizer.encode(special, { special: true }))).toEqual([tokenizer.tokenToId(special)])
    }
  })

  it('brings every text back, broken surrogates as U+FFFD', () => {
    const known = new Set(Array.from({ length: tokenizer.vocabSize }, (_, id) => tokenizer.tokenBytes(id).join()))
    const absent = Array.from({ length: 256 }, (_, byte) => byte).filter((byte) => !known.has(String(byte)))
    // Bytes that this vocabulary has no token for; C0, C1 and F5 to FF occur in no text.
    expect(absent.filter((byte) => byte < 0xf5)).toEqual([4, 6, 0x13, 0x14, 0x16, 0x1d, 0xc0, 0xc1, 0xf1, 0xf2])
    const writable = (character: string) => !Buffer.from(character).some((byte) => absent.includes(byte))
    let state = 12345
    const next = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      return state
    }
    const rounds = process.env.ONEBIT_LONG ? 100_000 : 2000
    for (let round = 0; round < rounds; round++) {
      let text = ''
      for (let i = next() % 24; i >= 0; i--) {
        const kind = next() % 4
        if (kind === 0) text += String.fromCharCode(32 + (next() % 95))
        else if (kind === 1) text += String.fromCharCode(next() % 0x10000)
        else if (kind === 2) text += String.fromCodePoint((next() % 17) * 0x10000 + (next() % 0x10000))
        else text += [' ', '\n', '  ', '\u0085', '\ufeff', '12', "'s"][next() % 7]
      }
      text = Array.from(text).filter(writable).join('')
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(Buffer.from(text, 'utf8').toString('utf8'))
    }
  })

  it('gives long texts up when aborted', async () => {
    const controller = new AbortController()
    const pending = tokenizer.encodeLong('word '.repeat(400_000), { signal: controller.signal })
    controller.abort(new Error('enough'))
    await expect(pending).rejects.toThrow('enough')
    expect((await tokenizer.encodeLong('word '.repeat(4000))).length).toBeGreaterThan(3999)
  })
})

describe.skipIf(missing(TOK512, 'tokenizers/tok512.bin', 'tokenizers/tok105.model'))('SentencePiece files', () => {
  it.each<[string, number[]]>([
    // Ids from the sentencepiece package, version 0.2, for this very file.
    ['Once upon a time', [403, 407, 261, 378]],
    [' two  spaces', [259, 424, 414, 262, 427, 412, 331, 419]],
    ['<s>', [410, 504, 419, 505]],
    ["Lily's ball\nrolled away.", [317, 439, 419, 268, 388, 13, 420, 414, 306, 266, 261, 424, 283, 426]],
    ['naïve 你好', [297, 412, 198, 178, 360, 410, 231, 192, 163, 232, 168, 192]],
    ['aaaaaaa', [261, 412, 412, 412, 412, 412, 412]],
  ])('reads tokenizer.model: %j', (text, ids) => {
    const tokenizer = Tokenizer.fromBlob(tokenizerFromSentencePiece(readFileSync(dataFile(TOK512))))
    expect(Array.from(tokenizer.encode(text, { bos: false }))).toEqual(ids)
    expect(tokenizer.decode(ids)).toBe(text.trim().replace(/ +/g, ' '))
    expect([tokenizer.addsBos, tokenizer.bosId, tokenizer.eosIds]).toEqual([true, 1, [2]])
  })

  it('agrees with the llama2.c form of the same vocabulary', () => {
    const model = Tokenizer.fromBlob(tokenizerFromSentencePiece(readFileSync(dataFile(TOK512))))
    const bin = Tokenizer.fromBlob(tokenizerFromLlama2c(readFileSync(dataFile('tokenizers/tok512.bin')), 512))
    for (const text of ['Once upon a time, Lily said "hi".\nThe end', 'naïve 你好 🙂', '<0x0A></s>', 'aaaaaaa']) {
      expect(Array.from(bin.encode(text))).toEqual(Array.from(model.encode(text)))
      expect(bin.decode(bin.encode(text), { special: false })).toBe(text)
    }
  })

  it('turns characters without a piece into the unknown token where there are no byte pieces', () => {
    const blob = tokenizerFromSentencePiece(readFileSync(dataFile('tokenizers/tok105.model')))
    const tokenizer = Tokenizer.fromBlob(blob)
    const ids = Array.from(tokenizer.encode('a 你好 b', { bos: false }))
    expect(ids.filter((id) => id === 0)).toHaveLength(1)
  })

  it('refuses files that are cut off anywhere', () => {
    const bytes = readFileSync(dataFile(TOK512))
    const codes = new Set<string>()
    for (let length = 0; length < bytes.length; length += 7) {
      try {
        tokenizerFromSentencePiece(bytes.subarray(0, length))
        codes.add('read')
      } catch (error) {
        codes.add((error as { code: string }).code)
      }
    }
    // A cut between two fields leaves a shorter file that is well-formed.
    expect([...codes].sort()).toEqual(['ERR_TOKENIZER_FILE', 'read'])
    const binary = readFileSync(dataFile('tokenizers/tok512.bin'))
    for (const [data, size] of [
      [binary.subarray(0, 5000), 512],
      [binary, 511],
      [binary, 513],
      [Buffer.alloc(64, 0xff), 512],
    ] as const) {
      expect(() => tokenizerFromLlama2c(data, size)).toThrow(expect.objectContaining({ code: 'ERR_TOKENIZER_FILE' }))
    }
  })
})

describe('SentencePiece made by hand', () => {
  const control: [string, number, number][] = [
    ['<unk>', 0, 2],
    ['<s>', 0, 3],
    ['</s>', 0, 3],
    ['@@', 0, 4],
  ]
  const pieces: [string, number, number][] = [
    ...control,
    ['▁', -3, 1],
    ['a', -4, 1],
    ['b', -4, 1],
    ['ab', -5, 1],
    ['ba', -4.5, 1],
    ['▁a', -6, 1],
  ]
  const encode = (bytes: Buffer, text: string) => {
    const tokenizer = Tokenizer.fromBlob(tokenizerFromSentencePiece(bytes))
    return names(tokenizer, tokenizer.encode(text, { bos: false })).join(' ')
  }

  it('unigram takes the likeliest whole, BPE the best pair first', () => {
    // ▁ + ab + a is -12, ▁ + a + ba -11.5, ▁a + ba -10.5; BPE joins b and a (-4.5), then ▁ and a.
    expect(encode(sentencePiece(1, pieces), 'aba')).toBe('▁a ba')
    expect(encode(sentencePiece(2, pieces), 'aba')).toBe('▁a ba')
    // abab: unigram ▁a ba b is -14.5 and ▁ ab ab -13; BPE joins the ba in the middle first.
    expect(encode(sentencePiece(1, pieces), 'abab')).toBe('▁ ab ab')
    expect(encode(sentencePiece(2, pieces), 'abab')).toBe('▁a ba b')
  })

  it('keeps user-defined pieces, fuses unknown characters, and gives no control piece from text', () => {
    expect(encode(sentencePiece(2, pieces), 'a@@b')).toBe('▁a @@ b')
    expect(encode(sentencePiece(2, pieces), '@@b')).toBe('▁ @@ b')
    for (const type of [1, 2]) expect(encode(sentencePiece(type, pieces), 'a<s>xyz b')).toBe('▁a <unk> ▁ b')
  })

  it('follows its normalizer', () => {
    expect(encode(sentencePiece(2, pieces), '  a   b ')).toBe('▁a ▁ b')
    expect(encode(sentencePiece(2, pieces, [field(4, 0)]), ' a  b ')).toBe('▁ ▁a ▁ ▁ b ▁')
    expect(encode(sentencePiece(2, pieces, [field(3, 0)]), '  a')).toBe('a')
  })

  it.each([
    ['ERR_UNSUPPORTED_TOKENIZER', sentencePiece(3, pieces)],
    ['ERR_UNSUPPORTED_TOKENIZER', sentencePiece(2, pieces, [field(2, 'table')])],
    ['ERR_TOKENIZER_FILE', sentencePiece(2, [])],
    ['ERR_TOKENIZER_FILE', sentencePiece(2, [['a', Number.NaN, 1]])],
    ['ERR_TOKENIZER_FILE', Buffer.from([0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])],
    ['ERR_TOKENIZER_FILE', Buffer.from([0x0b, 0x00])],
    ['ERR_TOKENIZER_FILE', Buffer.from('not a protocol buffer')],
  ])('%s for what it cannot read', (code, bytes) => {
    expect(() => tokenizerFromSentencePiece(bytes)).toThrow(expect.objectContaining({ code }))
  })
})

describe('a vocabulary made by hand', () => {
  it('splits digits, merges, and parses user-defined tokens always but control tokens only when asked', () => {
    const tokenizer = Tokenizer.fromBlob(tokenizerFromGguf(smallMetadata()))
    expect(names(tokenizer, tokenizer.encode('the the 12'))).toEqual(['the', 'Ġthe', 'Ġ', '1', '2'])
    expect(names(tokenizer, tokenizer.encode('<think><|im_end|>'))).toEqual(['<think>', ...'<|im_end|>'])
    expect(names(tokenizer, tokenizer.encode('<|im_end|>', { special: true }))).toEqual(['<|im_end|>'])
    expect(tokenizer.addsBos).toBe(false)
    expect(names(tokenizer, tokenizer.encode('a', { bos: true }))).toEqual(['<|im_start|>', 'a'])
  })

  it('applies the expressions that the pre-tokenizer names stand for', () => {
    const split = (pre: string, text: string) => {
      const tokenizer = Tokenizer.fromBlob(tokenizerFromGguf({ ...smallMetadata(), 'tokenizer.ggml.pre': pre }))
      return names(tokenizer, tokenizer.encode(text, { bos: false })).join('|')
    }
    expect(split('gpt-2', '12')).toBe('12')
    expect(split('qwen2', '12')).toBe('1|2')
    for (const name of [
      'llama-bpe',
      'llama3',
      'llama-v3',
      'falcon3',
      'falcon_e',
      'falcon-h1',
      'pixtral',
      'midm-2.0',
      'lfm2',
    ]) {
      expect(split(name, '12'), name).toBe('12')
    }
  })

  it.each([
    [{ 'tokenizer.ggml.pre': 'deepseek-v9' }, 'ERR_UNSUPPORTED_TOKENIZER', 'deepseek-v9'],
    [{ 'tokenizer.ggml.pre': undefined }, 'ERR_UNSUPPORTED_TOKENIZER', 'does not name its pre-tokenizer'],
    [{ 'tokenizer.ggml.model': 'bert' }, 'ERR_UNSUPPORTED_TOKENIZER', 'bert'],
    [{ 'tokenizer.ggml.model': undefined }, 'ERR_TOKENIZER_FILE', 'tokenizer.ggml.model'],
    [{ 'tokenizer.ggml.tokens': 'abc' }, 'ERR_TOKENIZER_FILE', 'tokenizer.ggml.tokens'],
    [{ 'tokenizer.ggml.token_type': [1, 2] }, 'ERR_TOKENIZER_FILE', 'tokenizer.ggml.token_type'],
    [{ 'tokenizer.ggml.eos_token_id': 4_000_000 }, 'ERR_TOKENIZER_FILE', 'tokenizer.ggml.eos_token_id'],
    [{ 'tokenizer.ggml.model': 'llama' }, 'ERR_TOKENIZER_FILE', 'tokenizer.ggml.scores'],
  ])('refuses %o', (change, code, about) => {
    const build = () => tokenizerFromGguf({ ...smallMetadata(), ...change })
    expect(build).toThrow(expect.objectContaining({ code, message: expect.stringContaining(about) }))
  })

  it('refuses blobs that are none', () => {
    const good = tokenizerFromGguf(smallMetadata())
    const bad: unknown[] = [
      null,
      [],
      { tokenizer: {} },
      { tokenizer: { model: { type: 'BPE', vocab: {} } }, config: {} },
      { ...good, tokenizer: { ...good.tokenizer, model: { ...good.tokenizer.model, vocab: { a: -1 } } } },
      { ...good, tokenizer: { ...good.tokenizer, model: { ...good.tokenizer.model, vocab: { a: 2 ** 40 } } } },
      { ...good, tokenizer: { ...good.tokenizer, model: { ...good.tokenizer.model, merges: [['a']] } } },
      { ...good, tokenizer: { ...good.tokenizer, added_tokens: [{ content: 7 }] } },
      { ...good, tokenizer: { ...good.tokenizer, pre_tokenizer: 'gpt2' } },
    ]
    for (const blob of bad) {
      const build = () => Tokenizer.fromBlob(blob as TokenizerBlob)
      expect(build, JSON.stringify(blob)?.slice(0, 80)).toThrow(expect.objectContaining({ code: 'ERR_TOKENIZER_FILE' }))
    }
    expect(() => Tokenizer.fromBytes(Buffer.from('{"tokenizer"'))).toThrow(
      expect.objectContaining({ code: 'ERR_TOKENIZER_FILE' }),
    )
  })
})

describe('a vocabulary read from JSON', () => {
  const text = (vocab: string, rest = '') =>
    `{"tokenizer":{"model":{"type":"BPE","vocab":${vocab},"merges":[]}${rest}}}`
  const read = (json: string) => {
    const value = parseWithVocabulary(json) as { tokenizer: { model: { vocab: unknown } } }
    const { vocab } = value.tokenizer.model
    return vocab instanceof Map ? Object.fromEntries(vocab) : vocab
  }

  it('is what JSON.parse reads, whatever is in the tokens', () => {
    const tokens = [
      'a',
      '"',
      '\\',
      '\\"',
      '":5,',
      '"vocab":{',
      '}',
      '\n',
      'é',
      '\u2028',
      '😀',
      '\ud800',
      '',
      '1',
      '__proto__',
    ]
    const vocab = `{${tokens.map((token, id) => `${JSON.stringify(token)}:${id}`).join(',')}}`
    const json = text(vocab, ',"added_tokens":[{"id":1,"content":"\\"vocab\\":{"}]')
    expect((parseWithVocabulary(json) as ReturnType<typeof JSON.parse>).tokenizer.model.vocab).toBeInstanceOf(Map)
    expect(read(json)).toEqual(JSON.parse(json).tokenizer.model.vocab)
  })

  it.each([' ', '\n', '\t \r\n'])('may have white space wherever JSON has it: %j', (space) => {
    const json = `{${space}"tokenizer": {"model":{"type":"BPE","vocab"${space}:${space}{${['"a"', ':', '0', ',', '"\\"b"', ':', '1'].join(space)}${space}}${space},"merges":[]}}}`
    expect((parseWithVocabulary(json) as ReturnType<typeof JSON.parse>).tokenizer.model.vocab).toBeInstanceOf(Map)
    expect(read(json)).toEqual({ a: 0, '"b': 1 })
  })

  it('is a Map in the files that distill writes', async () => {
    const obt = await openObt('models/stories-5M.obt')
    const blob = parseTokenizerBlob((await obt.blob('tokenizer'))!)
    await obt.close()
    expect((blob.tokenizer.model as BpeModel).vocab).toBeInstanceOf(Map)
  })

  it.each(['{}', '{ }', '{"a":-1}', '{"a":1.5}', '{"a":"b"}', '{"a":99999999}', '[1]', '3'])(
    'is left to JSON.parse when it is anything unusual: %s',
    (vocab) => {
      expect(read(text(vocab))).toEqual(JSON.parse(vocab))
    },
  )

  it.each([
    '{"a":01}',
    '{"a": 01}',
    '{"a":0\u00a0}',
    '{"a":0 1}',
    '{"a":0',
    '{"a":0,}',
    '{"a\u0001":0}',
    '{"\\x":0}',
    '{"a"0}',
    '{"a":}',
  ])('is refused when it is no JSON: %s', (vocab) => {
    expect(() => read(text(vocab))).toThrow(SyntaxError)
  })

  it('is only the model’s own', () => {
    const json = '{"config":{"vocab":{"a":0}},"tokenizer":{"model":{"type":"BPE","vocab":{"b":1},"merges":[]}}}'
    expect(parseWithVocabulary(json)).toEqual(JSON.parse(json))
  })
})
