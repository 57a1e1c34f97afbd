/** Tokenizers as older folders have them: vocab.json and merges.txt. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import { folderText } from '../dist/import/hf-text.js'
import { Tokenizer } from '../dist/text/tokenizer.js'
import { dataFile, missing, readJson } from './data.js'
import { failure } from './expect-code.js'
import { temporaryFolder } from './tiny-model.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

let made = 0
function write(files: Record<string, unknown>): string {
  const path = folder.path(`folder-${made++}`)
  mkdirSync(path)
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(`${path}/${name}`, typeof content === 'string' ? content : JSON.stringify(content))
  }
  return path
}

async function tokenizerOf(path: string): Promise<Tokenizer | undefined> {
  const found = await folderText(path, {}).readTokenizer()
  return found && Tokenizer.fromBytes(Buffer.from(JSON.stringify(found.blob)))
}

const VOCAB = { '<s>': 0, '<pad>': 1, '</s>': 2, a: 3, b: 4, Ġ: 5, ab: 6, Ġab: 7, c: 8, '<mask>': 9 }
const MERGES = '#version: 0.2\na b\nĠ ab\n'
const CONFIG = { bos_token: { content: '</s>' }, eos_token: '</s>', pad_token: '<pad>', add_bos_token: true }

describe('vocab.json and merges.txt', () => {
  it('are a byte-level BPE, with the special tokens that the config names', async () => {
    const tokenizer = (await tokenizerOf(
      write({
        'vocab.json': VOCAB,
        'merges.txt': MERGES,
        'tokenizer_config.json': { ...CONFIG, tokenizer_class: 'GPT2Tokenizer' },
        'special_tokens_map.json': { additional_special_tokens: ['<mask>'] },
      }),
    ))!
    expect([...tokenizer.encode('ab abc', { bos: 'auto' })]).toEqual([2, 6, 7, 8])
    expect([...tokenizer.encode('ab</s>', { bos: false, special: true })]).toEqual([6, 2])
    expect([...tokenizer.encode('a<mask>', { bos: false, special: true })]).toEqual([3, 9])
    expect(tokenizer.decode([6, 7, 8])).toBe('ab abc')
    expect(tokenizer.eosIds).toEqual([2])
  })

  it('are both needed, and of a class that is known', async () => {
    expect(await tokenizerOf(write({ 'vocab.json': VOCAB }))).toBeUndefined()
    const files = { 'vocab.json': VOCAB, 'merges.txt': MERGES }
    for (const [more, code] of [
      [{ 'tokenizer_config.json': { tokenizer_class: 'BartTokenizer' } }, 'ERR_UNSUPPORTED_TOKENIZER'],
      [{ 'tokenizer_config.json': { add_prefix_space: true } }, 'ERR_UNSUPPORTED_TOKENIZER'],
      [{ 'vocab.json': { a: 'one' } }, 'ERR_TOKENIZER_FILE'],
      [{ 'merges.txt': 'a b\na\n' }, 'ERR_TOKENIZER_FILE'],
      [{ 'merges.txt': 'a b c\n' }, 'ERR_TOKENIZER_FILE'],
    ] as const) {
      const { code: found } = await failure(() => tokenizerOf(write({ ...files, ...more })))
      expect([more, found]).toEqual([more, code])
    }
  })

  const NAMES = ['gpt-2', 'qwen2'] as const
  it.skipIf(missing('golden/tokenizers/gpt-2/ids.json')).each(NAMES)(
    'give the ids of tokenizer.json: %s',
    async (name) => {
      const json = JSON.parse(readFileSync(dataFile(`golden/tokenizers/${name}/tokenizer.json`), 'utf8'))
      const { vocab, merges } = json.model as { vocab: Record<string, number>; merges: (string | string[])[] }
      const lines = merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' ')))
      const added = json.added_tokens as { id: number; content: string; special: boolean }[]
      const path = write({
        'vocab.json': vocab,
        'merges.txt': `#version: 0.2\n${lines.join('\n')}\n`,
        'tokenizer_config.json': {
          tokenizer_class: name === 'gpt-2' ? 'GPT2Tokenizer' : 'Qwen2Tokenizer',
          added_tokens_decoder: Object.fromEntries(added.map(({ id, ...token }) => [String(id), token])),
        },
      })
      const tokenizer = (await tokenizerOf(path))!
      const texts = readJson<Record<string, string>>(dataFile('golden/tokenizers/texts.json'))
      const { ids } = readJson<{ ids: Record<string, number[]> }>(dataFile(`golden/tokenizers/${name}/ids.json`))
      let compared = 0
      for (const [title, text] of Object.entries(texts)) {
        if (ids[title] === undefined) continue
        expect([title, ...tokenizer.encode(text, { bos: false, special: true })]).toEqual([title, ...ids[title]])
        compared++
      }
      expect(compared).toBeGreaterThan(10)
    },
  )
})
