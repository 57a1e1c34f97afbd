/** Tokenizer and chat template of a Hugging Face folder, as the blobs of a `.obt` file. */
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { OnebitError } from '../errors.js'
import { fileError } from '../files/file-errors.js'
import { isNestedDeeperThan } from '../files/json-depth.js'
import { MAX_CHAT_TEMPLATE_BYTES, MAX_TOKENIZER_BYTES } from '../obt/obt-header.js'
import { tokenizerFromSentencePiece } from '../text/sentencepiece.js'
import { checkTokenizerBlob, type TokenizerConfig } from '../text/tokenizer-json.js'
import { type Fields, isObject } from './hf-fields.js'
import { badSource, type SourceText } from './source.js'

/** The deepest real ones, the sequences of a tokenizer's steps, have about ten levels. */
const MAX_DEPTH = 64

/** The text of a file in a folder; undefined when it is not there. */
export async function readOptional(path: string, max: number): Promise<Buffer | undefined> {
  try {
    const { size } = await stat(path)
    if (size > max) throw badSource(`${path} has ${size} bytes, at most ${max} are read`)
    return await readFile(path)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw fileError(cause, path, 'reading')
  }
}

export async function readJson(path: string, max = 64 << 20): Promise<Fields | undefined> {
  const bytes = await readOptional(path, max)
  if (bytes === undefined) return undefined
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    throw badSource(`${path} is not valid JSON in UTF-8`)
  }
  if (!isObject(value)) throw badSource(`${path} is not a JSON object`)
  if (isNestedDeeperThan(value, MAX_DEPTH)) throw badSource(`${path} is nested deeper than ${MAX_DEPTH} levels`)
  return value
}

/** A value as the text of a blob. */
export function jsonBytes(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(value))
}

/** `eos_token_id` is a number or a list, and generation_config.json knows best. */
function endTokens(...configs: (Fields | undefined)[]): number[] {
  for (const config of configs) {
    const value = config?.eos_token_id
    const ids = Array.isArray(value) ? value : [value]
    if (ids.length > 0 && ids.every((id): id is number => Number.isInteger(id) && id >= 0)) return ids
  }
  return []
}

function templateText(config: Fields): string | undefined {
  const found = config.chat_template
  if (typeof found === 'string') return found
  if (!Array.isArray(found)) return undefined
  const named = found.filter(isObject)
  const chosen = named.find(({ name }) => name === 'default') ?? named[0]
  return typeof chosen?.template === 'string' ? chosen.template : undefined
}

const SPECIAL = ['bos_token', 'eos_token', 'unk_token', 'pad_token'] as const

/** What a template may mention: the text of the special tokens. */
export function chatTemplateBlob(template: string, config: Fields): Uint8Array {
  const blob: Record<string, string> = { template }
  for (const name of SPECIAL) {
    const token = config[name]
    const text = isObject(token) ? token.content : token
    if (typeof text === 'string') blob[name] = text
  }
  return jsonBytes(blob)
}

/** The tokenizer of a folder: tokenizer.json with tokenizer_config.json, or tokenizer.model, or none. */
export async function readFolderText(
  folder: string,
  modelConfig: Fields,
  jsonPath = join(folder, 'tokenizer.json'),
): Promise<SourceText> {
  const config: TokenizerConfig = { ...(await readJson(join(folder, 'tokenizer_config.json'))) }
  const json = await readJson(jsonPath, MAX_TOKENIZER_BYTES)
  const sentencePiece = json ? undefined : await readOptional(join(folder, 'tokenizer.model'), MAX_TOKENIZER_BYTES)
  const ends = endTokens(await readJson(join(folder, 'generation_config.json')), modelConfig)
  const jinja = await readOptional(join(folder, 'chat_template.jinja'), MAX_CHAT_TEMPLATE_BYTES)
  const template = jinja?.toString('utf8') ?? templateText(config)
  delete config.chat_template // it has its own blob
  if (json === undefined && sentencePiece === undefined) return {}
  const made = sentencePiece && tokenizerFromSentencePiece(sentencePiece)
  const merged: TokenizerConfig = { ...made?.config, ...config, ...(ends.length > 0 && { eos_token_ids: ends }) }
  const blob = checkTokenizerBlob({ tokenizer: made?.tokenizer ?? json, config: merged })
  return {
    tokenizer: jsonBytes(blob),
    chatTemplate: template === undefined ? undefined : chatTemplateBlob(template, merged),
  }
}

export function noConfig(folder: string): OnebitError {
  return new OnebitError('ERR_UNKNOWN_FORMAT', `${folder} has no config.json`, {
    hint: 'Give a Hugging Face model folder, a .gguf file or a llama2.c .bin file.',
  })
}
