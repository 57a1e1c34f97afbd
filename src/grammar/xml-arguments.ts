/** The arguments of a call as Qwen3.5 writes them: <parameter=NAME>, the value on lines of its own, </parameter>. */
import { literal, oneOf, type Rules, repeated } from './ebnf.js'
import { constants } from './json-rules.js'
import { regexExpression } from './regex-grammar.js'
import { constantsOf, SchemaWriter } from './schema-grammar.js'
import {
  countOf,
  isObject,
  type JsonObject,
  knownKeywords,
  propertiesOf,
  requiredOf,
  type Schema,
  schemaError,
  schemaOf,
  typesOf,
} from './schema-keywords.js'

const END = '</parameter>'
const CLOSE = `\n${END}\n`
/** Characters that a list or an object may begin with, in a class of the grammar. */
const STRUCTURE = '\\x5b{ \\t\\n\\r'

/** @throws OnebitError ERR_SCHEMA, ERR_REGEX, ERR_GRAMMAR_LIMIT */
export function xmlArguments(schema: Schema, rules: Rules): string {
  const writer = new SchemaWriter(schema, rules)
  const read = writer.reader.read(schema, '')
  if (!isObject(read as never)) return '""'
  const object = knownKeywords(read as Exclude<Schema, boolean>, '')
  const required = requiredOf(object, '')
  const properties = propertiesOf(object, '')
  const unnamed = schemaOf(object.additionalProperties ?? true, '')
  for (const name of required) if (!properties.has(name)) properties.set(name, unnamed)
  const parts: string[] = []
  for (const [name, inner] of properties) {
    if (/[<>\n]/.test(name))
      throw schemaError('', `the property ${JSON.stringify(name)} cannot be written in this model's tool calls`)
    const values = valuesOf(inner, `/properties/${name}`, writer, rules)
    if (values.length === 0 && required.has(name))
      throw schemaError('', `no value of ${JSON.stringify(name)} can be valid`)
    if (values.length === 0) continue
    const whole = rules.add('parameter', `${literal(`<parameter=${name}>\n`)} ${oneOf(values)}`)
    parts.push(required.has(name) ? whole : `${whole}?`)
  }
  return parts.length === 0 ? '""' : parts.join(' ')
}

/** What a value may be. */
interface Forms {
  /** strings that enum or const names */
  named: string[]
  /** schemas of other strings */
  texts: JsonObject[]
  /** expressions of lists and objects */
  structures: string[]
  /** of numbers and booleans */
  simple: string[]
  hasNull: boolean
}

/**
 * Expressions of the values, each with what closes it. A string stands there as it is, also where something else is allowed
 * beside it; anything else is JSON. Answers are read by the schema's types (answer/xml-value.ts), so what would be read as
 * something else cannot be written: numbers and booleans beside strings that are not named, and such strings that begin as a
 * list or an object does where one of those is allowed.
 */
function valuesOf(schema: Schema, at: string, writer: SchemaWriter, rules: Rules): string[] {
  const leaves = writer.leaves(schema, at)
  if (leaves.some(isAnything)) return [freeText(rules)]
  const { named, texts, structures, simple, hasNull } = formsOf(leaves, writer, at)
  const isBeside = structures.length > 0
  const isFree = texts.some((text) => Object.keys(text).every((keyword) => !LIMITS.includes(keyword)))
  const limited = isFree ? [] : texts.flatMap((text) => limitedText(text, isBeside, at, rules) ?? [])
  const short = isFree ? [] : [...named.map(literal), ...limited, ...(hasNull ? [literal('null')] : [])]
  const json = texts.length > 0 ? structures : [...structures, ...simple]
  const free = isBeside ? textBesideStructures(rules) : freeText(rules)
  return [...[...short, ...json].map((value) => `${value} ${literal(CLOSE)}`), ...(isFree ? [free] : [])]
}

const LIMITS = ['pattern', 'minLength', 'maxLength']

function isAnything(leaf: JsonObject): boolean {
  return Object.keys(leaf).every((keyword) => keyword === '$defs' || keyword === 'definitions')
}

function formsOf(leaves: readonly JsonObject[], writer: SchemaWriter, at: string): Forms {
  const forms: Forms = { named: [], texts: [], structures: [], simple: [], hasNull: false }
  for (const leaf of leaves) {
    for (const value of constantsOf(leaf, at) ?? []) {
      if (value === null) forms.hasNull = true
      else if (typeof value === 'object') forms.structures.push(...constants([value]))
      else if (typeof value !== 'string') forms.simple.push(...constants([value]))
      else if (!value.includes(END)) forms.named.push(value)
    }
    if (leaf.enum !== undefined || leaf.const !== undefined) continue
    for (const type of typesOf(leaf, at)) {
      if (type === 'string') forms.texts.push(leaf)
      else if (type === 'null') forms.hasNull = true
      else {
        const list = type === 'object' || type === 'array' ? forms.structures : forms.simple
        const value = writer.value({ ...leaf, type, nullable: false }, at, 1)
        if (value !== undefined) list.push(value)
      }
    }
  }
  return forms
}

/** Undefined: none has such a length. */
function limitedText(schema: JsonObject, isBeside: boolean, at: string, rules: Rules): string | undefined {
  // A part that matches is enough for JSON Schema; here what stands around it would be hard to end.
  if (typeof schema.pattern === 'string') return regexExpression(schema.pattern, rules)
  const [min, max] = [countOf(schema, 'minLength', at) ?? 0, countOf(schema, 'maxLength', at)]
  if (max !== undefined && max < min) return undefined
  if (!isBeside || max === 0) return repeated('[^<]', min, max)
  const some = `[^<${STRUCTURE}] ${repeated('[^<]', Math.max(0, min - 1), max === undefined ? undefined : max - 1)}`
  return rules.add('text', min === 0 ? `"" | ${some}` : some)
}

/** Any text, up to and with what closes it. */
function freeText(rules: Rules): string {
  return `${textUntil(END, rules)} "\\n"`
}

/** The same, of texts that do not begin as a list or an object does. */
function textBesideStructures(rules: Rules): string {
  const rest = freeText(rules)
  const tag = `"<" ${stateName(1)} "\\n"`
  return rules.shared('until_beside', () => `${literal(CLOSE)} | ${tag} | [^\\x00<${STRUCTURE}] ${rest}`)
}

/** Of `textUntil`, by how much of its end has been seen. */
function stateName(seen: number): string {
  return `until_${seen}`
}

/** Any text up to and with the first `end`. */
function textUntil(end: string, rules: Rules): string {
  return rules.shared(stateName(0), () => {
    for (let seen = 1; seen < end.length; seen++) rules.shared(stateName(seen), () => step(end, seen))
    return step(end, 0)
  })
}

function step(end: string, seen: number): string {
  const follow = new Map<string, number>()
  for (const character of new Set(end)) {
    const text = end.slice(0, seen) + character
    let next = Math.min(text.length, end.length)
    while (next > 0 && !text.endsWith(end.slice(0, next))) next--
    if (next > 0) follow.set(character, next)
  }
  const escaped = [...follow.keys()].map((character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`)
  const others = `[^\\x00${escaped.join('')}] ${stateName(0)}`
  const known = Array.from(follow, ([character, next]) =>
    next === end.length ? literal(character) : `${literal(character)} ${stateName(next)}`,
  )
  return [others, ...known].join(' | ')
}
