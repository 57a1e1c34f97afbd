/** Regular expressions as JavaScript and JSON Schema write them: what of them a grammar can say. */
import { OnebitError } from '../errors.js'
import { shown } from '../shown-value.js'
import { ALL, type CodePoints, complement, intersection, union } from './code-points.js'

export type Pattern =
  | { kind: 'set'; set: CodePoints }
  | { kind: 'sequence'; items: readonly Pattern[] }
  | { kind: 'choice'; items: readonly Pattern[] }
  | { kind: 'repeat'; item: Pattern; min: number; max: number | undefined }
  | { kind: 'start' }
  | { kind: 'end' }

const MOST_LENGTH = 8192
const MOST_DEPTH = 32
const MOST_REPEATS = 1000

const DIGIT: CodePoints = [[0x30, 0x39]]
const WORD = union(DIGIT, [
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
])
const SPACE = union(
  [
    [0x09, 0x0d],
    [0x20, 0x20],
    [0xa0, 0xa0],
    [0x1680, 0x1680],
    [0x2000, 0x200a],
  ],
  [
    [0x2028, 0x2029],
    [0x202f, 0x202f],
    [0x205f, 0x205f],
    [0x3000, 0x3000],
    [0xfeff, 0xfeff],
  ],
)
const LINE_END: CodePoints = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
]
const CLASSES: Record<string, CodePoints> = {
  d: DIGIT,
  D: complement(DIGIT),
  w: WORD,
  W: complement(WORD),
  s: SPACE,
  S: complement(SPACE),
}
const CONTROLS: Record<string, number> = { t: 9, n: 10, v: 11, f: 12, r: 13, 0: 0 }

/** @throws OnebitError ERR_REGEX, ERR_GRAMMAR_LIMIT */
export function parsePattern(source: string): Pattern {
  if (source.length > MOST_LENGTH) {
    throw new OnebitError(
      'ERR_GRAMMAR_LIMIT',
      `The regular expression has ${source.length} characters, at most ${MOST_LENGTH} are possible`,
    )
  }
  return new PatternParser(source).whole()
}

class PatternParser {
  readonly #source: string
  readonly #points: string[]
  #at = 0

  constructor(source: string) {
    this.#source = source
    this.#points = Array.from(source)
  }

