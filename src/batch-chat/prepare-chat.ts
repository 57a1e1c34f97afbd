/** Chats that a Batch answers, over HTTP or in a program: from messages and tools to the ids that the model reads. */
import { afterThinking, withCalls } from '../answer/answer-shapes.js'
import { type AnswerFormat, type AnswerStart, answerStart, requireTools } from '../answer/format.js'
import type { AnswerParser, Tool, ToolChoice } from '../answer/parts.js'
import type { Batch } from '../batch/batch.js'
import type { AnswerShape, Constraint } from '../grammar/constraint.js'
import type { GenerateOptions } from '../run/generate-options.js'
import type { Model } from '../run/model.js'
import type { ChatMessage } from '../text/chat-template.js'

/** A model and what answers for it. */
export interface ChatModel {
  readonly model: Model
  readonly batch: Batch
  readonly format: AnswerFormat
}

/** What an answer may be like. */
export interface AnswerRequest {
  /** functions that may be called; none with the choice `none` */
  tools: readonly Tool[]
  choice: ToolChoice
  /** several calls in one answer */
  parallel: boolean
  options: GenerateOptions
  /** the form that the answer's text must have; undefined: any */
  shape: AnswerShape | undefined
  signal: AbortSignal | undefined
}

export interface ChatRequest extends AnswerRequest {
  messages: readonly ChatMessage[]
  /** the tools as the template gets them */
  templateTools: readonly unknown[]
  /** for the template, besides the tools */
  variables: Record<string, unknown>
}

/** An answer that can be asked for. */
export interface PreparedAnswer extends ChatModel {
  ids: Int32Array
  options: GenerateOptions
  parser: AnswerParser
  constraint: Constraint | undefined
}

/** @throws OnebitError as Model.encodeChat and prepareAnswer */
export async function prepareChat(chatModel: ChatModel, request: ChatRequest): Promise<PreparedAnswer> {
  const { messages, signal } = request
  const render = { variables: templateVariables(request), ...(signal ? { signal } : {}) }
  return prepareAnswer(chatModel, await chatModel.model.encodeChat(messages, render), request)
}

/** What the template gets besides the messages: the tools too, unless none may be called. */
export function templateVariables({
  variables,
  templateTools,
  choice,
}: Pick<ChatRequest, 'variables' | 'templateTools' | 'choice'>): Record<string, unknown> {
  return templateTools.length > 0 && choice !== 'none' ? { ...variables, tools: templateTools } : variables
}

/**
 * @param ids the prompt
 * @throws OnebitError ERR_NO_TOOLS, and as Model.constrain
 */
export async function prepareAnswer(
  chatModel: ChatModel,
  ids: Int32Array,
  request: AnswerRequest,
): Promise<PreparedAnswer> {
  const { model, format } = chatModel
  const { choice, signal } = request
  const tools = choice === 'none' ? [] : request.tools
  if (tools.length > 0) requireTools(format)
  const tokenizer = model.requireTokenizer()
  const start = answerStart(format, ids, (end) => tokenizer.decode(end))
  const shape = answerShapeOf(format, request, tools, start)
  const constraint = shape && (await model.constrain(shape, { signal }))
  const thinking = format.marks && { thinking: format.marks }
  const options = { showSpecial: format.markers, ...thinking, ...request.options }
  return { ...chatModel, ids, options, parser: format.parser(tools, start), constraint }
}

function answerShapeOf(
  format: AnswerFormat,
  { shape, choice, parallel }: AnswerRequest,
  tools: readonly Tool[],
  start: Required<AnswerStart>,
): AnswerShape | undefined {
  // A text of some form or calls: what has to be one of them cannot be free text with calls in it.
  const isEither = shape !== undefined && tools.length > 0 && choice === 'auto'
  const calls = format.shape(tools, isEither ? 'required' : choice, parallel, isEither ? { opened: false } : start)
  if (!shape || (calls && !isEither)) return calls
  const wanted = isEither && calls ? withCalls(shape, calls) : shape
  return start.opened ? afterThinking(wanted, format.marks!) : wanted
}
