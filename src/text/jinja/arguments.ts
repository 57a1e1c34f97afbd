/** The arguments of a call, matched with the parameters of a function of ours. */
import { Text } from './text.js'
import { type Arguments, given, isInteger, isTrue, TemplateError, typeName, Undefined, type Value } from './values.js'

export class BoundArguments {
  readonly #function: string
  readonly #values: Map<string, Value>

  constructor(name: string, values: Map<string, Value>) {
    this.#function = name
    this.#values = values
  }

  has(name: string): boolean {
    return this.#values.has(name)
  }

  /** `fallback`, by default None, when it is left out */
  value(name: string, fallback: Value = null): Value {
    return given(this.#values.get(name), fallback)
  }

  /** whether it is true; false when it is left out */
  flag(name: string): boolean {
    return isTrue(this.value(name, false))
  }

  required(name: string): Value {
    const value = this.#values.get(name)
    if (value === undefined) throw new TemplateError(`${this.#function}() wants the argument ${name}`)
    return value
  }

  text(name: string): Text {
    const value = this.required(name)
    if (value instanceof Text) return value
    throw this.#wrong(name, 'a str', value)
  }

  /** undefined when it is left out or None */
  optionalText(name: string): Text | undefined {
    const value = this.#values.get(name)
    return value === undefined || value === null ? undefined : this.text(name)
  }

  /** `fallback` when it is left out or None */
  integer(name: string, fallback: number): number
  integer(name: string): number | undefined
  integer(name: string, fallback?: number): number | undefined {
    const value = this.#values.get(name)
    if (value === undefined || value === null) return fallback
    if (value instanceof Undefined) value.fail()
    if (isInteger(value)) return Number(value)
    throw this.#wrong(name, 'an int', value)
  }

  #wrong(name: string, expected: string, value: Value): TemplateError {
    return new TemplateError(`the argument ${name} of ${this.#function}() is ${typeName(value)}, not ${expected}`)
  }
}

/** `parameters` in their order; arguments that fit none of them are an error. */
export function bind(name: string, parameters: readonly string[], { positional, named }: Arguments): BoundArguments {
  if (positional.length > parameters.length) {
    throw new TemplateError(`${name}() takes ${parameters.length} arguments, not ${positional.length}`)
  }
  const values = new Map<string, Value>()
  for (const [index, value] of positional.entries()) values.set(parameters[index]!, value)
  for (const [key, value] of named) {
    if (!parameters.includes(key)) throw new TemplateError(`${name}() has no argument ${key}`)
    if (values.has(key)) throw new TemplateError(`${name}() was given ${key} twice`)
    values.set(key, value)
  }
  return new BoundArguments(name, values)
}
