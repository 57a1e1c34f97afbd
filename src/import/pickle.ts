/**
 * A reader for the pickles in PyTorch checkpoints that can build dictionaries, lists, numbers, strings and tensors,
 * and nothing else. A pickle is a program; this machine has no instruction that calls anything. The few names a
 * checkpoint needs are constants here, and every other name is an error that tells which.
 */
import { OnebitError } from '../errors.js'
import type { RawType } from './raw-tensors.js'
import { badSource } from './source.js'

/** A tensor as the pickle describes it; its bytes are in the zip entry `data/<key>`. */
export class PickledTensor {
  constructor(
    readonly key: string,
    readonly type: RawType,
    /** elements of the whole storage */
    readonly storageElements: number,
    /** first element */
    readonly offset: number,
    readonly shape: number[],
    readonly strides: number[],
  ) {}
}

class Storage {
  constructor(
    readonly key: string,
    readonly type: RawType,
    readonly elements: number,
  ) {}
}

/** A name that a pickle may mention: something REDUCE may be applied to, or a storage type. */
class Name {
  constructor(readonly text: string) {}
}

const MARK = Symbol('mark')

type Value = null | boolean | number | string | Value[] | Map<Value, Value> | Name | Storage | PickledTensor
type Slot = Value | typeof MARK

const STORAGE_TYPES: Record<string, RawType> = {
  'torch DoubleStorage': 'F64',
  'torch FloatStorage': 'F32',
  'torch HalfStorage': 'F16',
  'torch BFloat16Storage': 'BF16',
  'torch LongStorage': 'I64',
  'torch IntStorage': 'I32',
  'torch ShortStorage': 'I16',
  'torch CharStorage': 'I8',
  'torch ByteStorage': 'U8',
  'torch BoolStorage': 'BOOL',
}
const DICT = 'collections OrderedDict'
const TENSOR = 'torch._utils _rebuild_tensor_v2'
const PARAMETER = 'torch._utils _rebuild_parameter'
const NAMES = new Set([DICT, TENSOR, PARAMETER, ...Object.keys(STORAGE_TYPES)])

function forbidden(name: string): OnebitError {
  return new OnebitError('ERR_PICKLE_FORBIDDEN', `The checkpoint wants to use ${JSON.stringify(name.slice(0, 100))}`, {
    hint: 'A checkpoint needs only tensors. This one could run a program when PyTorch loads it; do not trust it.',
  })
}

function isSize(value: Slot | undefined): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function isSizes(value: Slot | undefined): value is number[] {
  return Array.isArray(value) && value.length <= 8 && value.every(isSize)
}

function rebuildTensor(args: Value[]): PickledTensor {
  const [storage, offset, shape, strides] = args
  if (!(storage instanceof Storage) || !isSize(offset) || !isSizes(shape) || !isSizes(strides)) {
    throw badSource('The checkpoint describes a tensor in a way PyTorch does not')
  }
  return new PickledTensor(storage.key, storage.type, storage.elements, offset, shape, strides)
}

/** What PyTorch's names stand for, as data. */
function reduce(callable: Slot, args: Slot): Value {
  if (!(callable instanceof Name) || !Array.isArray(args))
    throw badSource('The checkpoint applies a value that is no name')
  if (callable.text === TENSOR) return rebuildTensor(args)
  if (callable.text === PARAMETER && args[0] instanceof PickledTensor) return args[0]
  if (callable.text === DICT && args.length === 0) return new Map()
  throw forbidden(`${callable.text} with these arguments`)
}

function persistent(id: Slot): Storage {
  if (Array.isArray(id)) {
    const [kind, type, key, , elements] = id
    const known = type instanceof Name ? STORAGE_TYPES[type.text] : undefined
    if (kind === 'storage' && known !== undefined && typeof key === 'string' && isSize(elements)) {
      return new Storage(key, known, elements)
    }
  }
  throw badSource('The checkpoint refers to something that is not a storage')
}

class Machine {
  readonly #bytes: Buffer
  #at = 0
  readonly #stack: Slot[] = []
  readonly #memo = new Map<number, Slot>()

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  run(): Value {
    for (;;) {
      const opcode = this.#take(1)[0]!
      if (opcode === 0x2e /* STOP */) return this.#pop()
      const instruction = INSTRUCTIONS[opcode]
      if (instruction === undefined) {
        const shown = `0x${opcode.toString(16).padStart(2, '0')}`
        throw new OnebitError(
          'ERR_PICKLE_FORBIDDEN',
          `The checkpoint uses pickle instruction ${shown} at byte ${this.#at - 1}`,
          {
            hint: 'Tensors do not need it. Do not load this file with PyTorch.',
          },
        )
      }
      instruction(this)
    }
  }

  #take(count: number): Buffer {
    if (this.#at + count > this.#bytes.length) throw badSource('The pickle of the checkpoint ends early')
    this.#at += count
    return this.#bytes.subarray(this.#at - count, this.#at)
  }

  unsigned(bytes: 1 | 2 | 4): number {
    return this.#take(bytes).readUIntLE(0, bytes)
  }

  int32(): number {
    return this.#take(4).readInt32LE()
  }

  float(): number {
    return this.#take(8).readDoubleBE()
  }

  text(length: number): string {
    return this.#take(length).toString('utf8')
  }

  skip(length: number): void {
    this.#take(length)
  }

