/** Text that comes in pieces: never half a character, never part of a stop string. */
import { describe, expect, it } from 'vitest'
import { StopStrings } from '../dist/text/stop-strings.js'
import { type TokenSource, Utf8Stream } from '../dist/text/utf8-stream.js'

/** Ids 0 to 255 are bytes; from 256 on, special tokens. */
const BYTES: TokenSource = {
  tokenBytes: (id) => (id < 256 ? Uint8Array.of(id) : Buffer.from(`<special ${id}>`)),
  isSpecial: (id) => id >= 256,
}

function stream(stripFirstSpace = false, special = false): Utf8Stream {
  return new Utf8Stream(BYTES, { special, stripFirstSpace })
}

function pseudoRandom(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return (state >>> 8) % below
  }
}

describe('Utf8Stream', () => {
  it('gives whole characters only, and all of them', () => {
    const text = 'aé你🙂\ufeff\u{10ffff}e\u0301'
    const decoder = stream()
    const pieces = Array.from(Buffer.from(text), (byte) => decoder.push(byte))
    expect(pieces.join('') + decoder.flush()).toBe(text)
    expect(pieces.slice(0, 10)).toEqual(['a', '', 'é', '', '', '你', '', '', '', '🙂'])
    for (const piece of pieces) expect(piece).not.toMatch(/\p{Cs}|\ufffd/u)
  })

  it('equals decoding at once for any bytes, however they are cut', () => {
    const random = pseudoRandom(7)
    for (let round = 0; round < 3000; round++) {
      const good = Buffer.from(String.fromCodePoint(random(0xd800), 0x10000 + random(0x100000)))
      const bytes = [...good, ...Array.from({ length: random(8) }, () => 128 + random(128)), ...good.subarray(0, 2)]
      const decoder = stream()
      let text = ''
      for (let at = 0; at < bytes.length; ) {
        const end = at + 1 + random(4)
        text += decoder.push(bytes.slice(at, end))
        at = end
      }
      expect(text + decoder.flush()).toBe(Buffer.from(bytes).toString('utf8'))
    }
  })

  it('leaves special tokens out unless asked, and strips one space at the start', () => {
    const ids = [300, ...Buffer.from('  hi')]
    expect(stream(true).push(ids)).toBe(' hi')
    expect(stream(false).push(ids)).toBe('  hi')
    expect(stream(true, true).push(ids)).toBe('<special 300>  hi')
  })

  it('flushes a character that was cut off as U+FFFD', () => {
    const decoder = stream()
    expect(decoder.push([0xf0, 0x9f])).toBe('')
    expect(decoder.flush()).toBe('\ufffd')
    expect(decoder.push(65)).toBe('A')
  })
})

describe('StopStrings', () => {
  /** What comes out when `text` arrives in pieces of `size`. */
  function run(stops: string[], text: string, size: number): string {
    const matcher = new StopStrings(stops)
    let out = ''
    for (let at = 0; at < text.length; at += size) {
      const { text: released, stopped } = matcher.push(text.slice(at, at + size))
      out += released
      if (stopped) return `${out}|`
    }
    return out + matcher.flush()
  }

  it.each([
    [['END'], 'abc END def', 'abc |'],
    [['END'], 'abc EN', 'abc EN'],
    [['aab'], 'aaab', 'a|'],
    [['\n\n', 'User:'], 'hi\nUser: x', 'hi\n|'],
    [['b', 'abc'], 'xabc', 'x|'],
    [['ab', 'abcd'], 'xabcd', 'x|'],
    [['🙂!'], 'a🙂🙂!b', 'a🙂|'],
    [['x'], '', ''],
  ])('%o in %o', (stops, text, expected) => {
    for (let size = 1; size <= text.length + 1; size++) {
      // An earlier beginning counts although a shorter stop string is complete before it.
      const found = run(stops, text, size)
      expect(found.replace('|', ''), `pieces of ${size}`).toBe(expected.replace('|', ''))
    }
  })

  it('agrees with a search in the whole text, and hands nothing out too late', () => {
    const random = pseudoRandom(3)
    for (let round = 0; round < 5000; round++) {
      const word = (length: number) => Array.from({ length }, () => 'ab'[random(2)]).join('')
      const stops = Array.from({ length: 1 + random(3) }, () => word(1 + random(4)))
      const text = word(random(30))
      const first = Math.min(...stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0))
      const expected = first === Number.POSITIVE_INFINITY ? text : text.slice(0, first)
      expect(run(stops, text, 1 + random(5)).replace('|', ''), `${stops} in ${text}`).toBe(expected)
    }
  })

  it('holds back only what may be a beginning', () => {
    const matcher = new StopStrings(['stop'])
    expect(matcher.push('please st')).toEqual({ text: 'please ', stopped: false })
    expect(matcher.push('and')).toEqual({ text: 'stand', stopped: false })
    expect(matcher.push(' stop now')).toEqual({ text: ' ', stopped: true })
    expect(matcher.push('more')).toEqual({ text: '', stopped: true })
  })
})
