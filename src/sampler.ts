/**
 * Chooses the next token from the candidates that native code shortlists. Everything here is integer or IEEE double
 * arithmetic in a fixed order, with an exponential of our own, so a seed means the same tokens on every machine.
 */
import { randomInt } from 'node:crypto'
import { badOption, OnebitError } from './errors.js'
import type { NativeShortlist } from './native.js'

export interface SamplingOptions {
  /** 0 takes the likeliest token always; default 0.8 */
  temperature?: number
  /** only this many likeliest tokens; 0: all; default 40 */
  topK?: number
  /** of these, the likeliest whose probabilities reach this sum; 1: all; default 0.95 */
  topP?: number
  /** of these, those at least this share as likely as the likeliest; 0: all; default 0.05 */
  minP?: number
  /** divides (or multiplies, below zero) the logits of recent tokens; 1: off, the default */
  repeatPenalty?: number
  /** how many recent tokens the three penalties look at; default 64 */
  repeatLastN?: number
  /** subtracted from the logit of every recent token; default 0 */
  presencePenalty?: number
  /** subtracted once for each time a recent token occurs; default 0 */
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

/** What of NativeCandidates the choice depends on. */
export interface Candidates {
  /** descending by logit, ties by lower id */
  ids: Int32Array
  /** after penalties and bias */
  logits: Float32Array
  /** log-sum-exp of all logits after penalties and bias */
  logSumExp: number
}

/**
 * Candidates to ask for when options do not bound them: nearly always enough, and quick to sort. `sample` says when
 * they are not.
 */
const SHORTLIST = 256
const SEED_BELOW = 1n << 64n

/** Checks every value; missing ones get their defaults. ERR_BAD_OPTION names the field. */
export function checkSampling(options: SamplingOptions, vocabSize: number): CheckedSampling {
  const fields = options as Record<string, unknown>
  const { ids, values } = checkBias(fields.logitBias, vocabSize)
  return {
    vocabSize,
    temperature: numberIn(fields, 'temperature', 0, 100, 0.8),
    topK: integerIn(fields, 'topK', 40),
    topP: numberIn(fields, 'topP', 0, 1, 0.95),
    minP: numberIn(fields, 'minP', 0, 1, 0.05),
    repeatPenalty: numberIn(fields, 'repeatPenalty', 0.01, 100, 1),
    repeatLastN: integerIn(fields, 'repeatLastN', 64),
    presencePenalty: numberIn(fields, 'presencePenalty', -100, 100, 0),
    frequencyPenalty: numberIn(fields, 'frequencyPenalty', -100, 100, 0),
    biasIds: ids,
    biasValues: values,
    seed: checkSeed(fields.seed),
  }
}

function numberIn(fields: Record<string, unknown>, name: string, low: number, high: number, otherwise: number): number {
  const value = fields[name]
  if (value === undefined) return otherwise
  if (typeof value === 'number' && value >= low && value <= high) return value
  throw badOption(name, `must be a number from ${low} to ${high}, not ${show(value)}`)
}

function integerIn(fields: Record<string, unknown>, name: string, otherwise: number): number {
  const value = fields[name]
  if (value === undefined) return otherwise
  if (Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 31) return value as number
  throw badOption(name, `must be an integer from 0 to 2147483647, not ${show(value)}`)
}

function checkSeed(seed: unknown): number | bigint {
  if (seed === undefined) return randomInt(2 ** 48 - 1)
  if (typeof seed === 'bigint' && seed >= 0n && seed < SEED_BELOW) return seed
  if (Number.isSafeInteger(seed) && (seed as number) >= 0) return seed as number
  throw badOption('seed', `must be an integer from 0 to 2^53 - 1 or a bigint below 2^64, not ${show(seed)}`)
}

function checkBias(bias: unknown, vocabSize: number): { ids: Int32Array; values: Float32Array } {
  if (bias === undefined) return { ids: new Int32Array(0), values: new Float32Array(0) }
  if (typeof bias !== 'object' || bias === null || Array.isArray(bias)) {
    throw badOption('logitBias', `must be an object from token ids to numbers, not ${show(bias)}`)
  }
  const entries = Object.entries(bias)
  for (const [key, value] of entries) {
    if (!/^(0|[1-9]\d{0,9})$/.test(key) || Number(key) >= vocabSize) {
      throw badOption('logitBias', `${show(key)} is not a token id below ${vocabSize}`)
    }
    if (!(typeof value === 'number' && Math.abs(value) <= 1000)) {
      throw badOption('logitBias', `the bias of token ${key} must be a number from -1000 to 1000, not ${show(value)}`)
    }
  }
  return {
    ids: Int32Array.from(entries, ([key]) => Number(key)),
    values: Float32Array.from(entries, ([, value]) => value as number),
  }
}

function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 40))
  if (Array.isArray(value)) return 'an array'
  return typeof value === 'object' && value !== null ? 'an object' : String(value)
}

