/** The arguments of a call as Qwen3.5 writes them: <parameter=NAME>, the value on lines of its own, </parameter>. */
import { literal, type Rules } from './ebnf.js'
import { regexExpression } from './regex-grammar.js'
import { SchemaWriter } from './schema-grammar.js'
import {
  countOf,
  isObject,
  knownKeywords,
  propertiesOf,
  requiredOf,
  type Schema,
  schemaError,
  schemaOf,
  typesOf,
} from './schema-keywords.js'

const CLOSE = '\n</parameter>\n'

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
    const value = parameterValue(inner, name, writer, rules)
    if (value === undefined && required.has(name))
      throw schemaError('', `no value of ${JSON.stringify(name)} can be valid`)
    if (value === undefined) continue
    const whole = rules.add('parameter', `${literal(`<parameter=${name}>\n`)} ${value}`)
    parts.push(required.has(name) ? whole : `${whole}?`)
  }
  return parts.length === 0 ? '""' : parts.join(' ')
}

/** The value and what closes it. A string stands there as it is, anything else as JSON. */
function parameterValue(schema: Schema, name: string, writer: SchemaWriter, rules: Rules): string | undefined {
  const at = `/properties/${name}`
  const read = writer.reader.read(schema, at)
  const known = isObject(read as never) ? knownKeywords(read as Exclude<Schema, boolean>, at) : undefined
  const isText =
    known !== undefined &&
    known.anyOf === undefined &&
    known.oneOf === undefined &&
    typesOf(known, at).join() === 'string'
  if (!isText) {
    const value = writer.value(schema, at, 1)
    return value && `${value} ${literal(CLOSE)}`
  }
  const list = known.const === undefined ? known.enum : [known.const]
  if (Array.isArray(list)) {
    const texts = list.filter((value): value is string => typeof value === 'string' && !value.includes('</parameter>'))
    return texts.length === 0 ? undefined : `(${texts.map(literal).join(' | ')}) ${literal(CLOSE)}`
  }
  if (typeof known.pattern === 'string')
    return `${regexExpression(anchoredPattern(known.pattern), rules)} ${literal(CLOSE)}`
  const [min, max] = [countOf(known, 'minLength', at) ?? 0, countOf(known, 'maxLength', at)]
  if (max !== undefined || min > 0) return `[^<]{${min},${max ?? ''}} ${literal(CLOSE)}`
  return textUntil(CLOSE, rules)
}

/** A part that matches is enough for JSON Schema; here what stands around it would be hard to end. */
function anchoredPattern(pattern: string): string {
  return pattern
}

/** Any text up to and with the first `end`, by what of `end` has been seen. */
function textUntil(end: string, rules: Rules): string {
  const name = (seen: number) => `until_${seen}`
  return rules.shared(name(0), () => {
    for (let seen = 1; seen < end.length; seen++) rules.shared(name(seen), () => step(end, seen, name))
    return step(end, 0, name)
  })
}

function step(end: string, seen: number, name: (seen: number) => string): string {
  const follow = new Map<string, number>()
  for (const character of new Set(end)) {
    const text = end.slice(0, seen) + character
    let next = Math.min(text.length, end.length)
    while (next > 0 && !text.endsWith(end.slice(0, next))) next--
    if (next > 0) follow.set(character, next)
  }
  const escaped = [...follow.keys()].map((character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`)
  const others = `[^\\x00${escaped.join('')}] ${name(0)}`
  const known = Array.from(follow, ([character, next]) =>
    next === end.length ? literal(character) : `${literal(character)} ${name(next)}`,
  )
  return [others, ...known].join(' | ')
}
