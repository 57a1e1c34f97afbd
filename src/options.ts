/** Checks of options: every value is looked at before anything is done with it, and an unknown name is an error. */
import { badOption, OnebitError } from './errors.js'
import { shown } from './shown-value.js'

/** Numbers from JavaScript callers may be anything; TypeScript types are only promises. */
type Fields = Record<string, unknown>

/**
 * The options as a plain record.
 * @throws OnebitError ERR_BAD_OPTION when it is no object or has a name that is not in `known`
 */
export function optionFields(what: string, options: unknown, known: readonly string[]): Fields {
  if (options === undefined) return {}
  if (typeof options !== 'object' || options === null) throw badOption(what, `must be an object, not ${shown(options)}`)
  for (const name of Object.keys(options)) {
    if (!known.includes(name)) throw badOption(name, `is not an option here; known are ${known.join(', ')}`)
  }
  return options as Fields
}

export function integerOption(fields: Fields, name: string, min: number, max: number): number | undefined {
  const value = fields[name]
  if (value === undefined) return undefined
  if (Number.isInteger(value) && (value as number) >= min && (value as number) <= max) return value as number
  throw badOption(name, `must be an integer from ${min} to ${max}, not ${shown(value)}`)
}

export function numberOption(fields: Fields, name: string, min: number, max: number): number | undefined {
  const value = fields[name]
  if (value === undefined) return undefined
  if (typeof value === 'number' && value >= min && value <= max) return value
  throw badOption(name, `must be a number from ${min} to ${max}, not ${shown(value)}`)
}

/** Likeliest tokens that can be asked for at each position. */
const MOST_LIKELIEST = 100

export function likeliestOption(fields: Fields, name: string, vocabSize: number): number {
  return integerOption(fields, name, 0, Math.min(MOST_LIKELIEST, vocabSize)) ?? 0
}

export function choiceOption<T extends string>(fields: Fields, name: string, choices: readonly T[]): T | undefined {
  const value = fields[name]
  if (value === undefined || choices.includes(value as T)) return value as T | undefined
  throw badOption(name, `must be one of ${choices.join(', ')}, not ${shown(value)}`)
}

export function booleanOption(fields: Fields, name: string): boolean | undefined {
  const value = fields[name]
  if (value === undefined || typeof value === 'boolean') return value
  throw badOption(name, `must be true or false, not ${shown(value)}`)
}

export function stringOption(fields: Fields, name: string): string | undefined {
  const value = fields[name]
  if (value === undefined || typeof value === 'string') return value
  throw badOption(name, `must be a string, not ${shown(value)}`)
}

export function functionOption<T>(fields: Fields, name: string): T | undefined {
  const value = fields[name]
  if (value === undefined || typeof value === 'function') return value as T | undefined
  throw badOption(name, `must be a function, not ${shown(value)}`)
}

export function signalOption(fields: Fields): AbortSignal | undefined {
  const value = fields.signal
  if (value === undefined || value instanceof AbortSignal) return value
  throw badOption('signal', `must be an AbortSignal, not ${shown(value)}`)
}

/**
 * Token ids as an Int32Array of our own: the caller may change his while we compute.
 * @throws OnebitError ERR_BAD_OPTION, ERR_TOKEN_RANGE
 */
export function tokenIds(what: string, ids: unknown, vocabSize: number): Int32Array {
  if (!Array.isArray(ids) && !(ids instanceof Int32Array)) {
    throw badOption(what, `must be an array or an Int32Array of token ids, not ${shown(ids)}`)
  }
  const copy = new Int32Array(ids.length)
  for (let i = 0; i < ids.length; i++) {
    const id: unknown = ids[i]
    if (!(Number.isInteger(id) && (id as number) >= 0 && (id as number) < vocabSize)) {
      throw new OnebitError(
        'ERR_TOKEN_RANGE',
        `${what}[${i}] is ${shown(id)}; the model knows ids 0 to ${vocabSize - 1}`,
      )
    }
    copy[i] = id as number
  }
  return copy
}
