/** Functions that every template has: Jinja2's, and those that transformers adds. */
import { bind } from './arguments.js'
import { toText } from './printing.js'
import { strftime } from './strftime.js'
import { EMPTY, FOREIGN, Text } from './text.js'
import {
  type Arguments,
  Callable,
  Dict,
  type HostObject,
  isInteger,
  iterate,
  Namespace,
  Range,
  TemplateError,
  typeName,
  type Value,
} from './values.js'

/** `now`: what `strftime_now` tells */
export function globalFunctions(now: Date): [string, Value][] {
  const functions: Record<string, (args: Arguments) => Value> = {
    cycler: (args) => new Cycler(args.positional),
    dict: (args) => makeDict('dict', args),
    joiner: (args) => {
      const separator = toText(bind('joiner', ['sep'], args).value('sep', new Text(', ')))
      let used = false
      return new Callable('joiner', () => {
        const text = used ? separator : EMPTY
        used = true
        return text
      })
    },
    namespace: (args) => {
      const made = new Namespace()
      for (const [key, value] of makeDict('namespace', args).entries()) {
        if (!(key instanceof Text)) throw new TemplateError('namespace() with a name that is no text')
        setAttribute(made, key.text, value)
      }
      return made
    },
    raise_exception: (args) => {
      throw new TemplateError(toText(bind('raise_exception', ['message'], args).required('message')).text)
    },
    range,
    strftime_now: (args) => new Text(strftime(now, bind('strftime_now', ['format'], args).text('format').text)),
  }
  return Object.entries(functions).map(([name, call]) => [name, new Callable(name, call)])
}

/** transformers keeps names with an underscore in front out of namespaces. */
export function setAttribute(namespace: Namespace, name: string, value: Value): void {
  if (name.startsWith('_')) throw new TemplateError(`a namespace takes no name with an underscore in front: ${name}`)
  namespace.attributes.set(name, value)
}

function makeDict(name: string, { positional, named }: Arguments): Dict {
  if (positional.length > 1) throw new TemplateError(`${name}() takes one value and names`)
  const [source] = positional
  const entries = source instanceof Dict ? source.entries() : source === undefined ? [] : iterate(source).map(pairOf)
  return new Dict([...entries, ...[...named].map(([key, value]): [Value, Value] => [nameText(key), value])])
}

/** Names of arguments may have come out of a dict that was given. */
export function nameText(name: string): Text {
  return Text.of(name, FOREIGN)
}

function pairOf(item: Value): [Value, Value] {
  const pair = iterate(item)
  if (pair.length !== 2) throw new TemplateError('dict() of a list wants pairs')
  return pair as [Value, Value]
}

function range({ positional, named }: Arguments): Value {
  const numbers = positional.map((value) => {
    if (isInteger(value)) return BigInt(value)
    throw new TemplateError(`range() of a value of type ${typeName(value)}`)
  })
  if (named.size > 0 || numbers.length < 1 || numbers.length > 3)
    throw new TemplateError('range() takes 1 to 3 numbers')
  if (numbers.length === 1) return new Range(0n, numbers[0]!, 1n)
  return new Range(numbers[0]!, numbers[1]!, numbers[2] ?? 1n)
}

/** Gives its values one after the other, again and again. */
class Cycler implements HostObject {
  readonly type = 'Cycler'
  readonly #values: Value[]
  #at = 0

  constructor(values: Value[]) {
    if (values.length === 0) throw new TemplateError('cycler() wants at least one value')
    this.#values = values
  }

  attribute(name: string): Value | undefined {
    if (name === 'current') return this.#values[this.#at]
    if (name === 'reset') return new Callable(name, () => this.#moveTo(0, null))
    if (name !== 'next') return undefined
    return new Callable(name, () => this.#moveTo(this.#at + 1, this.#values[this.#at]!))
  }

  #moveTo(at: number, result: Value): Value {
    this.#at = at % this.#values.length
    return result
  }
}
