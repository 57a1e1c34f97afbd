/**
 * Ids of Hugging Face's own tokenizers, for every text and every way a vocabulary can come: as a folder, and in the
 * metadata of a GGUF file, which has only a name for the expression that cuts words.
 */
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { afterAll, describe, expect, it } from 'vitest'
import { readGgufText } from '../dist/import/gguf-text.js'
import { folderText } from '../dist/import/hf-text.js'
import type { SourceText } from '../dist/import/source-text.js'
import { Tokenizer } from '../dist/text/tokenizer.js'
import type { BpeModel, TokenizerJson } from '../dist/text/tokenizer-json.js'
import { BYTE_CHARACTERS } from './byte-level.js'
import { dataFile, missing, readJson } from './data.js'
import { failure } from './expect-code.js'
import { ggufFile, type MetadataValue } from './gguf-writer.js'
import { temporaryFolder } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

const GOLDEN = 'golden/tokenizers'
const PRE_TOKENIZERS = ['gpt-2', 'smollm', 'qwen2', 'qwen35', 'olmo', 'llama-bpe', 'falcon3']

interface Vocabulary {
  tokens: readonly string[]
  /** GGUF's: 1 ordinary, 3 control, 4 user-defined */
  types: readonly number[]
  merges: readonly string[]
}

function vocabularyOf({ model, added_tokens }: TokenizerJson): Vocabulary {
  const { vocab, merges } = model as BpeModel
  const tokens: string[] = []
  const types: number[] = []
  for (const [token, id] of Object.entries(vocab)) [tokens[id], types[id]] = [token, 1]
  for (const { content, id, special } of added_tokens!) [tokens[id], types[id]] = [content, special ? 3 : 4]
  return { tokens, types, merges: merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' '))) }
}

let files = 0
/** A GGUF file of nothing but that vocabulary; `more` adds metadata. */
function vocabularyFile({ tokens, types, merges }: Vocabulary, more: Record<string, MetadataValue>): string {
  const path = folder.path(`vocabulary${files++}.gguf`)
  const metadata = {
    'general.architecture': { string: 'llama' },
    ...more,
    'tokenizer.ggml.model': { string: 'gpt2' },
    'tokenizer.ggml.tokens': { strings: tokens },
    'tokenizer.ggml.token_type': { i32s: types },
    'tokenizer.ggml.merges': { strings: merges },
  }
  writeFileSync(path, ggufFile(metadata, []))
  return path
}

const named = (pre: string) => ({ 'tokenizer.ggml.pre': { string: pre } })

async function tokenizerOf(text: SourceText): Promise<Tokenizer> {
  return Tokenizer.fromBlob((await text.readTokenizer())!.blob)
}

const idsOf = (tokenizer: Tokenizer, text: string) => Array.from(tokenizer.encode(text, { special: true, bos: false }))

function expectIds(tokenizer: Tokenizer, ids: Record<string, number[]>): void {
  const texts = Object.entries(readJson<Record<string, string>>(dataFile(`${GOLDEN}/texts.json`)))
  expect(texts.length).toBeGreaterThan(40)
  for (const [name, text] of texts)
    expect(idsOf(tokenizer, text), `${name}: ${JSON.stringify(text)}`).toEqual(ids[name])
}

describe.skipIf(missing(`${GOLDEN}/texts.json`))('small vocabularies', () => {
  const jsonOf = (pre: string) => readJson<TokenizerJson>(dataFile(`${GOLDEN}/${pre}/tokenizer.json`))
  const idsFor = (pre: string) => readJson<{ ids: Record<string, number[]> }>(dataFile(`${GOLDEN}/${pre}/ids.json`)).ids

  it.each(PRE_TOKENIZERS)('%s: a folder', async (pre) => {
    const tokenizer = await tokenizerOf(folderText(dataFile(`${GOLDEN}/${pre}`), {}))
    expectIds(tokenizer, idsFor(pre))
    expect([tokenizer.addsBos, tokenizer.eosIds.length > 0]).toEqual([false, true])
  })

  it.each(PRE_TOKENIZERS)('%s: a GGUF file that names it', async (pre) => {
    const path = vocabularyFile(vocabularyOf(jsonOf(pre)), named(pre))
    expectIds(await tokenizerOf(await readGgufText(path)), idsFor(pre))
  })

  it('tell the names apart: each gives other ids than the others', async () => {
    const texts = Object.values(readJson<Record<string, string>>(dataFile(`${GOLDEN}/texts.json`)))
    const vocabulary = vocabularyOf(jsonOf('qwen35'))
    const found = new Set<string>()
    for (const pre of ['gpt-2', 'smollm', 'qwen2', 'qwen35', 'olmo', 'llama-bpe']) {
      const tokenizer = await tokenizerOf(await readGgufText(vocabularyFile(vocabulary, named(pre))))
      found.add(JSON.stringify(texts.map((text) => idsOf(tokenizer, text))))
    }
    expect(found.size).toBe(6)
  })

  it.each(['bitnet-b1.58', 'bitnet-25', 'bitnet'])('without a name, of a %s: Llama 3’s', async (architecture) => {
    const vocabulary = vocabularyOf(jsonOf('llama-bpe'))
    for (const pre of [{}, named('default')]) {
      const path = vocabularyFile(vocabulary, { ...pre, 'general.architecture': { string: architecture } })
      expectIds(await tokenizerOf(await readGgufText(path)), idsFor('llama-bpe'))
    }
    const texts = Object.values(readJson<Record<string, string>>(dataFile(`${GOLDEN}/texts.json`)))
    const other = named('gpt-2') // a name counts, whatever the architecture
    const found = [other, { ...other, 'general.architecture': { string: architecture } }].map(async (metadata) => {
      const tokenizer = await tokenizerOf(await readGgufText(vocabularyFile(vocabulary, metadata)))
      return texts.map((text) => idsOf(tokenizer, text))
    })
    expect(await found[1]).toEqual(await found[0])
  })

  it('without a name, of any other architecture, are refused', async () => {
    for (const pre of [{}, named('default')]) {
      const text = await readGgufText(vocabularyFile(vocabularyOf(jsonOf('llama-bpe')), pre))
      const { code, message } = await failure(() => text.readTokenizer())
      expect([code, message]).toEqual(['ERR_UNSUPPORTED_TOKENIZER', expect.stringContaining('pre-tokenizer')])
    }
  })
})

