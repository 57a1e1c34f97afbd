/** Tokenizer and chat template of a GGUF file. */
import { tokenizerFromGguf } from '../text/gguf-vocabulary.js'
import type { TokenizerBlob } from '../text/tokenizer-json.js'
import { readGgufMetadata } from './gguf-parts.js'
import type { GgufValue } from './gguf-reader.js'
import { type ChatSettings, NO_TEXT, type SourceText } from './source-text.js'

const TEMPLATE = 'tokenizer.chat_template'
const TOKEN_KEYS: Record<string, string> = {
  bos_token: 'tokenizer.ggml.bos_token_id',
  eos_token: 'tokenizer.ggml.eos_token_id',
  unk_token: 'tokenizer.ggml.unknown_token_id',
  pad_token: 'tokenizer.ggml.padding_token_id',
}
const END_KEYS = ['tokenizer.ggml.eos_token_id', 'tokenizer.ggml.eot_token_id', 'tokenizer.ggml.eom_token_id']

/** From all the metadata of a file. */
export function ggufText(metadata: ReadonlyMap<string, GgufValue>): SourceText {
  const readChat = async () => chatSettings(metadata)
  if (!metadata.has('tokenizer.ggml.model')) return { ...NO_TEXT, readChat }
  return { readChat, readTokenizer: async () => ({ blob: tokenizerBlob(metadata), warnings: [] }) }
}

function tokenizerBlob(metadata: ReadonlyMap<string, GgufValue>): TokenizerBlob {
  const isWanted = (key: string) => key.startsWith('tokenizer.') || key === 'general.architecture'
  return tokenizerFromGguf(Object.fromEntries([...metadata].filter(([key]) => isWanted(key))))
}

/** What can be read without understanding the vocabulary; what is no token's id there says nothing here. */
function chatSettings(metadata: ReadonlyMap<string, GgufValue>): ChatSettings {
  const names = metadata.get('tokenizer.ggml.tokens')
  const nameOf = (key: string): string | undefined => {
    const name = Array.isArray(names) ? names[Number(metadata.get(key) ?? -1)] : undefined
    return typeof name === 'string' ? name : undefined
  }
  const tokens = Object.entries(TOKEN_KEYS).map(([part, key]): [string, string | undefined] => [part, nameOf(key)])
  return {
    ...chatTemplate(metadata),
    tokens: Object.fromEntries(tokens.filter((entry): entry is [string, string] => entry[1] !== undefined)),
    endIds: END_KEYS.filter((key) => nameOf(key) !== undefined).map((key) => Number(metadata.get(key))),
  }
}

function chatTemplate(metadata: ReadonlyMap<string, GgufValue>): { template: string | undefined; warnings: string[] } {
  const isText = (value: GgufValue | undefined): value is string => typeof value === 'string'
  const own = metadata.get(TEMPLATE)
  if (isText(own)) return { template: own, warnings: [] }
  const named = [...metadata].filter(([key, value]) => key.startsWith(`${TEMPLATE}.`) && isText(value))
  const [first] = named
  if (!first) return { template: undefined, warnings: [] }
  const keys = named.map(([key]) => key.slice(TEMPLATE.length + 1)).join(', ')
  const message = `The file has no chat template but named ones: of ${keys} the first is used. --chat-template FILE gives another.`
  return { template: first[1] as string, warnings: [message] }
}

/** The text of a GGUF file, which may have nothing else in it. */
export async function readGgufText(path: string): Promise<SourceText> {
  return ggufText(await readGgufMetadata(path))
}
