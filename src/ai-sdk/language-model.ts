/** A model as the AI SDK's `generateText` and `streamText` call it. */
import { randomUUID } from 'node:crypto'
import type {
  LanguageModelV4,
  LanguageModelV4CallOptions,
  LanguageModelV4Content,
  LanguageModelV4GenerateResult,
  LanguageModelV4StreamPart,
  LanguageModelV4StreamResult,
} from '@ai-sdk/provider'
import type { AnswerPart } from '../answer/parts.js'
import { answerChat } from '../batch-chat/answer-chat.js'
import type { ChatModel } from '../batch-chat/prepare-chat.js'
import { eachOf } from '../flow/each-of.js'
import { prepareCall } from './call.js'
import { endOf } from './call-end.js'
import { answerStream } from './stream.js'

/** A model as the AI SDK's `generateText` and `streamText` call it. Made by `provider(model)`. */
export class OnebitLanguageModel implements LanguageModelV4 {
  readonly specificationVersion = 'v4'
  readonly provider: string
  readonly modelId: string
  /** nothing is fetched from anywhere */
  readonly supportedUrls: Record<string, RegExp[]> = {}
  readonly #ready: () => Promise<ChatModel>

  constructor(provider: string, modelId: string, ready: () => Promise<ChatModel>) {
    this.provider = provider
    this.modelId = modelId
    this.#ready = ready
  }

  /**
   * The whole answer at once. `providerOptions.onebit` may have `OnebitCallOptions`; what the SDK asks for and cannot be done is a
   * warning.
   * @throws OnebitError ERR_BAD_OPTION, ERR_UNSUPPORTED_PART, ERR_NO_TOKENIZER, ERR_NO_CHAT_TEMPLATE, ERR_TEMPLATE,
   *   ERR_TEMPLATE_TIMEOUT, ERR_NO_TOOLS, ERR_SCHEMA, ERR_REGEX, ERR_GRAMMAR, ERR_GRAMMAR_LIMIT, ERR_GRAMMAR_TIMEOUT,
   *   ERR_EMPTY_PROMPT, ERR_CONTEXT_FULL, ERR_QUEUE_FULL, ERR_STOPPING, ERR_DISPOSED, ERR_NOT_FINITE, ERR_OUT_OF_MEMORY,
   *   ERR_MEMORY_LIMIT, and those of `Model.load`; the signal's reason
   */
  async doGenerate(options: LanguageModelV4CallOptions): Promise<LanguageModelV4GenerateResult> {
    const { answer, warnings } = await this.#prepare(options)
    const content: LanguageModelV4Content[] = []
    const response = this.#response()
    const end = await eachOf(answerChat(answer, options.abortSignal), ({ parts }) => {
      for (const part of parts) addTo(content, part)
    })
    return { content, ...endOf(end, answer.model), warnings, response }
  }

  /**
   * The answer as it comes. Leaving the stream stops the answer.
   * @throws OnebitError as `doGenerate` where something is wrong with the call; what goes wrong later is a part of the stream
   */
  async doStream(options: LanguageModelV4CallOptions): Promise<LanguageModelV4StreamResult> {
    const { answer, warnings } = await this.#prepare(options)
    const opening: LanguageModelV4StreamPart[] = [
      { type: 'stream-start', warnings },
      { type: 'response-metadata', ...this.#response() },
    ]
    return { stream: answerStream(answer, opening, options) }
  }

  async #prepare(options: LanguageModelV4CallOptions) {
    options.abortSignal?.throwIfAborted()
    return prepareCall(await this.#ready(), options)
  }

  #response() {
    return { id: `onebit-${randomUUID()}`, timestamp: new Date(), modelId: this.modelId }
  }
}

function addTo(content: LanguageModelV4Content[], part: AnswerPart): void {
  if (part.type === 'text' || part.type === 'reasoning') {
    const last = content.at(-1)
    if (last?.type === part.type) last.text += part.text
    else content.push({ type: part.type, text: part.text })
  } else if (part.type === 'call-end') {
    content.push({ type: 'tool-call', toolCallId: part.id, toolName: part.name, input: part.arguments })
  }
}
