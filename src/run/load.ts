/** Loading a `.obt` file: the header, then the weights on the native thread while the text's parts are built here. */
import type { ModelConfig } from '../config/config.js'
import { nativeConfig, nativeKinds, nativeTensors } from '../config/native-config.js'
import { OnebitError } from '../errors.js'
import { isForeignModel } from '../import/foreign-model.js'
import { addon } from '../native/addon.js'
import type { NativeLoadOptions, NativeModel } from '../native/native.js'
import { type FoundHeader, type ObtHeader, type Provenance, readBlob, readObtHeader, withPath } from '../obt/obt.js'
import type { ChatTemplate } from '../text/chat-template.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { KvType } from './kv.js'
import {
  ACTIVATIONS,
  type Activations,
  type CheckedModelOptions,
  checkContext,
  checkModelOptions,
  DEFAULT_CONTEXT,
} from './model-options.js'

/** What was loaded and how it runs. */
export interface ModelInfo {
  readonly path: string
  /** where the model comes from, such as llama */
  readonly architecture: string
  /** of the whole file */
  readonly fileBytes: number
  /** of the weights in memory, in the layout of the instruction set */
  readonly weightBytes: number
  readonly isa: string
  readonly threads: number
  readonly activations: Activations
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

/** What of a model's info follows from its options and from what was loaded. */
export function describeModel(
  native: NativeModel,
  header: Pick<FoundHeader, 'config' | 'provenance' | 'fileBytes' | 'path' | 'identity'>,
  options: Pick<CheckedModelOptions, 'activations' | 'kv' | 'context'>,
): ModelInfo {
  const { config, path, fileBytes, provenance, identity } = header
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
    identity,
  })
}

function checkMemory(fileBytes: number, limit: number | undefined): void {
  if (limit === undefined || fileBytes <= limit) return
  throw new OnebitError('ERR_MEMORY_LIMIT', `The weights take about ${fileBytes} bytes, the limit is ${limit}`, {
    hint: 'Raise `memoryLimit`, or use a smaller model.',
  })
}

/** Reads and repacks the weights on the native thread; `signal` and a throwing onProgress stop it. */
async function loadWeights(header: ObtHeader & { path: string }, options: CheckedModelOptions): Promise<NativeModel> {
  const { path } = header
  const { signal, onProgress } = options
  const cancel = new (addon().Cancel)()
  const onAbort = () => cancel.cancel()
  let failure: { error: unknown } | undefined
  const settings: NativeLoadOptions = {
    path,
    file_bytes: header.fileBytes,
    config: nativeConfig(header.config),
    kinds: nativeKinds(header.config),
    tensors: nativeTensors(header.tensors),
    activations: ACTIVATIONS.indexOf(options.activations) as 0 | 1 | 2,
    threads: options.threads ?? 0,
    isa: options.isa,
    memory_limit: options.memoryLimit ?? 0,
    cancel,
  }
  if (onProgress) {
    settings.onProgress = (done) => {
      try {
        if (!failure) onProgress(done, header.fileBytes)
      } catch (error) {
        failure = { error }
        cancel.cancel()
      }
    }
  }
  signal?.addEventListener('abort', onAbort)
  try {
    const native = await addon().loadModel(settings)
    settings.onProgress?.(header.fileBytes)
    if (!failure && !signal?.aborted) return native
    void native.dispose()
  } catch (error) {
    if (!failure && !signal?.aborted) throw withPath(error, path)
  } finally {
    signal?.removeEventListener('abort', onAbort)
  }
  throw failure ? failure.error : signal!.reason
}

/** What text needs; read and built, and its modules are loaded, while the native thread loads the weights. */
async function loadText(header: ObtHeader & { path: string }) {
  const modules = Promise.all([import('../text/tokenizer.js'), import('../text/chat-template.js')])
  modules.catch(() => {}) // an error of reading comes first
  const tokenizerBytes = await readBlob(header, 'tokenizer')
  const templateBytes = await readBlob(header, 'chat_template')
  const [{ Tokenizer }, { ChatTemplate }] = await modules
  const tokenizer = tokenizerBytes && (await Tokenizer.load(tokenizerBytes))
  return { tokenizer, chatTemplate: templateBytes && ChatTemplate.fromBytes(templateBytes) }
}

/** @throws OnebitError as Model.load, and the signal's reason */
export async function loadModel(path: string, options: unknown): Promise<LoadedModel> {
  const checked = checkModelOptions(options)
  checked.signal?.throwIfAborted()
  addon() // that it is missing is not the file's fault
  if (await isForeignModel(path)) {
    // Importers are not needed for most models, whose first token should come soon.
    const { loadDirectly } = await import('./load-directly.js')
    return loadDirectly(path, checked)
  }
  const header = await readObtHeader(path)
  checked.signal?.throwIfAborted()
  checkContext(checked.context ?? 1, header.config)
  checkMemory(header.fileBytes, checked.memoryLimit)
  const stop = new AbortController()
  const signal = checked.signal ? AbortSignal.any([checked.signal, stop.signal]) : stop.signal
  const weights = loadWeights(header, { ...checked, signal })
  const text = loadText(header)
  text.catch((error) => stop.abort(error))
  const native = await weights
  try {
    return { native, config: header.config, info: describeModel(native, header, checked), ...(await text) }
  } catch (error) {
    void native.dispose()
    throw error
  }
}
