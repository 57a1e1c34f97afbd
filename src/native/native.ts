/**
 * The shape of the native addon (binding/napi/*.cpp) as TypeScript sees it; src/native/addon.ts loads it. Everything native
 * that takes long returns a promise and runs on the addon's own thread. Errors are OnebitErrors; an argument of the
 * wrong type or out of range is a TypeError with the code ERR_BAD_ARGUMENT, thrown at once. Arguments are copied:
 * changing an array after the call changes nothing.
 */
import type { NativeConfig, NativeKinds, NativeTensors } from '../config/native-config.js'

/** What a model is, and how it runs, wherever its numbers come from. */
export interface NativeModelOptions {
  config: NativeConfig
  kinds: NativeKinds
  activations: 0 | 1 | 2 // int8, f32, int4
  /** 0: default_threads() */
  threads: number
  /** ONEBIT_ISA's value, or '' */
  isa: string
  /** bytes that the weights and the sessions of this model may take together; 0: no limit */
  memory_limit: number
}

export interface NativeLoadOptions extends NativeModelOptions {
  path: string
  file_bytes: number
  tensors: NativeTensors
  cancel?: NativeCancel
  /** called now and then on the JavaScript thread; must not throw */
  onProgress?: (doneBytes: number) => void
}

/** Tensors as files of other formats hold them; in each list one for each. */
export interface NativeStoredTensors {
  paths: readonly string[]
  /** our names of vectors and matrices, each on a line: layers.0.wq, layers.0.wq.bias, norm */
  names: string
  /** their names, for messages, each on a line */
  labels: string
  /** SourceType, each on a line */
  types: string
  /** which of the paths */
  files: Int32Array
  /** of the first row, in bytes */
  offsets: Float64Array
}

/** A model whose numbers come from here, in the forms that a .obt file has them in. Made by fillModel(). */
export interface NativeFilling {
  /**
   * The next bytes of a tensor; those of one come in order, and it must be whole before another begins. Copied; placed on
   * the native thread. After an error everything else is one. ERR_TENSOR_TABLE, ERR_TENSOR_SIZE, ERR_NOT_FINITE,
   * ERR_DISPOSED.
   */
  write(name: string, bytes: Uint8Array): Promise<void>
  /**
   * Reads whole tensors from their files and converts them on all threads: floats of any type for vectors and dense
   * matrices, q1_0 for signs with group scales. ERR_TENSOR_TABLE for what cannot be made so or is there already,
   * ERR_NOT_FINITE, ERR_TRUNCATED, ERR_READ, ERR_ABORTED, ERR_DISPOSED.
   */
  convert(
    options: NativeStoredTensors & { cancel?: NativeCancel; onProgress?: (doneBytes: number) => void },
  ): Promise<void>
  /** Every tensor is whole: the model. Once. ERR_TENSOR_TABLE, ERR_DISPOSED. */
  finish(): Promise<NativeModel>
  /** Any number of times. */
  dispose(): void
}

export interface NativeRandomOptions extends NativeModelOptions {
  /** the same seed gives the same weights on every machine, instruction set and thread count; 0 to 2^53 - 1 */
  seed: number
  cancel?: NativeCancel
}

export type ProbeName = 'dram' | 'int8' | 'lookup' | 'f32'

export interface NativePeakOptions {
  /** 0: default_threads() */
  threads: number
  /** ONEBIT_ISA's value, or '' */
  isa: string
  /** how much is read in one pass over DRAM; at least 2^20. Default 2^30; less may fit into a cache. */
  dram_bytes?: number
  /** default: all */
  what?: ProbeName[]
  cancel?: NativeCancel
}

/** What this machine can do with `threads` threads: the best of several repetitions. Absent: not asked for. */
export interface Peaks {
  isa: string
  /** how many were had */
  threads: number
  /** 10^9 bytes per second: the best of `dram` */
  dram_gbps?: number
  /** every way of reading that was tried; huge: 2 MB pages where the system gives them, small: 4 KB pages */
  dram?: { pages: 'small' | 'huge'; loop: 'plain' | 'prefetch_near' | 'prefetch_both'; gbps: number }[]
  /** 10^9 int8 multiply-adds per second, operands in registers */
  int8_peak_gmacs?: number
  /** 10^9 weights x tokens per second of the best sign product with weights, indices and tables in the first-level cache */
  lookup_peak_gws?: number
  /** 10^9 f32 multiply-adds per second, operands in registers */
  f32_peak_gmacs?: number
}

/** Stops the work it was given to: a load, or steps between two layers. Made by `new addon.Cancel()`. */
export interface NativeCancel {
  /** for good; any number of times */
  cancel(): void
  readonly cancelled: boolean
}

