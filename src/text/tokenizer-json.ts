/**
 * The `tokenizer` blob of a `.obt` file: a Hugging Face tokenizer.json and what we use of tokenizer_config.json. Every
 * source (GGUF, SentencePiece, llama2.c) is turned into this one form, so there is one way to encode.
 */
import { OnebitError } from '../errors.js'
import { shown } from '../shown-value.js'
import { isTokenId, parseWithVocabulary } from './vocabulary-json.js'

/** A token beside the model's own vocabulary, as a Hugging Face tokenizer.json has it. */
export interface AddedToken {
  /** its number */
  id: number
  /** its text */
  content: string
  /** special tokens are never produced from text unless the caller asks for it */
  special?: boolean
  /** matched after the normalizer instead of before it */
  normalized?: boolean
  /** matched only where no letter or digit is beside it */
  single_word?: boolean
  /** swallow white space before the token */
  lstrip?: boolean
  /** swallow white space after it */
  rstrip?: boolean
}

/** One step of a normalizer, pre-tokenizer, post-processor or decoder, by its `type`. */
export interface Step {
  type: string
  [key: string]: unknown
}

export interface BpeModel {
  type: 'BPE'
  /** a Map where there is no need for an object, which takes ten times as long to make: see vocabulary-json.ts */
  vocab: Record<string, number> | Map<string, number>
  /** `[left, right]`, or `"left right"` as older files write it; the position is the rank */
  merges: [string, string][] | string[]
  /**
   * Ours: the rank of each merge where the position is not it. SentencePiece ranks the result by its score, so all
   * ways to build one piece share a rank, and the leftmost goes first.
   */
  merge_ranks?: number[]
  unk_token?: string | null
  byte_fallback?: boolean
  fuse_unk?: boolean
  ignore_merges?: boolean
  [key: string]: unknown
}

export interface UnigramModel {
  type: 'Unigram'
  vocab: [string, number][]
  unk_id?: number | null
  byte_fallback?: boolean
  [key: string]: unknown
}

export interface TokenizerJson {
  added_tokens?: AddedToken[] | null
  normalizer?: Step | null
  pre_tokenizer?: Step | null
  post_processor?: Step | null
  decoder?: Step | null
  model: BpeModel | UnigramModel
  [key: string]: unknown
}

/** The tokens that tokenizer_config.json gives a part to, and that templates may mention. */
export const TOKEN_NAMES = ['bos_token', 'eos_token', 'unk_token', 'pad_token'] as const

/** The text of a token, plainly or as `content` of an object; null: there is none. */
export type TokenName = string | Pick<AddedToken, 'content'> | null

/** What is used of a Hugging Face tokenizer_config.json. */
export interface TokenizerConfig {
  /** begins a text */
  bos_token?: TokenName
  /** ends an answer */
  eos_token?: TokenName
  /** stands for what the vocabulary lacks */
  unk_token?: TokenName
  /** fills what is too short; nothing here does */
  pad_token?: TokenName
  /** BOS is put in front of a text; absent: what the post-processor does decides */
  add_bos_token?: boolean | null
  /** Ours: ids that end an answer, from generation_config.json, besides eos_token. */
  eos_token_ids?: number[]
  /** Ours: SentencePiece's rule, a space before the text and after special tokens. */
  add_dummy_prefix?: boolean
  [key: string]: unknown
}

export interface TokenizerBlob {
  tokenizer: TokenizerJson
  config: TokenizerConfig
}

/** The text of a token that tokenizer_config.json names either plainly or as an object. */
export function tokenName(name: TokenName | undefined): string | undefined {
  if (typeof name === 'string') return name
  return typeof name?.content === 'string' ? name.content : undefined
}

export function tokenizerFileError(problem: string): OnebitError {
  return new OnebitError('ERR_TOKENIZER_FILE', `tokenizer: ${problem}`, {
    hint: 'Convert the model again, or give a good tokenizer file with --tokenizer.',
  })
}

export function unsupportedTokenizer(what: string): OnebitError {
  return new OnebitError('ERR_UNSUPPORTED_TOKENIZER', `tokenizer: ${what} is not supported`, {
    hint: 'Byte-level BPE (gpt-2, olmo, smollm, qwen2, qwen35, llama-bpe) and SentencePiece vocabularies are supported.',
  })
}

/** The bytes of a blob, whatever its vocabulary is kept in. */
export function tokenizerBlobBytes(blob: TokenizerBlob): Uint8Array {
  const { model } = blob.tokenizer
  if (model.type !== 'BPE' || !(model.vocab instanceof Map)) return Buffer.from(JSON.stringify(blob))
  const plain = { ...model, vocab: Object.fromEntries(model.vocab) }
  return Buffer.from(JSON.stringify({ ...blob, tokenizer: { ...blob.tokenizer, model: plain } }))
}