  /** LONG1: two's complement of 0 to 8 bytes. */
  long(): number {
    const length = this.unsigned(1)
    if (length > 8) throw badSource('The checkpoint has an integer of more than 64 bits')
    const bytes = this.#take(length)
    const value = bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n)
    return Number(BigInt.asIntN(8 * length, value))
  }

  /** Up to the end of the line, as the oldest protocols write names. */
  line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at)
    if (end < 0) throw badSource('The pickle of the checkpoint ends early')
    const text = this.text(end - this.#at)
    this.#at++
    return text
  }

  push(value: Slot): void {
    this.#stack.push(value)
  }

  #pop(): Value {
    const value = this.#stack.pop()
    if (value === undefined || value === MARK) throw badSource('The pickle of the checkpoint is damaged')
    return value
  }

  pop(): Value {
    return this.#pop()
  }

  top(): Value {
    const value = this.#pop()
    this.#stack.push(value)
    return value
  }

  popToMark(): Value[] {
    const at = this.#stack.lastIndexOf(MARK)
    if (at < 0) throw badSource('The pickle of the checkpoint is damaged')
    return this.#stack.splice(at).slice(1) as Value[]
  }

  name(module: string, attribute: string): void {
    const text = `${module} ${attribute}`
    if (!NAMES.has(text)) throw forbidden(text.replace(' ', '.'))
    this.push(new Name(text))
  }

  put(index: number): void {
    this.#memo.set(index, this.top())
  }

  memoize(): void {
    this.put(this.#memo.size)
  }

  get(index: number): void {
    const value = this.#memo.get(index)
    if (value === undefined) throw badSource('The pickle of the checkpoint is damaged')
    this.push(value)
  }

  setItems(items: Value[]): void {
    const target = this.top()
    if (!(target instanceof Map) || items.length % 2 !== 0) throw badSource('The pickle of the checkpoint is damaged')
    for (let i = 0; i < items.length; i += 2) target.set(items[i]!, items[i + 1]!)
  }

  append(items: Value[]): void {
    const target = this.top()
    if (!Array.isArray(target)) throw badSource('The pickle of the checkpoint is damaged')
    for (const item of items) target.push(item)
  }

  tuple(length: number): void {
    const items: Value[] = []
    for (let i = 0; i < length; i++) items.unshift(this.#pop())
    this.push(items)
  }
}

function build(m: Machine): void {
  m.pop() // the `_metadata` attribute of a state dict: layer versions, which nothing here needs
  if (!(m.top() instanceof Map)) throw forbidden('BUILD on something that is not a dictionary')
}

/** By opcode (the pickletools module documents them). What is not here cannot happen. */
const INSTRUCTIONS: Record<number, (m: Machine) => void> = {
  128: (m) => m.skip(1), // PROTO
  149: (m) => m.skip(8), // FRAME
  40: (m) => m.push(MARK), // MARK
  48: (m) => void m.pop(), // POP
  78: (m) => m.push(null), // NONE
  136: (m) => m.push(true), // NEWTRUE
  137: (m) => m.push(false), // NEWFALSE
  74: (m) => m.push(m.int32()), // BININT
  75: (m) => m.push(m.unsigned(1)), // BININT1
  77: (m) => m.push(m.unsigned(2)), // BININT2
  138: (m) => m.push(m.long()), // LONG1
  71: (m) => m.push(m.float()), // BINFLOAT
  88: (m) => m.push(m.text(m.unsigned(4))), // BINUNICODE
  140: (m) => m.push(m.text(m.unsigned(1))), // SHORT_BINUNICODE
  125: (m) => m.push(new Map()), // EMPTY_DICT
  93: (m) => m.push([]), // EMPTY_LIST
  41: (m) => m.push([]), // EMPTY_TUPLE
  133: (m) => m.tuple(1), // TUPLE1
  134: (m) => m.tuple(2), // TUPLE2
  135: (m) => m.tuple(3), // TUPLE3
  116: (m) => m.push(m.popToMark()), // TUPLE
  108: (m) => m.push(m.popToMark()), // LIST
  97: (m) => m.append([m.pop()]), // APPEND
  101: (m) => m.append(m.popToMark()), // APPENDS
  115: (m) => m.setItems([m.pop(), m.pop()].reverse()), // SETITEM
  117: (m) => m.setItems(m.popToMark()), // SETITEMS
  113: (m) => m.put(m.unsigned(1)), // BINPUT
  114: (m) => m.put(m.unsigned(4)), // LONG_BINPUT
  148: (m) => m.memoize(), // MEMOIZE
  104: (m) => m.get(m.unsigned(1)), // BINGET
  106: (m) => m.get(m.unsigned(4)), // LONG_BINGET
  99: (m) => m.name(m.line(), m.line()), // GLOBAL
  147: (m) => {
    const [attribute, module] = [m.pop(), m.pop()] // STACK_GLOBAL
    m.name(String(module), String(attribute))
  },
  81: (m) => m.push(persistent(m.pop())), // BINPERSID
  82: (m) => {
    const [args, callable] = [m.pop(), m.pop()] // REDUCE
    m.push(reduce(callable, args))
  },
  98: build, // BUILD
}

/**
 * The tensors of a state dict: the pickle's value must be a dictionary; entries that are not tensors are left out.
 * @throws OnebitError ERR_PICKLE_FORBIDDEN for every name or instruction a checkpoint does not need, ERR_BAD_SOURCE
 */
export function readStateDict(pickle: Buffer): Map<string, PickledTensor> {
  const value = new Machine(pickle).run()
  if (!(value instanceof Map)) throw badSource('The checkpoint is not a dictionary of tensors')
  const tensors = new Map<string, PickledTensor>()
  for (const [name, tensor] of value) {
    if (typeof name === 'string' && tensor instanceof PickledTensor) tensors.set(name, tensor)
  }
  return tensors
}