/** Penalties and bias change logits before anything else looks at them. */
export interface NativeSamplerOptions {
  vocab_size: number
  /** 0: the likeliest always */
  temperature: number
  /** 0: all */
  top_k: number
  top_p: number
  min_p: number
  /** candidates that are looked at first; where they cannot tell, all are */
  first: number
  /** how many recent tokens the penalties look at; 0: there are no penalties */
  repeat_last_n: number
  repeat_penalty: number
  presence_penalty: number
  frequency_penalty: number
  bias_ids: Int32Array
  bias_values: Float32Array
  /** the tokens before the first choice; the last repeat_last_n are enough */
  recent: Int32Array
  /** 32 bits each */
  seed_low: number
  seed_high: number
  /**
   * What follows is guessed from `said`, all tokens so far, at most `most` (1 to 32) tokens at a time, and computed together with the
   * token before; what is chosen is the same. `always`: whether that pays or not. `draft`: a session of a small model
   * of this vocabulary, without states, which guesses where `said` has nothing: it holds a beginning of
   * `said`, and does so again behind each call of generate(). Where it is disposed or in use it guesses nothing.
   */
  guesses?: { said: Int32Array; most: number; always: boolean; draft?: NativeSession | undefined } | undefined
}

/** Chooses tokens; what it chose is among the recent ones from then on. Made by `new addon.Sampler(options)`. */
export interface NativeSampler {
  /**
   * From the logits of the whole vocabulary, here and now. ERR_BAD_LOGITS when no token can be chosen, ERR_BUSY.
   */
  choose(logits: Float32Array): { id: number; logprob: number; candidates: number /* that were looked at */ }
  /** The consumer of a generation's tokens has taken one more. */
  took(): void
  /**
   * Which tokens may be chosen from now on: a bit for each id, vocab_size / 32 words rounded up; undefined: all. Copied.
   * ERR_BUSY. Without any allowed token the next choice is ERR_BAD_LOGITS.
   */
  allow(mask: Int32Array | undefined): void
  /**
   * What may be chosen is still being found out: the next choice waits for `allow`, which may come while a job has the
   * sampler. It waits for 20 ms at most, then the job fails with ERR_HELD, its tokens being computed. ERR_BUSY.
   */
  hold(): void
}

export interface NativeStepItem {
  session: NativeSession
  tokens: Int32Array
  /** logits of the last token, or of all, copied out; none otherwise */
  logits: 0 | 1 | 2 // none last all
  /** chooses what follows the last token */
  sampler?: NativeSampler
  /** a text ends with the last token, and something else will follow: a recurrent state is kept near it; default: with a sampler */
  ends?: boolean
  /**
   * Score mode. Row i is about what follows tokens[from + i]: log p of the next of `tokens`, or of `next` after the
   * last one (-1: unknown), and the `top` most likely tokens. Only the rows from `from` on are computed.
   */
  score?: { from: number; top: number; next: number }
  /** hidden states after the final norm: the last token's, or the sum over all tokens (in double, in their order) */
  hidden?: 0 | 1 | 2 // none last sum
}

export interface NativeStepResult {
  /** tokens now in the cache that came from this item (fewer than given only when cancelled) */
  processed: number
  /** how long the native thread took for the whole step; the rest of the wait was the way there and back */
  stepMs: number
  /** rows x vocab_size */
  logits?: Float32Array
  /** (dim), when all tokens were processed */
  hidden?: Float64Array
  /** with a sampler, when all tokens were processed: what follows, and how likely the model itself found it */
  id?: number
  logprob?: number
  /**
   * One row per processed token from `from` on; a log-probability is NaN where the next token is unknown. All of
   * them are the f32 nearest to (raw logit - rawLogSumExp), so equal things have equal bits.
   */
  scores?: { logprobs: Float32Array; top_ids: Int32Array /* rows x top */; top_logprobs: Float32Array }
}

export interface NativeGeneration {
  session: NativeSession
  tokens: Int32Array
  /** chooses what follows; without it the tokens are computed and nothing else */
  sampler?: NativeSampler
  /** tokens to choose, at most */
  most?: number
  /** the choice of one of these is the last */
  stop_tokens?: Int32Array
  /** how many of the likeliest tokens to tell beside each */
  top?: number
}

/** A token was chosen; `ms` is what the native thread took for it. Must not throw. */
export interface NativeGenerated {
  behind: boolean
  steps: number
}

export type OnToken = (
  id: number,
  logprob: number,
  ms: number,
  top_ids: Int32Array | undefined,
  top_logprobs: Float32Array | undefined,
) => void

