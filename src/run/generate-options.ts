/** What can be asked of a generation, and the checks of it. */
import { badOption } from '../errors.js'
import type { AnswerShape } from '../grammar/constraint.js'
import {
  booleanOption,
  integerOption,
  likeliestOption,
  optionFields,
  signalOption,
  stringOption,
  tokenIds,
} from '../options.js'
import { shown } from '../shown-value.js'
import { isRecord } from '../text/tokenizer-json.js'
import {
  type CheckedSampling,
  checkSampling,
  MOST_GUESSES,
  SAMPLING_NAMES,
  type SamplingOptions,
  type Speculate,
} from './sampler.js'

/**
 * What a generation is told: how tokens are chosen, where the answer ends, what comes with it, and which form it has (at most one
 * of `schema`, `json`, `regex`, `grammar` and `tag`). A wrong value, or a name that is not here, is ERR_BAD_OPTION before
 * anything is computed.
 */
export interface GenerateOptions extends SamplingOptions {
  /** new tokens at most; 0: only the prompt is computed; default: until a stop token or the end of the context */
  maxTokens?: number
  /** the text ends before the first of these, at most 64 of 1 to 1024 characters; a special token's text stops at that token */
  stop?: string | readonly string[]
  /** ids that end the text, besides the model's own */
  stopTokens?: readonly number[]
  /** go on after the model's own end tokens; default false */
  ignoreEos?: boolean
  /** give each piece the log-probability of its token; default false */
  logprobs?: boolean
  /** give each piece the log-probabilities of this many likeliest tokens, at most 100; implies `logprobs`; default 0 */
  topLogprobs?: number
  /** tokens of the prompt that are computed at once, at most 256; default, and with 0: as many as take about 100 ms */
  chunk?: number
  /**
   * tokens that were said before in the same order are guessed to come again, and computed together: the same text in less time where
   * much is repeated. Where nothing was, the model's `draft` guesses, if it has one. 'auto', the default, guesses where it has paid so
   * far; a number, 1 to 32, always so many; 'off'. Nothing is guessed in answers of a given form, and in a `Batch` while several
   * are computed together
   */
  speculate?: Speculate
  /** names of special tokens that are part of the text, such as `<tool_call>`; the others give none */
  showSpecial?: readonly string[]
  /** marks between which the text may begin with thinking, such as `<think>` and `</think>`: `stop` does not apply there */
  thinking?: readonly [open: string, close: string]
  /** stops within one token or one chunk; the iterator then throws the signal's reason */
  signal?: AbortSignal
  /** the answer is JSON that is valid by this JSON Schema; an answer that ends by `length` or `context` is cut off */
  schema?: boolean | Readonly<Record<string, unknown>>
  /** true: the answer is any JSON object */
  json?: boolean
  /** the whole answer matches this regular expression */
  regex?: string
  /** the answer is what the rule `root` of this grammar says (EBNF as XGrammar has it) */
  grammar?: string
  /** the answer is free text with parts of fixed form in it, as this structural tag of XGrammar says */
  tag?: Readonly<Record<string, unknown>>
}

export const SHAPES = ['schema', 'json', 'regex', 'grammar', 'tag'] as const
const NAMES = [
  'maxTokens',
  'stop',
  'stopTokens',
  'ignoreEos',
  'logprobs',
  'topLogprobs',
  'chunk',
  'speculate',
  'showSpecial',
  'thinking',
  'signal',
  ...SHAPES,
]

const MAX_STOPS = 64
const MAX_STOP_LENGTH = 1024

export interface CheckedGenerateOptions {
  maxTokens: number
  stop: string[]
  stopTokens: Int32Array
  ignoreEos: boolean
  logprobs: boolean
  topLogprobs: number
  chunk: number
  speculate: Speculate
  showSpecial: string[]
  thinking: readonly [open: string, close: string] | undefined
  signal: AbortSignal | undefined
  /** undefined: the answer may be anything */
  shape: AnswerShape | undefined
  sampling: CheckedSampling
}

