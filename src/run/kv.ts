/** In the order of the native enumeration. */
export const KV_TYPES = ['f16', 'f32', 'int8'] as const satisfies readonly KvType[]

/**
 * Numbers in the KV cache. int8 keeps one scale for each position, head, and key or value: half the memory of f16, and
 * logits that differ about as much as those of int8 activations.
 */
export type KvType = 'f16' | 'f32' | 'int8'

/** A cache grows, and is read and written, by so many positions (kKvChunk in binding/kernels/kernels.h). */
export const CHUNK_POSITIONS = 256
