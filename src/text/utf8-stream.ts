/** Token ids to text, piece by piece, never half a character. */

export interface TokenSource {
  tokenBytes(id: number): Uint8Array
  isSpecial(id: number): boolean
}

export interface StreamOptions {
  /** write special tokens as they are named, all or some of them; the others give no text */
  special: boolean | ReadonlySet<number>
  /** drop one space in front of the first text, as SentencePiece's decoder does at the start of a text */
  stripFirstSpace: boolean
}

const SPACE = 0x20

/**
 * Token ids to text, piece by piece: `tokenizer.stream()`. The texts that `push` and `flush` return, joined, are the decoding of
 * all ids at once. Bytes that cannot become a character turn into U+FFFD as soon as that is certain; bytes that may still
 * become one wait.
 */
export class Utf8Stream {
  readonly #source: TokenSource
  readonly #special: boolean | ReadonlySet<number>
  #stripSpace: boolean
  // A byte order mark is text here: the model wrote it.
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })

  constructor(source: TokenSource, options: StreamOptions) {
    this.#source = source
    this.#special = options.special
    this.#stripSpace = options.stripFirstSpace
  }

  /** The text that is complete after these ids; often empty inside a character. */
  push(ids: Iterable<number> | number): string {
    if (typeof ids === 'number') return this.#one(ids)
    let text = ''
    for (const id of ids) text += this.#one(id)
    return text
  }

  /** What was held back, as U+FFFD where a character was cut off. The stream starts afresh after it. */
  flush(): string {
    return this.#decoder.decode()
  }

  #one(id: number): string {
    if (this.#source.isSpecial(id) && !this.#shows(id)) return ''
    let bytes = this.#source.tokenBytes(id)
    if (this.#stripSpace && bytes.length > 0) {
      this.#stripSpace = false
      if (bytes[0] === SPACE) bytes = bytes.subarray(1)
    }
    return this.#decoder.decode(bytes, { stream: true })
  }

  #shows(id: number): boolean {
    return typeof this.#special === 'boolean' ? this.#special : this.#special.has(id)
  }
}
