/** Checks of single fields of a config. Each gives the value back or throws OnebitError ERR_CONFIG, naming the field. */
import { OnebitError } from '../errors.js'
import { shown } from '../shown-value.js'

export type Fields = Record<string, unknown>

export function fail(path: string, problem: string): never {
  throw new OnebitError('ERR_CONFIG', `config${path === '' ? '' : '.'}${path}: ${problem}`, {
    hint: 'The file was not written by this program or is damaged; convert the model again.',
  })
}

/** The fields of an object that has no other than these keys, and none of them missing but the optional ones. */
export function fieldsOf(
  path: string,
  value: unknown,
  keys: readonly string[],
  optional: ReadonlySet<string> = new Set(),
): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    fail(path, `must be an object, found ${shown(value)}`)
  }
  const present = Object.keys(value)
  const prefix = path === '' ? '' : `${path}.`
  const unknown = present.find((key) => !keys.includes(key))
  if (unknown !== undefined) fail(`${prefix}${unknown.slice(0, 60)}`, 'is not a known field')
  const absent = keys.find((key) => !present.includes(key) && !optional.has(key))
  if (absent !== undefined) fail(`${prefix}${absent}`, 'is missing')
  return value as Fields
}

export function integer(path: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    fail(path, `must be a whole number from ${min} to ${max}, found ${shown(value)}`)
  }
  return value
}

/** A number that is greater than `above` and at most `max`. */
export function positive(path: string, value: unknown, max: number, above = 0): number {
  if (typeof value !== 'number' || !(value > above && value <= max)) {
    fail(path, `must be a number above ${above} and at most ${max}, found ${shown(value)}`)
  }
  return value
}

export function flag(path: string, value: unknown): boolean {
  if (typeof value !== 'boolean') fail(path, `must be true or false, found ${shown(value)}`)
  return value
}

/** A flag that is left out where it would be false: with it, `{ [name]: true }`. */
export function trueOrAbsent<N extends string>(path: string, fields: Fields, name: N): { [name in N]?: true } {
  const value = fields[name]
  if (value !== undefined && value !== true) fail(`${path}.${name}`, 'must be true or left out')
  return value === true ? ({ [name]: true } as { [name in N]?: true }) : {}
}

export function oneOf<T extends string>(path: string, value: unknown, choices: readonly T[]): T {
  if (!choices.includes(value as T)) fail(path, `must be ${choices.join(' or ')}, found ${shown(value)}`)
  return value as T
}

/** Ascending, each below `end`. */
export function layerNumbers(path: string, value: unknown, end: number): readonly number[] {
  if (!Array.isArray(value) || value.length > end) fail(path, `must be a list of layers, found ${shown(value)}`)
  for (const [i, layer] of value.entries()) integer(path, layer, i === 0 ? 0 : value[i - 1] + 1, end - 1)
  return [...value]
}

export function matching(path: string, value: unknown, pattern: string): string {
  if (typeof value !== 'string' || !new RegExp(pattern).test(value)) {
    fail(path, `must match ${pattern}, found ${shown(value)}`)
  }
  return value
}
