/** What loading gives, from whatever file. */
import type { ModelConfig } from '../config/config.js'
import { nativeConfig, nativeKinds } from '../config/native-config.js'
import { OnebitError } from '../errors.js'
import type { NativeModel, NativeModelOptions } from '../native/native.js'
import type { FoundHeader, Provenance } from '../obt/obt.js'
import type { ChatTemplate } from '../text/chat-template.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { KvType } from './kv.js'
import { ACTIVATIONS, type Activations, type CheckedModelOptions, DEFAULT_CONTEXT } from './model-options.js'

/** What was loaded and how it runs. */
export interface ModelInfo {
  /** of what was loaded, as it was given; of a model that was named, where it lies in the cache */
  readonly path: string
  /** where the model comes from, such as llama */
  readonly architecture: string
  /** of the whole file */
  readonly fileBytes: number
  /** of the weights in memory, in the layout of the instruction set */
  readonly weightBytes: number
  /** the instruction set that computes, such as avx2 */
  readonly isa: string
  /** threads that compute */
  readonly threads: number
  /** what sign matrices multiply */
  readonly activations: Activations
  /** numbers in the KV cache of a session unless it asks for others */
  readonly kv: KvType
  /** positions of a session unless it asks for others; without the `context` option the model's own, at most 32,768 */
  readonly context: number
  /** where the model came from, as its file says */
  readonly provenance: Provenance
  /**
   * What names the model: SHA-256 of the file's header, which holds the config and a checksum of every tensor; 64
   * hexadecimal digits. A saved session belongs to the model of one identity.
   */
  readonly identity: string
}

/** Everything that a model is made of. */
export interface LoadedModel {
  native: NativeModel
  config: ModelConfig
  info: ModelInfo
  tokenizer: Tokenizer | undefined
  chatTemplate: ChatTemplate | undefined
}

/** How native code is to make a model. */
export function nativeModelOptions(
  config: ModelConfig,
  options: Pick<CheckedModelOptions, 'activations' | 'threads' | 'isa' | 'memoryLimit'>,
): NativeModelOptions {
  return {
    config: nativeConfig(config),
    kinds: nativeKinds(config),
    activations: ACTIVATIONS.indexOf(options.activations) as 0 | 1 | 2,
    threads: options.threads ?? 0,
    isa: options.isa,
    memory_limit: options.memoryLimit ?? 0,
  }
}

/**
 * Before anything is read.
 * @param what the weights, in words
 * @throws OnebitError ERR_MEMORY_LIMIT
 */
export function checkMemoryLimit(what: string, bytes: number, limit: number | undefined): void {
  if (limit === undefined || bytes <= limit) return
  throw new OnebitError('ERR_MEMORY_LIMIT', `${what} take about ${bytes} bytes, the limit is ${limit}`, {
    hint: 'Raise `memoryLimit`, or use a smaller model.',
  })
}

/** What of a model's info follows from its options and from what was loaded. */
export function describeModel(
  native: NativeModel,
  header: Pick<FoundHeader, 'config' | 'provenance' | 'fileBytes' | 'path' | 'identity'>,
  options: Pick<CheckedModelOptions, 'activations' | 'kv' | 'context'>,
): ModelInfo {
  const { config, path, fileBytes, provenance } = header
  return Object.freeze({
    path,
    architecture: config.architecture,
    fileBytes,
    weightBytes: native.weightBytes,
    isa: native.isa,
    threads: native.threads,
    activations: options.activations,
    kv: options.kv,
    context: options.context ?? Math.min(config.context_length, DEFAULT_CONTEXT),
    provenance,
    get identity() {
      return header.identity // computed when it is asked for
    },
  })
}
