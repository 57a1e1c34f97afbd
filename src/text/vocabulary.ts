/** Tokens by id and ids by token, built once from a blob and shared by encoder and decoder. */
import { withKnownEnds } from './end-tokens.js'
import {
  type AddedToken,
  type BpeModel,
  type TokenizerBlob,
  type TokenizerJson,
  tokenizerFileError,
  type UnigramModel,
} from './tokenizer-json.js'
import { isTokenId } from './vocabulary-json.js'

export class Vocabulary {
  /** added tokens; those that are known to end an answer are special, whatever their file says */
  readonly added: readonly AddedToken[]
  /** one more than the highest id */
  readonly size: number
  /** ids of the model's own tokens; the encoder takes special ones out */
  readonly modelIds: Map<string, number>
  readonly #addedIds = new Map<string, number>()
  /** of the model's own tokens: see takeOut */
  readonly #takenOut = new Map<string, number>()
  #tokens: (string | undefined)[] | undefined

  /** ERR_TOKENIZER_FILE when an id or a piece is not one. */
  constructor({ model, added_tokens }: TokenizerJson) {
    const added = added_tokens ?? []
    this.modelIds = model.type === 'BPE' ? bpeIds(model) : unigramIds(model)
    for (const { content, id } of added) this.#addedIds.set(content, id)
    let size = 0
    for (const id of this.modelIds.values()) if (id >= size) size = id + 1
    for (const id of this.#addedIds.values()) if (id >= size) size = id + 1
    this.size = size
    this.added = withKnownEnds((token) => this.idOf(token), added)
    for (const { content, id } of this.added) this.#addedIds.set(content, id)
  }

  /** No text leads to these tokens any more. */
  takeOut(tokens: readonly string[]): void {
    for (const token of tokens) {
      const id = this.modelIds.get(token)
      if (id !== undefined) this.#takenOut.set(token, id)
      this.modelIds.delete(token)
    }
  }

  /** A blob with all of its tokens, if the model's ids are those of its own Map. */
  whole(blob: TokenizerBlob): TokenizerBlob {
    const { model } = blob.tokenizer
    if (this.#takenOut.size === 0 || model.type !== 'BPE' || model.vocab !== this.modelIds) return blob
    const vocab = new Map([...this.modelIds, ...this.#takenOut])
    return { ...blob, tokenizer: { ...blob.tokenizer, model: { ...model, vocab } } }
  }

  /** Names by id, added tokens included; unused ids are undefined. Made when first asked for: encoding needs none. */
  get tokens(): readonly (string | undefined)[] {
    if (this.#tokens) return this.#tokens
    const tokens = new Array<string | undefined>(this.size).fill(undefined)
    for (const [token, id] of this.modelIds) tokens[id] = token
    for (const [token, id] of this.#addedIds) tokens[id] = token
    this.#tokens = tokens
    return tokens
  }

  idOf(token: string): number | undefined {
    return this.#addedIds.get(token) ?? this.modelIds.get(token)
  }
}

function bpeIds({ vocab }: BpeModel): Map<string, number> {
  if (vocab instanceof Map) return vocab
  const ids = new Map<string, number>()
  for (const token of Object.keys(vocab)) {
    const id = vocab[token]
    if (!isTokenId(id)) throw tokenizerFileError(`the id of ${JSON.stringify(token.slice(0, 60))} is not a token id`)
    ids.set(token, id)
  }
  return ids
}

function unigramIds({ vocab }: UnigramModel): Map<string, number> {
  return new Map(vocab.map(([piece], id) => [piece, id]))
}
