/** Python's ideas of white space, lines and the case of letters, where JavaScript's differ. */

/** What str.isspace() and the expression \s match, for use inside a character class. */
export const PYTHON_SPACE = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000'

const ALL_SPACE = new RegExp(`^[${PYTHON_SPACE}]+$`)
const SPACE_AT_START = new RegExp(`^[${PYTHON_SPACE}]+`)
const SPACE = new RegExp(`[${PYTHON_SPACE}]`)

/** False for an empty text. */
export function isPythonSpace(text: string): boolean {
  return ALL_SPACE.test(text)
}

/** How many UTF-16 units of white space, or of `characters`, stand at the start. */
export function strippedStart(text: string, characters?: string): number {
  if (characters === undefined) return SPACE_AT_START.exec(text)?.[0].length ?? 0
  const set = new Set(characters)
  let at = 0
  for (const character of text) {
    if (!set.has(character)) break
    at += character.length
  }
  return at
}

/** Where the text ends without white space, or `characters`, at its end; at least `start`. */
export function strippedEnd(text: string, start: number, characters?: string): number {
  const set = characters === undefined ? undefined : new Set(characters)
  let end = text.length
  while (end > start) {
    const last = text.codePointAt(end - 2)! > 0xffff && end - 2 >= start ? text.slice(end - 2, end) : text[end - 1]!
    if (!(set ? set.has(last) : SPACE.test(last))) break
    end -= last.length
  }
  return end
}

export function trimPythonEnd(text: string): string {
  return text.slice(0, strippedEnd(text, 0))
}

/** Title case where it is neither upper case nor its first letter (Unicode's UnicodeData.txt, simple mappings). */
const TITLE: Record<string, string> = {
  ŉ: 'ʼN',
  ...Object.fromEntries(['Ǆǅǆ', 'Ǉǈǉ', 'Ǌǋǌ', 'Ǳǲǳ'].flatMap((three) => Array.from(three, (c) => [c, three[1]!]))),
}
/** They have an upper case and yet are their own title case. */
const GEORGIAN = /[\u10d0-\u10fa\u10fd-\u10ff]/
/** Greek with a small iota that becomes one letter, and Greek whose iota stays below it as a mark. */
const GREEK_ONE_LETTER = /[\u1f80-\u1faf\u1fb3\u1fbc\u1fc3\u1fcc\u1ff3\u1ffc]/
const GREEK_WITH_MARK = /[\u1fb2\u1fb4\u1fb7\u1fc2\u1fc4\u1fc7\u1ff2\u1ff4\u1ff7]/

/** The first letter of a word as Python's str.title() and str.capitalize() write it. */
export function titleCase(character: string): string {
  if (TITLE[character] !== undefined) return TITLE[character]
  if (GEORGIAN.test(character)) return character
  const code = character.codePointAt(0)!
  if (GREEK_ONE_LETTER.test(character)) return String.fromCodePoint(code < 0x1fb0 ? code | 8 : (code & ~15) | 12)
  const [first = '', ...rest] = Array.from(character.toUpperCase())
  if (GREEK_WITH_MARK.test(character)) return [first, ...rest.slice(0, -1), '\u0345'].join('')
  return first + rest.join('').toLowerCase()
}

/** str.title(): every run of letters that have a case with a capital first. */
export function titleWords(text: string): string {
  return text.replace(/\p{Cased}+/gu, (word) => {
    const first = String.fromCodePoint(word.codePointAt(0)!)
    return titleCase(first) + word.toLowerCase().slice(first.toLowerCase().length)
  })
}

/** str.capitalize() */
export function capitalized(text: string): string {
  if (text === '') return ''
  const first = String.fromCodePoint(text.codePointAt(0)!)
  return titleCase(first) + text.toLowerCase().slice(first.toLowerCase().length)
}

/** Line ends of str.splitlines(). */
// biome-ignore lint/suspicious/noControlCharactersInRegex: three of them end lines
export const LINE_END = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/g