export interface NativeModel {
  readonly weightBytes: number
  readonly isa: string
  readonly threads: number
  /** what checkpoints of its sessions may take in all, in bytes; they have less where the memory limit leaves less */
  limitCheckpoints(bytes: number): void
  /** what they take */
  readonly checkpointBytes: number
  /** ERR_OUT_OF_MEMORY, ERR_MEMORY_LIMIT, ERR_DISPOSED */
  createSession(capacity: number, kv: 0 | 1 | 2 /* f16 f32 int8 */): NativeSession
  /** Disposes its sessions too; resolves when no step uses it and the memory is free. Any number of times. */
  dispose(): Promise<void>
  readonly disposed: boolean
}

/** Every method but dispose() is ERR_BUSY while a step has the session, and ERR_DISPOSED afterwards. */
export interface NativeSession {
  /** positions in the cache; 0 when disposed. May be read while busy: the length before the step. */
  readonly length: number
  readonly capacity: number
  /** of the cache when it is full */
  readonly bytes: number
  /** of the cache as it is: it grows by chunks of 256 positions. May be read while busy: from before the step. */
  readonly usedBytes: number
  /** of a chunk, and of the state of all layers that have one (0: there are none); 0 when disposed */
  readonly chunkBytes: number
  readonly stateBytes: number
  /**
   * Back to the first `length` positions; in a model whose layers have states, to as many of them as `reachable` says, and
   * `length` has to be looked at afterwards.
   */
  rewind(length: number): void
  /** how many of the first `length` positions a session can go back to, or be forked at */
  reachable(length: number): number
  /** Something ends where the session is now: a state is worth keeping when it goes on from there. */
  mark(): void
  /**
   * a new session with the first `length` positions, or with as many as are reachable, same capacity and kv type; copied off
   * the main thread
   */
  fork(length: number): Promise<NativeSession>
  /**
   * Bytes of one chunk of 256 positions as they lie in memory; positions from `length` on are zeros. The layout depends
   * on the model's config and the kv type only. Copied off the main thread.
   */
  readChunk(index: number): Promise<Uint8Array>
  /** The same back: chunks in order, from index 0 on, into an empty session; then `restored(length)`. */
  writeChunk(index: number, bytes: Uint8Array): Promise<void>
  /**
   * Positions, ascending, of the newest kept states, at most so many, and of the one there is now; empty where there are
   * none. From then on they can be read by their index in it, whatever is done with other sessions.
   */
  holdStates(most: number): Int32Array
  readState(index: number): Promise<Uint8Array>
  /** The same back after the chunks, in ascending order; the last must be at the length that `restored` is told. */
  writeState(length: number, bytes: Uint8Array): Promise<void>
  /** `length` positions are in the cache now; their chunks were written. */
  restored(length: number): void
  /** Stops the step under way between two layers; the memory is freed when it has ended. Any number of times. */
  dispose(): void
  readonly disposed: boolean
}

/** Floats, and GGUF's blocks by their names there; q2_0_g128: the older Q2_0, in groups of 128. */
export type SourceType =
  | 'f32'
  | 'f16'
  | 'bf16'
  | 'q8_0'
  | 'q4_0'
  | 'q4_1'
  | 'q1_0'
  | 'q5_0'
  | 'q5_1'
  | 'q2_k'
  | 'q3_k'
  | 'q4_k'
  | 'q5_k'
  | 'q6_k'
  | 'iq4_nl'
  | 'iq4_xs'
  | 'q2_0'
  | 'q2_0_g128'
  | 'tq1_0'
  | 'tq2_0'
  | 'ptq1_0'

/** Blocks of codes of -1, 0 and 1 with an f16 scale. */
export type TernaryBlocks = Extract<SourceType, 'q2_0' | 'q2_0_g128' | 'tq1_0' | 'tq2_0' | 'ptq1_0'>

