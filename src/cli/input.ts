/** Text that a command reads: from an option, a file, or standard input. */
import { readFile } from 'node:fs/promises'
import { OnebitError } from '../errors.js'

/** Far beyond any context; keeps a wrong file name (a disk image, say) from filling the memory. */
const MOST_BYTES = 256 * 1024 * 1024

/**
 * A UTF-8 file as text. Line ends become \n, as Python and its evaluation harnesses read text files: the same text saved
 * on Windows must have the same tokens, and so the same perplexity.
 */
export async function readTextFile(path: string): Promise<string> {
  let bytes: Buffer
  try {
    bytes = await readFile(path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const problem =
      code === 'ENOENT' ? 'does not exist' : code === 'EISDIR' ? 'is a folder' : `cannot be read (${code})`
    throw new OnebitError('ERR_READ', `${path} ${problem}.`, { hint: 'Check the path.', cause: error })
  }
  if (bytes.length > MOST_BYTES) {
    throw new OnebitError('ERR_TEXT_SIZE', `${path} has ${bytes.length} bytes; at most ${MOST_BYTES} are read.`)
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes).replace(/\r\n?/g, '\n')
  } catch (error) {
    throw new OnebitError('ERR_TEXT_ENCODING', `${path} is not UTF-8 text.`, {
      hint: 'Convert it to UTF-8 first.',
      cause: error,
    })
  }
}

export async function readStandardInput(): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of process.stdin) {
    size += (chunk as Buffer).length
    if (size > MOST_BYTES) throw new OnebitError('ERR_TEXT_SIZE', `Standard input has more than ${MOST_BYTES} bytes.`)
    chunks.push(chunk as Buffer)
  }
  return Buffer.concat(chunks).toString('utf8')
}
