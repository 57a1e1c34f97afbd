/**
 * Writes PyTorch checkpoints for tests: a stored zip (zip64 on request) with a protocol-2 pickle of a dictionary of
 * tensors, as torch.save does. Shares nothing with the reader it tests.
 */
import { crc32 } from 'node:zlib'

export type TorchType = 'FloatStorage' | 'HalfStorage' | 'BFloat16Storage' | 'CharStorage' | 'ByteStorage'

export interface TorchTensor {
  name: string
  type: TorchType
  shape: number[]
  /** the storage, which may be larger than the tensor */
  data: Buffer
  /** first element in the storage */
  offset?: number
  strides?: number[]
}

const WIDTHS = { FloatStorage: 4, HalfStorage: 2, BFloat16Storage: 2, CharStorage: 1, ByteStorage: 1 }

export const op = {
  text(value: string): Buffer {
    const bytes = Buffer.from(value)
    const length = Buffer.alloc(4)
    length.writeUInt32LE(bytes.length)
    return Buffer.concat([Buffer.from('X'), length, bytes])
  },
  int(value: number): Buffer {
    const out = Buffer.alloc(5, 'J')
    out.writeInt32LE(value, 1)
    return out
  },
  global: (module: string, name: string) => Buffer.from(`c${module}\n${name}\n`),
  tuple: (...items: Buffer[]) => Buffer.concat([Buffer.from('('), ...items, Buffer.from('t')]),
  call: (callable: Buffer, args: Buffer) => Buffer.concat([callable, args, Buffer.from('R')]),
}

const EMPTY_DICT = () => op.call(op.global('collections', 'OrderedDict'), Buffer.from(')'))

function pickledTensor({ type, shape, data, offset = 0, strides }: TorchTensor, key: number): Buffer {
  const contiguous = shape.map((_, i) => shape.slice(i + 1).reduce((product, size) => product * size, 1))
  const elements = op.int(data.length / WIDTHS[type])
  const storage = op.tuple(op.text('storage'), op.global('torch', type), op.text(String(key)), op.text('cpu'), elements)
  const args = op.tuple(
    Buffer.concat([storage, Buffer.from('Q')]),
    op.int(offset),
    op.tuple(...shape.map(op.int)),
    op.tuple(...(strides ?? contiguous).map(op.int)),
    Buffer.from([0x89]),
    EMPTY_DICT(),
  )
  return op.call(op.global('torch._utils', '_rebuild_tensor_v2'), args)
}

/** The pickle of a state dict; `extra` are further keys and values as raw pickle. */
export function stateDictPickle(tensors: readonly TorchTensor[], extra: readonly [string, Buffer][] = []): Buffer {
  const items = tensors.flatMap((tensor, i) => [op.text(tensor.name), pickledTensor(tensor, i)])
  const more = extra.flatMap(([name, value]) => [op.text(name), value])
  // A module's state dict is an OrderedDict with an attribute `_metadata`, which BUILD sets.
  const attribute = Buffer.concat([Buffer.from('}'), op.text('_metadata'), EMPTY_DICT(), Buffer.from('s')])
  const parts = [Buffer.from([0x80, 2]), EMPTY_DICT(), Buffer.from('('), ...items, ...more, Buffer.from('u')]
  return Buffer.concat([...parts, attribute, Buffer.from('b.')])
}

export interface ZipOptions {
  zip64?: boolean
  /** changes an entry's central record */
  central?: (record: Buffer, name: string) => void
  /** changes an entry's local record */
  local?: (record: Buffer, name: string) => void
}

function u64s(...values: number[]): Buffer {
  const out = Buffer.alloc(8 * values.length)
  for (const [i, value] of values.entries()) out.writeBigUInt64LE(BigInt(value), 8 * i)
  return out
}

function centralRecord(name: string, bytes: Buffer, at: number, zip64: boolean): Buffer {
  const record = Buffer.alloc(46)
  record.writeUInt32LE(0x02014b50, 0)
  record.writeUInt32LE(crc32(bytes), 16)
  const extra = zip64
    ? Buffer.concat([Buffer.from([1, 0, 24, 0]), u64s(bytes.length, bytes.length, at)])
    : Buffer.alloc(0)
  for (const [field, value] of [
    [20, bytes.length],
    [24, bytes.length],
    [42, at],
  ] as const) {
    record.writeUInt32LE(zip64 ? 0xffffffff : value, field)
  }
  record.writeUInt16LE(Buffer.byteLength(name), 28)
  record.writeUInt16LE(extra.length, 30)
  return Buffer.concat([record, Buffer.from(name), extra])
}

function endRecords(count: number, bytes: number, at: number, zip64: boolean): Buffer {
  const end = Buffer.alloc(22)
  end.writeUInt32LE(0x06054b50, 0)
  end.writeUInt16LE(zip64 ? 0xffff : count, 8)
  end.writeUInt16LE(zip64 ? 0xffff : count, 10)
  end.writeUInt32LE(zip64 ? 0xffffffff : bytes, 12)
  end.writeUInt32LE(zip64 ? 0xffffffff : at, 16)
  if (!zip64) return end
  const record = Buffer.concat([Buffer.alloc(24), u64s(count, count, bytes, at)])
  record.writeUInt32LE(0x06064b50, 0)
  record.writeBigUInt64LE(44n, 4)
  const locator = Buffer.concat([Buffer.alloc(8), u64s(at + bytes), Buffer.from([1, 0, 0, 0])])
  locator.writeUInt32LE(0x07064b50, 0)
  return Buffer.concat([record, locator, end])
}

/** A zip of stored entries, each aligned to 64 bytes by an extra field, as PyTorch aligns them. */
export function zipFile(entries: readonly [string, Buffer][], options: ZipOptions = {}): Buffer {
  const parts: Buffer[] = []
  const central: Buffer[] = []
  let at = 0
  for (const [name, bytes] of entries) {
    const local = Buffer.alloc(30)
    local.writeUInt32LE(0x04034b50, 0)
    local.writeUInt16LE(Buffer.byteLength(name), 26)
    const padding = (64 - ((at + 30 + name.length) % 64)) % 64
    local.writeUInt16LE(padding, 28)
    options.local?.(local, name)
    const record = centralRecord(name, bytes, at, options.zip64 ?? false)
    options.central?.(record, name)
    central.push(record)
    const entry = Buffer.concat([local, Buffer.from(name), Buffer.alloc(padding), bytes])
    parts.push(entry)
    at += entry.length
  }
  const directory = Buffer.concat(central)
  return Buffer.concat([...parts, directory, endRecords(entries.length, directory.length, at, options.zip64 ?? false)])
}

/** A whole checkpoint. */
export function torchFile(tensors: readonly TorchTensor[], options: ZipOptions = {}, pickle?: Buffer): Buffer {
  const entries: [string, Buffer][] = [
    ['model/data.pkl', pickle ?? stateDictPickle(tensors)],
    ['model/byteorder', Buffer.from('little')],
    ...tensors.map(({ data }, i): [string, Buffer] => [`model/data/${i}`, data]),
  ]
  return zipFile(entries, options)
}