export interface NativeAddon {
  /** how errors are made; called once by src/native/addon.ts */
  useErrors(create: (code: string, message: string) => Error): void
  Cancel: new () => NativeCancel
  Sampler: new (options: NativeSamplerOptions) => NativeSampler
  /** resolves when everything that was asked for before has ended; of a generation, its next token */
  idle(): Promise<void>
  /** isa: ONEBIT_ISA's value, or '' */
  info(isa?: string): {
    /** `runs`: the set of functions that a usable one is here, such as avx512vnni+avx2 on a Zen 4 */
    isas: { name: string; state: 'usable' | 'not_present' | 'not_built'; runs?: string }[]
    /** what would be chosen now, or the reason why nothing can be (ONEBIT_ISA) */
    chosen: string | null
    why: string | null
    default_threads: number
    compiler: string
  }
  /** whether tiles (the path amx) multiply as plain arithmetic does; null where there are none */
  checkTiles(): boolean | null
  loadModel(options: NativeLoadOptions): Promise<NativeModel>
  /** Reserves the memory of a model that is then written. ERR_CONFIG, ERR_ISA, ERR_OUT_OF_MEMORY. */
  fillModel(options: NativeModelOptions): Promise<NativeFilling>
  /** the names of NativeConfig's fields, as the addon reads them */
  configFields(): string[]
  /**
   * A model with random weights that no file holds, for measuring. ERR_CONFIG, ERR_ISA, ERR_MEMORY_LIMIT,
   * ERR_OUT_OF_MEMORY (also when the system would have to push other things out), ERR_ABORTED.
   */
  createRandomModel(options: NativeRandomOptions): Promise<NativeModel>
  /** ERR_ISA, ERR_OUT_OF_MEMORY, ERR_ABORTED. Takes a few seconds and all `threads`. */
  measurePeaks(options: NativePeakOptions): Promise<Peaks>
  /** bytes that can be had without swapping, control groups taken into account; 0: unknown on this system */
  availableMemory(): number
  /**
   * Runs all items as one batch, in chunks of bounded time (about 100 ms). `cancel` stops between layers; the promise
   * still resolves, with `processed` telling how far each item came. One step at a time per environment; later ones
   * queue. Errors found before anything is computed: ERR_BUSY, ERR_DISPOSED, ERR_TOKEN_RANGE, ERR_CONTEXT_FULL.
   * After any error session.length tells what is in the cache.
   */
  step(
    model: NativeModel,
    items: NativeStepItem[],
    options: { chunk: number /* tokens, at most 256; 0: chosen by time */; cancel?: NativeCancel },
  ): Promise<NativeStepResult[]>
  /**
   * Computes `tokens` in chunks as step() does, chooses what follows, computes that, and so on, taking turns with other
   * jobs after every token. The last token chosen is not computed. Tokens are told at once, or together when less than
   * 8 ms lie between them. Ends when `most` are chosen or a stop token is, when the session is full, on `cancel`, and when
   * `sampler.took()` was called for too few tokens: no more than 20 ms of work (and one step, at most 48 tokens and one step) lie
   * ahead of the consumer: then it was `behind`. `steps`: that were computed, fewer than tokens where guesses were right. Errors
   * as of step().
   */
  generate(
    model: NativeModel,
    item: NativeGeneration,
    options: { chunk: number; cancel?: NativeCancel; onToken: OnToken },
  ): Promise<NativeGenerated>
  crc32c(bytes: Uint8Array, crc: number): number
  /** `rows` rows of `cols` source elements to f32 (little-endian, row-major). Synchronous: give it pieces. */
  toF32(source: Uint8Array, type: SourceType, rows: number, cols: number): Float32Array
  /** f32 rows to another dense form. q8: data int8, scale = max|row| / 127. */
  fromF32(
    rows: Float32Array,
    type: 'f16' | 'bf16' | 'q8',
    n_rows: number,
    cols: number,
  ): { data: Uint8Array; scales?: Float32Array }
  /** f32 (or a source type) rows to official sign bits: bit 1 = -1, sign(0) = +1. cols % 8 == 0. */
  packSigns(rows: Float32Array, n_rows: number, cols: number): Uint8Array
  /** GGUF Q1_0 blocks to our two tensors: sign bits (inverted: bit 1 = -1) and f16 scales */
  splitQ1_0(source: Uint8Array, n_rows: number, cols: number): { sign: Uint8Array; scale: Uint16Array }
  /**
   * Ternary blocks to our two tensors: codes, four to a byte, and f16 scales. ERR_TERNARY_CODE where a code is 3,
   * ERR_NOT_FINITE.
   */
  splitTernary(
    source: Uint8Array,
    type: TernaryBlocks,
    n_rows: number,
    cols: number,
  ): { codes: Uint8Array; scale: Uint16Array }
  /** One code of each byte, at bits `shift`, to codes four to a byte. source: (n_rows, cols). ERR_TERNARY_CODE */
  gatherCodes(source: Uint8Array, shift: number, n_rows: number, cols: number): Uint8Array
  /** Blocks of I2_S to codes four to a byte; the rows begin at element `first` < 128 of source. ERR_TERNARY_CODE */
  i2sCodes(source: Uint8Array, first: number, n_rows: number, cols: number): Uint8Array
  /** rank-1 factorisation of |W|: W ~ sign(W) * (h gᵀ). Off the main thread, on all cores. */
  svid(
    w: Float32Array,
    rows: number,
    cols: number,
    options: { method: 'svd' | 'nmf'; split?: number /* |h| = sigma^split, 0..1; absent: as the method leaves it */ },
  ): Promise<{ sign: Uint8Array; g: Float32Array; h: Float32Array; relativeError: number }>
}
