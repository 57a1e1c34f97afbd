/** llama2.c's first `.bin` format: seven integers, then float32 tensors in a fixed order and nothing else. */
import { withDefaults } from '../config/fields.js'
import { LIMITS } from '../config/limits.js'
import { linearShape, ROLES, type Role } from '../config/tensors.js'
import { OnebitError } from '../errors.js'
import { openFile, readExactly, readFully } from '../files/file-reading.js'
import { badSource, type SourceModel, type SourceTensor } from './source.js'
import { NO_TEXT } from './source-text.js'

const HEADER_BYTES = 28
/** Later versions of the format start with "ak42". */
const LATER_MAGIC = 0x616b3432

function readConfig(path: string, header: Buffer): SourceModel['config'] {
  const fields = ['dim', 'hidden_dim', 'n_layers', 'n_heads', 'n_kv_heads', 'vocab_size', 'context_length'] as const
  const caps = [LIMITS.dim, LIMITS.dim, LIMITS.layers, LIMITS.heads, LIMITS.heads, LIMITS.vocab, LIMITS.context]
  const numbers = fields.map((field, i) => {
    const value = header.readInt32LE(4 * i)
    const size = field === 'vocab_size' ? Math.abs(value) : value
    if (size < 1 || size > caps[i]!) throw unknown(path)
    return size
  }) as [number, number, number, number, number, number, number]
  const [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, context_length] = numbers
  if (dim % (2 * n_heads) !== 0 || n_heads % n_kv_heads !== 0) throw unknown(path)
  return withDefaults({
    architecture: 'llama',
    vocab_size,
    dim,
    hidden_dim,
    n_layers,
    n_heads,
    n_kv_heads,
    head_dim: dim / n_heads,
    context_length,
    norm_eps: 1e-5,
    rope_theta: 10000,
    rope_style: 'interleaved',
    rope_scaling: { type: 'none' },
    // A negative vocabulary is how the format says that the head is a matrix of its own.
    tied_head: header.readInt32LE(20) > 0,
  })
}

function unknown(path: string): OnebitError {
  return new OnebitError('ERR_UNKNOWN_FORMAT', `${path} is not a model in a format that can be converted`, {
    hint: 'Give a Hugging Face model folder, a .gguf file or a llama2.c .bin file.',
  })
}

/** Name, rows and columns of every tensor in file order; `skip` is not used. */
function* fileOrder(config: SourceModel['config']): Generator<{ name: string; rows: number; cols: number }> {
  const { dim, vocab_size, n_layers, context_length, head_dim, tied_head } = config
  const layers = Array.from({ length: n_layers }, (_, layer) => layer)
  const norms = (name: string) => layers.map((layer) => ({ name: `layers.${layer}.${name}`, rows: 1, cols: dim }))
  const linears = (role: Role) => {
    const [rows, cols] = linearShape(config, role)
    return layers.map((layer) => ({ name: `layers.${layer}.${role}.weight`, rows, cols }))
  }
  yield { name: 'tok_embeddings.weight', rows: vocab_size, cols: dim }
  yield* norms('attention_norm')
  for (const role of ROLES.slice(0, 4)) yield* linears(role)
  yield* norms('ffn_norm')
  for (const role of ROLES.slice(4)) yield* linears(role)
  yield { name: 'norm', rows: 1, cols: dim }
  yield { name: 'skip', rows: context_length, cols: head_dim } // tables of cosines and sines
  if (!tied_head) yield { name: 'output.weight', rows: vocab_size, cols: dim }
}

/**
 * Opens a llama2.c file; its tokenizer is another file.
 * @throws OnebitError ERR_UNKNOWN_FORMAT when its size is not what its seven integers make, ERR_BAD_SOURCE
 */
export async function openLlama2c(path: string): Promise<SourceModel> {
  const { file, bytes } = await openFile(path)
  try {
    const header = await readFully(file, 0, HEADER_BYTES)
    if (header.length < HEADER_BYTES) throw unknown(path)
    if (header.readUInt32LE() === LATER_MAGIC) {
      throw badSource(`${path} is in a later llama2.c format`, 'Export it with --version 0.')
    }
    const config = readConfig(path, header)
    const tensors = new Map<string, SourceTensor>()
    let at = HEADER_BYTES
    for (const { name, rows, cols } of fileOrder(config)) {
      const start = at
      const read = (first: number, count: number) => readExactly(path, file, start + first * cols * 4, count * cols * 4)
      if (name !== 'skip') tensors.set(name, { name, type: 'f32', rows, cols, read })
      at += rows * cols * 4
    }
    if (at !== bytes) {
      const message = `${path} has ${bytes} bytes; as a llama2.c model it would have ${at}`
      throw new OnebitError('ERR_UNKNOWN_FORMAT', message, { hint: 'The file is damaged, or of another format.' })
    }
    return {
      format: 'llama2c',
      config,
      tensors,
      text: NO_TEXT,
      layernorm: false,
      files: [path],
      close: () => file.close(),
    }
  } catch (cause) {
    await file.close()
    throw cause
  }
}
