/** References followed, and several schemas that hold together made one. */
import {
  isList,
  isObject,
  type Json,
  type JsonObject,
  knownKeywords,
  propertiesOf,
  requiredOf,
  type Schema,
  schemaError,
  schemaOf,
  schemasOf,
  typesOf,
} from './schema-keywords.js'

const MOST_STEPS = 20_000
/** A schema in `allOf` or behind a reference, in another one, and so on. */
const MOST_LEVELS = 32

export class SchemaReader {
  readonly #root: Schema
  #steps = 0

  constructor(root: Schema) {
    this.#root = root
  }

  /**
   * The schema with its references and `allOf` taken in: its own keywords, `anyOf` and `oneOf` are what is left. The same
   * object comes back when there is nothing to take in, or nothing but a reference: schemas may contain themselves.
   * @throws OnebitError ERR_SCHEMA
   */
  read(schema: Schema, at: string, level = 0): Schema {
    if (level > MOST_LEVELS) throw schemaError(at, 'it refers to itself without end')
    if (++this.#steps > MOST_STEPS) throw schemaError(at, 'it is too large')
    if (typeof schema === 'boolean') return schema
    if (schema.$ref === undefined && schema.allOf === undefined) return schema
    const { $ref, allOf, ...own } = schema
    const others: Schema[] = []
    if ($ref !== undefined) {
      const target = this.#target($ref, at)
      const isAlone =
        allOf === undefined &&
        Object.keys(knownKeywords(own, at)).every((name) => name === '$defs' || name === 'definitions')
      if (isAlone) return this.read(target, String($ref), level + 1)
      others.push(target)
    }
    if (allOf !== undefined) others.push(...schemasOf(allOf, `${at}/allOf`))
    return others.reduce((whole: Schema, other) => this.#both(whole, this.read(other, at, level + 1), at), own)
  }

  /** What holds where both hold. @throws OnebitError ERR_SCHEMA */
  together(one: Schema, two: Schema, at: string): Schema {
    return this.#both(this.read(one, at), this.read(two, at), at)
  }

  #target($ref: Json, at: string): Schema {
    if (typeof $ref !== 'string') throw schemaError(at, '$ref must be a text')
    if ($ref !== '#' && !$ref.startsWith('#/')) {
      throw schemaError(
        at,
        `$ref ${JSON.stringify($ref.slice(0, 60))} is not supported: only parts of the same schema are`,
        'Put it into $defs.',
      )
    }
    let value: Json | undefined = this.#root
    for (const part of $ref.split('/').slice(1)) {
      const name = decoded(part, at).replaceAll('~1', '/').replaceAll('~0', '~')
      const isThere: boolean = typeof value === 'object' && value !== null && Object.hasOwn(value, name)
      value = isThere ? (value as JsonObject)[name] : undefined
    }
    if (value === undefined) throw schemaError(at, `$ref ${JSON.stringify($ref.slice(0, 60))} leads to nothing`)
    return schemaOf(value, $ref)
  }

  #both(one: Schema, two: Schema, at: string): Schema {
    if (one === false || two === false) return false
    if (one === true) return two
    if (two === true) return one
    const [a, b] = [knownKeywords(one, at), knownKeywords(two, at)]
    const result: Record<string, Json> = { ...a, ...b }
    for (const keyword of Object.keys(b)) {
      const [first, second] = [a[keyword], b[keyword]!]
      if (first === undefined || keyword === '$defs' || keyword === 'definitions') continue
      if (JSON.stringify(first) === JSON.stringify(second)) continue
      result[keyword] = bothValues(keyword, first, second, at)
    }
    if (a.type !== undefined || b.type !== undefined) this.#mergeTypes(a, b, result, at)
    delete result.nullable
    this.#mergeProperties(a, b, result, at)
    return result
  }

  #mergeTypes(a: JsonObject, b: JsonObject, result: Record<string, Json>, at: string): void {
    const [first, second] = [a, b].map((schema) => (schema.type === undefined ? undefined : typesOf(schema, at)))
    if (!first || !second) {
      result.type = (first ?? second)!
      return
    }
    const isIn = (type: string, types: readonly string[]) =>
      types.includes(type) || (type === 'integer' && types.includes('number'))
    const types = [...first.filter((type) => isIn(type, second)), ...second.filter((type) => isIn(type, first))]
    result.type = [...new Set(types)]
  }

  /** A property that only one of them knows has to fit what the other says of additional ones. */
  #mergeProperties(a: JsonObject, b: JsonObject, result: Record<string, Json>, at: string): void {
    if (a.properties === undefined && b.properties === undefined) return
    const [first, second] = [propertiesOf(a, at), propertiesOf(b, at)]
    const merged = new Map<string, Json>()
    for (const name of new Set([...first.keys(), ...second.keys()])) {
      const parts = [first.get(name) ?? additional(a), second.get(name) ?? additional(b)].filter(
        (part) => part !== true,
      )
      merged.set(name, parts.includes(false) ? false : parts.length > 1 ? { allOf: parts } : (parts[0] ?? true))
    }
    result.properties = Object.fromEntries(merged)
  }
}

function additional(schema: JsonObject): Schema {
  const value = schema.additionalProperties ?? schema.unevaluatedProperties ?? true
  return typeof value === 'boolean' || isObject(value) ? value : true
}

/** What a keyword says when both values hold. */
function bothValues(keyword: string, first: Json, second: Json, at: string): Json {
  switch (keyword) {
    case 'type':
    case 'nullable':
    case 'properties':
      return second // merged apart
    case 'required':
      return [...new Set([...requiredOf({ required: first }, at), ...requiredOf({ required: second }, at)])]
    case 'minimum':
    case 'exclusiveMinimum':
    case 'minLength':
    case 'minItems':
    case 'minProperties':
      return Math.max(first as number, second as number)
    case 'maximum':
    case 'exclusiveMaximum':
    case 'maxLength':
    case 'maxItems':
    case 'maxProperties':
      return Math.min(first as number, second as number)
    case 'uniqueItems':
      return true
    case 'enum':
      if (isList(first) && isList(second)) {
        const texts = new Set(second.map((value) => JSON.stringify(value)))
        return first.filter((value) => texts.has(JSON.stringify(value)))
      }
      break
    case 'items':
    case 'additionalProperties':
    case 'unevaluatedProperties':
    case 'propertyNames':
      if (!isList(first) && !isList(second)) return { allOf: [first, second] }
      break
    default:
  }
  throw schemaError(at, `allOf or $ref with two different values of ${keyword} is not supported`)
}

function decoded(part: string, at: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    throw schemaError(at, 'a $ref that is no URI')
  }
}
