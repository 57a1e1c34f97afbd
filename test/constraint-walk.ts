/** Answers that a constraint allows, chosen at random: what the masks let through is what a model could write. */
import type { AnswerShape, Constraint, Grammars } from '../dist/grammar/constraint.js'
import { Tokenizer } from '../dist/text/tokenizer.js'
import { type Added, byteLevelJson } from './byte-level.js'

export const END = 256

/** Tokens 0 to 255 are the bytes, 256 ends an answer; `added` follow. */
export function byteTokenizer(added: readonly Added[] = []): Tokenizer {
  const tokens = [{ content: '<|end|>', special: true }, ...added]
  return Tokenizer.fromBlob({ tokenizer: byteLevelJson(tokens), config: { eos_token: '<|end|>' } } as never)
}

/** Numbers from 0 to 1, the same for the same seed. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

export function allowedIds(mask: Int32Array | undefined, size: number): number[] {
  const ids: number[] = []
  for (let id = 0; id < size; id++) if (mask === undefined || (mask[id >> 5]! >>> (id & 31)) & 1) ids.push(id)
  return ids
}

/**
 * One answer in bytes; undefined when it had not ended after `most` tokens. Ends are preferred, so that there is one.
 * @param closing after 60 tokens this is written wherever it may be: the end of a text that anything may stand in
 */
export async function walk(
  constraint: Constraint,
  random: () => number,
  most = 400,
  size = 300,
  closing = '',
): Promise<Buffer | undefined> {
  const bytes: number[] = []
  let closed = 0
  for (let i = 0; i < most; i++) {
    const ids = allowedIds(await constraint.next(), size)
    const next = closing.charCodeAt(closed)
    if (i >= 60 && ids.includes(next)) {
      bytes.push(next)
      constraint.accept(next)
      closed++
      continue
    }
    closed = 0
    const ends = ids.filter((id) => id === END || (id < 256 && '"]}'.includes(String.fromCharCode(id))))
    const from = ends.length > 0 && random() < 0.4 ? ends : ids
    const id = from[Math.floor(random() * from.length)]!
    if (id === END) return Buffer.from(bytes)
    bytes.push(id)
    constraint.accept(id)
  }
  return undefined
}

/** Whether the text can be an answer as a whole. */
export async function matches(grammars: Grammars, shape: AnswerShape, text: string | Uint8Array): Promise<boolean> {
  const constraint = await grammars.constrain(shape)
  try {
    for (const byte of typeof text === 'string' ? Buffer.from(text) : text) {
      if (!allowedIds(await constraint.next(), 256).includes(byte)) return false
      constraint.accept(byte)
    }
    return allowedIds(await constraint.next(), 300).includes(END)
  } finally {
    constraint.dispose()
  }
}
