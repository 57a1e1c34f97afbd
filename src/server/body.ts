/** The body of a request: JSON of bounded size and depth. */
import type { IncomingMessage } from 'node:http'
import { weighJson } from '../files/json-depth.js'
import { isRecord } from '../text/tokenizer-json.js'
import { HttpError } from './errors.js'

/** A field's value may be anything; a field that is null is not there, as clients mean it. */
export type Fields = Readonly<Record<string, unknown>>

const MOST_LEVELS = 64

/** @throws HttpError 400, 413, 415 */
export async function readFields(request: IncomingMessage, mostBytes: number): Promise<Fields> {
  const type = request.headers['content-type'] ?? ''
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw new HttpError(415, 'The body has to be JSON: Content-Type: application/json.', { code: 'not_json' })
  }
  const bytes = await readBytes(request, mostBytes)
  const value = parse(bytes)
  if (!isRecord(value)) throw new HttpError(400, 'The body has to be a JSON object.', { code: 'invalid_json' })
  return withoutNulls(value)
}

export function withoutNulls(value: Fields): Fields {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== null))
}

/** What a client sends beyond the limit is read and thrown away, so that it reads the answer; up to here. */
const MOST_THROWN_AWAY = 64 << 20

async function readBytes(request: IncomingMessage, most: number): Promise<Buffer> {
  const tooLarge = new HttpError(413, `The body may have ${most} bytes at most.`, {
    code: 'body_too_large',
    headers: { connection: 'close' },
  })
  if (Number(request.headers['content-length'] ?? 0) > most + MOST_THROWN_AWAY) throw tooLarge
  const parts: Buffer[] = []
  let size = 0
  return new Promise((resolve, reject) => {
    request.on('data', (part: Buffer) => {
      size += part.length
      if (size <= most) parts.push(part)
      else parts.length = 0
      if (size > most + MOST_THROWN_AWAY) reject(tooLarge)
    })
    request.on('end', () => (size > most ? reject(tooLarge) : resolve(Buffer.concat(parts))))
    request.on('error', reject)
    request.on('close', () => reject(new HttpError(400, 'The body ended too early.', { code: 'invalid_json' })))
  })
}

function parse(bytes: Buffer): unknown {
  if (weighJson(bytes).depth > MOST_LEVELS) {
    throw new HttpError(400, `The body is nested deeper than ${MOST_LEVELS} levels.`, { code: 'invalid_json' })
  }
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (error) {
    const problem = error instanceof SyntaxError ? error.message : 'it is not UTF-8'
    throw new HttpError(400, `The body is not JSON: ${problem.slice(0, 200)}.`, { code: 'invalid_json' })
  }
}
