/** Options that every command with a model understands, and loading by them. */
import { Model } from '../run/model.js'
import type { Activations, ModelOptions } from '../run/model-options.js'
import { ACTIVATIONS, checkModelOptions } from '../run/model-options.js'
import { KV_TYPES, type KvType } from '../run/session.js'
import type { OptionSpec, OptionValues } from './arguments.js'
import { modelFile } from './model-file.js'
import { progressBar } from './progress.js'

export const MODEL_OPTIONS: Record<string, OptionSpec> = {
  threads: { type: 'integer', short: 't', help: 'threads that compute (default: physical cores)' },
  ctx: {
    type: 'integer',
    short: 'c',
    api: 'context',
    help: "positions of context (default: the model's own, at most 32768)",
  },
  activations: {
    type: 'string',
    choices: [...ACTIVATIONS],
    help: 'round activations to int8 (default) or int4 (faster, loses more), or keep floats (slow)',
  },
  verify: { type: 'boolean', help: 'of a GGUF file or a folder: read it whole for its SHA-256' },
  'checkpoint-mib': {
    type: 'integer',
    api: 'checkpointMiB',
    help: 'MiB for going back in recurrent models without computing all again (default 256)',
  },
  kv: { type: 'string', choices: [...KV_TYPES], help: 'numbers in the KV cache (default f16)' },
}

export function modelOptions(values: OptionValues): ModelOptions {
  const options: ModelOptions = {}
  if (values.threads !== undefined) options.threads = values.threads as number
  if (values.ctx !== undefined) options.context = values.ctx as number
  if (values.activations !== undefined) options.activations = values.activations as Activations
  if (values['checkpoint-mib'] !== undefined) options.checkpointMiB = values['checkpoint-mib'] as number
  if (values.kv !== undefined) options.kv = values.kv as KvType
  if (values.verify !== undefined) options.verify = values.verify as boolean
  return options
}

/** @throws OnebitError ERR_BAD_OPTION */
export function checkModelValues(values: OptionValues): void {
  checkModelOptions(modelOptions(values))
}

/** Of `onebit run`, which answers with guesses. */
export const DRAFT_OPTION: OptionSpec = {
  type: 'string',
  value: 'MODEL',
  help: 'a smaller model with the same tokenizer, which guesses what follows: the same text, sooner',
}

/** Loads a model, with a bar on a terminal when it takes long enough to wonder. */
export async function loadModel(path: string, values: OptionValues): Promise<Model> {
  const file = await modelFile(path, { quiet: values.quiet === true })
  const draft =
    values.draft === undefined ? undefined : await modelFile(values.draft as string, { quiet: values.quiet === true })
  const bar = progressBar('loading')
  try {
    const options = { ...modelOptions(values), onProgress: bar.update }
    return await Model.load(file, draft === undefined ? options : { ...options, draft })
  } finally {
    bar.done()
  }
}
