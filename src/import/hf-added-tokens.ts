/**
 * Tokens that a Hugging Face folder adds beside its vocabulary file: `added_tokens_decoder` of tokenizer_config.json, and
 * the older added_tokens.json with special_tokens_map.json.
 */
import { type AddedToken, TOKEN_NAMES, type TokenizerBlob, tokenizerFileError } from '../text/tokenizer-json.js'
import { isTokenId } from '../text/vocabulary-json.js'
import { type Fields, isObject } from './hf-fields.js'
import type { SourceTokenizer } from './source-text.js'

const FLAGS = ['special', 'normalized', 'single_word', 'lstrip', 'rstrip'] as const

/** By id. @throws OnebitError ERR_TOKENIZER_FILE */
export function addedTokensOf(config: Fields, addedTokensJson: Fields | undefined): AddedToken[] {
  const special = specialNames(config)
  const tokens = new Map<number, AddedToken>()
  for (const [content, id] of Object.entries(addedTokensJson ?? {})) {
    if (!isTokenId(id)) throw tokenizerFileError(`added_tokens.json gives ${JSON.stringify(content)} no id`)
    tokens.set(id, { id, content, special: special.has(content), normalized: false })
  }
  const decoder = isObject(config.added_tokens_decoder) ? config.added_tokens_decoder : {}
  for (const [key, value] of Object.entries(decoder)) {
    const id = Number(key)
    if (!isTokenId(id) || !isObject(value) || typeof value.content !== 'string') {
      throw tokenizerFileError(`added_tokens_decoder has an entry ${JSON.stringify(key)} that is no token`)
    }
    tokens.set(id, { ...flagsOf(value), id, content: value.content })
  }
  return [...tokens.values()].sort((a, b) => a.id - b.id)
}

function flagsOf(value: Fields): Partial<AddedToken> {
  return Object.fromEntries(FLAGS.filter((flag) => typeof value[flag] === 'boolean').map((flag) => [flag, value[flag]]))
}

/** The texts that a config calls special. */
export function specialNames(config: Fields): Set<string> {
  const more = Array.isArray(config.additional_special_tokens) ? config.additional_special_tokens : []
  const values = [...TOKEN_NAMES.map((name) => config[name]), ...more]
  const texts = values.map((value) => (isObject(value) ? value.content : value))
  return new Set(texts.filter((text): text is string => typeof text === 'string'))
}

/** The tokenizer with these tokens added; the flags that a folder's config gives a token are the ones that count. */
export function withAddedTokens(blob: TokenizerBlob, tokens: readonly AddedToken[]): SourceTokenizer {
  const { tokenizer } = blob
  const warnings: string[] = []
  const added = [...(tokenizer.added_tokens ?? [])]
  for (const token of tokens) {
    const own = added.findIndex(({ content }) => content === token.content)
    const taken = added.find(({ id }) => id === token.id)
    if (own >= 0) added[own] = { ...added[own]!, ...token, id: added[own]!.id }
    else if (!taken) added.push(token)
    else warnings.push(`The added token ${token.content} has the id of ${taken.content}, ${token.id}: it is left out.`)
  }
  return { blob: { ...blob, tokenizer: { ...tokenizer, added_tokens: added } }, warnings }
}
