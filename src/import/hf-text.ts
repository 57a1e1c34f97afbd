/** Tokenizer and chat template of a Hugging Face folder. */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { OnebitError } from '../errors.js'
import { openFile, readExactly } from '../files/file-reading.js'
import { parseJson } from '../files/json.js'
import { isNestedDeeperThan } from '../files/json-depth.js'
import { decodeText } from '../files/text.js'
import { MAX_CHAT_TEMPLATE_BYTES, MAX_TOKENIZER_BYTES } from '../obt/obt-header.js'
import { shown } from '../shown-value.js'
import { tokenizerFromByteLevelFiles } from '../text/byte-level-files.js'
import { tokenizerFromSentencePiece } from '../text/sentencepiece.js'
import {
  checkTokenizerBlob,
  TOKEN_NAMES,
  type TokenizerBlob,
  type TokenizerConfig,
  type TokenizerJson,
  unsupportedTokenizer,
} from '../text/tokenizer-json.js'
import { isTokenId } from '../text/vocabulary-json.js'
import { addedTokensOf, specialNames, withAddedTokens } from './hf-added-tokens.js'
import { type Fields, isObject } from './hf-fields.js'
import { badSource } from './source.js'
import { type ChatSettings, namedTokens, type SourceText, type SourceTokenizer } from './source-text.js'

/** The deepest real ones, the sequences of a tokenizer's steps, have about ten levels. */
const MAX_DEPTH = 64

/** The bytes of a file in a folder; undefined when it is not there. */
export async function readOptional(path: string, max: number): Promise<Buffer | undefined> {
  const opened = await openFile(path).catch((error: unknown) => {
    if (error instanceof OnebitError && error.code === 'ERR_FILE_NOT_FOUND') return undefined
    throw error
  })
  if (opened === undefined) return undefined
  const { file, bytes } = opened
  try {
    if (bytes > max) throw badSource(`${path} has ${bytes} bytes, at most ${max} are read`)
    return await readExactly(path, file, 0, bytes)
  } finally {
    await file.close()
  }
}

async function readText(path: string, max: number): Promise<string | undefined> {
  const bytes = await readOptional(path, max)
  if (bytes === undefined) return undefined
  try {
    return decodeText(bytes, path)
  } catch (error) {
    throw badSource((error as Error).message)
  }
}

export async function readJson(path: string, max = 64 << 20): Promise<Fields | undefined> {
  const text = await readText(path, max)
  if (text === undefined) return undefined
  let value: unknown
  try {
    value = parseJson(text)
  } catch (error) {
    throw badSource(`${path} is not valid JSON: ${(error as Error).message}`)
  }
  if (!isObject(value)) throw badSource(`${path} is not a JSON object`)
  if (isNestedDeeperThan(value, MAX_DEPTH)) throw badSource(`${path} is nested deeper than ${MAX_DEPTH} levels`)
  return value
}

/** `eos_token_id` is a number or a list, and generation_config.json knows best. */
function endTokens(...configs: (Fields | undefined)[]): number[] {
  for (const config of configs) {
    const value = config?.eos_token_id
    const ids = Array.isArray(value) ? value : [value]
    if (ids.length > 0 && ids.every(isTokenId)) return ids
  }
  return []
}

interface FoundTemplate {
  template: string | undefined
  warnings: string[]
}

/** `chat_template` of a config: a text, or a list of texts by name. */
function templateOf(value: unknown, file: string): FoundTemplate {
  if (typeof value === 'string') return { template: value, warnings: [] }
  const named = Array.isArray(value) ? value.filter(isObject) : []
  const usable = named.filter(({ template }) => typeof template === 'string')
  const [first] = usable
  if (first === undefined) return { template: undefined, warnings: [] }
  const chosen = usable.find(({ name }) => name === 'default')
  if (chosen) return { template: chosen.template as string, warnings: [] }
  const names = usable.map(({ name }) => String(name)).join(', ')
  const message = `${file} has several chat templates and none called default: of ${names} the first is used. --chat-template FILE gives another.`
  return { template: first.template as string, warnings: usable.length > 1 ? [message] : [] }
}

