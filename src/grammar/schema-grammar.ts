/**
 * JSON Schema to EBNF. The library has a conversion of its own, which leaves many keywords out silently, takes 17.9 for at
 * most 17 and lets control characters into strings of limited length. Here a keyword is kept, or it is an error.
 */
import { literal, oneOf, type Rules, repeated } from './ebnf.js'
import { anyObject, anyString, anyValue, constants, RAW_CHARACTER, space } from './json-rules.js'
import { type Bounds, integersIn, numberExpression } from './number-grammar.js'
import { objectExpression, otherName } from './object-grammar.js'
import { jsonPatternExpression } from './regex-grammar.js'
import {
  assertions,
  countOf,
  isList,
  isObject,
  type Json,
  type JsonObject,
  knownKeywords,
  numberOf,
  propertiesOf,
  requiredOf,
  type Schema,
  schemaError,
  schemaOf,
  schemasOf,
  type Type,
  typesOf,
} from './schema-keywords.js'
import { SchemaReader } from './schema-merge.js'
import { areDisjoint } from './schema-one-of.js'

const MOST_LEVELS = 32
const MOST_LENGTH = 100_000
/** Multiples in a range that are written out. */
const MOST_MULTIPLES = 1000

/** The expression of a JSON text that is valid by the schema. @throws OnebitError ERR_SCHEMA, ERR_REGEX, ERR_GRAMMAR_LIMIT */
export function schemaExpression(schema: Schema, rules: Rules): string {
  const expression = new SchemaWriter(schema, rules).value(schema, '', 0)
  if (expression === undefined) throw schemaError('', 'no value can be valid by it')
  return expression
}

export class SchemaWriter {
  readonly #rules: Rules
  readonly reader: SchemaReader
  /** rules of the schemas that were seen, and undefined for those that nothing fits */
  readonly #known = new Map<Schema, string | undefined>()

  constructor(root: Schema, rules: Rules) {
    this.#rules = rules
    this.reader = new SchemaReader(root)
  }

  /** Undefined: nothing fits. */
  value(schema: Schema, at: string, level: number): string | undefined {
    const read = this.reader.read(schema, at)
    if (read === false) return undefined
    if (read === true) return anyValue(this.#rules)
    if (this.#known.has(read)) return this.#known.get(read)
    if (level > MOST_LEVELS) throw schemaError(at, `it is nested more than ${MOST_LEVELS} levels deep`)
    const name = this.#rules.name('value')
    this.#known.set(read, name)
    const alternatives = this.#alternatives(knownKeywords(read, at), at, level)
    const result = alternatives.length === 0 ? undefined : name
    if (result !== undefined) this.#rules.define(name, alternatives.join(' | '))
    this.#known.set(read, result)
    return result
  }

  /**
   * What the schema is one of: schemas in which no anyOf, oneOf or reference is left.
   * @throws OnebitError ERR_SCHEMA
   */
  leaves(schema: Schema, at: string, level = 0): JsonObject[] {
    if (level > MOST_LEVELS) throw schemaError(at, `it is nested more than ${MOST_LEVELS} levels deep`)
    const read = this.reader.read(schema, at)
    if (typeof read === 'boolean') return read ? [{}] : []
    const known = knownKeywords(read, at)
    const branches = this.#branches(known, at)
    return branches ? branches.flatMap((branch) => this.leaves(branch, at, level + 1)) : [known]
  }

  #alternatives(schema: JsonObject, at: string, level: number): string[] {
    const branches = this.#branches(schema, at)
    if (branches) return branches.flatMap((branch) => this.value(branch, at, level + 1) ?? [])
    const listed = constantsOf(schema, at)
    if (listed) return constants(listed)
    return typesOf(schema, at).flatMap((type) => this.#ofType(type, schema, at, level) ?? [])
  }

  /** Of anyOf or oneOf, each with what stands beside them. */
  #branches(schema: JsonObject, at: string): Schema[] | undefined {
    const { anyOf, oneOf: one, ...own } = schema
    if (anyOf !== undefined && one !== undefined) throw schemaError(at, 'anyOf beside oneOf is not supported')
    const [keyword, value] = anyOf === undefined ? ['oneOf', one] : ['anyOf', anyOf]
    if (value === undefined) return undefined
    const branches = schemasOf(value, `${at}/${keyword}`).map((branch, index) => {
      const place = `${at}/${keyword}/${index}`
      return Object.keys(own).length === 0 ? branch : this.reader.together(own, branch, place)
    })
    if (keyword === 'oneOf' && !areDisjoint(branches, this.reader, at)) {
      throw schemaError(
        at,
        'oneOf whose alternatives could fit at the same time is not supported',
        'Use anyOf, or give each alternative a required property with its own const.',
      )
    }
    return branches
  }

  #ofType(type: Type, schema: JsonObject, at: string, level: number): string | undefined {
    switch (type) {
      case 'null':
        return literal('null')
      case 'boolean':
        return '"true" | "false"'
      case 'integer':
      case 'number':
        return this.#number(schema, type === 'integer', at)
      case 'string':
        return this.#string(schema, at)
      case 'array':
        return this.#array(schema, at, level)
      default:
        return this.#object(schema, at, level)
    }
  }

