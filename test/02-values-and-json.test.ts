/** Values in messages, and JSON as Python writes it. */
import { describe, expect, it } from 'vitest'
import { parseJson } from '../dist/files/json.js'
import { shown } from '../dist/shown-value.js'
import { SeededRandom } from './gguf-writer.js'

describe('a value in a message', () => {
  it.each([
    ['a "word"', '"a \\"word\\""'],
    [12n, '12'],
    [Number.NaN, 'NaN'],
    [Number.NEGATIVE_INFINITY, '-Infinity'],
    [undefined, 'nothing'],
    [null, 'null'],
    [true, 'true'],
    [() => 1, 'a function'],
    [Symbol('s'), 'a symbol'],
    [[1n, 'a', [2], {}, null], '[1, "a", […], {}, null]'],
    [{ a: 1n, b: { c: 2 }, d: undefined }, '{"a": 1, "b": {…}, "d": nothing}'],
    [Object.create(null, { a: { value: 1, enumerable: true } }), '{"a": 1}'],
    [new AbortController(), 'an object'],
  ])('%#', (value, text) => {
    expect(shown(value)).toBe(text)
  })

  it('is short, and costs little, however large it is', () => {
    const long = 'x'.repeat(1e6)
    const ring: unknown[] = []
    ring.push(ring)
    for (const value of [long, Array(1e6).fill(1n), { [long]: long }, Array(9).fill(long), ring, 10n ** 1000n]) {
      expect(shown(value).length).toBeLessThanOrEqual(64)
    }
    expect(shown(Array(9).fill(0))).toBe('[0, 0, 0, 0, 0, 0, 0, 0, …]')
  })
})

describe('JSON', () => {
  it('may have the numbers that only Python writes', () => {
    const text =
      '{"a": NaN, "b": [Infinity, -Infinity, 1e999, -0.5e-3], "c": "NaN, \\"Infinity\\"", "__proto__": {"d": NaN}}'
    const value = parseJson(text) as Record<string, unknown>
    expect(value.a).toBeNaN()
    expect(value.b).toEqual([Infinity, -Infinity, Infinity, -0.0005])
    expect(value.c).toBe('NaN, "Infinity"')
    expect(Object.keys(value)).toEqual(['a', 'b', 'c', '__proto__'])
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype)
  })

  it.each([
    ['', 'line 1, column 1: a value must be here, not the end'],
    ['{"a": 1,\n "b" 2}', 'line 2, column 6: : must be here, not "2"'],
    ['{"a": 1,\r\n\t}', 'line 2, column 2: a name in quotes must be here, not "}"'],
    ['[1\n2]', 'line 2, column 1: , or ] must be here, not "2"'],
    ['{"a": 1', 'line 1, column 8: , or } must be here, not the end'],
    ['[1]\n\nx', 'line 3, column 1: the end must be here, not "x"'],
    ["{'a': 1}", 'line 1, column 2: a name in quotes must be here, not "\'"'],
    ['[True]', 'line 1, column 2: a value must be here, not "T"'],
    ['[+1]', 'line 1, column 2: a value must be here, not "+"'],
    ['[01]', 'line 1, column 3: , or ] must be here, not "1"'],
    ['["a\\qb"]', 'line 1, column 2: this text has something that JSON does not know'],
    ['["a\nb"]', 'line 1, column 2: this text has something that JSON does not know'],
    ['["abc', 'line 1, column 2: this text has no end'],
    ['[-]', 'line 1, column 2: a value must be here, not "-"'],
    ['😀', 'line 1, column 1: a value must be here, not "😀"'],
  ])('that is wrong is told with its place: %j', (text, message) => {
    expect(() => JSON.parse(text)).toThrow()
    expect(() => parseJson(text)).toThrow(new SyntaxError(message))
  })

  it('that is nested without end is refused, not a stack overflow', () => {
    for (const text of ['['.repeat(1e6), '{"a":'.repeat(1e5), `${'['.repeat(1e5)}NaN${']'.repeat(1e5)}`]) {
      expect(() => parseJson(text)).toThrow(/^line 1, column \d+: /)
    }
  })

  it('is what JSON.parse takes, but for those numbers, in ten thousand damaged texts', () => {
    const random = new SeededRandom(3)
    const good = JSON.stringify({ a: [1, -2.5e3, 'x\\"\u2028é', null, true], 'b\n': { c: [], d: {}, e: false }, f: '' })
    const letters = '{}[]",:\\0123-+.eE ntrufalse\n\t\u0001x'
    let bad = 0
    for (let round = 0; round < 10_000; round++) {
      let text = good
      for (let changes = 1 + random.integer(3); changes > 0; changes--) {
        const at = random.integer(text.length)
        const letter = letters[random.integer(letters.length)]!
        text = text.slice(0, at) + (random.integer(2) ? letter : '') + text.slice(at + random.integer(2))
      }
      let expected: unknown
      try {
        expected = JSON.parse(text)
      } catch {
        bad++
        expect(() => parseJson(text), text).toThrow(/^line \d+, column \d+: /)
        continue
      }
      // Behind a NaN the whole text is read by our own reader.
      expect(parseJson(`[NaN,${text}]`), text).toEqual([Number.NaN, expected])
    }
    expect(bad).toBeGreaterThan(3000)
    expect(bad).toBeLessThan(9900)
  })
})