  whole(): Pattern {
    const pattern = this.#choice(0)
    if (this.#at < this.#points.length) throw this.#error('a ) without its (')
    return pattern
  }

  #choice(depth: number): Pattern {
    if (depth > MOST_DEPTH) {
      throw new OnebitError(
        'ERR_GRAMMAR_LIMIT',
        `The regular expression has more than ${MOST_DEPTH} groups in one another`,
      )
    }
    const items = [this.#sequence(depth)]
    while (this.#takes('|')) items.push(this.#sequence(depth))
    if (items.length === 1) return items[0]!
    // Alternatives of one character each are one set: a state less for each of them.
    const sets = items.flatMap((item) => (item.kind === 'set' ? [item.set] : []))
    return sets.length === items.length ? { kind: 'set', set: union(...sets) } : { kind: 'choice', items }
  }

  #sequence(depth: number): Pattern {
    const items: Pattern[] = []
    while (this.#at < this.#points.length && !this.#isNext('|') && !this.#isNext(')')) {
      items.push(this.#repeated(this.#atom(depth)))
    }
    return items.length === 1 ? items[0]! : { kind: 'sequence', items }
  }

  #atom(depth: number): Pattern {
    if (this.#takes('^')) return { kind: 'start' }
    if (this.#takes('$')) return { kind: 'end' }
    if (this.#takes('(')) return this.#group(depth)
    if (this.#takes('[')) return { kind: 'set', set: this.#class() }
    if (this.#takes('.')) return { kind: 'set', set: complement(LINE_END) }
    const character = this.#next('a character')
    if (character === '\\') return { kind: 'set', set: this.#escape(false) }
    if ('*+?'.includes(character) || (character === '{' && this.#counts() !== undefined)) {
      throw this.#error('nothing that could be repeated')
    }
    return { kind: 'set', set: this.#single(character.codePointAt(0)!) }
  }

  #group(depth: number): Pattern {
    if (this.#takes('?')) {
      const kind = this.#next('a kind of group')
      if (kind === '<' && !this.#isNext('=') && !this.#isNext('!')) {
        while (this.#next('the end of a name') !== '>');
      } else if (kind !== ':') {
        throw this.#error(`(?${kind}: looking ahead or back and flags are not supported`)
      }
    }
    const inside = this.#choice(depth + 1)
    if (!this.#takes(')')) throw this.#error('a ( without its )')
    return inside
  }

  #repeated(item: Pattern): Pattern {
    const counts = this.#quantifier()
    if (!counts) return item
    if (item.kind === 'start' || item.kind === 'end') throw this.#error('^ and $ cannot be repeated')
    this.#takes('?') // lazy or not, it is the same text
    const again = this.#quantifier()
    if (again) throw this.#error('nothing that could be repeated')
    const [min, max] = counts
    if (max !== undefined && max < min) throw this.#error(`{${min},${max}} has its numbers in the wrong order`)
    if (min > MOST_REPEATS || (max ?? 0) > MOST_REPEATS) {
      throw new OnebitError('ERR_GRAMMAR_LIMIT', `The regular expression repeats more than ${MOST_REPEATS} times`)
    }
    return { kind: 'repeat', item, min, max }
  }

  #quantifier(): [number, number | undefined] | undefined {
    if (this.#takes('*')) return [0, undefined]
    if (this.#takes('+')) return [1, undefined]
    if (this.#takes('?')) return [0, 1]
    if (!this.#isNext('{')) return undefined
    this.#at++
    const counts = this.#counts()
    if (!counts) this.#at--
    return counts
  }

  /** After a {: the numbers up to }, or undefined with nothing taken when it is an ordinary brace. */
  #counts(): [number, number | undefined] | undefined {
    const text = this.#points.slice(this.#at, this.#at + 24).join('')
    const found = /^(\d{1,9})(?:(,)(\d{1,9})?)?\}/.exec(text)
    if (!found) return undefined
    this.#at += found[0].length
    const min = Number(found[1])
    return [min, found[2] === undefined ? min : found[3] === undefined ? undefined : Number(found[3])]
  }

  /** After a [. */
  #class(): CodePoints {
    const negated = this.#takes('^')
    const parts: CodePoints[] = []
    while (!this.#takes(']')) {
      const first = this.#classMember()
      if (!this.#isNext('-') || this.#points[this.#at + 1] === ']') {
        parts.push(first)
        continue
      }
      this.#at++
      const last = this.#classMember()
      const [from, to] = [onlyPoint(first), onlyPoint(last)]
      if (from === undefined || to === undefined || from > to) throw this.#error('a range that is none')
      parts.push(intersection([[from, to]], ALL))
    }
    const set = union(...parts)
    const result = negated ? complement(set) : set
    if (result.length === 0) throw this.#error('a class without characters')
    return result
  }

  #classMember(): CodePoints {
    const character = this.#next('the ] of a class')
    return character === '\\' ? this.#escape(true) : this.#single(character.codePointAt(0)!)
  }

  /** After a \. */
  #escape(inClass: boolean): CodePoints {
    const character = this.#next('something after \\')
    const known = CLASSES[character]
    if (known) return known
    if (inClass && character === 'b') return this.#single(8)
    if (character === '0' && /\d/.test(this.#points[this.#at] ?? ''))
      throw this.#error('octal escapes are not supported')
    const control = CONTROLS[character]
    if (control !== undefined) return this.#single(control)
    if (character === 'x') return this.#single(this.#hex(/^[0-9a-fA-F]{2}/))
    if (character === 'u') return this.#single(this.#unicode())
    if (/[\p{L}\p{N}]/u.test(character)) throw this.#error(`\\${character} is not supported`)
    return this.#single(character.codePointAt(0)!)
  }

  #unicode(): number {
    if (this.#isNext('{')) return this.#hex(/^\{[0-9a-fA-F]{1,6}\}/)
    const unit = this.#hex(/^[0-9a-fA-F]{4}/)
    const isHigh = unit >= 0xd800 && unit <= 0xdbff
    const rest = this.#points.slice(this.#at, this.#at + 6).join('')
    const low = isHigh ? /^\\u([dD][c-fC-F][0-9a-fA-F]{2})/.exec(rest) : null
    if (!low) return unit
    this.#at += low[0].length
    return 0x10000 + ((unit - 0xd800) << 10) + (Number.parseInt(low[1]!, 16) - 0xdc00)
  }

  #hex(form: RegExp): number {
    const found = form.exec(this.#points.slice(this.#at, this.#at + 8).join(''))
    if (!found) throw this.#error('hexadecimal digits are missing')
    this.#at += found[0].length
    return Number.parseInt(found[0].replace(/[{}]/g, ''), 16)
  }

  #single(point: number): CodePoints {
    if (point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) throw this.#error('half a surrogate pair')
    return [[point, point]]
  }

  #isNext(character: string): boolean {
    return this.#points[this.#at] === character
  }

  #takes(character: string): boolean {
    if (!this.#isNext(character)) return false
    this.#at++
    return true
  }

  #next(what: string): string {
    const character = this.#points[this.#at++]
    if (character === undefined) throw this.#error(`${what} is missing`)
    return character
  }

  #error(problem: string): OnebitError {
    const place = Math.min(this.#at, this.#points.length)
    return new OnebitError('ERR_REGEX', `The regular expression ${shown(this.#source)}, character ${place}: ${problem}`)
  }
}

function onlyPoint(set: CodePoints): number | undefined {
  return set.length === 1 && set[0]![0] === set[0]![1] ? set[0]![0] : undefined
}
