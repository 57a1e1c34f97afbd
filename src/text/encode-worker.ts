/** The thread that encodes long texts: the same encoder, away from the event loop. */
import { parentPort, workerData } from 'node:worker_threads'
import type { Section } from './added-tokens.js'
import { Encoder } from './encoder.js'
import { IdBuffer } from './id-buffer.js'
import { parseTokenizerBlob } from './tokenizer-json.js'
import { Vocabulary } from './vocabulary.js'

/** A text, or the parts of one that tokens were cut out of before. */
export type EncodeRequest = { text: string; special: boolean } | { parts: Section[]; without: string[] }

const blob = parseTokenizerBlob(workerData as Uint8Array)
const encoder = new Encoder(blob, new Vocabulary(blob.tokenizer))

parentPort?.on('message', (request: EncodeRequest) => {
  const ids = new IdBuffer()
  if ('parts' in request) encoder.encodeParts(request.parts, request.without, ids)
  else encoder.encode(request.text, request.special, ids)
  const result = ids.take()
  parentPort?.postMessage({ result }, [result.buffer as ArrayBuffer])
})
parentPort?.postMessage({ ready: true })
