/** The bytes that each token stands for, as the tokenizer's decoder would write them. */
import { BYTE_OF_CHARACTER, BYTE_TOKENS } from './byte-names.js'
import { SPACE_SIGN } from './long-text.js'
import { type Step, type TokenizerJson, unsupportedTokenizer } from './tokenizer-json.js'

export interface TokenBytes {
  /** the bytes of an ordinary token's name */
  of(token: string): Uint8Array
  /** the bytes of an added token, as it stands in the vocabulary or in normalized text */
  ofAdded(content: string): Uint8Array
  /** the first space of a text was put there by the encoder and is no part of it */
  stripsFirstSpace: boolean
}

const utf8 = new TextEncoder()

export function tokenBytesOf(tokenizer: TokenizerJson): TokenBytes {
  const steps = flatten(tokenizer.decoder)
  const types = new Set(steps.map((step) => step.type))
  if (types.has('ByteLevel')) {
    // Added tokens are text there: their letters do not stand for bytes.
    return { of: byteLevelBytes, ofAdded: (content) => utf8.encode(content), stripsFirstSpace: false }
  }
  const known = ['Replace', 'ByteFallback', 'Fuse', 'Strip', 'Metaspace']
  const strange = [...types].find((type) => !known.includes(type))
  if (strange !== undefined) throw unsupportedTokenizer(`a decoder of type ${JSON.stringify(strange)}`)
  if (types.size === 0) throw unsupportedTokenizer('a tokenizer without a decoder')
  const strips = steps.some(
    (step) =>
      (step.type === 'Strip' && step.content === ' ' && step.start === 1) ||
      (step.type === 'Metaspace' && step.prepend_scheme !== 'never' && step.add_prefix_space !== false),
  )
  const of = types.has('ByteFallback') ? withByteTokens() : spaceSignBytes
  return { of, ofAdded: of, stripsFirstSpace: strips }
}

function flatten(step: Step | null | undefined): Step[] {
  if (!step) return []
  if (step.type !== 'Sequence' || !Array.isArray(step.decoders)) return [step]
  return step.decoders.flatMap((item: Step) => flatten(item))
}

function spaceSignBytes(token: string): Uint8Array {
  return utf8.encode(token.replaceAll(SPACE_SIGN, ' '))
}

function withByteTokens(): (token: string) => Uint8Array {
  const bytes = new Map(BYTE_TOKENS.map((token, byte) => [token, Uint8Array.of(byte)]))
  return (token) => bytes.get(token) ?? spaceSignBytes(token)
}

function byteLevelBytes(token: string): Uint8Array {
  const bytes: number[] = []
  for (const character of token) {
    const byte = BYTE_OF_CHARACTER.get(character)
    // A character that stands for no byte comes from a token that was added as it is written.
    if (byte === undefined) return utf8.encode(token)
    bytes.push(byte)
  }
  return Uint8Array.from(bytes)
}
