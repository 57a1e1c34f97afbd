/**
 * Reads SentencePiece's tokenizer.model, a protocol buffer (google/sentencepiece, src/sentencepiece_model.proto). Only
 * the fields that decide how text is encoded are read.
 */
import { PIECE_TYPE, type ScoredPiece, scoredVocabularyBlob } from './scored-pieces.js'
import { type TokenizerBlob, tokenizerFileError, unsupportedTokenizer } from './tokenizer-json.js'

/** Field numbers. */
const MODEL = { pieces: 1, trainer: 2, normalizer: 3 } as const
const PIECE = { piece: 1, score: 2, type: 3 } as const
const TRAINER = { modelType: 3, whitespaceAsSuffix: 24, bosId: 41, eosId: 42 } as const
const NORMALIZER = { charsmap: 2, addDummyPrefix: 3, removeExtraWhitespaces: 4, escapeWhitespaces: 5 } as const
const MODEL_TYPES: Record<number, 'unigram' | 'bpe'> = { 1: 'unigram', 2: 'bpe' }

/**
 * The blob of a tokenizer.model of type BPE or unigram. BOS is added, as Hugging Face's Llama tokenizer does with such
 * a file. ERR_TOKENIZER_FILE for malformed bytes, ERR_UNSUPPORTED_TOKENIZER for what is not done exactly.
 */
export function tokenizerFromSentencePiece(bytes: Uint8Array): TokenizerBlob {
  const pieces: ScoredPiece[] = []
  let trainer = new Map<number, FieldValue>()
  let normalizer = new Map<number, FieldValue>()
  for (const { field, value } of fields(bytes, 0, bytes.length)) {
    if (field === MODEL.pieces) pieces.push(readPiece(bytes, value, pieces.length))
    else if (field === MODEL.trainer) trainer = readMessage(bytes, value)
    else if (field === MODEL.normalizer) normalizer = readMessage(bytes, value)
  }
  if (pieces.length === 0) throw tokenizerFileError('the SentencePiece file has no pieces')
  const model = MODEL_TYPES[integer(trainer, TRAINER.modelType, 1)]
  if (!model) throw unsupportedTokenizer(`SentencePiece model type ${integer(trainer, TRAINER.modelType, 1)}`)
  if (integer(trainer, TRAINER.whitespaceAsSuffix, 0))
    throw unsupportedTokenizer('SentencePiece with spaces as suffixes')
  if (!integer(normalizer, NORMALIZER.escapeWhitespaces, 1))
    throw unsupportedTokenizer('SentencePiece with plain spaces')
  const charsmap = normalizer.get(NORMALIZER.charsmap)
  if (charsmap && charsmap.kind === 'bytes' && charsmap.end > charsmap.start) {
    throw unsupportedTokenizer('SentencePiece with a normalization table')
  }
  return scoredVocabularyBlob({
    pieces,
    model,
    addDummyPrefix: integer(normalizer, NORMALIZER.addDummyPrefix, 1) !== 0,
    removeExtraSpaces: integer(normalizer, NORMALIZER.removeExtraWhitespaces, 1) !== 0,
    bosId: controlId(pieces, integer(trainer, TRAINER.bosId, 1)),
    eosId: controlId(pieces, integer(trainer, TRAINER.eosId, 2)),
    addBos: controlId(pieces, integer(trainer, TRAINER.bosId, 1)) !== undefined,
  })
}

function controlId(pieces: ScoredPiece[], id: number): number | undefined {
  return pieces[id]?.type === PIECE_TYPE.control ? id : undefined
}

/** Scalars as numbers (a 32-bit float's bits as an unsigned integer), everything else as a range of the file. */
type FieldValue = { kind: 'scalar'; value: number } | { kind: 'bytes'; start: number; end: number }

interface Field {
  field: number
  value: FieldValue
}

/** The fields of the message in [start, end). Every length is checked before it is used. */
function* fields(bytes: Uint8Array, start: number, end: number): Generator<Field> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const cursor = { at: start }
  while (cursor.at < end) {
    const tag = varint(bytes, cursor, end)
    const field = Math.floor(tag / 8)
    const wire = tag % 8
    if (field === 0) throw tokenizerFileError(`byte ${cursor.at} of the SentencePiece file is no field`)
    if (wire === 0) {
      yield { field, value: { kind: 'scalar', value: varint(bytes, cursor, end) } }
      continue
    }
    const length = wire === 2 ? varint(bytes, cursor, end) : wire === 5 ? 4 : wire === 1 ? 8 : -1
    if (length < 0) throw tokenizerFileError(`byte ${cursor.at} of the SentencePiece file has wire type ${wire}`)
    const from = cursor.at
    if (length > end - from) {
      throw tokenizerFileError(`field ${field} at byte ${from} has ${length} bytes, ${end - from} are left`)
    }
    cursor.at += length
    if (wire === 5) yield { field, value: { kind: 'scalar', value: view.getUint32(from, true) } }
    else yield { field, value: { kind: 'bytes', start: from, end: cursor.at } }
  }
}

/** A varint as a number: at most 10 bytes. Negative int32 values, written as 64 bits, come back below zero. */
function varint(bytes: Uint8Array, cursor: { at: number }, end: number): number {
  let value = 0n
  for (let shift = 0n; shift < 70n; shift += 7n) {
    if (cursor.at >= end) throw tokenizerFileError(`a number at byte ${cursor.at} of the SentencePiece file is cut off`)
    const byte = bytes[cursor.at++]!
    value |= BigInt(byte & 0x7f) << shift
    if (byte < 0x80) return Number(BigInt.asIntN(64, value))
  }
  throw tokenizerFileError(`a number at byte ${cursor.at} of the SentencePiece file is too long`)
}

function readMessage(bytes: Uint8Array, value: FieldValue): Map<number, FieldValue> {
  if (value.kind !== 'bytes') throw tokenizerFileError('a message of the SentencePiece file is a number')
  const message = new Map<number, FieldValue>()
  for (const field of fields(bytes, value.start, value.end)) message.set(field.field, field.value)
  return message
}

function integer(message: Map<number, FieldValue>, field: number, fallback: number): number {
  const value = message.get(field)
  if (value === undefined) return fallback
  if (value.kind !== 'scalar') throw tokenizerFileError(`field ${field} of the SentencePiece file is not a number`)
  return value.value
}

function readPiece(bytes: Uint8Array, value: FieldValue, id: number): ScoredPiece {
  const message = readMessage(bytes, value)
  const name = message.get(PIECE.piece)
  if (name?.kind !== 'bytes') throw tokenizerFileError(`piece ${id} of the SentencePiece file has no text`)
  const score = new Float32Array(Uint32Array.of(integer(message, PIECE.score, 0)).buffer)[0]!
  if (!Number.isFinite(score)) throw tokenizerFileError(`piece ${id} of the SentencePiece file has the score ${score}`)
  try {
    const piece = new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(name.start, name.end))
    return { piece, score, type: integer(message, PIECE.type, PIECE_TYPE.normal) }
  } catch {
    throw tokenizerFileError(`piece ${id} of the SentencePiece file is not UTF-8`)
  }
}
