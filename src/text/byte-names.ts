/** The two ways in which vocabularies write bytes. */

/** SentencePiece's names of the 256 bytes. */
export const BYTE_TOKENS: readonly string[] = Array.from(
  { length: 256 },
  (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
)

/**
 * GPT-2's way to write bytes as characters (openai/gpt-2, src/encoder.py): printable Latin-1 stands for itself, the
 * other bytes take the characters from U+0100 on, in order.
 */
export const BYTE_OF_CHARACTER: ReadonlyMap<string, number> = (() => {
  const map = new Map<string, number>()
  let next = 0x100
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae
    map.set(String.fromCharCode(printable ? byte : next++), byte)
  }
  return map
})()
