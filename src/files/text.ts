/** Text files as text. */
import { OnebitError } from '../errors.js'

/**
 * UTF-8 bytes as text, without the mark at their start that some editors write, and with \n at the ends of lines: the
 * same text saved on Windows must have the same tokens, as Python reads it too.
 * @param what the file, for the message
 * @throws OnebitError ERR_TEXT_ENCODING
 */
export function decodeText(bytes: Uint8Array, what: string): string {
  if (isUtf16(bytes)) throw wrongEncoding(what, 'UTF-16, not UTF-8 text')
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw wrongEncoding(what, 'not UTF-8 text', cause)
  }
  return plainText(text)
}

/** The same for text that is a string already. */
export function plainText(text: string): string {
  return text.replace(/^\ufeff/, '').replace(/\r\n?/g, '\n')
}

function isUtf16(bytes: Uint8Array): boolean {
  return (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)
}

function wrongEncoding(what: string, problem: string, cause?: unknown): OnebitError {
  return new OnebitError('ERR_TEXT_ENCODING', `${what} is ${problem}.`, { hint: 'Convert it to UTF-8 first.', cause })
}
