/** What `import … from 'onebit-run'` gives. */

export type { LinearKind, ModelConfig, RopeScaling } from './architecture.js'
export { Chat, type ChatOptions } from './chat.js'
export { defaultModelPath } from './default-model.js'
export { OnebitError } from './errors.js'
export { type Activations, Model, type ModelInfo, type ModelOptions, type RandomModelOptions } from './model.js'
export { type ObtHeader, type Provenance, readObtHeader } from './obt.js'
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
} from './session.js'
export { SHAPES, type Shape, type ShapeName, type WeightType } from './shapes.js'
export type { ChatMessage, RenderOptions } from './text/chat-template.js'
export type { Tokenizer } from './text/tokenizer.js'
