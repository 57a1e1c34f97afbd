/** Ends a text at the first of several strings, while the text comes in pieces. */

export interface StopResult {
  /** text that is certainly before any stop string */
  text: string
  stopped: boolean
}

/**
 * Text that may be the beginning of a stop string waits until it is certain; when a stop string is complete, all text
 * before it has been handed out and the rest is dropped. Of several in one text the one that begins first counts.
 */
export class StopStrings {
  readonly #stops: string[]
  readonly #longest: number
  #held = ''
  #stopped = false

  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop !== '')
    this.#longest = Math.max(0, ...this.#stops.map((stop) => stop.length))
  }

  push(text: string): StopResult {
    if (this.#stopped) return { text: '', stopped: true }
    const all = this.#held + text
    const found = this.#first(all)
    const begun = this.#beginning(all)
    // A longer stop string that began earlier may still become complete; then the earlier one counts.
    if (found >= 0 && found <= begun) {
      this.#stopped = true
      this.#held = ''
      return { text: all.slice(0, found), stopped: true }
    }
    this.#held = all.slice(begun)
    return { text: all.slice(0, begun), stopped: false }
  }

  /** What was held back, when no more text comes: up to a complete stop string if there is one. */
  flush(): string {
    const held = this.#held
    this.#held = ''
    const found = this.#first(held)
    return found >= 0 ? held.slice(0, found) : held
  }

  /** Where the first complete stop string begins, or -1. */
  #first(text: string): number {
    let first = -1
    for (const stop of this.#stops) {
      const at = text.indexOf(stop)
      if (at >= 0 && (first < 0 || at < first)) first = at
    }
    return first
  }

  /** Where the first ending that is the beginning of a stop string begins; the length of the text if there is none. */
  #beginning(text: string): number {
    for (let at = Math.max(0, text.length - this.#longest + 1); at < text.length; at++) {
      const ending = text.slice(at)
      if (this.#stops.some((stop) => stop.length > ending.length && stop.startsWith(ending))) return at
    }
    return text.length
  }
}
