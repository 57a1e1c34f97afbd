/** The value of an XML argument as JSON: its text alone does not say whether 5 is a number or a text. */
import { isRecord } from '../text/tokenizer-json.js'
import type { Tool } from './parts.js'

const MOST_LEVELS = 16
/** Python's words, which some models write. */
const WORDS: Readonly<Record<string, string>> = { True: 'true', False: 'false', None: 'null' }

export function argumentJson(text: string, name: string, tool: Tool): string {
  const properties = isRecord(tool.parameters?.properties) ? tool.parameters.properties : {}
  const schema = Object.hasOwn(properties, name) ? properties[name] : undefined
  const types = new Set<string>()
  collectTypes(schema, tool.parameters ?? {}, types, 0)
  const trimmed = text.trim()
  const word = WORDS[trimmed] ?? trimmed
  if (types.has('string') && !(types.has('null') && word === 'null')) return JSON.stringify(text)
  try {
    const value: unknown = JSON.parse(word)
    // Text that no type was asked for stays what it looks like, unless it looks like a text in quotes.
    if (types.size > 0 || typeof value !== 'string') return word
  } catch {
    // no JSON, so it is a text
  }
  return JSON.stringify(text)
}

function collectTypes(schema: unknown, root: unknown, types: Set<string>, level: number): void {
  if (!isRecord(schema) || level > MOST_LEVELS) return
  for (const type of [schema.type].flat()) if (typeof type === 'string') types.add(type)
  if (schema.nullable === true) types.add('null')
  const constants = Array.isArray(schema.enum) ? schema.enum : 'const' in schema ? [schema.const] : []
  if (schema.type === undefined) for (const value of constants) types.add(value === null ? 'null' : typeof value)
  for (const list of [schema.anyOf, schema.oneOf, schema.allOf]) {
    if (Array.isArray(list)) for (const inner of list) collectTypes(inner, root, types, level + 1)
  }
  if (typeof schema.$ref === 'string') collectTypes(targetOf(schema.$ref, root), root, types, level + 1)
}

function targetOf($ref: string, root: unknown): unknown {
  let value = root
  for (const part of $ref.split('/').slice(1)) {
    const name = part.replaceAll('~1', '/').replaceAll('~0', '~')
    value = isRecord(value) && Object.hasOwn(value, name) ? value[name] : undefined
  }
  return value
}
