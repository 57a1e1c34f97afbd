/** A vocabulary as XGrammar takes it: every token by its bytes. */
import { setImmediate as otherEvents } from 'node:timers/promises'
import { BYTE_OF_CHARACTER } from '../text/byte-names.js'
import type { Tokenizer } from '../text/tokenizer.js'

const CHARACTER_OF_BYTE: readonly string[] = (() => {
  const characters: string[] = []
  for (const [character, byte] of BYTE_OF_CHARACTER) characters[byte] = character
  return characters
})()

const TOKENS_AT_ONCE = 4096

/**
 * The bytes of each token as GPT-2's characters, one token a line: none of those characters is a line end. A line is
 * empty for a token that no text of an answer can match: a special one (unless it is in `visible`), an unused id, or one
 * whose bytes cannot be part of UTF-8.
 */
export async function vocabularyText(
  tokenizer: Tokenizer,
  vocabSize: number,
  visible: ReadonlySet<number> = new Set(),
): Promise<string> {
  const names: string[] = []
  for (let id = 0; id < vocabSize; id++) {
    const isHidden = id >= tokenizer.vocabSize || (tokenizer.isSpecial(id) && !visible.has(id))
    const bytes = isHidden ? new Uint8Array(0) : tokenizer.tokenBytes(id)
    let name = ''
    if (canBeUtf8(bytes)) for (const byte of bytes) name += CHARACTER_OF_BYTE[byte]
    names.push(name)
    if (id % TOKENS_AT_ONCE === TOKENS_AT_ONCE - 1) await otherEvents()
  }
  return names.join('\n')
}

/** The second byte of a character may not be in this range, by the first byte (Unicode, table 3-7). */
export const WRONG_SECOND: ReadonlyMap<number, readonly [number, number]> = new Map([
  [0xe0, [0x80, 0x9f]],
  [0xed, [0xa0, 0xbf]],
  [0xf0, [0x80, 0x8f]],
  [0xf4, [0x90, 0xbf]],
])

/** Whether these bytes are a piece of some UTF-8; the piece may begin and end inside a character. */
export function canBeUtf8(bytes: Uint8Array): boolean {
  let at = 0
  while (at < bytes.length && isContinuation(bytes[at]!)) at++
  if (at > 3) return false
  while (at < bytes.length) {
    const lead = bytes[at]!
    const length = lengthOf(lead)
    if (length === 0) return false
    for (let i = 1; i < length && at + i < bytes.length; i++) {
      const byte = bytes[at + i]!
      const wrong = i === 1 ? WRONG_SECOND.get(lead) : undefined
      if (!isContinuation(byte) || (wrong && byte >= wrong[0] && byte <= wrong[1])) return false
    }
    at += length
  }
  return true
}

function isContinuation(byte: number): boolean {
  return byte >= 0x80 && byte <= 0xbf
}

/** Bytes of a character that begins with this one; 0: none does. */
function lengthOf(lead: number): number {
  if (lead < 0x80) return 1
  if (lead >= 0xc2 && lead <= 0xdf) return 2
  if (lead >= 0xe0 && lead <= 0xef) return 3
  return lead >= 0xf0 && lead <= 0xf4 ? 4 : 0
}