  #number(schema: JsonObject, isInteger: boolean, at: string): string | undefined {
    const bounds = boundsOf(schema, at)
    const step = numberOf(schema, 'multipleOf', at)
    if (step === undefined || (step === 1 && isInteger)) {
      if ((bounds.min ?? 0) > 1e15 || (bounds.max ?? 0) < -1e15)
        throw schemaError(at, 'numbers beyond 1e15 are not supported')
      return numberExpression(bounds, isInteger, this.#rules)
    }
    const multiples =
      isInteger && Number.isInteger(step) && step > 0 ? integersIn(bounds, step, MOST_MULTIPLES) : undefined
    if (!multiples) {
      throw schemaError(
        at,
        `multipleOf is supported only for integers between a minimum and a maximum with at most ${MOST_MULTIPLES} multiples`,
      )
    }
    return multiples.length === 0 ? undefined : oneOf(constants(multiples))
  }

  #string(schema: JsonObject, at: string): string | undefined {
    const min = countOf(schema, 'minLength', at) ?? 0
    const max = countOf(schema, 'maxLength', at)
    const { pattern } = schema
    if (pattern !== undefined) {
      if (typeof pattern !== 'string') throw schemaError(at, 'pattern must be a text')
      if (min > 0 || max !== undefined)
        throw schemaError(
          at,
          'minLength and maxLength beside pattern are not supported',
          'Put the lengths into the pattern.',
        )
      return `"\\"" ${jsonPatternExpression(pattern, this.#rules)} "\\""`
    }
    if (max !== undefined && max < min) return undefined
    if (min > MOST_LENGTH) throw schemaError(at, `strings of ${min} characters are not supported`)
    if (min === 0 && max === undefined) return anyString(this.#rules)
    // A backslash and what it stands for are one character written as several: left out, which limited strings bear.
    return `"\\"" ${repeated(RAW_CHARACTER, min, max)} "\\""`
  }

  #array(schema: JsonObject, at: string, level: number): string | undefined {
    const gap = space(this.#rules)
    const { first, rest } = this.#itemsOf(schema, at, level)
    const max = Math.min(
      countOf(schema, 'maxItems', at) ?? Number.POSITIVE_INFINITY,
      rest === undefined ? first.length : Number.POSITIVE_INFINITY,
    )
    const min = countOf(schema, 'minItems', at) ?? Math.min(first.length, max)
    if (schema.uniqueItems === true && max > 1) {
      throw schemaError(at, 'keyword "uniqueItems" is not supported', 'Leave it out, and check the answer for it.')
    }
    const possible = first.includes(undefined) ? Math.min(max, first.indexOf(undefined)) : max
    if (min > possible) return undefined
    return `"[" ${gap} ${this.#itemsFrom({ first: first as string[], rest, min, max: possible, gap }, 0)}`
  }

