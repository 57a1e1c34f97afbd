/** Values in messages. JSON.stringify throws at bigints, makes null of NaN, and knows no end. */

const MOST_CHARACTERS = 60
const MOST_ITEMS = 8

/** A value in at most some 60 characters, whatever it is: from a file, or from a caller whose types are only promises. */
export function shown(value: unknown): string {
  return shortened(written(value, true))
}

function shortened(text: string): string {
  return text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}…` : text
}

function written(value: unknown, withItems: boolean): string {
  switch (typeof value) {
    case 'string':
      return JSON.stringify(shortened(value))
    case 'undefined':
      return 'nothing'
    case 'function':
    case 'symbol':
      return `a ${typeof value}`
    case 'object':
      return value === null ? 'null' : writtenObject(value, withItems)
    default:
      return String(value)
  }
}

function writtenObject(value: object, withItems: boolean): string {
  if (Array.isArray(value)) return `[${items(value, withItems, (item) => written(item, false))}]`
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== null && prototype !== Object.prototype) return 'an object'
  const field = ([key, inner]: [string, unknown]) => `${written(key, false)}: ${written(inner, false)}`
  return `{${items(Object.entries(value), withItems, field)}}`
}

function items<T>(list: readonly T[], withItems: boolean, write: (item: T) => string): string {
  if (!withItems && list.length > 0) return '…'
  const first = list.slice(0, MOST_ITEMS).map(write)
  return [...first, ...(list.length > MOST_ITEMS ? ['…'] : [])].join(', ')
}
