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
  if (Array.isArray(value)) {
    const list = value.slice(0, MOST_ITEMS).map((item) => written(item, false))
    return `[${items(list, value.length, withItems)}]`
  }
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== null && prototype !== Object.prototype) return 'an object'
  const entries = Object.entries(value)
  const fields = entries.slice(0, MOST_ITEMS).map(([key, field]) => `${written(key, false)}: ${written(field, false)}`)
  return `{${items(fields, entries.length, withItems)}}`
}

function items(first: readonly string[], count: number, withItems: boolean): string {
  if (!withItems && count > 0) return '…'
  return [...first, ...(count > first.length ? ['…'] : [])].join(', ')
}
