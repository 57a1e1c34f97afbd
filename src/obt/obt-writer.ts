/** Writing `.obt` files: tensors streamed in the table's order, the header last, the whole atomically. */
import type { WrittenConfig } from '../config/config.js'
import { validateConfig } from '../config/config-check.js'
import type { TensorSpec } from '../config/tensors.js'
import { OnebitError } from '../errors.js'
import { writeAtomically, writeFully } from '../files/atomic-file.js'
import {
  checkProvenance,
  headerBytes,
  layout,
  MAX_CHAT_TEMPLATE_BYTES,
  MAX_TOKENIZER_BYTES,
  type Provenance,
} from './obt-header.js'
import { TensorStream, type WriteOptions } from './tensor-bytes.js'

export interface ObtContent {
  /** features that it does not mention have their defaults */
  config: WrittenConfig
  /** UTF-8 of {tokenizer, config} */
  tokenizer?: Uint8Array | undefined
  /** UTF-8 of {template, bos_token, …} */
  chatTemplate?: Uint8Array | undefined
  provenance: Provenance
}

function checkBlob(name: string, bytes: Uint8Array | undefined, max: number): number {
  if (bytes === undefined) return 0
  if (bytes.length > 0 && bytes.length <= max) return bytes.length
  throw new OnebitError('ERR_BLOB_SIZE', `The ${name} has ${bytes.length} bytes; it must have 1 to ${max}`)
}

/**
 * Writes a model. `produce` gives the bytes of each tensor of tensorTable(config), asked for in that order, in pieces
 * of any length. The target is replaced only when everything was written and synced; otherwise nothing is left.
 * @returns the size of the file in bytes
 * @throws OnebitError ERR_CONFIG, ERR_BLOB_SIZE, ERR_HEADER, ERR_TENSOR_SIZE, what writeAtomically and `produce`
 *   throw, and the signal's reason
 */
export async function writeObt(
  path: string,
  content: ObtContent,
  produce: (spec: TensorSpec) => AsyncIterable<Uint8Array>,
  options: WriteOptions = {},
): Promise<number> {
  const described = {
    config: validateConfig(content.config),
    provenance: checkProvenance(content.provenance),
    blobs: {
      tokenizer: checkBlob('tokenizer', content.tokenizer, MAX_TOKENIZER_BYTES),
      chat_template: checkBlob('chat template', content.chatTemplate, MAX_CHAT_TEMPLATE_BYTES),
    },
  }
  const { tensors, headerBytes: start, fileBytes } = layout(described)
  const blobs: Record<string, Uint8Array | undefined> = {
    tokenizer: content.tokenizer,
    chat_template: content.chatTemplate,
  }
  options.signal?.throwIfAborted()
  await writeAtomically(path, async (file) => {
    const stream = new TensorStream(file, start, options)
    const crcs: number[] = []
    for (const { spec, bytes } of tensors) {
      const pieces = spec.part === 'blob' ? [blobs[spec.name]!] : produce(spec)
      crcs.push(await stream.write(spec.name, bytes, pieces))
    }
    options.signal?.throwIfAborted()
    await writeFully(file, headerBytes(described, crcs), 0)
  })
  return fileBytes
}
