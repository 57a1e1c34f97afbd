/** What can be asked of a model, and the checks of it. */
import type { ModelConfig } from '../config/config.js'
import { LIMITS } from '../config/limits.js'
import { badOption } from '../errors.js'
import {
  booleanOption,
  choiceOption,
  functionOption,
  integerOption,
  optionFields,
  signalOption,
  stringOption,
} from '../options.js'
import { KV_TYPES, type KvType } from './kv.js'

/** In the order of the native enumeration. */
export const ACTIVATIONS = ['int8', 'f32', 'int4'] as const satisfies readonly Activations[]

/**
 * What sign matrices multiply. `int8`: activations rounded to 8 bits, one scale a token. `int4`: to 4 bits, about twice as
 * fast where arithmetic is the limit (prefill, batches), at a loss that only models trained for it forgive. `f32`: floats,
 * slow, for comparing with other implementations. Dense int8 rows (the head, say) round to 8 bits in both integer modes.
 */
export type Activations = 'int8' | 'f32' | 'int4'

/** What `Model.load` is told. A wrong value, or a name that is not here, is ERR_BAD_OPTION before anything is read. */
export interface ModelOptions {
  /** threads that compute, 1 to 256; default: the physical cores this process may use */
  threads?: number
  /** positions of a session unless it asks for others; default: all that the model allows, at most 32,768 */
  context?: number
  /** what sign matrices multiply; default int8 */
  activations?: Activations
  /** numbers in the KV cache of a session unless it asks for others; default f16 */
  kv?: KvType
  /**
   * instruction set to use: scalar, avx2, avxvnni, avx512, avx512vnni, neon or neondot (`onebit doctor` lists those of a machine);
   * default: ONEBIT_ISA from the environment, or the best there is. None changes the results.
   */
  isa?: string
  /** bytes that the weights and all sessions may take together; default: no limit */
  memoryLimit?: number
  /**
   * MiB that states of recurrent layers may take where sessions can go back to, in all sessions of the model together; default
   * 256. With less, going back takes longer; models without such layers take nothing.
   */
  checkpointMiB?: number
  /**
   * of a model that is no `.obt` file: read all of its files for their SHA-256, which then stands in its provenance and makes
   * its identity; default false. A `.obt` file's checksums are always compared.
   */
  verify?: boolean
  /**
   * a smaller model of the same vocabulary, as `path` names one: where what was said gives no guess of what follows, it does (see
   * `speculate` of a generation), and the text is the same. It reads each prompt too, in a session of its own beside each one that
   * generates; is loaded with the same options, and disposed with the model
   */
  draft?: string
  /** called now and then, first while a model that was named by `hf:` comes, then while its weights are read */
  onProgress?: (doneBytes: number, totalBytes: number, doing: 'downloading' | 'loading') => void
  /** stops the loading; it rejects with the signal's reason */
  signal?: AbortSignal
}

export const MODEL_OPTION_NAMES: readonly (keyof ModelOptions)[] = [
  'threads',
  'context',
  'activations',
  'kv',
  'isa',
  'memoryLimit',
  'checkpointMiB',
  'verify',
  'draft',
  'onProgress',
  'signal',
]

/**
 * Positions of a session at most, unless more are asked for: models that allow hundreds of thousands would fill many
 * gigabytes with each session. It does not depend on the memory of the machine, so that the same call means the same
 * everywhere.
 */
export const DEFAULT_CONTEXT = 32768

export const DEFAULT_CHECKPOINT_MIB = 256

/** @throws OnebitError ERR_BAD_OPTION */
export function checkModelOptions(options: unknown) {
  const fields = optionFields('options', options, MODEL_OPTION_NAMES)
  return {
    threads: integerOption(fields, 'threads', 1, 256),
    context: integerOption(fields, 'context', 1, LIMITS.context),
    activations: choiceOption(fields, 'activations', ACTIVATIONS) ?? ('int8' as const),
    kv: choiceOption(fields, 'kv', KV_TYPES) ?? ('f16' as const),
    isa: stringOption(fields, 'isa') ?? process.env.ONEBIT_ISA ?? '',
    memoryLimit: integerOption(fields, 'memoryLimit', 1, Number.MAX_SAFE_INTEGER),
    checkpointMiB: integerOption(fields, 'checkpointMiB', 0, 1 << 20) ?? DEFAULT_CHECKPOINT_MIB,
    verify: booleanOption(fields, 'verify') ?? false,
    draft: stringOption(fields, 'draft'),
    onProgress: functionOption<NonNullable<ModelOptions['onProgress']>>(fields, 'onProgress'),
    signal: signalOption(fields),
  }
}

export type CheckedModelOptions = ReturnType<typeof checkModelOptions>

/** A number of positions that the model has. @throws OnebitError ERR_BAD_OPTION */
export function checkContext(context: number, config: ModelConfig): number {
  if (context <= config.context_length) return context
  throw badOption('context', `${context} is more than the ${config.context_length} positions of the model`)
}
