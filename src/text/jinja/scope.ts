/** Names and what they stand for: inner scopes see outer ones, and set names only in themselves. */
import type { Value } from './values.js'

export class Scope {
  readonly #names = new Map<string, Value>()
  readonly #outer: Scope | undefined

  constructor(outer?: Scope) {
    this.#outer = outer
  }

  get(name: string): Value | undefined {
    const found = this.#names.get(name)
    return found === undefined ? this.#outer?.get(name) : found
  }

  set(name: string, value: Value): void {
    this.#names.set(name, value)
  }
}
