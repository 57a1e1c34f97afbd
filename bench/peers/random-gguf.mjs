// A GGUF file of a known shape with random weights, for the peer: speed does not depend on what the weights are. Blocks
// hold random bits and one sane scale, so that activations stay finite. Written piece by piece: 7B in Q8_0 is 7 GB.
import { closeSync, fsyncSync, openSync, renameSync, rmSync, statfsSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { SHAPES } from '../../dist/bench/shapes.js'
import { importTypeScript } from '../../scripts/import-typescript.mjs'

const { ALIGNMENT, ggufHeader, halfBits, SeededRandom } = await importTypeScript('test/gguf-writer.ts')

/**
 * ggml's number of a type, the columns and bytes of a block, where its f16 scale lies, and how large the numbers are that
 * the scale multiplies (the root of their mean square, roughly). Layouts: ggml-common.h of llama.cpp; any bits are a
 * legal block of these types.
 */
export const TYPES = {
  Q4_0: { id: 2, columns: 32, bytes: 18, scaleAt: 0, size: 5 },
  Q8_0: { id: 8, columns: 32, bytes: 34, scaleAt: 0, size: 74 },
  IQ2_XXS: { id: 16, columns: 256, bytes: 66, scaleAt: 0, size: 50 },
  IQ1_S: { id: 19, columns: 256, bytes: 50, scaleAt: 0, size: 8 },
  IQ4_NL: { id: 20, columns: 32, bytes: 18, scaleAt: 0, size: 70 },
  TQ1_0: { id: 34, columns: 256, bytes: 54, scaleAt: 52, size: 1 },
  TQ2_0: { id: 35, columns: 256, bytes: 66, scaleAt: 64, size: 1 },
  Q1_0: { id: 41, columns: 128, bytes: 18, scaleAt: 0, size: 1 },
  Q2_0: { id: 42, columns: 64, bytes: 18, scaleAt: 0, size: 1.2 },
}

export const bitsPerWeight = (type) => (8 * TYPES[type].bytes) / TYPES[type].columns

/** Whether every matrix of the shape has whole blocks of the type in its rows. */
export function fits(type, { dim, hidden_dim, n_heads, head_dim }) {
  return [dim, hidden_dim, n_heads * head_dim].every((cols) => cols % TYPES[type].columns === 0)
}

const F32 = { id: 0, columns: 1, bytes: 4 }

/** The tensors of a Llama in llama.cpp's names. The embedding and the head are Q8_0. */
function tensorsOf({ vocab_size, dim, hidden_dim, n_layers, n_heads, n_kv_heads, head_dim, tied_head }, type) {
  const matrix = (name, rows, cols, kind = type) => ({ name: `${name}.weight`, shape: [rows, cols], kind })
  const norm = (name) => ({ name: `${name}.weight`, shape: [dim], kind: 'F32' })
  const layer = (i) => [
    norm(`blk.${i}.attn_norm`),
    matrix(`blk.${i}.attn_q`, n_heads * head_dim, dim),
    matrix(`blk.${i}.attn_k`, n_kv_heads * head_dim, dim),
    matrix(`blk.${i}.attn_v`, n_kv_heads * head_dim, dim),
    matrix(`blk.${i}.attn_output`, dim, n_heads * head_dim),
    norm(`blk.${i}.ffn_norm`),
    matrix(`blk.${i}.ffn_gate`, hidden_dim, dim),
    matrix(`blk.${i}.ffn_up`, hidden_dim, dim),
    matrix(`blk.${i}.ffn_down`, dim, hidden_dim),
  ]
  return [
    matrix('token_embd', vocab_size, dim, 'Q8_0'),
    ...Array.from({ length: n_layers }, (_, i) => layer(i)).flat(),
    norm('output_norm'),
    ...(tied_head ? [] : [matrix('output', vocab_size, dim, 'Q8_0')]),
  ]
}

/** A SentencePiece vocabulary that means nothing: the peer refuses a model without one. */
function vocabulary(size) {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`)
  const tokens = ['<unk>', '<s>', '</s>', ...bytes]
  while (tokens.length < size) tokens.push(`\u2581w${tokens.length.toString(36)}`)
  const kind = (i) => (i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1) // unknown, control, byte, normal
  return {
    'tokenizer.ggml.model': { string: 'llama' },
    'tokenizer.ggml.tokens': { strings: tokens },
    'tokenizer.ggml.scores': { f32s: tokens.map((_, i) => -i) },
    'tokenizer.ggml.token_type': { i32s: tokens.map((_, i) => kind(i)) },
    'tokenizer.ggml.bos_token_id': { u32: 1 },
    'tokenizer.ggml.eos_token_id': { u32: 2 },
    'tokenizer.ggml.unknown_token_id': { u32: 0 },
  }
}

function metadata(name, shape) {
  return {
    'general.architecture': { string: 'llama' },
    'general.name': { string: name },
    'llama.block_count': { u32: shape.n_layers },
    'llama.context_length': { u32: shape.context_length },
    'llama.embedding_length': { u32: shape.dim },
    'llama.feed_forward_length': { u32: shape.hidden_dim },
    'llama.attention.head_count': { u32: shape.n_heads },
    'llama.attention.head_count_kv': { u32: shape.n_kv_heads },
    'llama.attention.layer_norm_rms_epsilon': { f32: shape.norm_eps },
    'llama.rope.dimension_count': { u32: shape.head_dim },
    'llama.rope.freq_base': { f32: shape.rope_theta },
    'llama.vocab_size': { u32: shape.vocab_size },
    ...vocabulary(shape.vocab_size),
  }
}

const kindOf = (name) => (name === 'F32' ? F32 : TYPES[name])

function bytesOf({ shape, kind }) {
  const { columns, bytes } = kindOf(kind)
  return (shape.reduce((product, size) => product * size, 1) / columns) * bytes
}

const PIECE_BLOCKS = 1 << 15

/** Blocks to be written over and over: random bits, with a scale that makes a row's sum about as large as its input. */
function pieceOf({ shape, kind }, random) {
  if (kind === 'F32') return Buffer.from(Float32Array.from({ length: shape[0] }, () => 1).buffer)
  const { bytes, scaleAt, size } = TYPES[kind]
  const words = Uint32Array.from({ length: Math.ceil((PIECE_BLOCKS * bytes) / 4) }, () => random.next())
  const piece = Buffer.from(words.buffer, 0, PIECE_BLOCKS * bytes)
  const scale = halfBits(1 / (size * Math.sqrt(shape[1])))
  for (let block = 0; block < PIECE_BLOCKS; block++) piece.writeUInt16LE(scale, block * bytes + scaleAt)
  return piece
}

/** The shape and type of every tensor as the header lists them, and the bytes of the whole file's weights. */
function entriesOf(tensors) {
  return tensors.map((tensor) => ({
    name: tensor.name,
    typeId: kindOf(tensor.kind).id,
    shape: tensor.shape,
    bytes: bytesOf(tensor),
  }))
}

/** What a file of `shape` with its linears of `type` takes, without its header. */
export function weightBytes(shapeName, type) {
  return tensorsOf(SHAPES[shapeName], type).reduce((sum, tensor) => sum + bytesOf(tensor), 0)
}

function requireSpace(path, bytes) {
  const { bavail, bsize } = statfsSync(dirname(path))
  // A tenth for the vocabulary and for whatever else needs the disk meanwhile.
  if (bavail * bsize > 1.1 * bytes) return
  const gigabytes = (count) => (count / 1e9).toFixed(1)
  throw new Error(`${path} needs ${gigabytes(bytes)} GB; the disk has ${gigabytes(bavail * bsize)} GB left`)
}

function writeTensors(file, tensors, entries) {
  const random = new SeededRandom(1)
  const pieces = new Map()
  for (const [i, tensor] of tensors.entries()) {
    const key = `${tensor.kind} ${tensor.shape.at(-1)}`
    if (!pieces.has(key)) pieces.set(key, pieceOf(tensor, random))
    const piece = pieces.get(key)
    for (let left = entries[i].bytes; left > 0; left -= piece.length) {
      writeSync(file, piece, 0, Math.min(left, piece.length))
    }
    writeSync(file, Buffer.alloc((ALIGNMENT - (entries[i].bytes % ALIGNMENT)) % ALIGNMENT))
  }
}

/** Makes the file `path`: `shape` with its linears of `type`. */
export function makeRandomGguf(path, shapeName, type) {
  const shape = SHAPES[shapeName]
  const tensors = tensorsOf(shape, type)
  const entries = entriesOf(tensors)
  requireSpace(path, weightBytes(shapeName, type))
  const part = `${path}.part`
  const file = openSync(part, 'w')
  try {
    writeSync(file, ggufHeader(metadata(`${shapeName} ${type}`, shape), entries))
    writeTensors(file, tensors, entries)
    // Otherwise the system would still be writing while the first measurement runs.
    fsyncSync(file)
  } catch (error) {
    rmSync(part)
    throw error
  } finally {
    closeSync(file)
  }
  renameSync(part, path)
}