export class Sampler {
  readonly #options: CheckedSampling
  readonly #random: Random
  /** the number drawn for this token, kept while all candidates are fetched */
  #draw: number | undefined

  constructor(options: CheckedSampling) {
    this.#options = options
    this.#random = new Random(options.seed)
  }

  get seed(): number | bigint {
    return this.#options.seed
  }

  /**
   * What to ask native code for after these tokens. `all` after `sample` could not tell from a first shortlist.
   */
  shortlist(tokens: Int32Array, all = false): NativeShortlist {
    const options = this.#options
    const counts = this.#penalised(tokens)
    return {
      k: all ? options.vocabSize : candidatesNeeded(options),
      penalty_ids: Int32Array.from(counts.keys()),
      penalty_counts: Int32Array.from(counts.values()),
      repeat_penalty: options.repeatPenalty,
      presence_penalty: options.presencePenalty,
      frequency_penalty: options.frequencyPenalty,
      bias_ids: options.biasIds,
      bias_values: options.biasValues,
    }
  }

  /**
   * The index of the chosen candidate; -1 when tokens beyond the shortlist could be chosen or change the choice: then
   * ask for all, and the choice is made with the same random number.
   * @throws OnebitError ERR_BAD_LOGITS when the best logit is not a finite number
   */
  sample(candidates: Candidates): number {
    const { temperature, topK, vocabSize } = this.#options
    const { logits } = candidates
    const best = logits[0]
    if (best === undefined || !Number.isFinite(best) || Number.isNaN(candidates.logSumExp)) {
      throw new OnebitError('ERR_BAD_LOGITS', `The model's best logit is ${best}: no token can be chosen.`, {
        hint: 'The weights or the logit bias hold values that are not numbers.',
      })
    }
    if (temperature === 0 || topK === 1) return 0
    this.#draw ??= this.#random.fraction()
    const wanted = topK > 0 ? Math.min(topK, vocabSize) : vocabSize
    const weights = weightsOf(logits, Math.min(wanted, logits.length), temperature)
    const beyond = wanted <= logits.length ? 0 : this.#massBeyond(weights, candidates)
    const chosen = choose(weights, beyond, this.#options, this.#draw)
    if (chosen >= 0) this.#draw = undefined
    return chosen
  }

  #penalised(tokens: Int32Array): Map<number, number> {
    const { repeatPenalty, repeatLastN, presencePenalty, frequencyPenalty } = this.#options
    const counts = new Map<number, number>()
    if (repeatPenalty === 1 && presencePenalty === 0 && frequencyPenalty === 0) return counts
    for (const id of tokens.subarray(Math.max(0, tokens.length - repeatLastN))) {
      counts.set(id, (counts.get(id) ?? 0) + 1)
    }
    return counts
  }

  /**
   * Bounds for the weights of all tokens beyond the shortlist. At temperature 1 the log-sum-exp tells their sum; below
   * it each shrinks at least as much as the last candidate, above it none is above the last candidate.
   */
  #massBeyond(weights: Float64Array, { logits, logSumExp }: Candidates): number | Bounds {
    const { temperature, vocabSize } = this.#options
    const last = weights.length - 1
    const most = (vocabSize - weights.length) * weights[last]!
    if (temperature > 1) return { low: 0, high: most }
    const plain = temperature === 1 ? weights : weightsOf(logits, weights.length, 1)
    // The difference is what rounding leaves of it, down to nothing.
    const mass = Math.max(0, expPositive(logSumExp - logits[0]!) - sum(plain))
    if (temperature === 1) return Math.min(mass, most)
    const shrink = expNegative((logits[last]! - logits[0]!) * (1 / temperature - 1))
    // Rounding of the log-sum-exp (a float's) may hide a little mass.
    return { low: 0, high: Math.min(most, (mass + 1e-6 * sum(plain)) * shrink) }
  }
}

interface Bounds {
  low: number
  high: number
}

/** How many candidates the first shortlist has: enough by the options, or nearly always enough. */
export function candidatesNeeded(options: CheckedSampling): number {
  const { temperature, topK, vocabSize } = options
  if (temperature === 0) return 1
  return Math.min(topK > 0 ? topK : SHORTLIST, vocabSize)
}

/** exp((logit - best) / temperature), the first being 1 */
function weightsOf(logits: Float32Array, count: number, temperature: number): Float64Array {
  const weights = new Float64Array(count)
  for (let i = 0; i < count; i++) weights[i] = expNegative((logits[i]! - logits[0]!) / temperature)
  return weights
}

/** The index that both ends of the bounds lead to, or -1 when they disagree or it lies beyond the weights. */
function choose(weights: Float64Array, beyond: number | Bounds, options: CheckedSampling, draw: number): number {
  if (typeof beyond === 'number') return chooseWith(weights, beyond, options, draw)
  const low = chooseWith(weights, beyond.low, options, draw)
  return low >= 0 && low === chooseWith(weights, beyond.high, options, draw) ? low : -1
}

