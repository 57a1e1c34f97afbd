/** Parts of files that are elsewhere. */
import type { FileHandle } from 'node:fs/promises'
import { OnebitError } from '../errors.js'
import { writeFully } from '../files/atomic-file.js'
import type { ListedFile } from './candidates.js'
import { offline, statusError } from './repository.js'
import { type Answer, ask, discard, NetworkError, Patience } from './requests.js'

/** Where the bytes of files are. */
export interface RemoteFiles<File extends ListedFile> {
  url(file: File): URL
  /** for messages: OWNER/NAME:FILE */
  nameOf(file: File): string
  /** Fetches a small file whole. @returns where it is */
  fetch(file: File): Promise<string>
  signal?: AbortSignal | undefined
}

/**
 * Bytes from `from` up to `to` of a file, into the same place of a file here.
 * @throws OnebitError ERR_HUB_*; what the system says about writing; the signal's reason
 */
export async function copyRange<File extends ListedFile>(
  remote: RemoteFiles<File>,
  file: File,
  handle: FileHandle,
  from: number,
  to: number,
): Promise<void> {
  const patience = new Patience(remote.signal)
  for (let at = from; at < to; ) {
    try {
      for await (const piece of range(remote, file, at, to, patience)) {
        await writeFully(handle, piece, at)
        at += piece.length
        patience.progress()
      }
    } catch (error) {
      if (!(error instanceof NetworkError)) throw error
      if (!(await patience.again())) throw offline(remote.nameOf(file), error)
    }
  }
}

/** Bytes of a file from `from` up to `to`, or fewer when the connection ends. @throws NetworkError */
async function* range<File extends ListedFile>(
  remote: RemoteFiles<File>,
  file: File,
  from: number,
  to: number,
  patience: Patience,
): AsyncGenerator<Buffer> {
  const { signal } = remote
  const answer = await ask(remote.url(file), { headers: { Range: `bytes=${from}-${to - 1}` }, signal }, patience)
  checkAnswer(answer, remote.nameOf(file), file.bytes, from)
  let skip = answer.status === 200 ? from : 0 // a server that knows no ranges
  let left = to - from
  try {
    for await (const piece of answer.body as AsyncIterable<Buffer>) {
      const wanted = piece.subarray(Math.min(skip, piece.length)).subarray(0, left)
      skip -= Math.min(skip, piece.length)
      left -= wanted.length
      if (wanted.length > 0) yield wanted
      if (left === 0) return
    }
  } catch (cause) {
    throw signal?.aborted ? signal.reason : new NetworkError(answer.url, cause)
  } finally {
    discard(answer)
  }
  throw new NetworkError(answer.url, new Error('it ends too early'))
}

function checkAnswer(answer: Answer, name: string, bytes: number, from: number): void {
  const { status, headers } = answer
  const [, begins, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers['content-range'] ?? '') ?? []
  const isRight =
    status === 206 ? Number(begins) === from && (total === '*' || Number(total) === bytes) : status === 200
  const isPage = status === 200 && /^text\/html/i.test(headers['content-type'] ?? '')
  if (isRight && !isPage) return
  discard(answer)
  if (status !== 206 && status !== 416 && !isPage) throw statusError(answer, name)
  const problem = isPage ? `answers with a web page in place of ${name}` : `has another file at ${name} than it said`
  throw new OnebitError('ERR_HUB_ANSWER', `${answer.url.host} ${problem}`, {
    hint: 'Some networks answer so until somebody has logged in. Otherwise run the same again.',
  })
}
