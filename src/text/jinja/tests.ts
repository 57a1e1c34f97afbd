/** Jinja2's tests, what stands behind `is` (jinja2/tests.py). */
import { bind } from './arguments.js'
import { binary, compare, contains, equals } from './operators.js'
import { toText } from './printing.js'
import type { Comparison } from './syntax.js'
import { Text } from './text.js'
import {
  type Arguments,
  Callable,
  Dict,
  DictView,
  Generator,
  isHostObject,
  isNumber,
  Sequence,
  TemplateError,
  Undefined,
  type Value,
} from './values.js'

export type Test = (value: Value, args: Arguments) => boolean

function plain(name: string, test: (value: Value) => boolean): Test {
  return (value, args) => {
    bind(name, [], args)
    return test(value)
  }
}

function comparison(name: string, operator: Comparison): Test {
  return (value, args) => compare(operator, value, bind(name, ['b'], args).required('b'))
}

/** Whether `value % by` is `rest`. */
function leaves(value: Value, by: Value, rest: bigint): boolean {
  return equals(binary('%', value, by), rest)
}

/** One object, not two equal ones. Small numbers and texts of the template are one object in Python, mostly. */
function isSame(a: Value, b: Value): boolean {
  if (a instanceof Text || b instanceof Text) {
    if (a instanceof Text && b instanceof Text) throw new TemplateError('sameas of texts is not supported; use ==')
    return false
  }
  return typeof a === typeof b && a === b
}

const isLower = (text: string) => /\p{Lowercase}/u.test(text) && !/[\p{Uppercase}\p{Lt}]/u.test(text)
const isUpper = (text: string) => /\p{Uppercase}/u.test(text) && !/[\p{Lowercase}\p{Lt}]/u.test(text)

const TESTS: Record<string, Test> = {
  boolean: plain('boolean', (value) => typeof value === 'boolean'),
  callable: plain(
    'callable',
    (value) =>
      value instanceof Callable || value instanceof Undefined || (isHostObject(value) && value.call !== undefined),
  ),
  defined: plain('defined', (value) => !(value instanceof Undefined)),
  divisibleby: (value, args) => leaves(value, bind('divisibleby', ['num'], args).required('num'), 0n),
  escaped: plain('escaped', (value) => value instanceof Text && value.markup),
  even: plain('even', (value) => leaves(value, 2n, 0n)),
  false: plain('false', (value) => value === false),
  float: plain('float', (value) => typeof value === 'number'),
  in: (value, args) => contains(bind('in', ['seq'], args).required('seq'), value),
  integer: plain('integer', (value) => typeof value === 'bigint'),
  iterable: plain('iterable', isIterable),
  lower: plain('lower', (value) => isLower(toText(value).text)),
  mapping: plain('mapping', (value) => value instanceof Dict),
  none: plain('none', (value) => value === null),
  number: plain('number', isNumber),
  odd: plain('odd', (value) => leaves(value, 2n, 1n)),
  sameas: (value, args) => isSame(value, bind('sameas', ['other'], args).required('other')),
  sequence: plain(
    'sequence',
    (value) =>
      value instanceof Text || value instanceof Sequence || value instanceof Dict || value instanceof Undefined,
  ),
  string: plain('string', (value) => value instanceof Text),
  true: plain('true', (value) => value === true),
  undefined: plain('undefined', (value) => value instanceof Undefined),
  upper: plain('upper', (value) => isUpper(toText(value).text)),
}

const COMPARISONS: [Comparison, string[]][] = [
  ['==', ['eq', 'equalto', '==']],
  ['!=', ['ne', '!=']],
  ['>', ['gt', 'greaterthan', '>']],
  ['>=', ['ge', '>=']],
  ['<', ['lt', 'lessthan', '<']],
  ['<=', ['le', '<=']],
]
for (const [operator, names] of COMPARISONS) for (const name of names) TESTS[name] = comparison(name, operator)

const BY_NAME = new Map(Object.entries(TESTS))

/** undefined for a name that no test has; `filter` and `test`, which look for names, are the engine's. */
export function findTest(name: string): Test | undefined {
  return BY_NAME.get(name)
}

function isIterable(value: Value): boolean {
  const kinds = [Text, Sequence, Dict, DictView, Generator, Undefined]
  return kinds.some((kind) => value instanceof kind)
}
