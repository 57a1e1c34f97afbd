/** What a source says about text: its tokenizer, and how its model is talked with. Each is read only when it is wanted. */
import { TOKEN_NAMES, type TokenizerBlob, type TokenizerConfig, tokenName } from '../text/tokenizer-json.js'

/** How a model is talked with: what stays when its tokenizer is replaced. */
export interface ChatSettings {
  /** Jinja */
  template?: string | undefined
  /** the texts of special tokens by their part, such as eos_token: templates mention them */
  tokens: Record<string, string>
  /** further ids that end an answer */
  endIds: number[]
  /** what a user should know, one sentence each */
  warnings: string[]
}

export interface SourceTokenizer {
  blob: TokenizerBlob
  /** what a user should know, one sentence each */
  warnings: string[]
}

export interface SourceText {
  /** undefined when there is none; @throws OnebitError ERR_TOKENIZER_FILE, ERR_UNSUPPORTED_TOKENIZER */
  readTokenizer(): Promise<SourceTokenizer | undefined>
  readChat(): Promise<ChatSettings>
}

/** Of formats that hold no text. */
export const NO_TEXT: SourceText = {
  readTokenizer: async () => undefined,
  readChat: async () => ({ tokens: {}, endIds: [], warnings: [] }),
}

/** A tokenizer that came without anything else. */
export function onlyTokenizer(read: () => TokenizerBlob): SourceText {
  return { ...NO_TEXT, readTokenizer: async () => ({ blob: read(), warnings: [] }) }
}

/** The texts of the tokens that a config gives a part to. */
export function namedTokens(config: TokenizerConfig): Record<string, string> {
  const found = TOKEN_NAMES.map((name): [string, string | undefined] => [name, tokenName(config[name])])
  return Object.fromEntries(found.filter((entry): entry is [string, string] => entry[1] !== undefined))
}
