/**
 * Weights that native code reads from their files itself, converting them on all threads: those whose rows lie there one
 * after another. Everything else goes through src/convert/convert-encode.ts, which makes the same bytes.
 */
import type { ModelConfig } from '../config/config.js'
import { kindOf, type ModelPart, matrixTensors, modelParts, type TensorSpec, tensorBytes } from '../config/tensors.js'
import type { SourceModel, SourceTensor } from '../import/source.js'
import { addon } from '../native/addon.js'
import type { NativeFilling, NativeStoredTensors } from '../native/native.js'
import { nativePath } from '../native/native-path.js'

export interface StoredWeights {
  tensors: NativeStoredTensors
  /** which of our tensors they become */
  names: ReadonlySet<string>
  /** of those */
  bytes: number
}

/** A source's tensor and what it becomes. */
interface Stored {
  name: string
  from: SourceTensor
  specs: TensorSpec[]
}

const isStored = (tensor: SourceTensor | undefined): tensor is SourceTensor =>
  tensor?.read.stored !== undefined && tensor.scale === undefined && tensor.type !== 'packed' && tensor.type !== 'codes'

function* partsStored(config: ModelConfig, { tensors }: SourceModel, part: ModelPart): Generator<Stored> {
  const { name, shape } = part
  const vector = (own: string, length: number[]): Stored[] => {
    const from = tensors.get(own)
    return isStored(from)
      ? [{ name: own, from, specs: [{ name: own, dtype: 'F32', shape: length, part: part.part }] }]
      : []
  }
  const kind = kindOf(config, part)
  if (kind === undefined) {
    yield* vector(name, shape)
    return
  }
  const from = tensors.get(`${name}.weight`)
  // A ternary matrix whose weights are in groups has those of the blocks it comes in.
  const isMade =
    kind.kind === 'dense' ||
    (kind.kind === 'q1_0' && from?.type === 'q1_0') ||
    (kind.kind === 'ternary' && kind.group > 0)
  if (!isMade) return
  if (isStored(from)) {
    const { norm_in: _, ...plain } = kind
    const specs = matrixTensors(name, { ...plain, bias: false }, shape[0], shape[1]!, part.part)
    yield { name, from, specs }
  }
  if (kind.norm_in) yield* vector(`${name}.norm_in`, [shape[1]!])
  if (kind.bias) yield* vector(`${name}.bias`, [shape[0]])
}

/** All of a model that can be made so; undefined: nothing. */
export function storedWeights(source: SourceModel, config: ModelConfig): StoredWeights | undefined {
  const all = Array.from(modelParts(config), (part) => [...partsStored(config, source, part)]).flat()
  if (all.length === 0) return undefined
  const specs = all.flatMap((one) => one.specs)
  const places = all.map(({ from }) => from.read.stored!)
  const paths = [...new Set(places.map(({ path }) => path))]
  const fileOf = new Map(paths.map((path, i) => [path, i]))
  return {
    names: new Set(specs.map(({ name }) => name)),
    bytes: specs.reduce((sum, spec) => sum + tensorBytes(spec), 0),
    tensors: {
      paths: paths.map((path) => nativePath(path)),
      names: all.map(({ name }) => name).join('\n'),
      // A name from a file may have lines of its own.
      labels: all.map(({ from }) => from.name.replaceAll('\n', ' ') || '?').join('\n'),
      types: all.map(({ from }) => from.type).join('\n'),
      files: Int32Array.from(places, ({ path }) => fileOf.get(path)!),
      offsets: Float64Array.from(places, ({ offset }) => offset),
    },
  }
}

/**
 * Reads, converts and places them.
 * @param told how many of their bytes are there by now; what it throws stops the loading
 * @throws OnebitError ERR_NOT_FINITE, ERR_TRUNCATED, ERR_READ; the signal's reason; what `told` throws
 */
export async function fillStored(
  filling: NativeFilling,
  { tensors, bytes }: StoredWeights,
  signal: AbortSignal | undefined,
  told: (doneBytes: number) => void,
): Promise<void> {
  const cancel = new (addon().Cancel)()
  const onAbort = () => cancel.cancel()
  let failure: { error: unknown } | undefined
  const onProgress = (done: number) => {
    try {
      if (!failure) told(done)
    } catch (error) {
      failure = { error }
      cancel.cancel()
    }
  }
  signal?.addEventListener('abort', onAbort)
  try {
    await filling.convert({ ...tensors, cancel, onProgress })
    if (!failure) onProgress(bytes)
  } catch (error) {
    if (!failure && !signal?.aborted) throw error
  } finally {
    signal?.removeEventListener('abort', onAbort)
  }
  if (failure) throw failure.error
  signal?.throwIfAborted()
}
