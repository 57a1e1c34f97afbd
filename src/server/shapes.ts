/** What a request says about the form of its answer. */

import { isNestedDeeperThan } from '../files/json-depth.js'
import type { AnswerShape } from '../grammar/constraint.js'
import { isRecord } from '../text/tokenizer-json.js'
import type { Fields } from './body.js'
import { badField } from './errors.js'

const MOST_SCHEMA_LEVELS = 32

/**
 * `response_format` as OpenAI has it, with the types `regex` and `grammar` besides; `structured_outputs` as vLLM's clients
 * write it.
 * @throws HttpError
 */
export function shapeOf({ response_format: format, structured_outputs: outputs }: Fields): AnswerShape | undefined {
  if (format !== undefined) return formatShape(format)
  if (outputs === undefined) return undefined
  if (!isRecord(outputs)) throw badField('structured_outputs', 'must be an object')
  const { json, regex, grammar } = outputs
  if (json !== undefined) return { schema: schema('structured_outputs.json', json) }
  if (regex !== undefined) return { regex: text('structured_outputs.regex', regex) }
  if (grammar !== undefined) return { grammar: text('structured_outputs.grammar', grammar) }
  throw badField('structured_outputs', 'must have json, regex or grammar')
}

function formatShape(format: unknown): AnswerShape | undefined {
  if (!isRecord(format)) throw badField('response_format', 'must be an object with a type')
  switch (format.type) {
    case 'text':
      return undefined
    case 'json_object':
      // llama.cpp's clients put a schema here.
      return format.schema === undefined ? { json: true } : { schema: schema('response_format.schema', format.schema) }
    case 'json_schema': {
      const named = format.json_schema
      if (!isRecord(named)) throw badField('response_format.json_schema', 'must be an object with a schema')
      return { schema: schema('response_format.json_schema.schema', named.schema) }
    }
    case 'regex':
      return { regex: text('response_format.pattern', format.pattern) }
    case 'grammar':
      return { grammar: text('response_format.grammar', format.grammar) }
    default:
      throw badField('response_format.type', 'must be one of text, json_object, json_schema, regex, grammar')
  }
}

function schema(name: string, value: unknown): boolean | Readonly<Record<string, unknown>> {
  if (typeof value !== 'boolean' && !isRecord(value)) throw badField(name, 'must be a JSON Schema: an object')
  if (isNestedDeeperThan(value, MOST_SCHEMA_LEVELS)) {
    throw badField(name, `is nested deeper than ${MOST_SCHEMA_LEVELS} levels`)
  }
  return value
}

function text(name: string, value: unknown): string {
  if (typeof value === 'string') return value
  throw badField(name, 'must be a string')
}