function speculateOption(value: unknown = 'auto'): Speculate {
  if (value === 'auto' || value === 'off') return value
  const isCount = Number.isInteger(value) && (value as number) >= 1 && (value as number) <= MOST_GUESSES
  if (isCount) return value as number
  throw badOption('speculate', `must be auto, off or a number of tokens from 1 to ${MOST_GUESSES}, not ${shown(value)}`)
}

function nameList(field: string, value: unknown = []): string[] {
  if (Array.isArray(value) && value.every((name) => typeof name === 'string')) return [...value]
  throw badOption(field, 'must be an array of names of tokens')
}

function marksOption(value: unknown): readonly [string, string] | undefined {
  if (value === undefined) return undefined
  const isMark = (mark: unknown) => typeof mark === 'string' && mark.length > 0 && mark.length <= MAX_STOP_LENGTH
  if (Array.isArray(value) && value.length === 2 && value.every(isMark)) return [value[0], value[1]]
  throw badOption('thinking', `must be two marks, each a string of 1 to ${MAX_STOP_LENGTH} characters`)
}

function stopStrings(value: unknown): string[] {
  const list: unknown[] = value === undefined ? [] : Array.isArray(value) ? value : [value]
  if (list.length > MAX_STOPS) throw badOption('stop', `has ${list.length} entries, at most ${MAX_STOPS} are possible`)
  for (const stop of list) {
    if (typeof stop !== 'string' || stop.length < 1 || stop.length > MAX_STOP_LENGTH) {
      throw badOption('stop', `must be strings of 1 to ${MAX_STOP_LENGTH} characters`)
    }
  }
  return list as string[]
}

/** What is asked of the form of an answer; its contents are checked when it is compiled. */
function shapeOption(fields: Record<string, unknown>): AnswerShape | undefined {
  const json = booleanOption(fields, 'json') || undefined
  const { schema } = fields
  if (schema !== undefined && typeof schema !== 'boolean' && !isRecord(schema)) {
    throw badOption('schema', 'must be a JSON Schema: an object, true or false')
  }
  const [regex, grammar] = [stringOption(fields, 'regex'), stringOption(fields, 'grammar')]
  const { tag } = fields
  if (tag !== undefined && !isRecord(tag)) throw badOption('tag', 'must be a structural tag: an object')
  const shapes = [
    ...(schema === undefined ? [] : [{ schema }]),
    ...(json === undefined ? [] : [{ json }]),
    ...(regex === undefined ? [] : [{ regex }]),
    ...(grammar === undefined ? [] : [{ grammar }]),
    ...(tag === undefined ? [] : [{ tag }]),
  ]
  if (shapes.length > 1)
    throw badOption(Object.keys(shapes[1]!)[0]!, `cannot be combined with ${Object.keys(shapes[0]!)[0]}`)
  return shapes[0]
}

/** @throws OnebitError ERR_BAD_OPTION, ERR_TOKEN_RANGE */
export function checkGenerateOptions(options: GenerateOptions | undefined, vocabSize: number): CheckedGenerateOptions {
  const fields = optionFields('options', options, [...NAMES, ...SAMPLING_NAMES])
  const topLogprobs = likeliestOption(fields, 'topLogprobs', vocabSize)
  return {
    maxTokens: integerOption(fields, 'maxTokens', 0, Number.MAX_SAFE_INTEGER) ?? Number.MAX_SAFE_INTEGER,
    stop: stopStrings(fields.stop),
    stopTokens: tokenIds('stopTokens', fields.stopTokens ?? [], vocabSize),
    ignoreEos: booleanOption(fields, 'ignoreEos') ?? false,
    logprobs: booleanOption(fields, 'logprobs') ?? topLogprobs > 0,
    topLogprobs,
    chunk: integerOption(fields, 'chunk', 0, 256) ?? 0,
    speculate: speculateOption(fields.speculate),
    showSpecial: nameList('showSpecial', fields.showSpecial),
    thinking: marksOption(fields.thinking),
    signal: signalOption(fields),
    shape: shapeOption(fields),
    sampling: checkSampling(options ?? {}, vocabSize),
  }
}
