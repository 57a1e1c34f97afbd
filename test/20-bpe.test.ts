/** Byte-pair encoding of a word against the plain way to do it, and words of any length. */
import { describe, expect, it } from 'vitest'
import { Bpe } from '../dist/text/bpe.js'
import type { BpeModel } from '../dist/text/tokenizer-json.js'
import { SeededRandom } from './gguf-writer.js'

function bpe(merges: string[], more: Partial<BpeModel> = {}, special: string[] = []): Bpe {
  const letters = [...new Set(merges.join('').replaceAll(' ', ''))]
  const vocab = new Map([...letters, ...merges.map((merge) => merge.replace(' ', ''))].map((token, id) => [token, id]))
  return new Bpe({ type: 'BPE', vocab, merges, ...more } as BpeModel, vocab, new Set(special))
}

/** Looks for the pair of the lowest rank, the leftmost of equals, until no merge joins any. */
function plainly(ranks: Map<string, number>, word: string): string[] {
  const symbols = Array.from(word)
  for (;;) {
    let best = -1
    let lowest = Number.POSITIVE_INFINITY
    for (let i = 0; i + 1 < symbols.length; i++) {
      const rank = ranks.get(`${symbols[i]} ${symbols[i + 1]}`)
      if (rank !== undefined && rank < lowest) [best, lowest] = [i, rank]
    }
    if (best < 0) return symbols
    symbols.splice(best, 2, symbols[best]! + symbols[best + 1]!)
  }
}

describe('a word', () => {
  it('is joined as the plain way joins it, whatever the merges and the ranks', () => {
    const random = new SeededRandom(5)
    for (let round = 0; round < 400; round++) {
      const tokens = ['a', 'b', '😀']
      const merges: string[] = []
      for (let i = random.integer(12); i >= 0; i--) {
        const [left, right] = [tokens[random.integer(tokens.length)]!, tokens[random.integer(tokens.length)]!]
        if (merges.includes(`${left} ${right}`)) continue
        merges.push(`${left} ${right}`)
        tokens.push(left + right)
      }
      const given = merges.map(() => random.integer(4))
      const isRanked = random.integer(2) === 0
      const model = bpe(merges, isRanked ? { merge_ranks: given } : {})
      const ranks = new Map(merges.map((merge, i) => [merge, isRanked ? given[i]! : i]))
      for (let length = 0; length < 25; length += 3) {
        const word = Array.from({ length }, () => ['a', 'b', '😀', 'c'][random.integer(4)]).join('')
        expect(model.split(word), `${merges} in ${word}`).toEqual(plainly(ranks, word))
      }
    }
  })

  it('is taken whole where the model says so, and never becomes a special token', () => {
    expect(bpe(['b c', 'a b']).split('abc')).toEqual(['a', 'bc'])
    expect(bpe(['b c', 'a b', 'ab c'], { ignore_merges: true }).split('abc')).toEqual(['abc'])
    expect(bpe(['a b', 'ab c'], {}, ['abc']).split('abc')).toEqual(['ab', 'c'])
  })

  it('may be of hundreds of thousands of letters', () => {
    const doubling = ['a a', 'aa aa', 'aaaa aaaa']
    const length = process.env.ONEBIT_LONG ? 3_000_000 : 300_000
    const tokens = bpe(doubling).split('a'.repeat(length + 3))
    expect(tokens.length).toBe(length / 8 + 2)
    expect(tokens.slice(-3)).toEqual(['aaaaaaaa', 'aa', 'a'])
    const mixed = Array.from({ length }, (_, i) => 'ab'[i % 3 === 0 ? 1 : 0]).join('')
    expect(bpe(['a b', 'a a', 'b a', 'aa b']).split(mixed).join('')).toBe(mixed)
  })
})
