/// <reference types="node" preserve="true" />
/** What `import … from 'onebit-run'` gives. Its types use those of Node (`npm install --save-dev @types/node`). */

export type { AnswerPart, Tool, ToolChoice } from './answer/parts.js'
export type { Features, ModelConfig } from './config/config.js'
export type { LinearKind } from './config/kinds.js'
export type { RopeScaling } from './config/rope.js'
export { OnebitError } from './errors.js'
export { type ObtHeader, type Provenance, readObtHeader } from './obt/obt.js'
export { Chat, type ChatOptions, type RestoreChatOptions } from './run/chat.js'
export type { ChatPiece, ChatTool, SendOptions, ToolCall, ToolOptions, ToolResult } from './run/chat-tools.js'
export { defaultModelPath } from './run/default-model.js'
export { type Activations, Model, type ModelInfo, type ModelOptions } from './run/model.js'
export {
  type Completion,
  type EmbedOptions,
  type FinishReason,
  type GenerateOptions,
  type GenerationSummary,
  type KvType,
  type Logits,
  type LogitsOptions,
  type Piece,
  type Prompt,
  type RestoreOptions,
  type SaveOptions,
  type ScoreOptions,
  type Scores,
  Session,
  type SessionMaker,
  type SessionModel,
  type SessionOptions,
  type Timings,
  type TokenLogprob,
  type Usage,
} from './run/session.js'
export type { ChatMessage, RenderOptions } from './text/chat-template.js'
export type { Tokenizer } from './text/tokenizer.js'
