/// <reference types="node" preserve="true" />
/**
 * Models for the AI SDK (`ai`), in this process: `import { createOnebit } from 'onebit-run/ai-sdk'`. {@link createOnebit} makes a
 * provider, {@link onebit} is one with nothing set. Examples and what is peculiar: docs/ai-sdk.md.
 * @module onebit-run/ai-sdk
 */
import { createOnebit, type OnebitProvider } from './provider.js'

export type { BatchOptions, BatchState } from '../batch/requests.js'
export type { OnebitCallOptions } from './call.js'
export type { OnebitEmbeddingModel, OnebitEmbedOptions } from './embedding-model.js'
export type { OnebitLanguageModel } from './language-model.js'
export type { ModelReference, OnebitProvider, OnebitProviderSettings } from './provider.js'
export { createOnebit }

/** A provider with nothing set: `onebit(model)` with a loaded model, or with the path of a .obt file. */
export const onebit: OnebitProvider = createOnebit()