interface RealIds {
  ids: Record<string, number[]>
  'war-and-peace.txt': Record<string, number | string>
  added_tokens: Record<string, number>
  merges: number
}

/** A vocabulary by ranks, which is what tiktoken keeps: each token's merge is the last step of joining its bytes. */
function fromRanks(packed: Uint8Array, added: Record<string, number>): Vocabulary {
  const tokens: string[] = []
  for (let at = 0; at < packed.length; at += 1 + packed[at]!) {
    const bytes = packed.subarray(at + 1, at + 1 + packed[at]!)
    tokens.push(Array.from(bytes, (byte) => BYTE_CHARACTERS[byte]!).join(''))
  }
  const ranks = new Map(tokens.map((token, rank) => [token, rank]))
  const merges = tokens.flatMap((token, rank) => lastMerge(token, rank, ranks) ?? [])
  const types = tokens.map(() => 1)
  for (const [content, id] of Object.entries(added)) [tokens[id], types[id]] = [content, content.includes('|') ? 3 : 4]
  return { tokens, types, merges }
}

/** The two parts that ranks below `rank` leave of a token's bytes; undefined when they leave another number. */
function lastMerge(token: string, rank: number, ranks: ReadonlyMap<string, number>): string | undefined {
  const parts = Array.from(token)
  for (;;) {
    let [best, lowest] = [-1, rank]
    for (let i = 0; i + 1 < parts.length; i++) {
      const found = ranks.get(parts[i]! + parts[i + 1]!)
      if (found !== undefined && found < lowest) [best, lowest] = [i, found]
    }
    if (best < 0) break
    parts.splice(best, 2, parts[best]! + parts[best + 1]!)
  }
  return parts.length === 2 ? parts.join(' ') : undefined
}

const RANKS = `${GOLDEN}/real/qwen35-ranks.bin.gz`
const WAR_AND_PEACE = 'text/war-and-peace.txt'
const GPT2_FILE = 'gguf/ggml-vocab-gpt-2.gguf'
const SMOLLM_FILE = 'weights/SmolLM2-135M-Instruct.Q4_1.gguf'

describe.skipIf(missing(RANKS, WAR_AND_PEACE, GPT2_FILE, SMOLLM_FILE))('real vocabularies', () => {
  const golden = (name: string) => readJson<RealIds>(dataFile(`${GOLDEN}/real/${name}.ids.json`))

  async function expectReal(path: string, expected: RealIds): Promise<Tokenizer> {
    const tokenizer = await tokenizerOf(await readGgufText(path))
    expectIds(tokenizer, expected.ids)
    const ids = await tokenizer.encodeLong(readFileSync(dataFile(WAR_AND_PEACE), 'utf8'), { bos: false })
    const bytes = new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength)
    const [count, sha256] = Object.values(expected['war-and-peace.txt'])
    expect([ids.length, createHash('sha256').update(bytes).digest('hex')]).toEqual([count, sha256])
    tokenizer.dispose()
    return tokenizer
  }

  it.each([
    ['gpt-2', GPT2_FILE],
    ['smollm', SMOLLM_FILE],
  ])('%s', async (name, file) => {
    await expectReal(dataFile(file), golden(name))
  })

  it('qwen35', async () => {
    const expected = golden('qwen35')
    const vocabulary = fromRanks(gunzipSync(readFileSync(dataFile(RANKS))), expected.added_tokens)
    expect(vocabulary.merges.length).toBe(expected.merges)
    const end = { 'tokenizer.ggml.eos_token_id': { u32: expected.added_tokens['<|im_end|>']! } }
    const tokenizer = await expectReal(vocabularyFile(vocabulary, { ...named('qwen35'), ...end }), expected)
    expect(tokenizer.addsBos).toBe(false)
    expect(tokenizer.eosIds).toContain(248046)
  })
})
