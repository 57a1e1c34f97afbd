/** Finds where an object or array of JSON ends, while its text comes. It counts brackets; what is between is not checked. */
export class JsonScanner {
  #depth = 0
  #isText = false
  #isEscaped = false
  #done = false

  get done(): boolean {
    return this.#done
  }

  /** How many characters of `text` belong to the value. */
  push(text: string): number {
    for (let at = 0; at < text.length; at++) {
      if (this.#done) return at
      const character = text[at]
      if (this.#isEscaped) this.#isEscaped = false
      else if (this.#isText) {
        if (character === '\\') this.#isEscaped = true
        else if (character === '"') this.#isText = false
      } else if (character === '"') this.#isText = true
      else if (character === '{' || character === '[') this.#depth++
      else if (character === '}' || character === ']') this.#done = --this.#depth <= 0
    }
    return text.length
  }
}
