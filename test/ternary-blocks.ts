/**
 * Ternary weights in the layouts of GGUF files, written from their descriptions: codes (weight + 1) and scales in, bytes
 * out. They share nothing with what reads them.
 */
import { halfBits } from './gguf-writer.js'

export interface TernaryLayout {
  /** ggml's type id */
  id: number
  /** of a block */
  columns: number
  bytes: number
  /** codes of a block and its scale */
  write(codes: Uint8Array, scale: number, out: Buffer): void
}

/** Two bits of each code, the first in the lowest. */
function fours(codes: Uint8Array, out: Buffer, at: number): void {
  codes.forEach((code, i) => {
    out[at + (i >> 2)]! |= code << (2 * (i & 3))
  })
}

/** The digits of base 3 in a byte, as the fraction byte / 256 that begins with them. */
function digits(codes: readonly number[]): number {
  let value = 0
  for (const code of codes) value = value * 3 + code
  value *= 3 ** (5 - codes.length)
  return Math.floor((value * 256 + 242) / 243)
}

/** `count` bytes from `at` on hold `each` digits: digit n of byte m is element n x count + m. */
function bases(codes: Uint8Array, count: number, each: number, out: Buffer, at: number): void {
  for (let m = 0; m < count; m++) out[at + m] = digits(Array.from({ length: each }, (_, n) => codes[n * count + m]!))
}

const scaleAt = (out: Buffer, scale: number, at: number) => out.writeUInt16LE(halfBits(scale), at)

const q2 = (id: number, columns: number): TernaryLayout => ({
  id,
  columns,
  bytes: 2 + columns / 4,
  write(codes, scale, out) {
    scaleAt(out, scale, 0)
    fours(codes, out, 2)
  },
})

export const LAYOUTS: Record<string, TernaryLayout> = {
  Q2_0: q2(42, 64),
  'Q2_0 in groups of 128': q2(42, 128),
  PQ2_0: q2(142, 128),
  TQ1_0: {
    id: 34,
    columns: 256,
    bytes: 54,
    write(codes, scale, out) {
      bases(codes.subarray(0, 160), 32, 5, out, 0)
      bases(codes.subarray(160, 240), 16, 5, out, 32)
      bases(codes.subarray(240), 4, 4, out, 48)
      scaleAt(out, scale, 52)
    },
  },
  TQ2_0: {
    id: 35,
    columns: 256,
    bytes: 66,
    write(codes, scale, out) {
      codes.forEach((code, i) => {
        out[Math.floor(i / 128) * 32 + (i % 32)]! |= code << (2 * Math.floor((i % 128) / 32))
      })
      scaleAt(out, scale, 64)
    },
  },
  PTQ1_0: {
    id: 143,
    columns: 128,
    bytes: 28,
    write(codes, scale, out) {
      bases(codes.subarray(0, 80), 16, 5, out, 0)
      bases(codes.subarray(80, 120), 8, 5, out, 16)
      bases(codes.subarray(120), 2, 4, out, 24)
      scaleAt(out, scale, 26)
    },
  },
}

/** A whole tensor; scales: one a block. */
export function ternaryBytes(layout: TernaryLayout, codes: Uint8Array, scales: readonly number[]): Buffer {
  return Buffer.concat(
    scales.map((scale, block) => {
      const out = Buffer.alloc(layout.bytes)
      layout.write(codes.subarray(block * layout.columns, (block + 1) * layout.columns), scale, out)
      return out
    }),
  )
}

/** I2_S as x86 programs write it: blocks of 128 of the flattened tensor, one scale in 32 bytes behind them. */
export function i2sBytes(codes: Uint8Array, scale: number): Buffer {
  const out = Buffer.alloc(codes.length / 4 + 32)
  codes.forEach((code, i) => {
    const within = i % 128
    out[Math.floor(i / 128) * 32 + (within % 32)]! |= code << (6 - 2 * Math.floor(within / 32))
  })
  out.writeFloatLE(scale, codes.length / 4)
  return out
}
