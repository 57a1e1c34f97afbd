/// <reference types="node" preserve="true" />
/**
 * Models, sessions and chats: `import { Model } from 'onebit-run'`. The types use those of Node
 * (`npm install --save-dev @types/node`).
 *
 * ```ts
 * import { Model } from 'onebit-run'
 *
 * const model = await Model.load('smol.gguf')
 * try {
 *   const session = model.createSession()
 *   for await (const piece of session.generate('Once upon a time', { maxTokens: 64 })) {
 *     process.stdout.write(piece.text)
 *   }
 * } finally {
 *   await model.dispose()
 * }
 * ```
 *
 * - Loading: {@link Model}, {@link ModelOptions}, {@link ModelInfo}, {@link defaultModelPath}
 * - Generating: {@link Session}, {@link Prompt}, {@link GenerateOptions}, {@link Piece}, {@link Completion},
 *   {@link GenerationSummary}
 * - Conversations: {@link Chat}, {@link SendOptions}, {@link ChatPiece}, {@link ChatMessage}; with tools {@link ChatTool},
 *   {@link ToolCall}, {@link ToolResult}, {@link AnswerPart}
 * - Numbers: {@link Session.logits}, {@link Session.score}, {@link Session.embed}
 * - Keeping: {@link Session.save}, {@link Session.restore}, {@link Chat.save}, {@link Chat.restore}
 * - Text: {@link Tokenizer}, {@link ChatTemplate}
 * - What is in a file: {@link readObtHeader}, {@link ModelConfig}, {@link LinearKind}, {@link Features}
 * - What goes wrong: {@link OnebitError}
 * @module onebit-run
 */

export type {
  AnswerPart,
  CallArguments,
  CallEnd,
  CallStart,
  ReasoningPart,
  TextPart,
  Tool,
  ToolChoice,
  ToolName,
} from './answer/parts.js'
export type { EmbedOptions } from './batch/requests.js'
export type { Features, ModelConfig, ModelStructure } from './config/config.js'
export type { Front, Rotation } from './config/front.js'
export type {
  DenseMatrix,
  DenseType,
  LinearKind,
  MatrixKind,
  Q1Matrix,
  SignMatrix,
  TernaryGroup,
  TernaryMatrix,
} from './config/kinds.js'
export type {
  FactorScaling,
  LinearScaling,
  Llama3Scaling,
  NoScaling,
  RopeScaling,
  YarnScaling,
} from './config/rope.js'
export type { Blobs, TensorDtype, TensorPart, TensorSpec } from './config/tensors.js'
export { OnebitError } from './errors.js'
export {
  type FoundHeader,
  type Json,
  type ObtHeader,
  type ObtTensor,
  type Provenance,
  readObtHeader,
} from './obt/obt.js'
export { Chat, type ChatOptions, type RestoreChatOptions } from './run/chat.js'
export type { ChatPiece, ChatTool, SendOptions, ToolCall, ToolOptions, ToolResult } from './run/chat-tools.js'
export { defaultModelPath } from './run/default-model.js'
export type { GenerateOptions } from './run/generate-options.js'
export type { FinishReason, GenerationSummary, Piece, Timings, TokenLogprob, Usage } from './run/generation.js'
export type { KvType } from './run/kv.js'
export { type Activations, Model, type ModelInfo, type ModelOptions } from './run/model.js'
export type { SamplingOptions, Speculate } from './run/sampler.js'
export { Session, type SessionMaker, type SessionModel } from './run/session.js'
export type {
  Completion,
  Logits,
  LogitsOptions,
  Prompt,
  RestoreOptions,
  SaveOptions,
  ScoreOptions,
  Scores,
  SessionOptions,
} from './run/session-options.js'
export type { ChatMessage, ChatTemplate, RenderOptions } from './text/chat-template.js'
export type { DecodeOptions, EncodeOptions, Tokenizer } from './text/tokenizer.js'
export type { AddedToken, TokenizerConfig, TokenName } from './text/tokenizer-json.js'
export type { Utf8Stream } from './text/utf8-stream.js'
