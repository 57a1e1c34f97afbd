/** Text that a command reads: from an option, a file, or standard input, by the same rules. */
import { fstatSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { badOption, OnebitError } from '../errors.js'
import { decodeText, plainText } from '../files/text.js'

/** Far beyond any context; keeps a wrong file name (a disk image, say) from filling the memory. */
const MOST_BYTES = 256 * 1024 * 1024

const STANDARD_INPUT = 'Standard input'

/** For --help: "Files are …" */
export const TEXT_RULES =
  'UTF-8 text; their last line end is left out, as a shell does it in $(cat FILE), and line ends of Windows count as one.'

/** A text from an option. Its last line end was meant: a shell leaves those of files out by itself. */
export function optionText(text: string): string {
  return plainText(text)
}

/** Token ids from an option: "1,2,3". @throws OnebitError ERR_BAD_OPTION */
export function optionIds(option: string, list: string): number[] {
  return list.split(',').map((part) => {
    if (/^\s*\d+\s*$/.test(part)) return Number(part)
    throw badOption(option, `${JSON.stringify(list)} is not a list of token ids such as 1,2,3.`)
  })
}

/** A file as a text to be continued or scored. @throws OnebitError ERR_READ, ERR_TEXT_SIZE, ERR_TEXT_ENCODING */
export async function readTextFile(path: string): Promise<string> {
  return withoutLastLineEnd(await readWholeText(path))
}

/** A file as a text to be measured: whole. @throws OnebitError ERR_READ, ERR_TEXT_SIZE, ERR_TEXT_ENCODING */
export async function readWholeText(path: string): Promise<string> {
  return decodeText(await readFileBytes(path), path)
}

/** @throws OnebitError ERR_READ, ERR_TEXT_SIZE, ERR_TEXT_ENCODING */
export async function readStandardInput(): Promise<string> {
  // Node gives no bytes of a folder, and no error.
  if (fstatSync(0).isDirectory()) throw unreadable(STANDARD_INPUT, { code: 'EISDIR' })
  return withoutLastLineEnd(decodeText(await collect(STANDARD_INPUT, process.stdin), STANDARD_INPUT))
}

function withoutLastLineEnd(text: string): string {
  return text.endsWith('\n') ? text.slice(0, -1) : text
}

/** Of an ordinary file, or of a pipe or device that has a name. */
async function readFileBytes(path: string): Promise<Buffer> {
  let file: FileHandle | undefined
  try {
    file = await open(path, 'r')
    const { size } = await file.stat()
    if (size > MOST_BYTES) {
      throw new OnebitError('ERR_TEXT_SIZE', `${path} has ${size} bytes; at most ${MOST_BYTES} are read.`)
    }
    return await collect(path, file.createReadStream({ autoClose: false, highWaterMark: 1 << 20 }))
  } catch (error) {
    throw unreadable(path, error)
  } finally {
    await file?.close()
  }
}

/** Everything that comes, but no more than the limit: streams know no size, and some have no end. */
async function collect(what: string, stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of stream) {
      size += chunk.length
      if (size > MOST_BYTES) {
        const problem = `has more than ${MOST_BYTES} bytes, which is the most that is read.`
        throw new OnebitError('ERR_TEXT_SIZE', `${what} ${problem}`)
      }
      chunks.push(chunk)
    }
  } catch (error) {
    throw unreadable(what, error)
  }
  return Buffer.concat(chunks, size)
}

function unreadable(what: string, error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException
  if (error instanceof OnebitError || code === undefined) return error
  const missing = code === 'ENOENT'
  const problem = missing ? 'does not exist' : code === 'EISDIR' ? 'is a folder' : `cannot be read (${code})`
  return new OnebitError('ERR_READ', `${what} ${problem}.`, {
    hint: missing ? 'Check the path.' : undefined,
    cause: error,
  })
}
