/** A GGUF file's `tokenizer.*` metadata in the form of a tokenizer.json. */
import { namedPreTokenizer } from './pre-tokenizers.js'
import { PIECE_TYPE, type ScoredPiece, scoredVocabularyBlob } from './scored-pieces.js'
import { type AddedToken, type TokenizerBlob, tokenizerFileError, unsupportedTokenizer } from './tokenizer-json.js'

/**
 * From all `tokenizer.*` keys (arrays may be plain or typed) and `general.architecture`. ERR_TOKENIZER_FILE when they do not fit together,
 * ERR_UNSUPPORTED_TOKENIZER for a model or pre-tokenizer that is not known.
 */
export function tokenizerFromGguf(metadata: Record<string, unknown>): TokenizerBlob {
  const file = new Metadata(metadata)
  const model = file.string('tokenizer.ggml.model')
  if (model === undefined) throw tokenizerFileError('the GGUF file has no tokenizer.ggml.model')
  if (model === 'gpt2') return byteLevelBlob(file)
  if (model === 'llama') return sentencePieceBlob(file)
  throw unsupportedTokenizer(`a GGUF vocabulary of model ${JSON.stringify(model.slice(0, 60))}`)
}

/** Typed access to metadata; every value that has another type than it should is an error that names its key. */
class Metadata {
  constructor(private readonly values: Record<string, unknown>) {}

  #wrong(key: string, expected: string): never {
    throw tokenizerFileError(`${key} in the GGUF file is not ${expected}`)
  }

  get(key: string): unknown {
    return Object.hasOwn(this.values, key) ? this.values[key] : undefined
  }

  string(key: string): string | undefined {
    const value = this.get(key)
    if (value !== undefined && typeof value !== 'string') this.#wrong(key, 'a string')
    return value
  }

  boolean(key: string): boolean | undefined {
    const value = this.get(key)
    if (value !== undefined && typeof value !== 'boolean') this.#wrong(key, 'true or false')
    return value
  }

  /** A token id below `limit`; readers may give 64-bit integers. Some files say "none" with 2^32 - 1. */
  id(key: string, limit: number): number | undefined {
    const value = this.get(key)
    if (value === undefined) return undefined
    if (typeof value !== 'number' && typeof value !== 'bigint') this.#wrong(key, 'a token id')
    const id = Number(value)
    if (id === 0xffffffff || id === -1) return undefined
    if (!Number.isInteger(id) || id < 0 || id >= limit) this.#wrong(key, `a token id below ${limit} (it is ${value})`)
    return id
  }

  strings(key: string): string[] {
    const value = this.get(key)
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) {
      this.#wrong(key, 'an array of strings')
    }
    return value
  }

  numbers(key: string, length: number): ArrayLike<number> | undefined {
    const value = this.get(key)
    if (value === undefined) return undefined
    const numbers = ArrayBuffer.isView(value) ? Array.from(value as Float32Array) : value
    if (!Array.isArray(numbers) || !numbers.every((item) => Number.isFinite(item))) {
      this.#wrong(key, 'an array of numbers')
    }
    if (numbers.length !== length) this.#wrong(key, `as long as the vocabulary (${numbers.length}, not ${length})`)
    return numbers
  }
}

