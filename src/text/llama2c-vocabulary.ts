/** llama2.c's tokenizer.bin: int32 longest token, then for every id a float32 score, an int32 length and its bytes. */

import { TextDecoder } from 'node:util'
import { SPACE_SIGN } from './long-text.js'
import { PIECE_TYPE, type ScoredPiece, scoredVocabularyBlob } from './scored-pieces.js'
import { type TokenizerBlob, tokenizerFileError } from './tokenizer-json.js'

/** llama2.c's fixed ids (run.c, encode): unknown, BOS, EOS, then the 256 bytes. */
const UNKNOWN = 0
const BOS = 1
const EOS = 2
const BYTE = /^<0x[0-9A-F]{2}>$/

/**
 * The file does not say how many tokens it has: the model's config does. Its names were made for printing: a space
 * for the space sign, and BOS and EOS with line breaks around them. ERR_TOKENIZER_FILE when a length does not fit.
 */
export function tokenizerFromLlama2c(bytes: Uint8Array, vocabSize: number): TokenizerBlob {
  if (!Number.isInteger(vocabSize) || vocabSize < 3) throw tokenizerFileError(`a vocabulary of ${vocabSize} tokens`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const utf8 = new TextDecoder('utf-8', { fatal: true })
  const pieces: ScoredPiece[] = []
  let at = 4
  for (let id = 0; id < vocabSize; id++) {
    if (at + 8 > bytes.length)
      throw tokenizerFileError(`the file ends at byte ${bytes.length}, in token ${id} of ${vocabSize}`)
    const score = view.getFloat32(at, true)
    const length = view.getInt32(at + 4, true)
    at += 8
    if (length < 0 || at + length > bytes.length) {
      throw tokenizerFileError(`token ${id} at byte ${at} has ${length} bytes, ${bytes.length - at} are left`)
    }
    if (!Number.isFinite(score)) throw tokenizerFileError(`token ${id} has the score ${score}`)
    pieces.push(pieceOf(decode(utf8, bytes.subarray(at, at + length), id), score, id))
    at += length
  }
  if (at !== bytes.length) {
    throw tokenizerFileError(
      `${bytes.length - at} bytes are left after ${vocabSize} tokens: it belongs to another model`,
    )
  }
  return scoredVocabularyBlob({
    pieces,
    model: 'bpe',
    addDummyPrefix: true,
    removeExtraSpaces: false,
    bosId: BOS,
    eosId: EOS,
    addBos: true,
  })
}

function decode(utf8: TextDecoder, bytes: Uint8Array, id: number): string {
  try {
    return utf8.decode(bytes)
  } catch {
    throw tokenizerFileError(`token ${id} is not UTF-8`)
  }
}

function pieceOf(name: string, score: number, id: number): ScoredPiece {
  if (id === UNKNOWN) return { piece: name, score, type: PIECE_TYPE.unknown }
  if (id === BOS || id === EOS) return { piece: name.trim(), score, type: PIECE_TYPE.control }
  const type = BYTE.test(name) ? PIECE_TYPE.byte : PIECE_TYPE.normal
  return { piece: name.replaceAll(' ', SPACE_SIGN), score, type }
}
