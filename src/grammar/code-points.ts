/**
 * Sets of characters, and how XGrammar is told of them. Its character classes hold bytes: a member above U+007F has to be
 * written as the bytes of its UTF-8. Only a negated class of ASCII characters means whole characters.
 */

/** [first, last] pairs, ascending, neither overlapping nor touching */
export type CodePoints = readonly (readonly [number, number])[]

const LAST = 0x10ffff
/** Every character that a text can have; surrogates are none. */
export const ALL: CodePoints = [
  [0, 0xd7ff],
  [0xe000, LAST],
]
const NOT_ASCII: CodePoints = [
  [0x80, 0xd7ff],
  [0xe000, LAST],
]

export function union(...sets: CodePoints[]): CodePoints {
  const sorted = sets.flat().sort((a, b) => a[0] - b[0])
  const result: [number, number][] = []
  for (const [first, last] of sorted) {
    const before = result.at(-1)
    if (before && first <= before[1] + 1) before[1] = Math.max(before[1], last)
    else result.push([first, last])
  }
  return result
}

export function intersection(a: CodePoints, b: CodePoints): CodePoints {
  const result: [number, number][] = []
  for (const [first, last] of a) {
    for (const [from, to] of b) {
      if (Math.max(first, from) <= Math.min(last, to)) result.push([Math.max(first, from), Math.min(last, to)])
    }
  }
  return result
}

/** All characters but these. */
export function complement(set: CodePoints): CodePoints {
  const gaps: [number, number][] = []
  let next = 0
  for (const [first, last] of set) {
    if (first > next) gaps.push([next, first - 1])
    next = last + 1
  }
  if (next <= LAST) gaps.push([next, LAST])
  return intersection(gaps, ALL)
}

export function contains(set: CodePoints, point: number): boolean {
  return set.some(([first, last]) => first <= point && point <= last)
}

/** Whether every character above U+007F is in it. */
export function hasAllBeyondAscii(set: CodePoints): boolean {
  const beyond = intersection(set, NOT_ASCII)
  return beyond.length === 2 && beyond[0]![0] === 0x80 && beyond[1]![1] === LAST
}

/** An EBNF expression that matches one character of the set, which must have some. */
export function characterClass(set: CodePoints): string {
  if (hasAllBeyondAscii(set)) return `[^${members(intersection(complement(set), [[0, 0x7f]]))}]`
  const parts: string[] = []
  const ascii = intersection(set, [[0, 0x7f]])
  if (ascii.length > 0) parts.push(`[${members(ascii)}]`)
  for (const [first, last] of intersection(set, NOT_ASCII)) parts.push(...byteSequences(first, last))
  return parts.length === 1 && ascii.length > 0 ? parts[0]! : `(${parts.join(' | ')})`
}

function members(set: CodePoints): string {
  // A class must have a member; NUL is the character that no answer needs.
  if (set.length === 0) return '\\x00'
  return set.map(([first, last]) => (first === last ? escaped(first) : `${escaped(first)}-${escaped(last)}`)).join('')
}

function escaped(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, '0')}`
}

/**
 * A byte that no text in UTF-8 has, and that no token of ours has (vocabulary-text.ts). A class of one byte would be
 * taken for a character; with this one beside it, it stays a byte.
 */
const NO_BYTE = 0xff

function bytes(first: number, last: number): string {
  return first === last ? `[${escaped(first)}${escaped(NO_BYTE)}]` : `[${escaped(first)}-${escaped(last)}]`
}

/** The UTF-8 of the characters first to last as alternatives of byte classes, each of which has all combinations. */
function byteSequences(first: number, last: number): string[] {
  for (const end of [0x7ff, 0xffff]) {
    if (first <= end && last > end) return [...byteSequences(first, end), ...byteSequences(end + 1, last)]
  }
  const [low, high] = [utf8(first), utf8(last)]
  return sameLength(low, high).map((sequence) => sequence.map(([from, to]) => bytes(from, to)).join(' '))
}

type ByteRange = [number, number]

function sameLength(low: number[], high: number[]): ByteRange[][] {
  if (low.length === 1) return [[[low[0]!, high[0]!]]]
  const [head, ...lowRest] = low as [number, ...number[]]
  const [top, ...highRest] = high as [number, ...number[]]
  if (head === top) return sameLength(lowRest, highRest).map((rest) => [[head, head], ...rest])
  const least = lowRest.map(() => 0x80)
  const most = lowRest.map(() => 0xbf)
  const startsWhole = lowRest.every((byte) => byte === 0x80)
  const endsWhole = highRest.every((byte) => byte === 0xbf)
  const result: ByteRange[][] = []
  if (!startsWhole) result.push(...sameLength(lowRest, most).map((rest): ByteRange[] => [[head, head], ...rest]))
  const [from, to] = [startsWhole ? head : head + 1, endsWhole ? top : top - 1]
  if (from <= to) result.push([[from, to], ...least.map((byte, i): ByteRange => [byte, most[i]!])])
  if (!endsWhole) result.push(...sameLength(least, highRest).map((rest): ByteRange[] => [[top, top], ...rest]))
  return result
}

function utf8(point: number): number[] {
  const tail = (shift: number) => 0x80 | ((point >> shift) & 0x3f)
  if (point <= 0x7ff) return [0xc0 | (point >> 6), tail(0)]
  if (point <= 0xffff) return [0xe0 | (point >> 12), tail(6), tail(0)]
  return [0xf0 | (point >> 18), tail(12), tail(6), tail(0)]
}
