/** What an answer has to look like, as a grammar for XGrammar. */
import { OnebitError } from '../errors.js'
import { shown } from '../shown-value.js'
import { grammarLimit, literal, Rules } from './ebnf.js'
import { anyObject } from './json-rules.js'
import { checkedGrammar } from './own-grammar.js'
import { regexExpression } from './regex-grammar.js'
import { schemaExpression } from './schema-grammar.js'
import type { Schema } from './schema-keywords.js'
import { xmlArguments } from './xml-arguments.js'

/** A shape as it goes to the thread: everything is text, so that nothing of the caller's can change or run there. */
export interface ShapeText {
  kind: 'schema' | 'json' | 'regex' | 'grammar' | 'tag'
  text: string
}

const MOST_TAG_LEVELS = 16

/** @throws OnebitError ERR_SCHEMA, ERR_REGEX, ERR_GRAMMAR, ERR_GRAMMAR_LIMIT */
export function shapeGrammar({ kind, text }: ShapeText): { grammar: string } | { tag: string } {
  switch (kind) {
    case 'schema':
      return { grammar: whole((rules) => schemaExpression(JSON.parse(text) as Schema, rules)) }
    case 'json':
      return { grammar: whole(anyObject) }
    case 'regex':
      return { grammar: whole((rules) => regexExpression(text, rules)) }
    case 'grammar':
      return { grammar: checkedGrammar(text) }
    default:
      return { tag: JSON.stringify({ type: 'structural_tag', format: withGrammars(JSON.parse(text), 0) }) }
  }
}

function whole(write: (rules: Rules) => string): string {
  const rules = new Rules()
  return rules.text(write(rules))
}

/** The contents of a structural tag as grammars of ours: JSON Schema as the library reads it leaves too much out. */
function withGrammars(value: unknown, level: number): unknown {
  if (level > MOST_TAG_LEVELS) throw grammarLimit('The structural tag is nested too deep')
  if (Array.isArray(value)) return value.map((item) => withGrammars(item, level + 1))
  if (typeof value !== 'object' || value === null) return value
  const format = value as Record<string, unknown>
  const schema = format.json_schema as Schema | undefined
  switch (format.type) {
    case 'json_schema':
      return { type: 'grammar', grammar: whole((rules) => schemaExpression(schema ?? true, rules)) }
    case 'qwen_xml_parameter':
      return { type: 'grammar', grammar: whole((rules) => xmlArguments(schema ?? true, rules)) }
    case 'regex':
      return { type: 'grammar', grammar: whole((rules) => regexExpression(textOf(format.pattern), rules)) }
    case 'grammar':
      return { type: 'grammar', grammar: checkedGrammar(textOf(format.grammar)) }
    case 'json_calls':
      return { type: 'grammar', grammar: whole((rules) => jsonCalls(format as unknown as JsonCalls, rules)) }
    default:
  }
  return Object.fromEntries(Object.entries(format).map(([name, inner]) => [name, withGrammars(inner, level + 1)]))
}

/** Calls without a marker: one or several of these, or a text that does not begin as they do, with a brace. */
interface JsonCalls {
  tags: { begin: string; json_schema: Schema; end: string }[]
  separator: string
  many: boolean
  or_text: boolean
}

function jsonCalls({ tags, separator, many, or_text }: JsonCalls, rules: Rules): string {
  const calls = tags.map(({ begin, json_schema, end }) =>
    rules.add('call', `${literal(begin)} ${schemaExpression(json_schema, rules)} ${literal(end)}`),
  )
  const call = rules.add('calls', calls.join(' | '))
  const all = many ? `${call} (${literal(separator)} ${call})*` : call
  return or_text ? `(${all}) | "" | [^\\x00{ \\t\\n] [^\\x00]*` : all
}

function textOf(value: unknown): string {
  if (typeof value === 'string') return value
  throw new OnebitError('ERR_GRAMMAR', `A part of the structural tag must be a text, not ${shown(value)}`)
}
