/** Fields that several kinds of requests have, checked. Limits of sampling are those of the API, and so are its errors. */

import { booleanOption, integerOption } from '../options.js'
import { checkGenerateOptions, type GenerateOptions } from '../run/generate-options.js'
import { isRecord } from '../text/tokenizer-json.js'
import type { Fields } from './body.js'
import { badField } from './errors.js'

/** Fields of requests and what the API calls them. */
const SAMPLING: Readonly<Record<string, keyof GenerateOptions>> = {
  temperature: 'temperature',
  top_k: 'topK',
  top_p: 'topP',
  min_p: 'minP',
  repeat_penalty: 'repeatPenalty',
  repeat_last_n: 'repeatLastN',
  presence_penalty: 'presencePenalty',
  frequency_penalty: 'frequencyPenalty',
  logit_bias: 'logitBias',
  seed: 'seed',
}

const MOST_STOPS = 16
const MOST_STOP_BYTES = 256

/** @throws HttpError, OnebitError about a field */
export function generateFields(fields: Fields, vocabSize: number, maxTokens: unknown): GenerateOptions {
  refuseMany(fields)
  const options: Record<string, unknown> = { stop: stopTexts(fields.stop) }
  for (const [name, own] of Object.entries(SAMPLING)) if (fields[name] !== undefined) options[own] = fields[name]
  if (maxTokens !== undefined) options.maxTokens = maxTokens
  if (booleanOption(fields, 'ignore_eos')) options.ignoreEos = true
  // Clients of other servers ask for a random seed by a negative one.
  if (typeof options.seed === 'number' && options.seed === -1) delete options.seed
  checkGenerateOptions(options, vocabSize)
  return options
}

/** One request is one answer. */
function refuseMany(fields: Fields): void {
  for (const name of ['n', 'best_of']) {
    const wanted = integerOption(fields, name, 1, 1024) ?? 1
    if (wanted > 1) throw badField(name, 'only 1 is possible; send the request several times with other seeds')
  }
}

function stopTexts(value: unknown): string[] {
  const list: unknown[] = value === undefined ? [] : Array.isArray(value) ? value : [value]
  if (list.length > MOST_STOPS) throw badField('stop', `has ${list.length} texts, at most ${MOST_STOPS} are possible`)
  const texts: string[] = []
  for (const text of list) {
    if (typeof text !== 'string') throw badField('stop', 'must be a string or an array of strings')
    if (Buffer.byteLength(text) > MOST_STOP_BYTES) {
      throw badField('stop', `each text may have ${MOST_STOP_BYTES} bytes at most`)
    }
    // lm-evaluation-harness sends its end-of-text token even where that is empty.
    if (text !== '') texts.push(text)
  }
  return texts
}

export function streamFields(fields: Fields): { stream: boolean; includeUsage: boolean } {
  const options = fields.stream_options ?? {}
  if (!isRecord(options)) throw badField('stream_options', 'must be an object')
  return {
    stream: booleanOption(fields, 'stream') ?? false,
    includeUsage: booleanOption(options, 'include_usage') ?? false,
  }
}

/** @throws HttpError */
export function idList(param: string, value: unknown, vocabSize: number): Int32Array {
  const list = value as unknown[]
  const bad = list.findIndex((id) => !(Number.isInteger(id) && (id as number) >= 0 && (id as number) < vocabSize))
  if (bad >= 0) throw badField(`${param}[${bad}]`, `must be a token id, an integer from 0 to ${vocabSize - 1}`)
  return Int32Array.from(list as number[])
}
