/**
 * Grammars that a caller wrote in EBNF: limits that the library lacks, and characters beyond ASCII in classes, which it
 * takes for bytes.
 */
import { OnebitError } from '../errors.js'
import { type CodePoints, characterClass, complement, union } from './code-points.js'
import { grammarLimit } from './ebnf.js'

const MOST_TEXT = 1 << 16
const MOST_REPEATS = 1000
const MOST_DEPTH = 32

const COMMENT = /#[^\n]*/y
const TEXT = /"(?:[^"\\\n]|\\.)*"/y
const CLASS = /\[(?:[^\]\\\n]|\\.)*\]/y
const COUNTS = /\{\s*(\d{0,9})\s*(?:,\s*(\d{0,9})\s*)?\}/y
const MEMBER = /\\(?:x([0-9a-fA-F]{1,8})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))|(.)/suy
const ESCAPES: Record<string, number> = { n: 10, t: 9, r: 13, b: 8, f: 12, v: 11, a: 7, e: 27, 0: 0 }

/** The grammar as the library is to be given it. @throws OnebitError ERR_GRAMMAR, ERR_GRAMMAR_LIMIT */
export function checkedGrammar(source: string): string {
  if (source.length > MOST_TEXT) {
    throw grammarLimit(`The grammar has ${source.length} characters, at most ${MOST_TEXT} are possible`)
  }
  let result = ''
  let depth = 0
  for (let at = 0; at < source.length; ) {
    const part = matchAt(COMMENT, source, at) ?? matchAt(TEXT, source, at) ?? source[at]!
    const wholeClass = matchAt(CLASS, source, at)
    const counts = matchAt(COUNTS, source, at)
    if (counts !== undefined) checkCounts(counts)
    if (part === '(' && ++depth > MOST_DEPTH)
      throw grammarLimit(`The grammar has more than ${MOST_DEPTH} brackets in one another`)
    if (part === ')') depth--
    result += wholeClass === undefined ? (counts ?? part) : rewritten(wholeClass)
    at += (wholeClass ?? counts ?? part).length
  }
  return result
}

function matchAt(form: RegExp, source: string, at: number): string | undefined {
  form.lastIndex = at
  return form.exec(source)?.[0]
}

function checkCounts(text: string): void {
  for (const number of text.match(/\d+/g) ?? []) {
    if (Number(number) > MOST_REPEATS) throw grammarLimit(`The grammar repeats more than ${MOST_REPEATS} times`)
  }
}

function rewritten(text: string): string {
  const inside = text.slice(1, -1)
  const isNegated = inside.startsWith('^')
  const ranges: [number, number][] = []
  const body = isNegated ? inside.slice(1) : inside
  MEMBER.lastIndex = 0
  const points: (number | '-')[] = []
  for (let found = MEMBER.exec(body); found; found = MEMBER.exec(body)) points.push(memberPoint(found, text))
  for (let i = 0; i < points.length; i++) {
    const first = points[i]!
    const hasRange = points[i + 1] === '-' && i + 2 < points.length
    const last = hasRange ? points[i + 2]! : first
    if (hasRange) i += 2
    const [from, to] = [first, last].map((point) => (point === '-' ? 0x2d : point)) as [number, number]
    if (from > to) throw new OnebitError('ERR_GRAMMAR', `The class ${text.slice(0, 60)} has a range in the wrong order`)
    ranges.push([from, to])
  }
  const set: CodePoints = union(ranges)
  if (set.length === 0 || set.at(-1)![1] <= 0x7f) return text
  const whole = isNegated ? complement(set) : complement(complement(set))
  if (whole.length === 0) throw new OnebitError('ERR_GRAMMAR', `The class ${text.slice(0, 60)} has no characters`)
  return characterClass(whole)
}

function memberPoint(found: RegExpExecArray, text: string): number | '-' {
  const [, hex, short, long, escaped, plain] = found
  const digits = hex ?? short ?? long
  if (digits !== undefined) {
    const point = Number.parseInt(digits, 16)
    if (point <= 0x10ffff) return point
    throw new OnebitError('ERR_GRAMMAR', `The class ${text.slice(0, 60)} has a character that is none`)
  }
  if (plain === '-') return '-'
  return escaped === undefined ? plain!.codePointAt(0)! : (ESCAPES[escaped] ?? escaped.codePointAt(0)!)
}
