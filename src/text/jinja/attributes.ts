/** `of.name` and `of[key]` as Jinja2's sandbox finds them: attributes and items stand in for each other. */
import { type BoundArguments, bind } from './arguments.js'
import { equals, slice, subscript } from './operators.js'
import { repr } from './printing.js'
import { Text } from './text.js'
import { textMethod, UNSUPPORTED_TEXT_METHODS } from './text-methods.js'
import {
  Callable,
  Dict,
  DictView,
  given,
  isHostObject,
  isNumber,
  List,
  Namespace,
  Range,
  Sequence,
  TemplateError,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js'

/** They would change a value: the sandbox of chat templates is an immutable one. */
const CHANGING_LIST = ['append', 'clear', 'extend', 'insert', 'pop', 'remove', 'reverse', 'sort']
const CHANGING_DICT = ['clear', 'pop', 'popitem', 'setdefault', 'update']
const UNSUPPORTED_NUMBER_ATTRIBUTES = [
  ...[
    'as_integer_ratio',
    'bit_count',
    'bit_length',
    'conjugate',
    'denominator',
    'from_bytes',
    'fromhex',
    'hex',
    'imag',
  ],
  ...['is_integer', 'numerator', 'real', 'to_bytes'],
]

/** Python has them, and templates here have not: a call of one is an error that names it. */
export const UNSUPPORTED_METHODS = new Set([...UNSUPPORTED_TEXT_METHODS, ...UNSUPPORTED_NUMBER_ATTRIBUTES])

/** `of.name` */
export function getAttribute(of: Value, name: string): Value {
  const found = attribute(of, name)
  if (found !== undefined) return found
  const key = new Text(name)
  return given(subscript(of, key), missing(of, key))
}

/** `of[key]` */
export function getItem(of: Value, key: Value): Value {
  const item = subscript(of, key)
  if (item !== undefined) return item
  return given(key instanceof Text ? attribute(of, key.text) : undefined, missing(of, key))
}

export function getSlice(of: Value, start: Value, stop: Value, step: Value): Value {
  const found = slice(of, start, stop, step)
  if (found === undefined) throw new TemplateError(`a value of type ${typeName(of)} has no slices`)
  return found
}

/** An attribute by its dotted name, integers in it being indices, as filters look them up. */
export function getPath(of: Value, path: Value, fallback: Value = null): Value {
  const parts = path instanceof Text ? path.text.split('.') : [path]
  let value = of
  for (const part of parts) {
    const key = typeof part !== 'string' ? part : /^\d+$/.test(part) ? BigInt(part) : new Text(part)
    value = getItem(value, key)
    if (value instanceof Undefined && fallback !== null) value = fallback
  }
  return value
}

function missing(of: Value, key: Value): Undefined {
  return new Undefined(`a value of type ${typeName(of)} has no ${repr(key).text.slice(0, 60)}`)
}

function unsafe(of: Value, name: string): Undefined {
  return new Undefined(`${name} of a value of type ${typeName(of)} is not for templates`)
}

/** An attribute that Python's type has; undefined when there is none. */
function attribute(of: Value, name: string): Value | undefined {
  if (of instanceof Undefined) of.fail()
  if (of instanceof Namespace) return of.attributes.get(name)
  if (isHostObject(of)) return of.attribute(name)
  if (name.startsWith('__')) return unsafe(of, name)
  if (of instanceof Text) return textMethod(of, name, lookup)
  if (of instanceof Dict) return CHANGING_DICT.includes(name) ? unsafe(of, name) : dictMethod(of, name)
  if (of instanceof List && CHANGING_LIST.includes(name)) return unsafe(of, name)
  if (of instanceof Tuple && of.names.includes(name)) return of.items[of.names.indexOf(name)]
  if (of instanceof Range && ['start', 'stop', 'step'].includes(name)) return of[name as 'start' | 'stop' | 'step']
  if (of instanceof Sequence) return sequenceMethod(of, name)
  if (isNumber(of) && UNSUPPORTED_NUMBER_ATTRIBUTES.includes(name)) {
    throw new TemplateError(`${name} of a value of type ${typeName(of)} is not supported`)
  }
  return undefined
}

function lookup(of: Value, name: string, isAttribute: boolean): Value {
  if (isAttribute) return getAttribute(of, name)
  return getItem(of, /^\d+$/.test(name) ? BigInt(name) : new Text(name))
}

function method(name: string, parameters: string[], call: (args: BoundArguments) => Value): Callable {
  return new Callable(name, (args) => call(bind(name, parameters, args)))
}

function dictMethod(dict: Dict, name: string): Callable | undefined {
  switch (name) {
    case 'get':
      return method(name, ['key', 'default'], (args) => given(dict.get(args.required('key')), args.value('default')))
    case 'keys':
    case 'values':
    case 'items':
      return method(name, [], () => new DictView(dict, name))
    case 'copy':
      return method(name, [], () => new Dict(dict.entries()))
    case 'fromkeys':
      throw new TemplateError('fromkeys of a dict is not supported')
  }
  return undefined
}

function sequenceMethod(sequence: Sequence, name: string): Callable | undefined {
  if (name === 'copy' && sequence instanceof List) return method(name, [], () => new List(sequence.items))
  if (name === 'count') {
    return method(name, ['value'], (args) => {
      const value = args.required('value')
      return BigInt(sequence.items.filter((item) => equals(item, value)).length)
    })
  }
  if (name !== 'index') return undefined
  return method(name, ['value', 'start', 'stop'], (args) => {
    const value = args.required('value')
    const within = slice(sequence, BigInt(args.integer('start', 0)), args.value('stop'), null) as Sequence
    const at = within.items.findIndex((item) => equals(item, value))
    if (at < 0) throw new TemplateError(`index(): ${repr(value).text.slice(0, 60)} is not there`)
    const start = args.integer('start', 0)
    return BigInt(
      at + (start < 0 ? Math.max(0, sequence.items.length + start) : Math.min(start, sequence.items.length)),
    )
  })
}
