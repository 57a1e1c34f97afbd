/** What a call of the AI SDK asks for, in our terms; what cannot be done becomes a warning. */
import type {
  LanguageModelV4CallOptions,
  LanguageModelV4FunctionTool,
  LanguageModelV4ToolChoice,
  SharedV4Warning,
} from '@ai-sdk/provider'
import type { Tool, ToolChoice } from '../answer/parts.js'
import { TOOL_NAME, templateTool } from '../answer/template-tool.js'
import {
  type AnswerRequest,
  type ChatModel,
  type PreparedAnswer,
  prepareAnswer,
  prepareChat,
} from '../batch-chat/prepare-chat.js'
import { badOption } from '../errors.js'
import type { AnswerShape } from '../grammar/constraint.js'
import { booleanOption, optionFields, stringOption } from '../options.js'
import { checkGenerateOptions, type GenerateOptions } from '../run/generate-options.js'
import { isRecord } from '../text/tokenizer-json.js'
import { chatMessages, onlyText } from './prompt.js'

/** What `providerOptions.onebit` of a call may have besides the AI SDK's own options. */
export interface OnebitCallOptions {
  /** of the likeliest tokens, those at least this share as likely as the likeliest, 0 to 1; default 0.05 */
  minP?: number
  /** divides (or multiplies, below zero) the logits of recent tokens, 0.01 to 100; 1: off, the default */
  repeatPenalty?: number
  /** how many recent tokens the penalties look at; default 64 */
  repeatLastN?: number
  /** added to the logits of single tokens, by id, -1000 to 1000 */
  logitBias?: Readonly<Record<number, number>>
  /** go on after the model's own end tokens; default false */
  ignoreEos?: boolean
  /** the whole answer matches this regular expression */
  regex?: string
  /** the answer is what the rule `root` of this grammar says (EBNF) */
  grammar?: string
  /** several tool calls in one answer; default true */
  parallelToolCalls?: boolean
  /** variables of the chat template, such as enable_thinking */
  templateVariables?: Record<string, unknown>
}

const SAMPLING = ['minP', 'repeatPenalty', 'repeatLastN', 'logitBias', 'ignoreEos'] as const
const OWN_NAMES = [...SAMPLING, 'regex', 'grammar', 'parallelToolCalls', 'templateVariables']

/** Options of a call that are the API's own, by another name. */
const RENAMED = {
  maxOutputTokens: 'maxTokens',
  temperature: 'temperature',
  topP: 'topP',
  topK: 'topK',
  presencePenalty: 'presencePenalty',
  frequencyPenalty: 'frequencyPenalty',
  seed: 'seed',
} as const satisfies Partial<Record<keyof LanguageModelV4CallOptions, keyof GenerateOptions>>

export interface PreparedCall {
  answer: PreparedAnswer
  warnings: SharedV4Warning[]
}

/** @throws OnebitError ERR_BAD_OPTION, ERR_UNSUPPORTED_PART, and as prepareChat */
export async function prepareCall(chatModel: ChatModel, call: LanguageModelV4CallOptions): Promise<PreparedCall> {
  const warnings: SharedV4Warning[] = []
  const own = optionFields('providerOptions.onebit', call.providerOptions?.onebit, OWN_NAMES)
  const request: AnswerRequest = {
    ...toolsOf(chatModel, call, warnings),
    parallel: booleanOption(own, 'parallelToolCalls') ?? true,
    options: generateOptions(call, own, chatModel.model.config.vocab_size),
    shape: shapeOf(call, own),
    signal: call.abortSignal,
  }
  const { model } = chatModel
  if (model.chatTemplate === undefined) {
    const text = onlyText(call.prompt)
    if (text !== undefined) {
      warnings.push({ type: 'other', message: 'The model has no chat template: it goes on with the text.' })
      const ids = await model.requireTokenizer().encodeLong(text, { special: false, ...signalOf(call) })
      return { answer: await prepareAnswer(chatModel, ids, request), warnings }
    }
  }
  const messages = chatMessages(call.prompt, warnings)
  const variables = templateVariables(chatModel, call, own, warnings)
  const templateTools = request.tools.map(templateTool)
  return { answer: await prepareChat(chatModel, { ...request, messages, templateTools, variables }), warnings }
}

function signalOf({ abortSignal }: LanguageModelV4CallOptions): { signal?: AbortSignal } {
  return abortSignal ? { signal: abortSignal } : {}
}

