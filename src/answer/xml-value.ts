/** The value of an XML argument as JSON: its text alone does not say whether 5 is a number or a text. */
import { isRecord } from '../text/tokenizer-json.js'
import type { Tool } from './parts.js'

const MOST_LEVELS = 16
/** Python's words, which some models write. */
const WORDS: Readonly<Record<string, string>> = { True: 'true', False: 'false', None: 'null' }

/** What a schema allows, as far as reading needs it. */
interface Allowed {
  types: Set<string>
  /** strings that enum or const names */
  texts: Set<string>
  /** other strings are allowed too */
  isOpen: boolean
}

export function argumentJson(text: string, name: string, tool: Tool): string {
  const properties = isRecord(tool.parameters?.properties) ? tool.parameters.properties : {}
  const schema = Object.hasOwn(properties, name) ? properties[name] : undefined
  const allowed: Allowed = { types: new Set(), texts: new Set(), isOpen: false }
  collect(schema, tool.parameters ?? {}, allowed, 0)
  const trimmed = text.trim()
  const word = WORDS[trimmed] ?? trimmed
  let value: unknown
  try {
    value = JSON.parse(word)
  } catch {
    return JSON.stringify(text)
  }
  const { types } = allowed
  // Text that no type was asked for stays what it looks like, unless it looks like a text in quotes.
  const isText =
    types.size === 0 ? typeof value === 'string' : types.has('string') && isRatherText(text, value, allowed)
  return isText ? JSON.stringify(text) : word
}

/** Of what is JSON as well, where strings are allowed. The grammar of the arguments writes nothing that this reads as invalid. */
function isRatherText(text: string, value: unknown, { types, texts, isOpen }: Allowed): boolean {
  if (texts.has(text) || typeof value === 'string') return true
  if (value === null) return !types.has('null')
  if (Array.isArray(value)) return !types.has('array')
  if (typeof value === 'object') return !types.has('object')
  return isOpen || !(types.has(typeof value) || (types.has('integer') && Number.isInteger(value)))
}

function collect(schema: unknown, root: unknown, allowed: Allowed, level: number): void {
  if (!isRecord(schema) || level > MOST_LEVELS) return
  const constants = 'const' in schema ? [schema.const] : Array.isArray(schema.enum) ? schema.enum : undefined
  const types = [schema.type].flat().filter((type) => typeof type === 'string')
  if (schema.nullable === true) types.push('null')
  if (schema.type === undefined) types.push(...(constants ?? []).map(typeName))
  for (const type of types) allowed.types.add(type)
  for (const value of constants ?? []) if (typeof value === 'string') allowed.texts.add(value)
  if (constants === undefined && types.includes('string')) allowed.isOpen = true
  for (const list of [schema.anyOf, schema.oneOf, schema.allOf]) {
    if (Array.isArray(list)) for (const inner of list) collect(inner, root, allowed, level + 1)
  }
  if (typeof schema.$ref === 'string') collect(targetOf(schema.$ref, root), root, allowed, level + 1)
}

/** Of a constant, as schemas call it. */
function typeName(value: unknown): string {
  return value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value
}

function targetOf($ref: string, root: unknown): unknown {
  let value = root
  for (const part of $ref.split('/').slice(1)) {
    const name = part.replaceAll('~1', '/').replaceAll('~0', '~')
    value = isRecord(value) && Object.hasOwn(value, name) ? value[name] : undefined
  }
  return value
}
