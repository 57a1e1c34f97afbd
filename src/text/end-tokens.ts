/**
 * Tokens that end an answer, known by their names. Many files name only one of them as eos_token or give them another
 * type than control, and a model that ends its turn with one would talk on and print it.
 */
import type { AddedToken } from './tokenizer-json.js'

/** Wherever a vocabulary has them (llama.cpp, src/llama-vocab.cpp, special_eog_ids). */
const NAMES = [
  ...['<|im_end|>', '<|eot_id|>', '<|eom_id|>', '<|end|>', '<|return|>', '<|call|>', '<|flush|>', '<|calls|>'],
  ...['<|endoftext|>', '<|end_of_text|>', '<end_of_turn>', '<turn|>', '<end_of_utterance>'],
  ...['<EOT>', '_<EOT>', '[EOT]', '[EOS]', '<｜end▁of▁sentence｜>'],
]

/** Only where they are added tokens: elsewhere they may be the letters of a text. */
const NAMES_OF_ADDED = ['</s>', '<eos>']

/** With these, `<|end|>` ends a message inside an answer, not the answer (gpt-oss, solar-open; as llama.cpp). */
const END_INSIDE = [
  ['<|return|>', '<|call|>'],
  ['<|flush|>', '<|calls|>'],
]

/** The id of a token in a vocabulary. */
type IdOf = (token: string) => number | undefined

/** The known ends that a vocabulary has, as special tokens. */
export function knownEnds(idOf: IdOf, added: readonly AddedToken[]): AddedToken[] {
  const byContent = new Map(added.map((token) => [token.content, token]))
  const isInside = END_INSIDE.some((names) => names.every((name) => idOf(name) !== undefined))
  const names = NAMES.filter((name) => !(isInside && name === '<|end|>'))
  const own = names.flatMap((content) => {
    const id = idOf(content)
    return id === undefined ? [] : [{ normalized: false, ...byContent.get(content), id, content, special: true }]
  })
  const others = NAMES_OF_ADDED.flatMap((name) => byContent.get(name) ?? [])
  return [...own, ...others.map((token) => ({ ...token, special: true }))]
}

/** `added` with the known ends among them as special tokens, and with those that were ordinary entries. */
export function withKnownEnds(idOf: IdOf, added: readonly AddedToken[]): AddedToken[] {
  const ends = knownEnds(idOf, added)
  const names = new Set(ends.map(({ content }) => content))
  return [...added.filter(({ content }) => !names.has(content)), ...ends]
}
