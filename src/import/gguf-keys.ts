/**
 * The metadata of one architecture in a GGUF file, read under its prefix. A key that nobody asked for may change what the
 * model computes, so at the end it is an error by its name.
 */

import { shown } from '../shown-value.js'
import type { GgufValue } from './gguf-reader.js'
import { badSource, checkDimension, unsupportedArchitecture } from './source.js'

/** Keys that say nothing about the computation of logits. */
const HARMLESS = [
  'vocab_size', // the embedding's rows say it
  'tensor_data_layout',
  'rope.scaling.finetuned',
  'pooling_type', // of embedding models: what is done with the last layer's output
]

export class GgufKeys {
  readonly #metadata: ReadonlyMap<string, GgufValue>
  readonly #prefix: string
  readonly #asked = new Set<string>(HARMLESS)

  constructor(metadata: ReadonlyMap<string, GgufValue>, architecture: string) {
    this.#metadata = metadata
    this.#prefix = `${architecture}.`
  }

  /** as the file has it */
  get architecture(): string {
    return this.#prefix.slice(0, -1)
  }

  get(key: string): GgufValue | undefined {
    this.#asked.add(key)
    return this.#metadata.get(this.#prefix + key)
  }

  number(key: string, fallback?: number): number {
    const value = this.get(key) ?? fallback
    const plain = typeof value === 'bigint' ? Number(value) : value
    if (typeof plain === 'number' && Number.isFinite(plain)) return plain
    throw badSource(`${this.#prefix}${key} must be a number, found ${shown(plain)}`)
  }

  /** A whole number from 1 to `max`. */
  size(key: string, max: number, fallback?: number): number {
    return checkDimension(`${this.#prefix}${key}`, this.number(key, fallback), max)
  }

  /** A switch that must be as it is in a plain model: left out, or one of these values. */
  mustBe(key: string, ...values: GgufValue[]): void {
    const value = this.get(key)
    const plain = typeof value === 'bigint' ? Number(value) : value
    if (plain !== undefined && !values.includes(plain)) throw this.unsupported(key)
  }

  unsupported(key: string): Error {
    const value = shown(this.#metadata.get(this.#prefix + key))
    return unsupportedArchitecture(`${this.#prefix.slice(0, -1)} with ${key} ${value}`)
  }

  /** @throws OnebitError ERR_UNSUPPORTED_ARCHITECTURE, naming a key that was never asked for */
  checkNothingLeft(): void {
    for (const name of this.#metadata.keys()) {
      if (!name.startsWith(this.#prefix)) continue
      const key = name.slice(this.#prefix.length)
      if (!this.#asked.has(key)) throw this.unsupported(key.slice(0, 80))
    }
  }
}

/** The shortest decimal that is this f32: 1e-5 and not 0.000009999999747378752. */
export function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits))
    if (Math.fround(short) === Math.fround(value)) return short
  }
  return value
}
