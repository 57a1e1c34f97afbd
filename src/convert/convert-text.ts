/**
 * The text that goes into a `.obt` file: the tokenizer and the chat template are put together here, and tried as `run` will
 * try them. What run would refuse is refused now, with the way out; what it would put up with is a warning.
 */
import { OnebitError } from '../errors.js'
import { openFile, readExactly } from '../files/file-reading.js'
import { badSource } from '../import/source.js'
import { type ChatSettings, namedTokens, type SourceText, type SourceTokenizer } from '../import/source-text.js'
import { tokenizerFile } from '../import/tokenizer-file.js'
import { MAX_CHAT_TEMPLATE_BYTES } from '../obt/obt-header.js'
import { ChatTemplate, type ChatTemplateBlob } from '../text/chat-template.js'
import { checkTemplate } from '../text/template-check.js'
import { Tokenizer } from '../text/tokenizer.js'
import { type TokenizerBlob, tokenizerBlobBytes } from '../text/tokenizer-json.js'
import { hasToken, withinRows } from './convert-vocabulary.js'

export interface TextOptions {
  /** a file to use instead of the source's own tokenizer; `none` for no tokenizer */
  tokenizer?: string | undefined
  /** a file with a Jinja template to use instead of the source's own; `none` for no template */
  chatTemplate?: string | undefined
}

/** As the blobs of a `.obt` file. */
export interface ConvertedText {
  tokenizer: Uint8Array | undefined
  /** that tokenizer, for whoever uses it at once */
  built: Tokenizer | undefined
  chatTemplate: Uint8Array | undefined
  /** what a user should know, one sentence each */
  warnings: string[]
}

const NONE = 'none'
// A model that is loaded as it is has no such options: `onebit convert` has.
const TOKENIZER_HINT =
  'Give `onebit convert` another tokenizer with --tokenizer FILE, or write the model without one: --tokenizer none. Then it takes token ids.'
const TEMPLATE_HINT =
  'Give `onebit convert` another template with --chat-template FILE, or write the model without one: --chat-template none.'

/** @throws OnebitError ERR_TOKENIZER_FILE, ERR_UNSUPPORTED_TOKENIZER, ERR_TEMPLATE, and those of reading files */
export async function convertedText(
  source: SourceText,
  options: TextOptions,
  vocabSize: number,
): Promise<ConvertedText> {
  const own = await source.readChat()
  const file =
    options.tokenizer && options.tokenizer !== NONE ? await tokenizerFile(options.tokenizer, vocabSize) : undefined
  const other = await file?.readChat()
  const warnings = [...own.warnings]
  const found = options.tokenizer === NONE ? undefined : await readTokenizer(file ?? source)
  const tokenizer = found && buildTokenizer(found, own, vocabSize, warnings)
  if (tokenizer === undefined) {
    warnings.push('There is no tokenizer: the model works with token ids only.')
    return { tokenizer: undefined, built: undefined, chatTemplate: undefined, warnings }
  }
  const template = await templateSource(options, own, other)
  const tokens = { ...tokenizer.names, ...own.tokens }
  const chatTemplate =
    template === undefined ? undefined : await triedTemplate({ template, ...tokens }, tokenizer.built, warnings)
  return { tokenizer: tokenizer.bytes, built: tokenizer.built, chatTemplate, warnings }
}

/**
 * The same for a model that is used at once: what could only be told is not looked for, and nothing becomes bytes.
 * @throws OnebitError as convertedText
 */
export async function usableText(
  source: SourceText,
  vocabSize: number,
): Promise<{ tokenizer: Tokenizer | undefined; chatTemplate: ChatTemplate | undefined }> {
  const own = await source.readChat()
  const found = await readTokenizer(source)
  if (found === undefined) return { tokenizer: undefined, chatTemplate: undefined }
  const { tokenizer, names } = usableTokenizer(found, own, vocabSize)
  const { template } = own
  const blob = template === undefined ? undefined : { template, ...names, ...own.tokens }
  return { tokenizer, chatTemplate: blob && openTemplate(blob) }
}

function usableTokenizer({ blob: found }: SourceTokenizer, chat: ChatSettings, vocabSize: number) {
  try {
    const blob = withEnds(withinRows(found, vocabSize, []), chat, vocabSize, [])
    return { tokenizer: Tokenizer.owning(blob), names: namedTokens(blob.config) }
  } catch (error) {
    throw withHint(error, TOKENIZER_HINT)
  }
}

/** The error with the way out behind what it says itself. */
function withHint(error: unknown, hint: string): unknown {
  if (!(error instanceof OnebitError)) return error
  // The hint of a damaged blob is for those who have nothing but the `.obt` file.
  const own = error.code === 'ERR_TOKENIZER_FILE' ? undefined : error.hint
  return new OnebitError(error.code, error.message, { hint: own === undefined ? hint : `${own} ${hint}`, cause: error })
}

async function readTokenizer(text: SourceText): Promise<SourceTokenizer | undefined> {
  try {
    return await text.readTokenizer()
  } catch (error) {
    throw withHint(error, TOKENIZER_HINT)
  }
}

