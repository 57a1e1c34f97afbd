/** Regular expressions as EBNF: of a whole answer, or of what a JSON string says. */
import { OnebitError } from '../errors.js'
import { ALL, type CodePoints, characterClass, contains, hasAllBeyondAscii, intersection } from './code-points.js'
import { grammarLimit, literal, oneOf, type Rules, repeated } from './ebnf.js'
import { type Pattern, parsePattern } from './regex-syntax.js'

/** How a character is written: as it is, or in a JSON string. Undefined: no character of the set can be. */
type WriteSet = (set: CodePoints) => string | undefined

/** Characters and repetitions, multiplied out. */
const MOST_STATES = 10_000

/** JSON has no need of a backslash for these. */
const UNESCAPED = intersection(ALL, [
  [0x20, 0x21],
  [0x23, 0x5b],
  [0x5d, 0x10ffff],
])

const plain: WriteSet = (set) => characterClass(set)

/** A set with all of Unicode has enough without what needs a backslash, and takes a state less. */
const inJson: WriteSet = (set) => {
  const open = intersection(set, UNESCAPED)
  const parts = open.length > 0 ? [characterClass(open)] : []
  if (!hasAllBeyondAscii(set)) {
    for (let point = 0; point <= 0x5c; point++) {
      if (contains(set, point) && !contains(UNESCAPED, point)) {
        parts.push(literal(JSON.stringify(String.fromCodePoint(point)).slice(1, -1)))
      }
    }
  }
  return parts.length === 0 ? undefined : oneOf(parts)
}

/** An expression for a text that matches as a whole. @throws OnebitError ERR_REGEX, ERR_GRAMMAR_LIMIT */
export function regexExpression(source: string, rules: Rules): string {
  return anchored(source, rules, plain, false)
}

/**
 * The same for what stands between the quotes of a JSON string: by JSON Schema a part that matches is enough, unless
 * ^ and $ say otherwise.
 */
export function jsonPatternExpression(source: string, rules: Rules): string {
  return anchored(source, rules, inJson, true)
}

/** What may stand around a part that matches. */
function anything(write: WriteSet): string {
  return `${write(ALL)}*`
}

function anchored(source: string, rules: Rules, write: WriteSet, isPart: boolean): string {
  const pattern = parsePattern(source)
  if (states(pattern) > MOST_STATES) throw grammarLimit('The regular expression repeats too much', 'Repeat less often.')
  const alternatives = pattern.kind === 'choice' ? pattern.items : [pattern]
  const written = alternatives.flatMap((alternative) => {
    const items = [...(alternative.kind === 'sequence' ? alternative.items : [alternative])]
    const starts = items[0]?.kind === 'start'
    if (starts) items.shift()
    const ends = items.at(-1)?.kind === 'end'
    if (ends) items.pop()
    const inside = new PatternWriter(source, rules, write).sequence(items)
    if (inside === undefined) return []
    return [`${isPart && !starts ? `${anything(write)} ` : ''}${inside}${isPart && !ends ? ` ${anything(write)}` : ''}`]
  })
  if (written.length === 0) throw regexError(source, 'nothing that can be written matches it')
  return oneOf(written.map((text) => (written.length > 1 ? `(${text})` : text)))
}

function regexError(source: string, problem: string): OnebitError {
  return new OnebitError('ERR_REGEX', `The regular expression ${JSON.stringify(source.slice(0, 60))}: ${problem}`)
}

class PatternWriter {
  readonly #source: string
  readonly #rules: Rules
  readonly #write: WriteSet

  constructor(source: string, rules: Rules, write: WriteSet) {
    this.#source = source
    this.#rules = rules
    this.#write = write
  }

  /** Undefined: nothing matches. */
  sequence(items: readonly Pattern[]): string | undefined {
    const parts = items.map((item) => this.#one(item))
    if (parts.includes(undefined)) return undefined
    return parts.length === 0 ? '""' : parts.join(' ')
  }

  /** An expression that can be repeated as it is. */
  #one(pattern: Pattern): string | undefined {
    switch (pattern.kind) {
      case 'set':
        return this.#write(pattern.set)
      case 'sequence': {
        const inside = this.sequence(pattern.items)
        return inside === undefined ? undefined : `(${inside})`
      }
      case 'choice': {
        const items = pattern.items.flatMap((item) => this.#one(item) ?? [])
        return items.length === 0 ? undefined : `(${items.join(' | ')})`
      }
      case 'repeat':
        return this.#repeat(pattern)
      default:
        throw regexError(this.#source, '^ and $ are supported only where an alternative begins or ends')
    }
  }

  #repeat({ item, min, max }: Extract<Pattern, { kind: 'repeat' }>): string | undefined {
    const inside = this.#one(item)
    if (inside === undefined) return min === 0 ? '""' : undefined
    if (item.kind === 'set') return `(${repeated(inside, min, max)})`
    // A rule of its own: what is repeated is then compiled once.
    return `(${repeated(this.#rules.add('part', inside), min, max)})`
  }
}

function states(pattern: Pattern): number {
  if (pattern.kind === 'repeat') return (1 + states(pattern.item)) * Math.max(1, pattern.max ?? pattern.min)
  if ('items' in pattern) return pattern.items.reduce((sum, item) => sum + states(item), 1)
  return 1
}
