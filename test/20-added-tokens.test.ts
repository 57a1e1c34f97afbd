/**
 * Added tokens with every flag, against the answers of Hugging Face's tokenizers (scripts/make-added-tokens-fixture.py), and
 * those that end an answer whatever their type is.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { tokenizerFromGguf } from '../dist/text/gguf-vocabulary.js'
import { Tokenizer } from '../dist/text/tokenizer.js'
import type { TokenizerJson } from '../dist/text/tokenizer-json.js'
import { PROJECT } from './data.js'

interface Case {
  tokenizer: TokenizerJson
  answers: { text: string; ids: number[]; decoded: string }[]
}
const cases: Record<string, Case> = JSON.parse(
  readFileSync(join(PROJECT, 'test', 'fixtures', 'added-tokens.json'), 'utf8'),
)

describe('the flags of added tokens', () => {
  it.each(Object.entries(cases))('%s: ids', (_, { tokenizer: json, answers }) => {
    const tokenizer = Tokenizer.fromBlob({ tokenizer: json, config: {} })
    expect(answers.length).toBeGreaterThan(80)
    for (const { text, ids } of answers) {
      expect(Array.from(tokenizer.encode(text, { special: true })), JSON.stringify(text)).toEqual(ids)
    }
  })

  it.each(Object.entries(cases))('%s: the way back', (name, { tokenizer: json, answers }) => {
    const tokenizer = Tokenizer.fromBlob({ tokenizer: json, config: {} })
    for (const { text, ids, decoded } of answers) {
      // ByteLevel reads the letters of an added token there as bytes: é comes back broken. Here it stays é.
      const expected = name === 'space signs' ? decoded : decoded.replaceAll('\ufffd', 'é')
      expect(tokenizer.decode(ids), JSON.stringify(text)).toBe(expected)
    }
  })

  it('a space before a token that the normalizer took in is there again', () => {
    const tokenizer = Tokenizer.fromBlob({ tokenizer: cases['space signs']!.tokenizer, config: {} })
    for (const text of ['x <tool> y', '<tool> y', 'x <a b><tool>', ' <tool>']) {
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text)
    }
  })
})

describe('tokens that end an answer', () => {
  const CONTROL = 3
  const USER_DEFINED = 4
  function withTokens(tokens: [string, number][], more: Record<string, unknown> = {}): Tokenizer {
    const letters = Array.from('abcdefghijklmnopqrstuvwxyz<>|_/[]')
    const all = [...letters, ...tokens.map(([token]) => token)]
    return Tokenizer.fromBlob(
      tokenizerFromGguf({
        'tokenizer.ggml.model': 'gpt2',
        'tokenizer.ggml.pre': 'gpt-2',
        'tokenizer.ggml.tokens': all,
        'tokenizer.ggml.token_type': [...letters.map(() => 1), ...tokens.map(([, type]) => type)],
        'tokenizer.ggml.merges': [],
        ...more,
      }),
    )
  }
  const ends = (tokenizer: Tokenizer) => tokenizer.eosIds.map((id) => tokenizer.idToToken(id))

  it.each([
    '<|im_end|>',
    '<|eot_id|>',
    '<|end|>',
    '<EOT>',
    '<|return|>',
    '<end_of_turn>',
    '<|endoftext|>',
    '<|eom_id|>',
  ])('%s, whatever its type is, and then it is special', (name) => {
    for (const type of [CONTROL, USER_DEFINED, 1]) {
      const tokenizer = withTokens([[name, type]])
      expect(ends(tokenizer)).toEqual([name])
      expect(tokenizer.isSpecial(tokenizer.eosIds[0]!)).toBe(true)
      // Written in a text it is letters; the vocabulary has no others.
      expect(Array.from(tokenizer.encode('<a>')).length).toBe(3)
      expect(tokenizer.encode(name)).not.toContain(tokenizer.eosIds[0]!)
      expect(Array.from(tokenizer.encode(name, { special: true }))).toEqual([tokenizer.eosIds[0]])
      expect(tokenizer.decode(tokenizer.eosIds, { special: false })).toBe('')
    }
  })

  it('</s> only where it is an added token: elsewhere it is the letters of a text', () => {
    expect(ends(withTokens([['</s>', USER_DEFINED]]))).toEqual(['</s>'])
    expect(ends(withTokens([['</s>', 1]]))).toEqual([])
  })

  it('not <|end|> in the format where it ends a message inside an answer', () => {
    const names: [string, number][] = [
      ['<|end|>', CONTROL],
      ['<|return|>', CONTROL],
      ['<|call|>', CONTROL],
    ]
    expect(ends(withTokens(names))).toEqual(['<|return|>', '<|call|>'])
    expect(ends(withTokens(names.slice(0, 2)))).toEqual(['<|end|>', '<|return|>'])
  })

  it('beside those that the file names', () => {
    const names: [string, number][] = [
      ['<|stop|>', CONTROL],
      ['<|im_end|>', USER_DEFINED],
    ]
    expect(ends(withTokens(names, { 'tokenizer.ggml.eos_token_id': 33 }))).toEqual(['<|stop|>', '<|im_end|>'])
  })
})