function byteLevelBlob(file: Metadata): TokenizerBlob {
  const { names, types } = vocabulary(file)
  const steps = namedPreTokenizer(preTokenizerName(file))
  const added: AddedToken[] = []
  const ordinary: number[] = []
  for (let id = 0; id < names.length; id++) {
    const content = names[id]!
    const type = types?.[id] ?? PIECE_TYPE.normal
    const special = type === PIECE_TYPE.control || type === PIECE_TYPE.unknown
    // GGUF writes control and user-defined tokens as they are, ordinary ones in GPT-2's characters for bytes.
    if (special || type === PIECE_TYPE.userDefined) added.push({ id, content, special, normalized: false })
    else ordinary.push(id)
  }
  const name = (key: string) => {
    const id = file.id(key, names.length)
    return id === undefined ? null : names[id]!
  }
  return {
    tokenizer: {
      added_tokens: added,
      normalizer: steps.normalizer,
      pre_tokenizer: steps.preTokenizer,
      post_processor: null,
      decoder: { type: 'ByteLevel' },
      model: {
        type: 'BPE',
        unk_token: null,
        ignore_merges: steps.ignoreMerges === true,
        vocab: idsByName(names, ordinary),
        merges: file.strings('tokenizer.ggml.merges'),
      },
    },
    config: {
      bos_token: name('tokenizer.ggml.bos_token_id'),
      eos_token: name('tokenizer.ggml.eos_token_id'),
      unk_token: name('tokenizer.ggml.unknown_token_id'),
      add_bos_token: file.boolean('tokenizer.ggml.add_bos_token') ?? steps.addBos === true,
      eos_token_ids: endIds(file, names.length),
    },
  }
}

/** Of equal names the first counts. */
function idsByName(names: readonly string[], ids: readonly number[]): Map<string, number> {
  const found = new Map<string, number>()
  for (const id of ids) found.set(names[id]!, id)
  // Looking every name up before it is set would take as long again, for what hardly any file has.
  if (found.size < ids.length) for (const id of ids.toReversed()) found.set(names[id]!, id)
  return found
}

/**
 * BitNet's own converter names none, or `default`, and its models have Llama 3's vocabulary. Of others the name says which
 * of a dozen expressions it is: without it the ids would be wrong without anybody noticing.
 */
function preTokenizerName(file: Metadata): string {
  const pre = file.string('tokenizer.ggml.pre')
  if (pre !== undefined && pre !== 'default') return pre
  if (file.string('general.architecture')?.startsWith('bitnet')) return 'llama-bpe'
  if (pre !== undefined) throw unsupportedTokenizer('the pre-tokenizer "default", which says nothing,')
  throw unsupportedTokenizer('a GGUF file that does not name its pre-tokenizer (tokenizer.ggml.pre)')
}

function sentencePieceBlob(file: Metadata): TokenizerBlob {
  const { names, types } = vocabulary(file)
  const scores = file.numbers('tokenizer.ggml.scores', names.length)
  if (!scores || !types) {
    throw tokenizerFileError('the GGUF file has no tokenizer.ggml.scores or no tokenizer.ggml.token_type')
  }
  const pieces = names.map((piece, id): ScoredPiece => ({ piece, score: scores[id]!, type: types[id]! }))
  const id = (key: string, fallback: number) =>
    file.id(key, names.length) ?? (pieces[fallback]?.type === PIECE_TYPE.control ? fallback : undefined)
  const blob = scoredVocabularyBlob({
    pieces,
    model: 'bpe',
    // llama.cpp's defaults for this kind of vocabulary: BOS 1, EOS 2, BOS and the prefix added.
    bosId: id('tokenizer.ggml.bos_token_id', 1),
    eosId: id('tokenizer.ggml.eos_token_id', 2),
    addBos: file.boolean('tokenizer.ggml.add_bos_token') ?? true,
    addDummyPrefix: file.boolean('tokenizer.ggml.add_space_prefix') ?? true,
    removeExtraSpaces: file.boolean('tokenizer.ggml.remove_extra_whitespaces') ?? false,
  })
  return { ...blob, config: { ...blob.config, eos_token_ids: endIds(file, names.length) } }
}

function vocabulary(file: Metadata): { names: string[]; types: ArrayLike<number> | undefined } {
  const names = file.strings('tokenizer.ggml.tokens')
  return { names, types: file.numbers('tokenizer.ggml.token_type', names.length) }
}

/** End of turn and end of message, which some files name besides end of sequence. */
function endIds(file: Metadata, limit: number): number[] {
  const keys = ['tokenizer.ggml.eot_token_id', 'tokenizer.ggml.eom_token_id']
  return keys.flatMap((key) => file.id(key, limit) ?? [])
}
