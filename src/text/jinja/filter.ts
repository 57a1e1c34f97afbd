/** What a filter is: a value, the arguments behind its name, and a way to call others. */
import { type BoundArguments, bind } from './arguments.js'
import type { Arguments, Value } from './values.js'

/** What filters that apply others need. */
export interface Engine {
  filter(name: string, value: Value, args: Arguments): Value
  test(name: string, value: Value, args: Arguments): boolean
}

export type Filter = (value: Value, args: Arguments, engine: Engine) => Value

/** A filter with named parameters. */
export function filter(
  name: string,
  parameters: string[],
  apply: (value: Value, args: BoundArguments) => Value,
): Filter {
  return (value, args) => apply(value, bind(name, parameters, args))
}