  #itemsFrom(
    form: { first: string[]; rest: string | undefined; min: number; max: number; gap: string },
    index: number,
  ): string {
    const { first, rest, min, max, gap } = form
    const comma = index > 0 ? `"," ${gap} ` : ''
    const close = index > 0 ? `${gap} "]"` : '"]"'
    if (index >= max) return close
    const ends = index >= min ? [close] : []
    if (index < first.length) {
      return this.#rules.add(
        'items',
        [`${comma}${first[index]!} ${this.#itemsFrom(form, index + 1)}`, ...ends].join(' | '),
      )
    }
    if (index === 0) return this.#rules.add('items', [`${rest} ${this.#itemsFrom(form, 1)}`, ...ends].join(' | '))
    if (max === Number.POSITIVE_INFINITY && min <= index) {
      const name = this.#rules.name('items')
      this.#rules.define(name, `"," ${gap} ${rest} ${name} | ${close}`)
      return name
    }
    const item = this.#rules.add('item', `"," ${gap} ${rest}`)
    return `${repeated(item, Math.max(0, min - index), max === Number.POSITIVE_INFINITY ? undefined : max - index)} ${close}`
  }

  /** Items by their place, and those after them; undefined: there can be none. */
  #itemsOf(schema: JsonObject, at: string, level: number): { first: (string | undefined)[]; rest: string | undefined } {
    const { items, additionalItems, prefixItems } = schema
    const list = prefixItems ?? (isList(items) ? items : undefined)
    const tail = prefixItems === undefined && isList(items) ? additionalItems : (items as Json | undefined)
    if (list !== undefined && !isList(list)) throw schemaError(at, 'prefixItems must be a list of schemas')
    const first = (list ?? []).map((item, index) =>
      this.value(schemaOf(item, at), `${at}/prefixItems/${index}`, level + 1),
    )
    if (tail === undefined) return { first, rest: first.length > 0 ? undefined : anyValue(this.#rules) }
    return { first, rest: this.value(schemaOf(tail, at), `${at}/items`, level + 1) }
  }

  #object(schema: JsonObject, at: string, level: number): string | undefined {
    const { properties, additional, names } = this.#propertiesOf(schema, at, level)
    const min = countOf(schema, 'minProperties', at) ?? 0
    const max = countOf(schema, 'maxProperties', at)
    if (properties === undefined) return undefined
    if (additional && min > properties.filter(({ required }) => required).length) {
      throw schemaError(at, 'minProperties is supported only where there are no additional properties')
    }
    if (
      additional &&
      properties.length === 0 &&
      max === undefined &&
      schema.propertyNames === undefined &&
      names === undefined
    ) {
      if (additional === anyValue(this.#rules)) return anyObject(this.#rules)
    }
    const others =
      additional === undefined
        ? undefined
        : { name: names ?? this.#otherNames(properties.map(({ name }) => name)), value: additional }
    return objectExpression({ properties, additional: others, min, max }, this.#rules)
  }

  #otherNames(taken: readonly string[]): string {
    return taken.length === 0 ? anyString(this.#rules) : otherName(taken, this.#rules)
  }

  /** `properties` undefined: a required one can have no value. `names`: what names additional ones may have. */
  #propertiesOf(schema: JsonObject, at: string, level: number) {
    const named = propertiesOf(schema, at)
    const required = requiredOf(schema, at)
    const others = this.#additionalOf(schema, named.size === 0, at)
    // A required name without a schema of its own may have any value, unless others are forbidden.
    const unnamed = schemaOf(schema.additionalProperties ?? schema.unevaluatedProperties ?? true, at)
    for (const name of required) if (!named.has(name)) named.set(name, unnamed)
    const properties: { name: string; value: string; required: boolean }[] = []
    let isPossible = true
    for (const [name, inner] of named) {
      const value = this.value(inner, `${at}/properties/${name}`, level + 1)
      if (value !== undefined) properties.push({ name, value, required: required.has(name) })
      else if (required.has(name)) isPossible = false
    }
    const additional = others === false ? undefined : this.value(others, `${at}/additionalProperties`, level + 1)
    const names = this.#namesOf(schema.propertyNames, properties.length > 0, at, level)
    return { properties: isPossible ? properties : undefined, additional, names }
  }

  /**
   * Unless the schema says otherwise: none beside named properties, any where none is named. JSON Schema would always allow
   * them, but who names properties hardly asks for others.
   */
  #additionalOf(schema: JsonObject, hasNone: boolean, at: string): Schema {
    const { additionalProperties, unevaluatedProperties } = schema
    const value = additionalProperties ?? unevaluatedProperties
    return value === undefined ? hasNone : schemaOf(value, at)
  }

  #namesOf(propertyNames: Json | undefined, hasNamed: boolean, at: string, level: number): string | undefined {
    if (propertyNames === undefined) return undefined
    const read = this.reader.read(schemaOf(propertyNames, at), at)
    if (read === true || (isObject(read) && Object.keys(knownKeywords(read, at)).every((name) => name === 'type')))
      return undefined
    if (hasNamed) throw schemaError(at, 'propertyNames beside properties is not supported')
    const names = isObject(read) ? { ...read, type: 'string' } : read
    const value = this.value(names, `${at}/propertyNames`, level + 1)
    if (value === undefined) throw schemaError(at, 'propertyNames that allow no name are not supported')
    return value
  }
}

function boundsOf(schema: JsonObject, at: string): Bounds {
  const [min, max] = [numberOf(schema, 'minimum', at), numberOf(schema, 'maximum', at)]
  const [above, below] = [numberOf(schema, 'exclusiveMinimum', at), numberOf(schema, 'exclusiveMaximum', at)]
  const bounds: Bounds = {}
  if (min !== undefined || above !== undefined) {
    bounds.openMin = above !== undefined && above >= (min ?? Number.NEGATIVE_INFINITY)
    bounds.min = bounds.openMin ? above! : min!
  }
  if (max !== undefined || below !== undefined) {
    bounds.openMax = below !== undefined && below <= (max ?? Number.POSITIVE_INFINITY)
    bounds.max = bounds.openMax ? below! : max!
  }
  return bounds
}

/** The values that enum and const leave; undefined: there is neither. @throws OnebitError ERR_SCHEMA */
export function constantsOf(schema: JsonObject, at: string): Json[] | undefined {
  const { enum: list, const: one } = schema
  if (list === undefined && one === undefined) return undefined
  const [beside] = assertions(schema)
  if (beside !== undefined)
    throw schemaError(at, `keyword ${JSON.stringify(beside)} beside enum or const is not supported`)
  if (list !== undefined && !isList(list)) throw schemaError(at, 'enum must be a list of values')
  const texts = list && new Set(list.map((value) => JSON.stringify(value)))
  const values = one === undefined ? list! : [one]
  const types = typesOf(schema, at)
  return values.filter(
    (value) => types.some((type) => isOfType(value, type)) && (!texts || texts.has(JSON.stringify(value))),
  )
}

export function isOfType(value: Json, type: Type): boolean {
  switch (type) {
    case 'null':
      return value === null
    case 'array':
      return isList(value)
    case 'object':
      return isObject(value)
    case 'integer':
      return Number.isInteger(value)
    default:
      return typeof value === type
  }
}
