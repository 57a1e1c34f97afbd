/** `vocab.json` and `merges.txt`, as GPT-2, OPT and Qwen2 have them, in the form of a tokenizer.json. */
import { namedPreTokenizer } from './pre-tokenizers.js'
import { type AddedToken, type TokenizerBlob, tokenizerFileError, unsupportedTokenizer } from './tokenizer-json.js'
import { isTokenId } from './vocabulary-json.js'

/** What cuts a text into words, by tokenizer_config.json's `tokenizer_class`. */
const PRE_TOKENIZERS: Readonly<Record<string, string>> = {
  GPT2Tokenizer: 'gpt-2',
  GPT2TokenizerFast: 'gpt-2',
  Qwen2Tokenizer: 'qwen2',
  Qwen2TokenizerFast: 'qwen2',
}

/**
 * @param vocab token to id
 * @param merges a pair in each line, the first of them first; lines that begin with `#version` are none
 * @param tokenizerClass absent: GPT-2's
 * @param special the texts of special tokens, which the vocabulary has like any others
 * @throws OnebitError ERR_TOKENIZER_FILE, ERR_UNSUPPORTED_TOKENIZER
 */
export function tokenizerFromByteLevelFiles(
  vocab: Record<string, unknown>,
  merges: string,
  tokenizerClass: unknown,
  special: ReadonlySet<string>,
): TokenizerBlob {
  const name = tokenizerClass === undefined ? 'GPT2Tokenizer' : tokenizerClass
  if (typeof name !== 'string' || !Object.hasOwn(PRE_TOKENIZERS, name)) {
    throw unsupportedTokenizer(`vocab.json with a tokenizer_class ${JSON.stringify(name)}`)
  }
  const steps = namedPreTokenizer(PRE_TOKENIZERS[name]!)
  const added: AddedToken[] = []
  for (const [content, id] of Object.entries(vocab)) {
    if (!isTokenId(id)) throw tokenizerFileError(`vocab.json gives ${JSON.stringify(content.slice(0, 60))} no id`)
    if (special.has(content)) added.push({ id, content, special: true, normalized: false })
  }
  return {
    tokenizer: {
      added_tokens: added.sort((a, b) => a.id - b.id),
      normalizer: steps.normalizer,
      pre_tokenizer: steps.preTokenizer,
      post_processor: null,
      decoder: { type: 'ByteLevel' },
      model: { type: 'BPE', unk_token: null, vocab: vocab as Record<string, number>, merges: mergesOf(merges) },
    },
    config: {},
  }
}

function mergesOf(text: string): string[] {
  const lines = text.split(/\r?\n/).filter((line) => line !== '' && !line.startsWith('#version'))
  const wrong = lines.findIndex((line) => !/^\S+ \S+$/u.test(line))
  if (wrong >= 0) throw tokenizerFileError(`merge ${wrong + 1} of merges.txt is not a pair of tokens`)
  return lines
}
