/**
 * Makes `.obt` files that our writer never would: every part of the header can be replaced, and the checksums are
 * right all the same, so that a reader has to find what is wrong. Shares nothing with the writer but the table.
 */

import type { WrittenConfig } from '../dist/config/config.js'
import { withDefaults } from '../dist/config/fields.js'
import { tensorBytes, tensorTable } from '../dist/config/tensors.js'
import { addon } from '../dist/native/addon.js'

export interface Entry {
  name: string
  value: { dtype: string; shape: unknown; data_offsets: unknown }
}

export interface Crafting {
  /** as it is to stand in the file */
  config: WrittenConfig
  /** instead of the config's JSON */
  configText?: string
  /** instead of the provenance's JSON */
  provenanceText?: string
  blobs?: { tokenizer: number; chat_template: number }
  /** changes the tensors after they were laid out */
  entries?: (entries: Entry[]) => Entry[]
  /** changes the metadata, checksums included, before the header's own checksum is computed */
  metadata?: (metadata: Record<string, unknown>) => Record<string, unknown>
  /** changes the finished JSON; the digits of the header's checksum are still zeros */
  text?: (text: string) => string
  /** leave the header's checksum at zeros */
  keepCrc?: boolean
  /** a header length other than the true one */
  length?: bigint
  /** the data; zeros of the right size and their checksums when absent */
  data?: Buffer
}

const hex8 = (crc: number) => crc.toString(16).padStart(8, '0')

const zeros = new Map<number, number>()

/** crc32c of `count` zeros; 0 for tensors too large to be ever read by a test. */
function crcOfZeros(count: number): number {
  if (count > 1 << 22) return 0
  const known = zeros.get(count) ?? addon().crc32c(Buffer.alloc(count), 0)
  zeros.set(count, known)
  return known
}

function withCrc(text: string): string {
  const digits = /(\\"header\\":\\")00000000(\\"\}"\})/
  return text.replace(digits, (_, before: string, after: string) => {
    return before + hex8(addon().crc32c(Buffer.from(text), 0)) + after
  })
}

function layOut(crafting: Crafting): { entries: Entry[]; crcs: string; dataBytes: number } {
  let at = 0
  let crcs = ''
  const table = tensorTable(withDefaults(crafting.config), crafting.blobs ?? { tokenizer: 0, chat_template: 0 })
  const entries = table.map((spec) => {
    const from = at
    at += tensorBytes(spec)
    const bytes = crafting.data?.subarray(from, at)
    crcs += hex8(bytes ? addon().crc32c(bytes, 0) : crcOfZeros(at - from))
    return { name: spec.name, value: { dtype: spec.dtype, shape: spec.shape, data_offsets: [from, at] } }
  })
  return { entries, crcs, dataBytes: at }
}

/** The header with its 8 bytes of length, and how many bytes of data belong behind it. */
export function craftHeader(crafting: Crafting): { header: Buffer; dataBytes: number } {
  const { entries, crcs, dataBytes } = layOut(crafting)
  const metadata = {
    format: 'obt',
    version: '1',
    config: crafting.configText ?? JSON.stringify(crafting.config),
    provenance: crafting.provenanceText ?? '{}',
    crc32c: JSON.stringify({ tensors: crcs, header: '00000000' }),
  }
  const tensors = (crafting.entries?.(entries) ?? entries).map(
    ({ name, value }) => `,${JSON.stringify(name)}:${JSON.stringify(value)}`,
  )
  const changed = crafting.metadata?.(metadata) ?? metadata
  const plain = `{"__metadata__":${JSON.stringify(changed)}${tensors.join('')}}`
  let text = plain.padEnd(plain.length + ((64 - ((8 + Buffer.byteLength(plain)) % 64)) % 64), ' ')
  text = crafting.text?.(text) ?? text
  const bytes = Buffer.from(crafting.keepCrc ? text : withCrc(text))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(crafting.length ?? BigInt(bytes.length))
  return { header: Buffer.concat([length, bytes]), dataBytes }
}

/** A whole file. */
export function craftFile(crafting: Crafting): Buffer {
  const { header, dataBytes } = craftHeader(crafting)
  return Buffer.concat([header, crafting.data ?? Buffer.alloc(dataBytes)])
}
