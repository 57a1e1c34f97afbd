/** Tokens by id and ids by token, built once from a blob and shared by encoder and decoder. */
import {
  type BpeModel,
  isTokenId,
  type TokenizerJson,
  tokenizerFileError,
  type UnigramModel,
} from './tokenizer-json.js'

export class Vocabulary {
  /** names by id, added tokens included; unused ids are undefined */
  readonly tokens: (string | undefined)[]
  /** ids of the model's own tokens */
  readonly modelIds: Map<string, number>
  readonly #addedIds = new Map<string, number>()

  /** ERR_TOKENIZER_FILE when an id or a piece is not one. */
  constructor({ model, added_tokens: added = [] }: TokenizerJson) {
    this.modelIds = model.type === 'BPE' ? bpeIds(model) : unigramIds(model)
    for (const { content, id } of added) this.#addedIds.set(content, id)
    let size = 0
    for (const id of this.modelIds.values()) if (id >= size) size = id + 1
    for (const id of this.#addedIds.values()) if (id >= size) size = id + 1
    this.tokens = new Array<string | undefined>(size).fill(undefined)
    for (const [token, id] of this.modelIds) this.tokens[id] = token
    for (const [token, id] of this.#addedIds) this.tokens[id] = token
  }

  get size(): number {
    return this.tokens.length
  }

  idOf(token: string): number | undefined {
    return this.#addedIds.get(token) ?? this.modelIds.get(token)
  }
}

function bpeIds({ vocab }: BpeModel): Map<string, number> {
  const ids = new Map<string, number>()
  for (const token of Object.keys(vocab)) {
    const id = vocab[token]
    if (!isTokenId(id)) throw tokenizerFileError(`the id of ${JSON.stringify(token.slice(0, 60))} is not a token id`)
    ids.set(token, id)
  }
  return ids
}

function unigramIds({ vocab }: UnigramModel): Map<string, number> {
  const ids = new Map<string, number>()
  for (const [id, entry] of vocab.entries()) {
    if (!Array.isArray(entry) || typeof entry[0] !== 'string' || !Number.isFinite(entry[1])) {
      throw tokenizerFileError(`entry ${id} of \`model.vocab\` is not a piece and its score`)
    }
    ids.set(entry[0], id)
  }
  return ids
}
