/** How the next token is chosen: the options and their checks. The choice itself is native (binding/run/sampler.cpp). */
import { badOption } from '../errors.js'
import type { NativeSamplerOptions, NativeSession } from '../native/native.js'
import { integerOption, numberOption } from '../options.js'
import { shown } from '../shown-value.js'

/**
 * How the next token is chosen: penalties and bias change the logits, the temperature divides them, `topK`, `topP` and `minP` in
 * this order leave some of the likeliest tokens, and one of these is drawn. The same seed gives the same tokens on every machine.
 */
export interface SamplingOptions {
  /** logits are divided by it, 0 to 100; 0 takes the likeliest token always; default 0.8 */
  temperature?: number
  /** only this many likeliest tokens; 0: all; default 40 */
  topK?: number
  /** of these, the likeliest whose probabilities reach this sum; 1: all; default 0.95 */
  topP?: number
  /** of these, those at least this share as likely as the likeliest; 0: all; default 0.05 */
  minP?: number
  /** divides (or multiplies, below zero) the logits of recent tokens, 0.01 to 100; 1: off, the default */
  repeatPenalty?: number
  /** how many recent tokens the three penalties look at; default 64 */
  repeatLastN?: number
  /** subtracted from the logit of every recent token, -100 to 100; default 0 */
  presencePenalty?: number
  /** subtracted once for each time a recent token occurs, -100 to 100; default 0 */
  frequencyPenalty?: number
  /** added to the logits of single tokens, by id, -1000 to 1000 */
  logitBias?: Readonly<Record<number, number>>
  /** an integer from 0 to 2^53 - 1, or a bigint below 2^64; default random */
  seed?: number | bigint
}

export const SAMPLING_NAMES: readonly string[] = [
  'temperature',
  'topK',
  'topP',
  'minP',
  'repeatPenalty',
  'repeatLastN',
  'presencePenalty',
  'frequencyPenalty',
  'logitBias',
  'seed',
]

export interface CheckedSampling {
  vocabSize: number
  temperature: number
  topK: number
  topP: number
  minP: number
  repeatPenalty: number
  repeatLastN: number
  presencePenalty: number
  frequencyPenalty: number
  biasIds: Int32Array
  biasValues: Float32Array
  seed: number | bigint
}

/** Candidates to look at first when options do not bound them: nearly always enough, and quick to sort. */
const SHORTLIST = 256
const SEED_BELOW = 1n << 64n
/** Native code counts in signed 32-bit integers. */
const MOST_COUNT = 2 ** 31 - 1

/** Checks every value; missing ones get their defaults. ERR_BAD_OPTION names the field. */
export function checkSampling(options: SamplingOptions, vocabSize: number): CheckedSampling {
  const fields = options as Record<string, unknown>
  const { ids, values } = checkBias(fields.logitBias, vocabSize)
  return {
    vocabSize,
    temperature: numberOption(fields, 'temperature', 0, 100) ?? 0.8,
    topK: integerOption(fields, 'topK', 0, MOST_COUNT) ?? 40,
    topP: numberOption(fields, 'topP', 0, 1) ?? 0.95,
    minP: numberOption(fields, 'minP', 0, 1) ?? 0.05,
    repeatPenalty: numberOption(fields, 'repeatPenalty', 0.01, 100) ?? 1,
    repeatLastN: integerOption(fields, 'repeatLastN', 0, MOST_COUNT) ?? 64,
    presencePenalty: numberOption(fields, 'presencePenalty', -100, 100) ?? 0,
    frequencyPenalty: numberOption(fields, 'frequencyPenalty', -100, 100) ?? 0,
    biasIds: ids,
    biasValues: values,
    seed: checkSeed(fields.seed),
  }
}

function checkSeed(seed: unknown): number | bigint {
  if (seed === undefined) return Math.floor(Math.random() * 2 ** 48)
  if (typeof seed === 'bigint' && seed >= 0n && seed < SEED_BELOW) return seed
  if (Number.isSafeInteger(seed) && (seed as number) >= 0) return seed as number
  throw badOption('seed', `must be an integer from 0 to 2^64 - 1 (in code a bigint above 2^53 - 1), not ${shown(seed)}`)
}

function checkBias(bias: unknown, vocabSize: number): { ids: Int32Array; values: Float32Array } {
  if (bias === undefined) return { ids: new Int32Array(0), values: new Float32Array(0) }
  if (typeof bias !== 'object' || bias === null || Array.isArray(bias)) {
    throw badOption('logitBias', `must be an object from token ids to numbers, not ${shown(bias)}`)
  }
  const entries = Object.entries(bias)
  for (const [key, value] of entries) {
    if (!/^(0|[1-9]\d{0,9})$/.test(key) || Number(key) >= vocabSize) {
      throw badOption('logitBias', `${shown(key)} is not a token id below ${vocabSize}`)
    }
    if (!(typeof value === 'number' && Math.abs(value) <= 1000)) {
      throw badOption('logitBias', `the bias of token ${key} must be a number from -1000 to 1000, not ${shown(value)}`)
    }
  }
  return {
    ids: Int32Array.from(entries, ([key]) => Number(key)),
    values: Float32Array.from(entries, ([, value]) => value as number),
  }
}

/** Whether, and how many, tokens are guessed: `speculate` of `GenerateOptions`. */
export type Speculate = 'auto' | 'off' | number

export const MOST_GUESSES = 32
/** With `auto`, which begins with 4 and takes twice as many whenever all were right. */
const AUTO_GUESSES = 16

/** How a sampler's tokens are guessed. */
export interface Guessing {
  speculate: Speculate
  /** all tokens so far, where that is more than the sampler has to know */
  said?: Int32Array
  /** a small model's session that guesses too */
  draft?: NativeSession | undefined
}

/** The options as native code takes them; `tokens`: those on the timeline. */
export function nativeSampling(
  options: CheckedSampling,
  tokens: Int32Array,
  { speculate, said = tokens, draft }: Guessing = { speculate: 'off' },
): NativeSamplerOptions {
  const { repeatPenalty, presencePenalty, frequencyPenalty } = options
  const penalties = repeatPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0
  const lastN = penalties ? options.repeatLastN : 0
  const seed = BigInt(options.seed)
  return {
    vocab_size: options.vocabSize,
    temperature: options.temperature,
    top_k: options.topK,
    top_p: options.topP,
    min_p: options.minP,
    first: candidatesNeeded(options),
    repeat_last_n: lastN,
    repeat_penalty: repeatPenalty,
    presence_penalty: presencePenalty,
    frequency_penalty: frequencyPenalty,
    bias_ids: options.biasIds,
    bias_values: options.biasValues,
    recent: tokens.subarray(Math.max(0, tokens.length - lastN)),
    seed_low: Number(seed & 0xffffffffn),
    seed_high: Number(seed >> 32n),
    guesses:
      speculate === 'off'
        ? undefined
        : {
            said,
            most: speculate === 'auto' ? AUTO_GUESSES : speculate,
            always: speculate !== 'auto',
            draft,
          },
  }
}

/** How many candidates are looked at first: enough by the options, or nearly always enough. */
export function candidatesNeeded(options: CheckedSampling): number {
  const { temperature, topK, vocabSize } = options
  if (temperature === 0) return 1
  return Math.min(topK > 0 ? topK : SHORTLIST, vocabSize)
}
