/**
 * What a template computes with: Python's values as far as Jinja2 shows them. int is a bigint, float a number, str a
 * Text; None, True and False are null, true and false.
 */
import { FOREIGN, type Origin, Text } from './text.js'

/** A template that cannot go on. `line` is added where it is known. */
export class TemplateError extends Error {
  line: number | undefined
}

/** What Jinja2 gives for names, keys and attributes that are not there. */
export class Undefined {
  /** `problem`: what is said when it is used for more than printing, looping or testing */
  constructor(readonly problem: string) {}

  fail(): never {
    throw new TemplateError(this.problem)
  }
}

export abstract class Sequence {
  abstract readonly items: readonly Value[]
}

export class List extends Sequence {
  constructor(readonly items: readonly Value[]) {
    super()
  }
}

export class Tuple extends Sequence {
  /** `names`: of a named tuple's fields */
  constructor(
    readonly items: readonly Value[],
    readonly names: readonly string[] = [],
  ) {
    super()
  }
}

/** The sandbox's own limit (jinja2.sandbox.MAX_RANGE). */
const LONGEST_RANGE = 100_000

export class Range extends Sequence {
  readonly items: readonly Value[]

  constructor(
    readonly start: bigint,
    readonly stop: bigint,
    readonly step: bigint,
  ) {
    super()
    if (step === 0n) throw new TemplateError('range() arg 3 must not be zero')
    const towards = step > 0n ? stop - start : start - stop
    const size = step > 0n ? step : -step
    const length = towards <= 0n ? 0n : (towards + size - 1n) / size
    if (length > LONGEST_RANGE)
      throw new TemplateError(`range() of ${length} items; at most ${LONGEST_RANGE} are allowed`)
    this.items = Array.from({ length: Number(length) }, (_, i) => start + BigInt(i) * step)
  }
}

/** Keys by Python's equality: 1, 1.0 and True are one key. */
export class Dict {
  readonly #entries = new Map<string, [Value, Value]>()

  constructor(entries: Iterable<readonly [Value, Value]> = []) {
    for (const [key, value] of entries) this.set(key, value)
  }

  get size(): number {
    return this.#entries.size
  }

  get(key: Value): Value | undefined {
    return this.#entries.get(hashKey(key))?.[1]
  }

  getText(key: string): Value | undefined {
    return this.#entries.get(`s${key}`)?.[1]
  }

  has(key: Value): boolean {
    return this.#entries.has(hashKey(key))
  }

  /** Only while it is made: templates cannot change a dict. */
  set(key: Value, value: Value): void {
    const hash = hashKey(key)
    const old = this.#entries.get(hash)
    this.#entries.set(hash, [old ? old[0] : key, value])
  }

  entries(): [Value, Value][] {
    return [...this.#entries.values()]
  }

  keys(): Value[] {
    return this.entries().map(([key]) => key)
  }
}

/** keys(), values() and items() of a dict: they have a length and can be looped over, but not indexed. */
export class DictView {
  constructor(
    readonly dict: Dict,
    readonly kind: 'keys' | 'values' | 'items',
  ) {}

  get items(): Value[] {
    if (this.kind === 'keys') return this.dict.keys()
    return this.dict.entries().map(([key, value]) => (this.kind === 'values' ? value : new Tuple([key, value])))
  }
}

/** Can be looped over once, has no length, and is true: what map, select and their like return. */
export class Generator {
  readonly #source: Iterator<Value>

  constructor(
    /** Python's name of the type */
    readonly type: string,
    source: Iterable<Value>,
  ) {
    this.#source = source[Symbol.iterator]()
  }

