/** GGUF files byte by byte, for what no honest writer would write. */
export function u32(value: number): Buffer {
  const out = Buffer.alloc(4)
  out.writeUInt32LE(value >>> 0)
  return out
}

export function u64(value: bigint): Buffer {
  const out = Buffer.alloc(8)
  out.writeBigUInt64LE(BigInt.asUintN(64, value))
  return out
}

export function ggufString(value: string): Buffer {
  return Buffer.concat([u64(BigInt(Buffer.byteLength(value))), Buffer.from(value)])
}

export interface RawGguf {
  version?: number
  tensorCount?: bigint
  metadataCount?: bigint
  /** key, then the value's bytes with its type in front */
  metadata?: readonly (readonly [string, ...Buffer[]])[]
  tensors: readonly { name: string; dimensions: readonly bigint[]; type: number; offset: bigint }[]
  /** bytes behind the header */
  data?: number
}

const ARCHITECTURE = ['general.architecture', u32(8), ggufString('llama')] as const

export function ggufBytes({ version = 3, metadata = [], tensors, data = 0, ...counts }: RawGguf): Buffer {
  const entries = [ARCHITECTURE, ...metadata]
  const parts = [Buffer.from('GGUF'), u32(version), u64(counts.tensorCount ?? BigInt(tensors.length))]
  parts.push(u64(counts.metadataCount ?? BigInt(entries.length)))
  for (const [key, ...value] of entries) parts.push(ggufString(key), ...value)
  for (const { name, dimensions, type, offset } of tensors) {
    parts.push(ggufString(name), u32(dimensions.length), ...dimensions.map(u64), u32(type), u64(offset))
  }
  const header = Buffer.concat(parts)
  return Buffer.concat([header, Buffer.alloc((32 - (header.length % 32)) % 32), Buffer.alloc(data)])
}
