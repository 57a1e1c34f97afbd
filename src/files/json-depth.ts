/**
 * JSON.parse builds nests of any depth, but most code that walks a value calls itself for every level and ends in a
 * stack overflow. Files whose JSON is nested deeper than any of ours are refused right after parsing.
 */
export function isNestedDeeperThan(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false
  if (levels === 0) return true
  for (const inner of Object.values(value)) if (isNestedDeeperThan(inner, levels - 1)) return true
  return false
}

const [QUOTE, BACKSLASH, OPEN_LIST, OPEN_OBJECT, CLOSE_LIST, CLOSE_OBJECT] = [0x22, 0x5c, 0x5b, 0x7b, 0x5d, 0x7d]

/**
 * What parsing JSON would cost, found without parsing: how deep it is nested, and how many lists and objects it has.
 * A text of nothing but brackets takes fifty times its size as objects.
 */
export function weighJson(text: Uint8Array): { depth: number; containers: number } {
  let [depth, deepest, containers] = [0, 0, 0]
  let quoted = false
  for (let i = 0; i < text.length; i++) {
    const byte = text[i]
    if (quoted) {
      if (byte === BACKSLASH) i++
      else if (byte === QUOTE) quoted = false
    } else if (byte === QUOTE) quoted = true
    else if (byte === OPEN_LIST || byte === OPEN_OBJECT) {
      containers++
      deepest = Math.max(deepest, ++depth)
    } else if (byte === CLOSE_LIST || byte === CLOSE_OBJECT) depth--
  }
  return { depth: deepest, containers }
}