  /** What is left of it. */
  *rest(): globalThis.Generator<Value> {
    for (let next = this.#source.next(); !next.done; next = this.#source.next()) yield next.value
  }
}

/** `{% set ns = namespace() %}`: the one thing whose attributes a template may set. */
export class Namespace {
  readonly attributes = new Map<string, Value>()
}

/** An object of Jinja's own, such as `loop`: attributes and perhaps a call. */
export interface HostObject {
  readonly type: string
  attribute(name: string): Value | undefined
  call?(args: Arguments): Value
}

/** The values of a call's arguments. */
export interface Arguments {
  positional: Value[]
  named: Map<string, Value>
}

export class Callable {
  constructor(
    readonly name: string,
    readonly call: (args: Arguments) => Value,
  ) {}
}

export type Value =
  | null
  | boolean
  | bigint
  | number
  | Text
  | Undefined
  | Sequence
  | Dict
  | DictView
  | Generator
  | Namespace
  | Callable
  | HostObject

function hashKey(key: Value): string {
  if (key instanceof Text) return `s${key.text}`
  if (key === null) return 'none'
  if (isNumber(key)) return `n${String(key === true ? 1 : key === false ? 0 : key)}`
  if (key instanceof Tuple) return `t${JSON.stringify(key.items.map(hashKey))}`
  if (key instanceof Undefined) return 'u'
  throw new TemplateError(`a value of type ${typeName(key)} cannot be a key of a dict`)
}

/** `fallback` where there is no value; None is one. */
export function given(value: Value | undefined, fallback: Value): Value {
  return value === undefined ? fallback : value
}

/** bool is a kind of int in Python. */
export function isNumber(value: Value): value is boolean | bigint | number {
  return typeof value === 'boolean' || typeof value === 'bigint' || typeof value === 'number'
}

export function isInteger(value: Value): value is boolean | bigint {
  return typeof value === 'boolean' || typeof value === 'bigint'
}

export function isHostObject(value: Value): value is HostObject {
  return typeof value === 'object' && value !== null && 'attribute' in value
}

/** Python's name of a value's type. */
export function typeName(value: Value): string {
  if (value === null) return 'NoneType'
  if (typeof value === 'boolean') return 'bool'
  if (typeof value === 'bigint') return 'int'
  if (typeof value === 'number') return 'float'
  if (value instanceof Text) return value.markup ? 'Markup' : 'str'
  if (value instanceof Undefined) return 'Undefined'
  if (value instanceof List) return 'list'
  if (value instanceof Tuple) return 'tuple'
  if (value instanceof Range) return 'range'
  if (value instanceof Dict) return 'dict'
  if (value instanceof DictView) return `dict_${value.kind}`
  if (value instanceof Namespace) return 'Namespace'
  if (value instanceof Generator || isHostObject(value)) return value.type
  return 'function'
}

export function isTrue(value: Value): boolean {
  if (value instanceof Text) return value.text !== ''
  if (value instanceof Sequence || value instanceof DictView) return value.items.length > 0
  if (value instanceof Dict) return value.size > 0
  if (value instanceof Undefined || value === null) return false
  if (typeof value === 'bigint') return value !== 0n
  if (typeof value === 'number') return value !== 0
  return value !== false
}

/** Everything that a for loop sees. */
export function iterate(value: Value): Value[] {
  if (value instanceof Sequence || value instanceof DictView) return [...value.items]
  if (value instanceof Dict) return value.keys()
  if (value instanceof Text) return value.characters()
  if (value instanceof Undefined) return []
  if (value instanceof Generator) return [...value.rest()]
  throw new TemplateError(`a value of type ${typeName(value)} cannot be looped over`)
}

/** len(); undefined for what has none. */
export function lengthOf(value: Value): number | undefined {
  if (value instanceof Text) return value.length
  if (value instanceof Sequence || value instanceof DictView) return value.items.length
  if (value instanceof Dict) return value.size
  return value instanceof Undefined ? 0 : undefined
}

/** Data from outside, which is what JSON can say, as a template's value; all text in it has this origin. */
export function fromData(data: unknown, origin: Origin = FOREIGN): Value {
  if (data === null || data === undefined) return null
  if (typeof data === 'string') return Text.of(data, origin)
  if (typeof data === 'boolean' || typeof data === 'bigint') return data
  if (typeof data === 'number') return Number.isSafeInteger(data) && !Object.is(data, -0) ? BigInt(data) : data
  if (Array.isArray(data)) return new List(data.map((item) => fromData(item, origin)))
  const isPlain = typeof data === 'object' && (data.constructor === Object || data.constructor === undefined)
  if (!isPlain)
    throw new TemplateError(`it was given a value that JSON has not: ${Object.prototype.toString.call(data)}`)
  const present = Object.entries(data).filter(([, value]) => value !== undefined)
  return new Dict(present.map(([key, value]) => [Text.of(key, origin), fromData(value, origin)]))
}
