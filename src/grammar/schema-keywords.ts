/** JSON Schema as it is read here: which keywords mean what, and which cannot be kept. */
import { OnebitError } from '../errors.js'

export type Json = null | boolean | number | string | readonly Json[] | JsonObject
export interface JsonObject {
  readonly [name: string]: Json
}
export type Schema = boolean | JsonObject

export const TYPES = ['object', 'array', 'string', 'integer', 'number', 'boolean', 'null'] as const
export type Type = (typeof TYPES)[number]

/** Which type each keyword says something about. */
const TYPE_OF: Readonly<Record<string, Type>> = {
  ...named('object', ['properties', 'required', 'additionalProperties', 'propertyNames', 'minProperties']),
  ...named('object', ['maxProperties', 'unevaluatedProperties']),
  ...named('array', ['items', 'prefixItems', 'additionalItems', 'minItems', 'maxItems', 'uniqueItems']),
  ...named('string', ['minLength', 'maxLength', 'pattern']),
  ...named('number', ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf']),
}
const OF_ALL = ['type', 'nullable', 'enum', 'const', 'anyOf', 'oneOf', 'allOf', '$ref', '$defs', 'definitions']

/** They say nothing about what is valid, or nothing that we promise to keep: `format` is one of them. */
const ANNOTATIONS = new Set([
  ...['title', 'description', 'default', 'example', 'examples', 'deprecated', 'readOnly', 'writeOnly', 'format'],
  ...['$schema', '$comment', 'id', 'contentEncoding', 'contentMediaType', 'contentSchema', 'externalDocs', 'xml'],
])

const KNOWN = new Set([...Object.keys(TYPE_OF), ...OF_ALL])

/** With these values a keyword that cannot be kept says nothing. */
const EMPTY: Readonly<Record<string, (value: Json) => boolean>> = {
  patternProperties: (value) => isObject(value) && Object.keys(value).length === 0,
  dependentRequired: (value) => isObject(value) && Object.keys(value).length === 0,
  dependentSchemas: (value) => isObject(value) && Object.keys(value).length === 0,
  unevaluatedItems: (value) => value === true,
  not: (value) => value === false,
}

function named(type: Type, keywords: string[]): Record<string, Type> {
  return Object.fromEntries(keywords.map((keyword) => [keyword, type]))
}

export function schemaError(at: string, problem: string, hint?: string): OnebitError {
  return new OnebitError('ERR_SCHEMA', `The JSON Schema, ${at === '' ? 'at its top' : `at ${at}`}: ${problem}`, {
    hint,
  })
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function isList(value: Json | undefined): value is readonly Json[] {
  return Array.isArray(value)
}

/**
 * The schema without annotations. Every keyword is looked at: one that cannot be kept is an error, because an answer that
 * ignores it would not be valid.
 * @throws OnebitError ERR_SCHEMA
 */
export function knownKeywords(schema: JsonObject, at: string): JsonObject {
  const entries = Object.entries(schema).filter(([keyword, value]) => {
    if (KNOWN.has(keyword)) return true
    if (ANNOTATIONS.has(keyword) || keyword.startsWith('x-') || EMPTY[keyword]?.(value)) return false
    if (keyword === '$id' && at === '') return false
    throw schemaError(
      at,
      `keyword ${JSON.stringify(keyword.slice(0, 60))} is not supported`,
      'Leave it out, and check the answer for it.',
    )
  })
  return Object.fromEntries(entries)
}

/** The types that the schema allows, or that its keywords are about. */
export function typesOf(schema: JsonObject, at: string): readonly Type[] {
  const { type } = schema
  const list = type === undefined ? undefined : isList(type) ? type : [type]
  for (const item of list ?? []) {
    if (!TYPES.includes(item as Type))
      throw schemaError(at, `${JSON.stringify(item)} is no type; there are ${TYPES.join(', ')}`)
  }
  const types = new Set((list as Type[] | undefined) ?? impliedTypes(schema))
  if (schema.nullable === true && list) types.add('null')
  // Every integer is a number.
  if (types.has('number')) types.delete('integer')
  return TYPES.filter((item) => types.has(item))
}

/** Without `type`, values that a keyword says nothing about would be valid too; they are hardly what is meant. */
function impliedTypes(schema: JsonObject): readonly Type[] {
  const implied = Object.keys(schema).flatMap((keyword) => TYPE_OF[keyword] ?? [])
  return implied.length > 0 ? implied : TYPES
}

/** The keywords among `schema`'s that assert something about values besides enum and const. */
export function assertions(schema: JsonObject): string[] {
  return Object.keys(schema).filter((keyword) => Object.hasOwn(TYPE_OF, keyword))
}

/** A whole number from 0 on. */
export function countOf(schema: JsonObject, keyword: string, at: string): number | undefined {
  const value = schema[keyword]
  if (value === undefined || (Number.isInteger(value) && (value as number) >= 0)) return value as number | undefined
  throw schemaError(at, `${keyword} must be a whole number from 0 on`)
}

export function numberOf(schema: JsonObject, keyword: string, at: string): number | undefined {
  const value = schema[keyword]
  if (value === undefined || typeof value === 'number') return value
  throw schemaError(at, `${keyword} must be a number`)
}

export function schemaOf(value: Json, at: string): Schema {
  if (typeof value === 'boolean' || isObject(value)) return value
  throw schemaError(at, 'a schema must be an object, true or false')
}

export function schemasOf(value: Json, at: string): Schema[] {
  if (!isList(value) || value.length === 0) throw schemaError(at, 'must be a list of schemas')
  return value.map((item, index) => schemaOf(item, `${at}/${index}`))
}

export function propertiesOf(schema: JsonObject, at: string): Map<string, Schema> {
  const { properties = {} } = schema
  if (!isObject(properties)) throw schemaError(at, 'properties must be an object')
  return new Map(Object.entries(properties).map(([name, value]) => [name, schemaOf(value, `${at}/properties/${name}`)]))
}

export function requiredOf(schema: JsonObject, at: string): ReadonlySet<string> {
  const { required = [] } = schema
  if (!isList(required) || !required.every((name) => typeof name === 'string')) {
    throw schemaError(at, 'required must be a list of names')
  }
  return new Set(required as string[])
}
