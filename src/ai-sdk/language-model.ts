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

  /** @throws OnebitError as prepareCall and Batch.generate; the signal's reason */
  async doGenerate(options: LanguageModelV4CallOptions): Promise<LanguageModelV4GenerateResult> {
    const { answer, warnings } = await this.#prepare(options)
    const content: LanguageModelV4Content[] = []
    const response = this.#response()
    const end = await eachOf(answerChat(answer, options.abortSignal), ({ parts }) => {
      for (const part of parts) addTo(content, part)
    })
    return { content, ...endOf(end, answer.model), warnings, response }
  }

  /** @throws OnebitError as prepareCall; what comes later is a part of the stream */
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