function chooseWith(weights: Float64Array, beyond: number, { topP, minP }: CheckedSampling, draw: number): number {
  let kept = weights.length
  let mass = sum(weights)
  let rest = beyond
  if (topP < 1) {
    const target = topP * (mass + beyond)
    if (target <= mass) {
      kept = countReaching(weights, target)
      mass = sum(weights.subarray(0, kept))
      rest = 0
    }
    // Otherwise all candidates are in, and how many of those beyond cannot be told: min-p may still cut them off.
  }
  if (minP > 0 && weights[kept - 1]! < minP) {
    while (weights[kept - 1]! < minP) kept--
    mass = sum(weights.subarray(0, kept))
    rest = 0
  }
  // Where top-p or min-p ends beyond the shortlist, the total is not known, only that it is at most all of it.
  if (rest > 0 && (topP < 1 || minP > 0)) return -1
  const target = draw * (mass + rest)
  let total = 0
  for (let i = 0; i < kept; i++) {
    total += weights[i]!
    if (total > target) return i
  }
  return rest > 0 ? -1 : lastPossible(weights, kept)
}

/** How many of the first weights it takes to reach this sum. */
function countReaching(weights: Float64Array, target: number): number {
  let total = 0
  for (let i = 0; i < weights.length; i++) {
    total += weights[i]!
    if (total >= target) return i + 1
  }
  return weights.length
}

/** Only rounding leads past the end: the last token that has any probability. */
function lastPossible(weights: Float64Array, kept: number): number {
  let index = kept - 1
  while (index > 0 && weights[index] === 0) index--
  return index
}

function sum(weights: Float64Array): number {
  let total = 0
  for (const weight of weights) total += weight
  return total
}

const LN2_HIGH = 0.6931471803691238 // the upper 33 bits of ln 2: k * LN2_HIGH is exact
const LN2_LOW = 1.9082149292705877e-10
/** Taylor's series of exp; |r| <= 0.35, so the terms from the 14th on are below 2^-54. */
const INVERSE_FACTORIALS = [
  1,
  1,
  1 / 2,
  1 / 6,
  1 / 24,
  1 / 120,
  1 / 720,
  1 / 5040,
  1 / 40320,
  1 / 362880,
  1 / 3628800,
  1 / 39916800,
  1 / 479001600,
  1 / 6227020800,
]
const scale = new Float64Array(1)
const scaleWords = new Int32Array(scale.buffer)
const HIGH_WORD = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1 ? 1 : 0

/**
 * exp(x) for x <= 0, to within a few units of the last place: Math.exp may be compiled with fused multiplications on
 * some machines and differ in the last bit. Below -708 the result is 0.
 */
export function expNegative(x: number): number {
  if (x >= 0) return 1
  if (!(x > -708)) return 0
  const k = Math.round(x * Math.LOG2E)
  const r = x - k * LN2_HIGH - k * LN2_LOW
  let series = 0
  for (let n = INVERSE_FACTORIALS.length - 1; n >= 0; n--) series = series * r + INVERSE_FACTORIALS[n]!
  scaleWords[HIGH_WORD] = (k + 1023) << 20
  return series * scale[0]!
}

function expPositive(x: number): number {
  return x <= 0 ? expNegative(x) : 1 / expNegative(-x)
}

/** xoshiro128** (Blackman and Vigna, prng.di.unimi.it): four 32-bit integers of state. */
class Random {
  readonly #state = new Uint32Array(4)

  constructor(seed: number | bigint) {
    const whole = BigInt(seed)
    const low = Number(whole & 0xffffffffn)
    const high = Number(whole >> 32n)
    // One hash of both halves per word, so that neighbouring seeds have nothing in common.
    for (let i = 0; i < 4; i++) this.#state[i] = mix(mix(low + Math.imul(i + 1, 0x9e3779b9)) ^ (high + i))
    if (this.#state.every((word) => word === 0)) this.#state[0] = 1
  }

  /** a multiple of 2^-53 in [0, 1) */
  fraction(): number {
    const high = this.#next() >>> 5
    const low = this.#next() >>> 6
    return (high * 2 ** 26 + low) * 2 ** -53
  }

  #next(): number {
    const s = this.#state
    const times5 = Math.imul(s[1]!, 5)
    const result = Math.imul((times5 << 7) | (times5 >>> 25), 9) >>> 0
    const shifted = s[1]! << 9
    s[2]! ^= s[0]!
    s[3]! ^= s[1]!
    s[1]! ^= s[2]!
    s[0]! ^= s[3]!
    s[2]! ^= shifted
    s[3] = (s[3]! << 11) | (s[3]! >>> 21)
    return result
  }
}

/** The finalizer of MurmurHash3 (Appleby): every bit of the input reaches every bit of the output. */
function mix(value: number): number {
  let hash = value | 0
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
