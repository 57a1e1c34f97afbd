/**
 * Reads a blob's JSON, with the vocabulary of a BPE model as a Map. JSON.parse makes an object of 50,000 keys from it,
 * which takes 30 ms, and reading that object again as much; cut out of the text and read by itself it takes 18.
 */
const BEGINNING = /"vocab"[ \n\r\t]*:[ \n\r\t]*\{/
const [QUOTE, COMMA, ZERO, NINE, COLON, BACKSLASH, CLOSE] = Array.from('",09:\\}', (c) => c.charCodeAt(0))

/** An id has to fit a signed 32-bit integer; 16 million tokens are far above any vocabulary. */
export function isTokenId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < 1 << 24
}

/** As JSON.parse, which also decides about everything that is not as vocabularies are. */
export function parseWithVocabulary(text: string): unknown {
  const beginning = BEGINNING.exec(text)
  // After a backslash the first quote is part of some string.
  if (beginning && text.charCodeAt(beginning.index - 1) !== BACKSLASH) {
    const open = beginning.index + beginning[0].length - 1
    const found = readVocabulary(text, open)
    if (found) {
      const value = JSON.parse(`${text.slice(0, open)}null${text.slice(found.end)}`)
      const model = value?.tokenizer?.model
      if (model?.vocab === null && model.type !== 'Unigram') {
        model.vocab = found.ids
        return value
      }
    }
  }
  return JSON.parse(text)
}

/** Where the next character is that is no white space of JSON: our own files have none, those of `distill` may. */
function skipSpace(text: string, at: number): number {
  for (;;) {
    const code = text.charCodeAt(at)
    if (code > 0x20 || (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09)) return at
    at++
  }
}

/** `{"token":id,…}` at `open`; undefined when it is anything else. */
function readVocabulary(text: string, open: number): { ids: Map<string, number>; end: number } | undefined {
  const ids = new Map<string, number>()
  for (let at = skipSpace(text, open + 1); text.charCodeAt(at) === QUOTE; ) {
    const close = endOfString(text, at)
    if (close < 0) return undefined
    const colon = skipSpace(text, close + 1)
    if (text.charCodeAt(colon) !== COLON) return undefined
    const token = readString(text, at, close)
    const digits = skipSpace(text, colon + 1)
    at = digits
    let id = 0
    for (let digit = text.charCodeAt(at); digit >= ZERO! && digit <= NINE!; digit = text.charCodeAt(++at)) {
      id = id * 10 + digit - ZERO!
    }
    const leadingZero = text.charCodeAt(digits) === ZERO && at > digits + 1
    if (token === undefined || at === digits || leadingZero || !isTokenId(id)) return undefined
    ids.set(token, id)
    at = skipSpace(text, at)
    const after = text.charCodeAt(at++)
    if (after === CLOSE) return { ids, end: at }
    if (after !== COMMA) return undefined
    at = skipSpace(text, at)
  }
  return undefined
}

/** Where the string that begins with the quote at `at` ends; -1: nowhere. */
function endOfString(text: string, at: number): number {
  for (let end = text.indexOf('"', at + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let before = end
    while (text.charCodeAt(before - 1) === BACKSLASH) before--
    if ((end - before) % 2 === 0) return end
  }
  return -1
}

function readString(text: string, open: number, close: number): string | undefined {
  const plain = text.slice(open + 1, close)
  let isPlain = true
  for (let i = 0; i < plain.length; i++) {
    const code = plain.charCodeAt(i)
    if (code < 0x20 || code === BACKSLASH) isPlain = false
  }
  if (isPlain) return plain
  try {
    return JSON.parse(text.slice(open, close + 1))
  } catch {
    return undefined
  }
}
