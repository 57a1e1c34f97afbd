/** What can be asked of a session, and what it answers. */
import { likeliestOption, optionFields, signalOption } from '../options.js'
import type { ChatMessage } from '../text/chat-template.js'
import type { GenerationSummary, TokenLogprob } from './generation.js'
import type { KvType } from './kv.js'

/** What `model.createSession` is told. */
export interface SessionOptions {
  /** positions, 1 to those of the model; default: the model's `context` option */
  context?: number
  /** numbers in the KV cache; default: the model's `kv` option */
  kv?: KvType
}

/**
 * What a generation starts from. A text or ids continue the session; in a text special tokens are parsed, and BOS
 * comes first at position 0 if the tokenizer says so. Messages are rendered with the chat template and replace what
 * the session holds; what both have in common is not computed again.
 */
export type Prompt = string | readonly number[] | Int32Array | readonly ChatMessage[]

/** A whole answer. */
export interface Completion extends GenerationSummary {
  /** what is meant for the reader */
  text: string
  /** what the model thought before, where its chat template says that it thinks */
  reasoning?: string
  /** its tokens, those of the thinking included; a stop token is none of them */
  ids: number[]
  /** with `logprobs` or `topLogprobs`: one per id, natural logarithms */
  logprobs?: number[]
  /** with `topLogprobs`: for each id the likeliest tokens at its place, descending */
  topLogprobs?: TokenLogprob[][]
}

/** What `session.logits` is told. */
export interface LogitsOptions {
  /** logits after every id instead of after the last one; default false */
  all?: boolean
  /** tokens computed at once, at most 256; default, and with 0: as many as take about 100 ms */
  chunk?: number
  /** stops within a chunk; the call rejects with the signal's reason */
  signal?: AbortSignal
}

/** (rows, columns) numbers, row-major */
export interface Logits {
  /** 1, or with `all` as many as there were ids */
  rows: number
  /** the size of the vocabulary */
  columns: number
  /** data[row * columns + id]: before temperature, penalties and bias */
  data: Float32Array
}

/** What `session.score` is told. */
export interface ScoreOptions {
  /** how many of the likeliest tokens to give per position, at most 100; default 0 */
  top?: number
  /** stops within a chunk; the call rejects with the signal's reason */
  signal?: AbortSignal
}

/** How likely each of some tokens is. */
export interface Scores {
  /** logprobs[i]: natural logarithm of the probability of ids[i] given everything before it; NaN for the first token of an empty session */
  logprobs: Float32Array
  /** top[i]: the likeliest tokens where ids[i] is, descending; empty where unknown. Empty without `top`. */
  top: TokenLogprob[][]
}

/** What `session.save` is told. */
export interface SaveOptions {
  /** text to keep in the file, up to 2^19 characters: `session.extra` of the session that is restored from it */
  extra?: string
  /** stops the writing; what was there stays */
  signal?: AbortSignal
}

/** What `Session.restore` is told. */
export interface RestoreOptions extends SessionOptions {
  /** stops the reading; it rejects with the signal's reason */
  signal?: AbortSignal
}

/** @throws OnebitError ERR_BAD_OPTION */
export function checkScoreOptions(options: ScoreOptions | undefined, vocabSize: number) {
  const fields = optionFields('options', options, ['top', 'signal'])
  return { top: likeliestOption(fields, 'top', vocabSize), signal: signalOption(fields) }
}
