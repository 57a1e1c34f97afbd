/** Models of a shape with random weights, made in memory: for measuring. */
import { createHash } from 'node:crypto'
import type { ModelConfig } from '../config/config.js'
import { addon } from '../native/addon.js'
import type { NativeModel } from '../native/native.js'
import { integerOption, optionFields, stringOption } from '../options.js'
import { describeModel, nativeModelOptions } from '../run/loaded-model.js'
import { internals, type Model } from '../run/model.js'
import { checkContext, checkModelOptions, MODEL_OPTION_NAMES, type ModelOptions } from '../run/model-options.js'
import { parseWeightType, type Shape, type ShapeName, shapeConfig, type WeightType } from './shapes.js'

export interface RandomModelOptions extends Omit<ModelOptions, 'onProgress'> {
  /** what the linears are stored as; default onebit */
  type?: WeightType
  /** the same seed gives the same weights everywhere; default 0 */
  seed?: number
}

const OPTION_NAMES = ['type', 'seed', ...MODEL_OPTION_NAMES.filter((name) => name !== 'onProgress')]

/** Positions of a random model's sessions unless asked otherwise: a large shape's whole context fills many gigabytes. */
const RANDOM_CONTEXT = 4096

function checkOptions(options: unknown) {
  const { type, seed, ...others } = optionFields('options', options, OPTION_NAMES)
  return {
    ...checkModelOptions(others),
    type: parseWeightType(stringOption({ type }, 'type') ?? 'onebit'),
    seed: integerOption({ seed }, 'seed', 0, Number.MAX_SAFE_INTEGER) ?? 0,
  }
}

async function makeWeights(config: ModelConfig, options: ReturnType<typeof checkOptions>): Promise<NativeModel> {
  const { signal } = options
  const cancel = new (addon().Cancel)()
  const onAbort = () => cancel.cancel()
  signal?.addEventListener('abort', onAbort)
  try {
    const native = await addon().createRandomModel({
      ...nativeModelOptions(config, options),
      seed: options.seed,
      cancel,
    })
    if (!signal?.aborted) return native
    void native.dispose()
  } catch (error) {
    if (!signal?.aborted) throw error
  } finally {
    signal?.removeEventListener('abort', onAbort)
  }
  throw signal!.reason
}

/**
 * A model with random weights. It has no tokenizer and works with ids; its path is empty and its file has 0 bytes.
 * Sessions have 4096 positions unless `context` says otherwise.
 * @throws OnebitError ERR_SHAPE when the type does not fit the shape, ERR_OUT_OF_MEMORY when the weights do not fit
 *   into free memory, ERR_MEMORY_LIMIT, ERR_CONFIG, ERR_ISA, ERR_ADDON, ERR_BAD_OPTION; the signal's reason when it
 *   aborts
 */
export async function randomModel(shape: ShapeName | Shape, options?: RandomModelOptions): Promise<Model> {
  const checked = checkOptions(options)
  checked.signal?.throwIfAborted()
  const config = shapeConfig(shape, checked.type)
  const context = checkContext(checked.context ?? Math.min(RANDOM_CONTEXT, config.context_length), config)
  const native = await makeWeights(config, checked)
  native.limitCheckpoints(checked.checkpointMiB * 2 ** 20)
  const provenance = { source: `random weights, seed ${checked.seed}` }
  const identity = createHash('sha256')
    .update(JSON.stringify([config, provenance]))
    .digest('hex')
  const info = describeModel(native, { config, provenance, identity, path: '', fileBytes: 0 }, { ...checked, context })
  return internals.create({ native, config, info, tokenizer: undefined, chatTemplate: undefined })
}
