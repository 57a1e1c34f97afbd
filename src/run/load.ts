import { nativeTensors } from '../config/native-config.js'
import { isModelAddress } from '../hub/model-address.js'
import { isForeignModel } from '../import/foreign-model.js'
import { addon } from '../native/addon.js'
import type { NativeLoadOptions, NativeModel } from '../native/native.js'
import { nativePath } from '../native/native-path.js'
import { type ObtHeader, type OpenObt, openObt, withPath } from '../obt/obt.js'
import { checkMemoryLimit, describeModel, type LoadedModel, nativeModelOptions } from './loaded-model.js'
import { type CheckedModelOptions, checkContext, checkModelOptions } from './model-options.js'

/** Reads and repacks the weights on the native thread; `signal` and a throwing onProgress stop it. */
async function loadWeights(header: ObtHeader & { path: string }, options: CheckedModelOptions): Promise<NativeModel> {
  const { path } = header
  const { signal, onProgress } = options
  const cancel = new (addon().Cancel)()
  const onAbort = () => cancel.cancel()
  let failure: { error: unknown } | undefined
  const settings: NativeLoadOptions = {
    ...nativeModelOptions(header.config, options),
    path: nativePath(path),
    file_bytes: header.fileBytes,
    tensors: nativeTensors(header.tensors),
    cancel,
  }
  if (onProgress) {
    settings.onProgress = (done) => {
      try {
        if (!failure) onProgress(done, header.fileBytes, 'loading')
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
async function loadText(obt: OpenObt) {
  const modules = Promise.all([import('../text/tokenizer.js'), import('../text/chat-template.js')])
  modules.catch(() => {}) // an error of reading comes first
  const tokenizerBytes = await obt.blob('tokenizer')
  const templateBytes = await obt.blob('chat_template')
  const [{ Tokenizer }, { ChatTemplate }] = await modules
  const tokenizer = tokenizerBytes && (await Tokenizer.load(tokenizerBytes))
  return { tokenizer, chatTemplate: templateBytes && ChatTemplate.fromBytes(templateBytes) }
}

/** Where a model is that may have been named instead; what is not here is downloaded. */
async function locate(name: string, { signal, onProgress }: CheckedModelOptions): Promise<string> {
  if (!isModelAddress(name)) return name
  const { fetchModel } = await import('../hub/fetch-model.js')
  return fetchModel(name, {
    signal,
    onProgress: onProgress && ((done, total) => onProgress(done, total, 'downloading')),
  })
}

/** @throws OnebitError as Model.load, and the signal's reason */
export async function loadModel(name: string, options: unknown): Promise<LoadedModel> {
  const checked = checkModelOptions(options)
  checked.signal?.throwIfAborted()
  addon() // that it is missing is not the file's fault
  const path = await locate(name, checked)
  const obt = await openObt(path).catch(async (error) => {
    if (await isForeignModel(path)) return undefined
    throw error
  })
  // Importers are not needed for most models, whose first token should come soon.
  if (!obt) return (await import('./load-directly.js')).loadDirectly(path, checked)
  try {
    return await loadObt(obt, checked)
  } finally {
    await obt.close()
  }
}

async function loadObt(obt: OpenObt, checked: CheckedModelOptions): Promise<LoadedModel> {
  const { header } = obt
  checked.signal?.throwIfAborted()
  checkContext(checked.context ?? 1, header.config)
  checkMemoryLimit('The weights', header.fileBytes, checked.memoryLimit)
  const stop = new AbortController()
  const signal = checked.signal ? AbortSignal.any([checked.signal, stop.signal]) : stop.signal
  const weights = loadWeights(header, { ...checked, signal })
  const text = loadText(obt)
  text.catch((error) => stop.abort(error))
  const native = await weights
  try {
    native.limitCheckpoints(checked.checkpointMiB * 2 ** 20)
    return { native, config: header.config, info: describeModel(native, header, checked), ...(await text) }
  } catch (error) {
    void native.dispose()
    throw error
  }
}