/** A file of its own comes first, then tokenizer_config.json, then the file that processors have. */
async function readTemplate(folder: string, config: Fields): Promise<FoundTemplate> {
  const jinja = await readText(join(folder, 'chat_template.jinja'), MAX_CHAT_TEMPLATE_BYTES)
  if (jinja !== undefined) return { template: jinja, warnings: [] }
  const own = templateOf(config.chat_template, 'tokenizer_config.json')
  if (own.template !== undefined) return own
  const json = await readJson(join(folder, 'chat_template.json'), MAX_CHAT_TEMPLATE_BYTES)
  return templateOf(json?.chat_template, 'chat_template.json')
}

/** tokenizer_config.json, with the names that older folders keep in special_tokens_map.json. */
async function readConfig(folder: string): Promise<Fields> {
  const config = await readJson(join(folder, 'tokenizer_config.json'))
  const map = await readJson(join(folder, 'special_tokens_map.json'))
  const names = [...TOKEN_NAMES, 'additional_special_tokens']
  const mapped = names.filter((name) => map?.[name] !== undefined).map((name) => [name, map![name]])
  return { ...Object.fromEntries(mapped), ...config }
}

/** What of the config the tokenizer is kept with: the template and the added tokens have places of their own. */
function keptConfig({ chat_template, added_tokens_decoder, eos_token_ids, ...config }: Fields): TokenizerConfig {
  return config
}

async function readVocabulary(folder: string, jsonPath: string): Promise<TokenizerBlob | undefined> {
  const json = await readJson(jsonPath, MAX_TOKENIZER_BYTES)
  if (json !== undefined) return { tokenizer: json as unknown as TokenizerJson, config: {} }
  const bytes = await readOptional(join(folder, 'tokenizer.model'), MAX_TOKENIZER_BYTES)
  return bytes ? tokenizerFromSentencePiece(bytes) : readByteLevelFiles(folder)
}

/** Folders of before there was tokenizer.json. */
async function readByteLevelFiles(folder: string): Promise<TokenizerBlob | undefined> {
  const vocab = await readJson(join(folder, 'vocab.json'), MAX_TOKENIZER_BYTES)
  const merges = await readText(join(folder, 'merges.txt'), MAX_TOKENIZER_BYTES)
  if (vocab === undefined || merges === undefined) return undefined
  const config = await readConfig(folder)
  if (config.add_prefix_space === true) throw unsupportedTokenizer('add_prefix_space of a vocab.json')
  return tokenizerFromByteLevelFiles(vocab, merges, config.tokenizer_class ?? undefined, specialNames(config))
}

async function readFolderTokenizer(folder: string, jsonPath: string): Promise<SourceTokenizer | undefined> {
  const made = await readVocabulary(folder, jsonPath)
  if (made === undefined) return undefined
  const config = await readConfig(folder)
  const blob = checkTokenizerBlob({ tokenizer: made.tokenizer, config: { ...made.config, ...keptConfig(config) } })
  const added = addedTokensOf(config, await readJson(join(folder, 'added_tokens.json')))
  return withAddedTokens(blob, added)
}

async function readFolderChat(folder: string, modelConfig: Fields): Promise<ChatSettings> {
  const config = await readConfig(folder)
  const { template, warnings } = await readTemplate(folder, config)
  // Where the text model is a part of a larger one, its config may be the only one to say.
  const { text_config: text } = modelConfig
  const configs = [modelConfig, isObject(text) ? text : undefined]
  const endIds = endTokens(await readJson(join(folder, 'generation_config.json')), ...configs)
  return { template, tokens: namedTokens(config as TokenizerConfig), endIds, warnings }
}

/** The text of a folder: tokenizer.json, tokenizer.model, or vocab.json and merges.txt, with what stands beside it. */
export function folderText(folder: string, modelConfig: Fields, jsonPath = join(folder, 'tokenizer.json')): SourceText {
  return {
    readTokenizer: () => readFolderTokenizer(folder, jsonPath),
    readChat: () => readFolderChat(folder, modelConfig),
  }
}

/** Repositories of GGUF files are folders too, of which one file is the model. */
export async function noConfig(folder: string): Promise<OnebitError> {
  const names = await readdir(folder).catch(() => [])
  const files = names.filter((name) => name.toLowerCase().endsWith('.gguf')).sort()
  const shownFiles = `${files.slice(0, 3).map(shown).join(', ')}${files.length > 3 ? ' …' : ''}`
  return new OnebitError('ERR_UNKNOWN_FORMAT', `${folder} has no config.json`, {
    hint:
      files.length > 0
        ? `There are GGUF files in it (${shownFiles}): give one of them.`
        : 'Give a Hugging Face model folder, a .gguf file or a llama2.c .bin file.',
  })
}
