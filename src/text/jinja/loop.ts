/** `loop` inside a for loop. */
import { equals } from './operators.js'
import {
  type Arguments,
  Callable,
  given,
  type HostObject,
  TemplateError,
  Tuple,
  Undefined,
  type Value,
} from './values.js'

export class Loop implements HostObject {
  readonly type = 'LoopContext'
  readonly #items: readonly Value[]
  /** how many loops of its own kind are around it */
  readonly #depth: number
  readonly #recurse: ((source: Value, depth: number) => Value) | undefined
  /** of the item whose turn it is */
  index = 0
  #last: Value[] | undefined

  constructor(items: readonly Value[], depth: number, recurse?: (source: Value, depth: number) => Value) {
    this.#items = items
    this.#depth = depth
    this.#recurse = recurse
  }

  attribute(name: string): Value | undefined {
    const count = this.#items.length
    switch (name) {
      case 'index':
        return BigInt(this.index + 1)
      case 'index0':
        return BigInt(this.index)
      case 'revindex':
        return BigInt(count - this.index)
      case 'revindex0':
        return BigInt(count - this.index - 1)
      case 'first':
        return this.index === 0
      case 'last':
        return this.index === count - 1
      case 'length':
        return BigInt(count)
      case 'depth':
        return BigInt(this.#depth + 1)
      case 'depth0':
        return BigInt(this.#depth)
      case 'previtem':
        return given(this.#items[this.index - 1], new Undefined('there is no previous item'))
      case 'nextitem':
        return given(this.#items[this.index + 1], new Undefined('there is no next item'))
      case 'cycle':
        return new Callable(name, ({ positional }) => this.#cycle(positional))
      case 'changed':
        return new Callable(name, ({ positional }) => this.#changed(positional))
    }
    return undefined
  }

  /** `loop(children)`: the same loop over something else, in a recursive one */
  call({ positional }: Arguments): Value {
    const [source] = positional
    if (!this.#recurse) throw new TemplateError('loop() needs a loop that is `recursive`')
    if (source === undefined) throw new TemplateError('loop() wants what to loop over')
    return this.#recurse(source, this.#depth + 1)
  }

  #cycle(values: Value[]): Value {
    if (values.length === 0) throw new TemplateError('loop.cycle() wants values')
    return values[this.index % values.length]!
  }

  #changed(values: Value[]): boolean {
    const changed = this.#last === undefined || !equals(new Tuple(this.#last), new Tuple(values))
    this.#last = values
    return changed
  }
}
