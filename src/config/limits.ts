/** Caps, the same as binding/model/config.h: with them every product stays below 2^53 and int32 sums cannot overflow. */
export const LIMITS = {
  dim: 1 << 16,
  vocab: 1 << 20,
  layers: 1024,
  heads: 1024,
  head_dim: 1024,
  context: 1 << 22,
  position_offset: 1024,
  conv: 16,
} as const
