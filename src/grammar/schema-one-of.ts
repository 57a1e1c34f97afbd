/** Whether at most one of several schemas can be valid for any value: then `oneOf` means what `anyOf` does. */
import {
  isList,
  isObject,
  type Json,
  type JsonObject,
  propertiesOf,
  requiredOf,
  type Schema,
  schemasOf,
  typesOf,
} from './schema-keywords.js'
import type { SchemaReader } from './schema-merge.js'

export function areDisjoint(branches: readonly Schema[], reader: SchemaReader, at: string): boolean {
  const read = branches.map((branch) => reader.read(branch, at))
  return read.every((one, i) => read.slice(i + 1).every((two) => excludeEachOther(one, two, reader, at)))
}

function excludeEachOther(one: Schema, two: Schema, reader: SchemaReader, at: string): boolean {
  if (one === false || two === false) return true
  if (one === true || two === true) return false
  const [first, second] = [valuesOf(one, reader, at), valuesOf(two, reader, at)]
  if (first && second) return !first.some((value) => second.includes(value))
  const [types, others] = [declaredTypes(one, at), declaredTypes(two, at)]
  if (types && others && !types.some((type) => others.includes(type))) return true
  return types?.join() === 'object' && others?.join() === 'object' && haveOtherTag(one, two, reader, at)
}

/** Integers are numbers. */
function declaredTypes(schema: JsonObject, at: string): string[] | undefined {
  if (schema.type === undefined) return undefined
  return typesOf(schema, at).map((type) => (type === 'integer' ? 'number' : type))
}

/** The only values there are, as JSON. */
function valuesOf(schema: Schema, reader: SchemaReader, at: string): string[] | undefined {
  const read = reader.read(schema, at)
  if (!isObject(read as Json)) return undefined
  const { const: only, enum: list, anyOf } = read as JsonObject
  if (only !== undefined) return [JSON.stringify(only)]
  if (isList(list)) return list.map((value) => JSON.stringify(value))
  if (anyOf === undefined) return undefined
  const parts = schemasOf(anyOf, at).map((part) => valuesOf(part, reader, at))
  return parts.includes(undefined) ? undefined : (parts as string[][]).flat()
}

/** Both have a property that must be there, with other values in the one than in the other. */
function haveOtherTag(one: JsonObject, two: JsonObject, reader: SchemaReader, at: string): boolean {
  const [first, second] = [propertiesOf(one, at), propertiesOf(two, at)]
  const both = [...requiredOf(one, at)].filter((name) => requiredOf(two, at).has(name))
  return both.some((name) => {
    const [left, right] = [first.get(name), second.get(name)]
    return (
      left !== undefined &&
      right !== undefined &&
      excludeEachOther(reader.read(left, at), reader.read(right, at), reader, at)
    )
  })
}
