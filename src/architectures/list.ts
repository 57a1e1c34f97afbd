/** The architectures that can be converted. */
import type { OnebitError } from '../errors.js'
import { unsupportedArchitecture } from '../import/source.js'
import { shown } from '../shown-value.js'
import type { Architecture, GgufDescription, HuggingFaceDescription } from './architecture.js'
import { bitnet } from './bitnet.js'
import { gptNeox } from './gpt-neox.js'
import { llama } from './llama.js'
import { mistral } from './mistral.js'
import { opt } from './opt.js'
import { qwen2 } from './qwen2.js'
import { qwen3 } from './qwen3.js'
import { qwen35 } from './qwen35.js'

export const ARCHITECTURES: readonly Architecture[] = [bitnet, gptNeox, llama, mistral, opt, qwen2, qwen3, qwen35]

function unknown(found: unknown): OnebitError {
  const titles = ARCHITECTURES.map(({ title }) => title)
  const listed = `${titles.slice(0, -1).join(', ')} and ${titles.at(-1)}`
  return unsupportedArchitecture(found === undefined ? 'unnamed' : shown(found), `${listed} models can be converted.`)
}

/** By config.json's model_type and its class of models. @throws OnebitError ERR_UNSUPPORTED_ARCHITECTURE */
export function huggingFaceDescription(modelType: unknown, classes?: unknown): HuggingFaceDescription {
  const named = Array.isArray(classes) ? classes : []
  const byClass = ARCHITECTURES.find(({ huggingFace }) => huggingFace.classes?.some((one) => named.includes(one)))
  if (byClass !== undefined) return byClass.huggingFace
  const found = ARCHITECTURES.find(({ huggingFace }) => huggingFace.modelTypes.includes(modelType as string))
  if (found === undefined) throw unknown(modelType)
  return found.huggingFace
}

/** By general.architecture. @throws OnebitError ERR_UNSUPPORTED_ARCHITECTURE */
export function ggufDescription(architecture: string): GgufDescription {
  const found = ARCHITECTURES.find(({ gguf }) => gguf?.architectures.includes(architecture))
  if (found?.gguf === undefined) throw unknown(architecture)
  return found.gguf
}
