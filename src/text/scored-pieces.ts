/**
 * SentencePiece vocabularies (from GGUF, tokenizer.model or llama2.c) in the form of a tokenizer.json. SentencePiece's
 * BPE joins the adjacent pair whose result has the highest score, the leftmost where scores are equal; merges with
 * ranks do the same when every way to build a piece is a merge and has the rank of the piece's score.
 */
import { BYTE_TOKENS } from './byte-names.js'
import { SPACE_SIGN } from './long-text.js'
import type { AddedToken, BpeModel, Step, TokenizerBlob, UnigramModel } from './tokenizer-json.js'

/** The numbers that sentencepiece_model.proto and GGUF's tokenizer.ggml.token_type share. */
export const PIECE_TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const

export interface ScoredPiece {
  piece: string
  score: number
  type: number
}

export interface ScoredVocabulary {
  /** by id */
  pieces: ScoredPiece[]
  model: 'bpe' | 'unigram'
  /** a space goes in front of the text */
  addDummyPrefix: boolean
  /** runs of spaces become one, and none are left at the ends */
  removeExtraSpaces: boolean
  bosId: number | undefined
  eosId: number | undefined
  addBos: boolean
}

export function scoredVocabularyBlob(vocabulary: ScoredVocabulary): TokenizerBlob {
  const { pieces, bosId, eosId } = vocabulary
  const unknownId = pieces.findIndex((piece) => piece.type === PIECE_TYPE.unknown)
  const name = (id: number | undefined) => (id === undefined ? null : (pieces[id]?.piece ?? null))
  return {
    tokenizer: {
      added_tokens: addedTokens(pieces),
      normalizer: normalizer(vocabulary),
      pre_tokenizer: null,
      post_processor: null,
      decoder: decoder(vocabulary),
      model: vocabulary.model === 'bpe' ? bpeModel(pieces, unknownId) : unigramModel(pieces, unknownId),
    },
    config: {
      bos_token: name(bosId),
      eos_token: name(eosId),
      unk_token: name(unknownId < 0 ? undefined : unknownId),
      add_bos_token: vocabulary.addBos,
      add_dummy_prefix: vocabulary.addDummyPrefix,
    },
  }
}

function addedTokens(pieces: ScoredPiece[]): AddedToken[] {
  const { control, unknown, userDefined } = PIECE_TYPE
  return pieces.flatMap(({ piece, type }, id): AddedToken[] => {
    if (type === control || type === unknown) return [{ id, content: piece, special: true, normalized: false }]
    // User-defined pieces are matched in the raw text, where a space is a space.
    if (type !== userDefined) return []
    return [{ id, content: piece.replaceAll(SPACE_SIGN, ' '), special: false, normalized: false }]
  })
}

function normalizer({ removeExtraSpaces, addDummyPrefix }: ScoredVocabulary): Step {
  const spaces: Step = { type: 'Replace', pattern: { String: ' ' }, content: SPACE_SIGN }
  if (!removeExtraSpaces) return spaces
  // The dummy prefix is one space in front of the text by then: it stays, further ones go.
  const atStart: Step[] = addDummyPrefix ? [] : [{ type: 'Replace', pattern: { Regex: '\\A +' }, content: '' }]
  return {
    type: 'Sequence',
    normalizers: [
      ...atStart,
      { type: 'Replace', pattern: { Regex: ' {2,}' }, content: ' ' },
      { type: 'Replace', pattern: { Regex: ' \\z' }, content: '' },
      spaces,
    ],
  }
}

function decoder({ addDummyPrefix }: ScoredVocabulary): Step {
  const decoders: Step[] = [
    { type: 'Replace', pattern: { String: SPACE_SIGN }, content: ' ' },
    { type: 'ByteFallback' },
    { type: 'Fuse' },
  ]
  if (addDummyPrefix) decoders.push({ type: 'Strip', content: ' ', start: 1, stop: 0 })
  return { type: 'Sequence', decoders }
}

/** All 256 byte pieces, or characters without a piece become the unknown token. */
function hasBytes(pieces: ScoredPiece[]): boolean {
  const names = new Set(pieces.filter((piece) => piece.type === PIECE_TYPE.byte).map((piece) => piece.piece))
  return BYTE_TOKENS.every((token) => names.has(token))
}

function bpeModel(pieces: ScoredPiece[], unknownId: number): BpeModel {
  // The first of equal pieces counts, as in llama.cpp and SentencePiece.
  const vocab = new Map<string, number>()
  for (const [id, { piece }] of pieces.entries()) if (!vocab.has(piece)) vocab.set(piece, id)
  const { merges, ranks } = mergesByScore(pieces, vocab)
  return {
    type: 'BPE',
    unk_token: unknownId < 0 ? null : pieces[unknownId]!.piece,
    fuse_unk: true,
    byte_fallback: hasBytes(pieces),
    vocab: Object.fromEntries(vocab),
    merges,
    merge_ranks: ranks,
  }
}

function mergesByScore(pieces: ScoredPiece[], vocab: Map<string, number>) {
  const byScore = pieces
    .map((piece, id) => ({ ...piece, id }))
    .filter(({ piece, type, id }) => type === PIECE_TYPE.normal && vocab.get(piece) === id)
    .sort((a, b) => b.score - a.score || a.id - b.id)
  const normal = new Set(byScore.map(({ piece }) => piece))
  const merges: [string, string][] = []
  const ranks: number[] = []
  let rank = -1
  let lastScore = Number.NaN
  for (const { piece, score } of byScore) {
    if (score !== lastScore) rank++
    lastScore = score
    for (const pair of splits(piece, normal)) {
      merges.push(pair)
      ranks.push(rank)
    }
  }
  return { merges, ranks }
}

/** The ways to build a piece from two parts that can come up: other pieces, or single characters. */
function* splits(piece: string, normal: Set<string>): Generator<[string, string]> {
  const characters = Array.from(piece)
  let left = ''
  for (let count = 1; count < characters.length; count++) {
    left += characters[count - 1]
    const right = piece.slice(left.length)
    const leftExists = count === 1 || normal.has(left)
    if (leftExists && (count === characters.length - 1 || normal.has(right))) yield [left, right]
  }
}

function unigramModel(pieces: ScoredPiece[], unknownId: number): UnigramModel {
  const vocab = pieces.map(({ piece, score }): [string, number] => [piece, score])
  return { type: 'Unigram', vocab, unk_id: Math.max(unknownId, 0), byte_fallback: hasBytes(pieces) }
}