function generateOptions(
  call: LanguageModelV4CallOptions,
  own: Record<string, unknown>,
  vocabSize: number,
): GenerateOptions {
  const options: Record<string, unknown> = {}
  for (const [name, ours] of Object.entries(RENAMED)) {
    const value = call[name as keyof typeof RENAMED]
    if (value !== undefined) options[ours] = value
  }
  for (const name of SAMPLING) if (own[name] !== undefined) options[name] = own[name]
  if (call.stopSequences !== undefined) options.stop = call.stopSequences
  checkGenerateOptions(options, vocabSize)
  return options
}

function shapeOf(
  { responseFormat }: LanguageModelV4CallOptions,
  own: Record<string, unknown>,
): AnswerShape | undefined {
  const [regex, grammar] = [stringOption(own, 'regex'), stringOption(own, 'grammar')]
  const isJson = responseFormat?.type === 'json'
  if ([isJson, regex !== undefined, grammar !== undefined].filter(Boolean).length > 1) {
    throw badOption(regex === undefined ? 'grammar' : 'regex', 'cannot be combined with another form of the answer')
  }
  if (regex !== undefined) return { regex }
  if (grammar !== undefined) return { grammar }
  if (!isJson) return undefined
  return responseFormat.schema === undefined ? { json: true } : { schema: responseFormat.schema as Schema }
}

type Schema = boolean | Readonly<Record<string, unknown>>

function toolsOf(
  { format }: ChatModel,
  { tools = [], toolChoice = { type: 'auto' } }: LanguageModelV4CallOptions,
  warnings: SharedV4Warning[],
): Pick<AnswerRequest, 'tools' | 'choice'> {
  const functions: LanguageModelV4FunctionTool[] = []
  for (const tool of tools) {
    if (tool.type === 'function') functions.push(tool)
    else warnings.push({ type: 'unsupported', feature: `the tool ${tool.id}`, details: 'It is of another provider.' })
  }
  const isNeeded = toolChoice.type === 'required' || toolChoice.type === 'tool'
  if (functions.length > 0 && format.toolFormat === undefined && !isNeeded) {
    warnings.push({ type: 'unsupported', feature: 'tools', details: "The model's chat template knows of none." })
    return { tools: [], choice: 'none' }
  }
  const own = functions.map(toolOf)
  return { tools: own, choice: choiceOf(toolChoice, own) }
}

function toolOf({ name, description, inputSchema }: LanguageModelV4FunctionTool, index: number): Tool {
  if (!TOOL_NAME.test(name)) {
    throw badOption(`tools[${index}].name`, 'must be 1 to 64 letters, digits, dots, dashes or underscores')
  }
  return {
    name,
    ...(description === undefined ? {} : { description }),
    parameters: inputSchema as Tool['parameters'] & {},
  }
}

function choiceOf(choice: LanguageModelV4ToolChoice, tools: readonly Tool[]): ToolChoice {
  if (choice.type === 'tool') {
    if (tools.some(({ name }) => name === choice.toolName)) return { name: choice.toolName }
    throw badOption('toolChoice', `names ${JSON.stringify(choice.toolName)}, which is none of the tools`)
  }
  if (choice.type === 'required' && tools.length === 0)
    throw badOption('toolChoice', 'requires a tool, and there is none')
  return choice.type
}

/** How much a model thinks cannot be told it; whether it does, often can. */
function templateVariables(
  { format, model }: ChatModel,
  { reasoning = 'provider-default' }: LanguageModelV4CallOptions,
  own: Record<string, unknown>,
  warnings: SharedV4Warning[],
): Record<string, unknown> {
  const given = own.templateVariables ?? {}
  if (!isRecord(given)) throw badOption('templateVariables', 'must be an object')
  if (reasoning === 'provider-default' || (reasoning === 'none' && !format.thinks)) return given
  if (!model.chatTemplate?.source.includes('enable_thinking')) {
    warnings.push({ type: 'unsupported', feature: 'reasoning', details: "The model's chat template has no switch." })
    return given
  }
  if (reasoning !== 'none') {
    const details = `The model thinks as much as it does: "${reasoning}" only turns it on.`
    warnings.push({ type: 'compatibility', feature: 'reasoning', details })
  }
  return { enable_thinking: reasoning !== 'none', ...given }
}
