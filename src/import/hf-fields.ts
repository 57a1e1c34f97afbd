/** The fields of a Hugging Face `config.json`, each checked when it is asked for. */
import { shown } from '../shown-value.js'
import { badSource, checkDimension } from './source.js'

export type Fields = Record<string, unknown>

export function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A field that is null counts as left out; what a model type takes then is the caller's business. */
export class HfFields {
  readonly #root: Fields

  constructor(root: Fields) {
    this.#root = root
  }

  /** undefined: left out, or null */
  get(key: string): unknown {
    return this.#root[key] ?? undefined
  }

  /** Whether the key is there at all, null or not. */
  has(key: string): boolean {
    return Object.hasOwn(this.#root, key)
  }

  /** The same fields with those of an object in them in front. */
  within(fields: Fields): HfFields {
    return new HfFields({ ...this.#root, ...fields })
  }

  number(key: string, fallback?: number): number {
    const value = this.get(key) ?? fallback
    if (typeof value === 'number' && Number.isFinite(value)) return value
    throw badSource(`config.json: ${key} must be a number, found ${shown(value)}`)
  }

  /** A whole number from 1 to `max`. */
  size(key: string, max: number, fallback?: number): number {
    return checkDimension(`config.json: ${key}`, this.get(key) ?? fallback, max)
  }

  flag(key: string): boolean {
    const value = this.get(key) ?? false
    if (typeof value === 'boolean') return value
    throw badSource(`config.json: ${key} must be true or false, found ${shown(value)}`)
  }
}
