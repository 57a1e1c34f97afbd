/**
 * The parts of @huggingface/tokenizers 0.2 that we use. Its own declarations import files without extensions, which
 * Node's module resolution does not find, so everything in them is lost.
 */
declare module '@huggingface/tokenizers' {
  interface Step {
    type: string
    [key: string]: unknown
  }

  class Model {
    config: object
    /** pre-tokens to token names; characters that no token has come back as they are */
    _call(tokens: string[]): string[]
  }

  export class Unigram extends Model {
    constructor(config: { type: 'Unigram'; vocab: [string, number][]; unk_id: number }, eosToken: string)
  }

  export class SequenceNormalizer {
    constructor(config: { type: 'Sequence'; normalizers: Step[] })
    normalize(text: string): string
  }

  export class SequencePreTokenizer {
    constructor(config: { type: 'Sequence'; pretokenizers: Step[] })
    pre_tokenize(text: string, options?: { section_index?: number }): string[]
  }

  export class ByteLevelPreTokenizer {
    constructor(config: { type: 'ByteLevel'; use_regex: boolean })
    pre_tokenize(text: string): string[]
  }
}
