/// <reference types="node" preserve="true" />
/** What `import … from 'onebit-run/ai-sdk'` gives: models for the AI SDK (`ai`), in this process. */
import { createOnebit, type OnebitProvider } from './provider.js'

export type { BatchState } from '../batch/requests.js'
export type { OnebitCallOptions } from './call.js'
export type { OnebitEmbeddingModel, OnebitEmbedOptions } from './embedding-model.js'
export type { OnebitLanguageModel } from './language-model.js'
export type { ModelReference, OnebitProvider, OnebitProviderSettings } from './provider.js'
export { createOnebit }

/** A provider with nothing set: `onebit(model)` with a loaded model, or with the path of a .obt file. */
export const onebit: OnebitProvider = createOnebit()
