/** SentencePiece's tokenizer.model for tests, a protocol buffer, written from its description. */

function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128)
  return Buffer.from([...bytes, rest])
}

/** A field of a protocol buffer: text and nested messages with their length, numbers as varints or floats. */
export function field(number: number, value: string | Buffer | number, float = false): Buffer {
  if (typeof value === 'number' && !float) return Buffer.concat([varint(number * 8), varint(value)])
  if (typeof value === 'number') {
    const bytes = Buffer.alloc(5, number * 8 + 5)
    bytes.writeFloatLE(value, 1)
    return bytes
  }
  const body = Buffer.from(value)
  return Buffer.concat([varint(number * 8 + 2), varint(body.length), body])
}

/** Text, score and type: 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte. */
export type Piece = [string, number, number]

/** Model type 1 is unigram, 2 is BPE. */
export function sentencePiece(modelType: number, pieces: readonly Piece[], normalizer: readonly Buffer[] = []): Buffer {
  const trainer = field(3, modelType)
  const encoded = pieces.map(([text, score, type]) =>
    field(1, Buffer.concat([field(1, text), field(2, score, true), field(3, type)])),
  )
  return Buffer.concat([...encoded, field(2, trainer), field(3, Buffer.concat(normalizer))])
}