/** Reads a blob's bytes and checks its shape; ERR_TOKENIZER_FILE otherwise. */
export function parseTokenizerBlob(bytes: Uint8Array): TokenizerBlob {
  let value: unknown
  try {
    value = parseWithVocabulary(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (error) {
    throw tokenizerFileError(`not JSON in UTF-8 (${(error as Error).message})`)
  }
  return checkTokenizerBlob(value)
}

/** Checks the shape of a blob that came from outside; everything the encoder relies on is looked at here. */
export function checkTokenizerBlob(value: unknown): TokenizerBlob {
  if (!isRecord(value)) throw tokenizerFileError('not an object')
  const { tokenizer, config } = value
  if (!isRecord(tokenizer)) throw tokenizerFileError('`tokenizer` is not an object')
  if (!isRecord(config)) throw tokenizerFileError('`config` is not an object')
  for (const key of ['normalizer', 'pre_tokenizer', 'post_processor', 'decoder']) {
    if (tokenizer[key] !== undefined && tokenizer[key] !== null) checkStep(key, tokenizer[key])
  }
  tokenizer.added_tokens ??= []
  checkAddedTokens(tokenizer.added_tokens)
  checkModel(tokenizer.model)
  checkConfig(config)
  return value as unknown as TokenizerBlob
}

/** Where a step of several keeps the others. */
const STEP_LISTS = ['normalizers', 'pretokenizers', 'processors', 'decoders']

function checkStep(key: string, step: unknown): void {
  if (!isRecord(step) || typeof step.type !== 'string') {
    throw tokenizerFileError(`\`${key}\` is not an object with a type`)
  }
  for (const list of STEP_LISTS) {
    const steps = step[list]
    if (steps === undefined) continue
    if (!Array.isArray(steps)) throw tokenizerFileError(`\`${key}.${list}\` is not an array`)
    for (const [i, inner] of steps.entries()) checkStep(`${key}.${list}.${i}`, inner)
  }
  const { pattern } = step
  if (pattern === undefined) return
  const text = isRecord(pattern) ? (pattern.String ?? pattern.Regex) : undefined
  if (typeof text !== 'string') throw tokenizerFileError(`\`${key}.pattern\` is neither a String nor a Regex`)
}

const TOKEN_FLAGS = ['special', 'normalized', 'single_word', 'lstrip', 'rstrip']

function checkAddedTokens(tokens: unknown): void {
  if (!Array.isArray(tokens)) throw tokenizerFileError('`added_tokens` is not an array')
  for (const token of tokens) {
    if (!isRecord(token) || typeof token.content !== 'string' || !isTokenId(token.id)) {
      throw tokenizerFileError('an added token has no content or no id')
    }
    checkFlags(`the added token ${shown(token.content)}`, token, TOKEN_FLAGS)
  }
}

/** The fields of tokenizer_config.json that are used; what is null says nothing. */
function checkConfig(config: Record<string, unknown>): void {
  for (const name of TOKEN_NAMES) {
    const value = config[name] ?? ''
    if (typeof value === 'string' || (isRecord(value) && typeof value.content === 'string')) continue
    throw tokenizerFileError(`\`${name}\` is ${shown(value)}, not the text of a token`)
  }
  checkFlags('the tokenizer config', config, ['add_bos_token', 'add_dummy_prefix'])
  const ends = config.eos_token_ids ?? []
  if (!Array.isArray(ends) || !ends.every(isTokenId)) {
    throw tokenizerFileError(`\`eos_token_ids\` must be a list of token ids, found ${shown(ends)}`)
  }
}

/** Flags are true, false, null or not there: any other value would count as true, whatever was meant. */
function checkFlags(what: string, fields: Record<string, unknown>, names: readonly string[]): void {
  for (const name of names) {
    const value = fields[name] ?? false
    if (typeof value !== 'boolean')
      throw tokenizerFileError(`\`${name}\` of ${what} is ${shown(value)}, not true or false`)
  }
}

function checkModel(model: unknown): void {
  if (!isRecord(model)) throw tokenizerFileError('`model` is not an object')
  // Files written before 2021 leave the type out of a BPE model; its merges give it away.
  model.type ??= Array.isArray(model.merges) ? 'BPE' : undefined
  if (model.type === 'BPE') checkBpe(model)
  else if (model.type === 'Unigram') checkUnigram(model)
  else throw unsupportedTokenizer(`a model of type ${JSON.stringify(model.type)}`)
}

/** Only the shape: the entries of the vocabulary, which are many, are looked at while they are read. */
function checkBpe(model: Record<string, unknown>): void {
  const { vocab, merges, merge_ranks: ranks } = model
  checkFlags('`model`', model, ['byte_fallback', 'fuse_unk', 'ignore_merges'])
  if (!isRecord(vocab)) throw tokenizerFileError('`model.vocab` is not an object')
  if (!Array.isArray(merges)) throw tokenizerFileError('`model.merges` is not an array')
  if (ranks !== undefined && !Array.isArray(ranks)) throw tokenizerFileError('`model.merge_ranks` is not an array')
}

function checkUnigram({ vocab, unk_id: unknown }: Record<string, unknown>): void {
  if (!Array.isArray(vocab) || vocab.length === 0) throw tokenizerFileError('`model.vocab` is not an array')
  const wrong = vocab.findIndex(
    (entry) => !Array.isArray(entry) || typeof entry[0] !== 'string' || !Number.isFinite(entry[1]),
  )
  if (wrong >= 0) throw tokenizerFileError(`entry ${wrong} of \`model.vocab\` is not a piece and its score`)
  if (!isTokenId(unknown) || unknown >= vocab.length) {
    throw tokenizerFileError('`model.unk_id` is not in the vocabulary')
  }
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
