/** Loading a model of another format: it is converted on its way into memory, and never written. */
import { createHash } from 'node:crypto'
import { basename } from 'node:path'
import type { ModelConfig } from '../config/config.js'
import { tensorTable } from '../config/tensors.js'
import { Encoder } from '../convert/convert-encode.js'
import { usableText } from '../convert/convert-text.js'
import { describeForeign, type ForeignModel } from '../convert/foreign-model.js'
import { OnebitError } from '../errors.js'
import { openFile, readFully } from '../files/file-reading.js'
import { hashFile } from '../files/hash-file.js'
import { openSource } from '../import/open-source.js'
import type { SourceModel } from '../import/source.js'
import { addon } from '../native/addon.js'
import type { NativeFilling, NativeModel } from '../native/native.js'
import type { Provenance } from '../obt/obt.js'
import { fillStored, storedWeights } from './fill-stored.js'
import { checkMemoryLimit, describeModel, type LoadedModel, nativeModelOptions } from './loaded-model.js'
import { type CheckedModelOptions, checkContext } from './model-options.js'

/** Tokenizer and template are no tensors here. */
const NO_BLOBS = { tokenizer: 0, chat_template: 0 }
/** Pieces that wait for the native thread. With more nothing is won, and each is some megabytes. */
const AHEAD = 3

/** @throws OnebitError what the importers throw, and as Model.load; the signal's reason */
export async function loadDirectly(path: string, options: CheckedModelOptions): Promise<LoadedModel> {
  const source = await openSource(path)
  try {
    const found = await describeForeign(path, source)
    const { config, weightBytes } = found
    checkContext(options.context ?? 1, config)
    checkRoom(path, weightBytes, options.memoryLimit)
    let rest: Promise<[string, Text]> | undefined
    const native = await fill(source, found, options, () => {
      rest = Promise.all([identityOf(found), usableText(source.text, config.vocab_size)])
      rest.catch(() => {}) // what is wrong with the weights comes first
    })
    try {
      native.limitCheckpoints(options.checkpointMiB * 2 ** 20)
      const provenance = options.verify ? await withHashes(found, options.signal) : found.provenance
      const [identity, text] = await rest!
      return { native, config, info: describeModel(native, { ...found, path, provenance, identity }, options), ...text }
    } catch (error) {
      void native.dispose()
      throw error
    }
  } finally {
    await source.close()
  }
}

/** The provenance with the SHA-256 of every file, as `convert` writes it. */
async function withHashes({ files, provenance }: ForeignModel, signal: AbortSignal | undefined): Promise<Provenance> {
  const hashed: { name: string; bytes: number; sha256: string }[] = []
  for (const { path } of files) {
    hashed.push({ name: basename(path), ...(await hashFile(path, () => signal?.throwIfAborted())) })
  }
  return { ...provenance, files: hashed }
}

/** Says it before anything is read: numbers that we have no kernels for take more room than in their file. */
function checkRoom(path: string, bytes: number, limit: number | undefined): void {
  checkMemoryLimit(`The weights of ${path}`, bytes, limit)
  const available = addon().availableMemory()
  if (available > 0 && bytes > available) {
    const needed = `The weights of ${path} take ${mib(bytes)} MiB in memory, ${mib(available)} MiB can be had`
    throw new OnebitError('ERR_OUT_OF_MEMORY', needed, { hint: 'Close other programs, or use a smaller model.' })
  }
}

const mib = (bytes: number) => Math.ceil(bytes / 2 ** 20)

type Text = Pick<LoadedModel, 'tokenizer' | 'chatTemplate'>

/** @param meanwhile called when native code has been given its work: this thread is free for as long */
async function fill(
  source: SourceModel,
  { config, weightBytes }: ForeignModel,
  options: CheckedModelOptions,
  meanwhile: () => void,
): Promise<NativeModel> {
  const { signal, onProgress } = options
  const filling = await addon().fillModel(nativeModelOptions(config, options))
  try {
    let done = 0
    const told = (bytes: number) => {
      signal?.throwIfAborted()
      done += bytes
      onProgress?.(done, weightBytes, 'loading')
    }
    const stored = storedWeights(source, config)
    const converted = stored && fillStored(filling, stored, signal, (bytes) => told(bytes - done))
    meanwhile()
    await converted
    await writeRest(filling, source, config, { signal, told, skip: stored?.names })
    const native = await filling.finish()
    if (!signal?.aborted) return native
    void native.dispose()
    throw signal.reason
  } finally {
    filling.dispose()
  }
}

interface Rest {
  signal: AbortSignal | undefined
  told: (bytes: number) => void
  /** tensors that are there already */
  skip: ReadonlySet<string> | undefined
}

async function writeRest(
  filling: NativeFilling,
  source: SourceModel,
  config: ModelConfig,
  { signal, told, skip }: Rest,
): Promise<void> {
  const encoder = new Encoder(source, config, { svid: { method: 'svd' }, signal })
  const waiting: Promise<void>[] = []
  for (const spec of tensorTable(config, NO_BLOBS)) {
    if (skip?.has(spec.name)) continue
    for await (const piece of encoder.produce(spec)) {
      const written = filling.write(spec.name, piece)
      written.catch(() => {}) // it is waited for below
      waiting.push(written)
      if (waiting.length > AHEAD) await waiting.shift()
      told(piece.length)
    }
  }
  for (const written of waiting) await written
}

const START_BYTES = 4 << 20
const SAMPLES = 64
const SAMPLE_BYTES = 4096

/**
 * What tells a model from others without reading all of it: its config, and of each file the size, the beginning, where
 * headers are, and samples of the rest, in which the weights of two models of one shape differ.
 */
async function identityOf({ files, config }: ForeignModel): Promise<string> {
  const hash = createHash('sha256').update('onebit-run direct 2').update(JSON.stringify(config))
  for (const { path, bytes } of files) {
    hash.update(`${basename(path)} ${bytes}`)
    const { file: handle } = await openFile(path)
    try {
      hash.update(await readFully(handle, 0, Math.min(START_BYTES, bytes)))
      const count = bytes > START_BYTES ? SAMPLES : 0
      // All at once: one by one most of the time would go into waking up.
      const samples = Array.from({ length: count }, (_, i) => {
        const at = START_BYTES + Math.floor(((bytes - START_BYTES) * i) / SAMPLES)
        return readFully(handle, at, Math.min(SAMPLE_BYTES, bytes - at))
      })
      for (const sample of await Promise.all(samples)) hash.update(sample)
    } finally {
      await handle.close()
    }
  }
  return hash.digest('hex')
}