interface BuiltTokenizer {
  bytes: Uint8Array
  built: Tokenizer
  /** the texts of its special tokens, for templates */
  names: Record<string, string>
}

function buildTokenizer(
  { blob: found, warnings: news }: SourceTokenizer,
  chat: ChatSettings,
  vocabSize: number,
  warnings: string[],
): BuiltTokenizer {
  try {
    warnings.push(...news)
    const fitted = withinRows(found, vocabSize, warnings)
    const blob = withEnds(fitted, chat, vocabSize, warnings)
    const bytes = tokenizerBlobBytes(blob)
    const built = Tokenizer.fromBytes(bytes)
    warnings.push(...unresolvedNames(blob, chat, built))
    return { bytes, built, names: namedTokens(blob.config) }
  } catch (error) {
    throw withHint(error, TOKENIZER_HINT)
  }
}

/** The ids that the source says end an answer, and the token that its name says, whichever tokenizer it is. */
function withEnds(blob: TokenizerBlob, chat: ChatSettings, vocabSize: number, warnings: string[]): TokenizerBlob {
  const { config } = blob
  const absent = chat.endIds.filter((id) => id >= vocabSize)
  if (absent.length > 0) {
    warnings.push(`The source ends answers with the ids ${absent.join(', ')}; the model has only ${vocabSize} tokens.`)
  }
  const ids = new Set([...(config.eos_token_ids ?? []), ...chat.endIds.filter((id) => id < vocabSize)])
  // The source knows better than a tokenizer file that comes alone, if it speaks of the same vocabulary.
  const { eos_token: eos } = chat.tokens
  const named = eos !== undefined && (!config.eos_token || hasToken(blob, eos)) ? { eos_token: eos } : {}
  return { ...blob, config: { ...config, ...named, ...(ids.size > 0 && { eos_token_ids: [...ids] }) } }
}

function unresolvedNames({ config }: TokenizerBlob, chat: ChatSettings, tokenizer: Tokenizer): string[] {
  const warnings: string[] = []
  const parts = { ...chat.tokens, ...namedTokens(config) }
  for (const part of ['bos_token', 'eos_token'] as const) {
    const text = parts[part]
    if (text === undefined || text === '' || tokenizer.tokenToId(text) !== undefined) continue
    warnings.push(`The ${part} is ${JSON.stringify(text)}, which the vocabulary does not have: it has no effect.`)
  }
  const more = Array.isArray(config.additional_special_tokens) ? config.additional_special_tokens : []
  const absent = more.filter((text) => typeof text === 'string' && tokenizer.tokenToId(text) === undefined)
  if (absent.length > 0)
    warnings.push(`The vocabulary does not have the special tokens ${absent.slice(0, 5).join(' ')}.`)
  if (tokenizer.eosIds.length === 0)
    warnings.push('No token is known to end an answer: answers end only at their greatest length.')
  return warnings
}

async function templateSource(
  { chatTemplate }: TextOptions,
  own: ChatSettings,
  other: ChatSettings | undefined,
): Promise<string | undefined> {
  if (chatTemplate === NONE) return undefined
  if (chatTemplate === undefined) return own.template ?? other?.template
  const { file, bytes } = await openFile(chatTemplate)
  try {
    if (bytes > MAX_CHAT_TEMPLATE_BYTES) throw badSource(`${chatTemplate} has ${bytes} bytes, too many for a template`)
    return new TextDecoder('utf-8', { fatal: true }).decode(await readExactly(chatTemplate, file, 0, bytes))
  } catch (error) {
    if (error instanceof TypeError) throw badSource(`${chatTemplate} is not UTF-8`)
    throw error
  } finally {
    await file.close()
  }
}

/** The blob of a template that can be used; what happens to a plain conversation is tried, and only told. */
async function triedTemplate(blob: ChatTemplateBlob, tokenizer: Tokenizer, warnings: string[]): Promise<Uint8Array> {
  const chat = openTemplate(blob)
  warnings.push(...lettersForMarkers(blob.template, tokenizer))
  try {
    await chat.encodeChat([{ role: 'user', content: 'Hello' }], tokenizer)
  } catch (error) {
    if (!(error instanceof OnebitError)) throw error
    warnings.push(`${error.message.replace(/\.$/, '')} with a plain question. ${TEMPLATE_HINT}`)
  } finally {
    chat.dispose()
  }
  return jsonBytes(blob)
}

function openTemplate(blob: ChatTemplateBlob): ChatTemplate {
  try {
    checkTemplate(blob.template)
    return new ChatTemplate(blob)
  } catch (error) {
    throw withHint(error, TEMPLATE_HINT)
  }
}

const MARKER = /<\|[A-Za-z0-9_]+\|>/g

/** Markers of a template that the tokenizer writes out in letters: the model was hardly trained on these. */
function lettersForMarkers(template: string, tokenizer: Tokenizer): string[] {
  const markers = new Set(template.match(MARKER))
  const absent = [...markers].filter((marker) => tokenizer.tokenToId(marker) === undefined)
  if (absent.length === 0) return []
  return [`The chat template writes ${absent.slice(0, 5).join(' ')}, which the vocabulary does not have as tokens.`]
}

/** A value as the text of a blob. */
function jsonBytes(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(value))
}
