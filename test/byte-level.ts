/** The simplest tokenizer.json: one token for each byte. */

/** GPT-2's characters for the 256 bytes: printable Latin-1 is itself, the others are the characters from U+0100 on. */
export const BYTE_CHARACTERS: readonly string[] = (() => {
  const own = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173)
  let next = 256
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(own(byte) ? byte : next++))
})()

export interface Added {
  content: string
  special?: boolean
  normalized?: boolean
}

const BYTE_LEVEL = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }

/** Added tokens have the ids from 256 on; `change` replaces parts of it. */
export function byteLevelJson(added: readonly Added[] = [], change: Record<string, unknown> = {}) {
  return {
    version: '1.0',
    added_tokens: added.map((token, i) => ({ id: 256 + i, special: false, normalized: false, ...token })),
    normalizer: null,
    pre_tokenizer: BYTE_LEVEL,
    post_processor: null,
    decoder: BYTE_LEVEL,
    model: { type: 'BPE', vocab: Object.fromEntries(BYTE_CHARACTERS.map((c, byte) => [c, byte])), merges: [] },
    ...change,
  }
}
