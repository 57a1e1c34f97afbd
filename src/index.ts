/// <reference types="node" preserve="true" />
/** What `import … from 'onebit-run'` gives. Its types use those of Node (`npm install --save-dev @types/node`). */

export type { LinearKind, ModelConfig, RopeScaling } from './config/architecture.js'
export { SHAPES, type Shape, type ShapeName, type WeightType } from './config/shapes.js'
export { OnebitError } from './errors.js'
export { type ObtHeader, type Provenance, readObtHeader } from './obt/obt.js'
export { Chat, type ChatOptions } from './run/chat.js'
export { defaultModelPath } from './run/default-model.js'
export { type Activations, Model, type ModelInfo, type ModelOptions, type RandomModelOptions } from './run/model.js'
export {
  type Completion,
  type FinishReason,
  type GenerateOptions,
  type GenerationSummary,
  type KvType,
  type Logits,
  type LogitsOptions,
  type Piece,
  type Prompt,
  type ScoreOptions,
  type Scores,
  Session,
  type SessionOptions,
  type Timings,
  type TokenLogprob,
  type Usage,
} from './run/session.js'
export type { ChatMessage, RenderOptions } from './text/chat-template.js'
export type { Tokenizer } from './text/tokenizer.js'
