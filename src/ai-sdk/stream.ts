/** An answer as the AI SDK streams it: blocks of text, thinking and calls, each with a beginning and an end. */
import { ReadableStream } from 'node:stream/web'
import type {
  LanguageModelV4CallOptions,
  LanguageModelV4StreamPart,
  LanguageModelV4StreamResult,
} from '@ai-sdk/provider'
import type { AnswerPart } from '../answer/parts.js'
import { answerChat } from '../batch-chat/answer-chat.js'
import type { PreparedAnswer } from '../batch-chat/prepare-chat.js'
import { OnebitError } from '../errors.js'
import { endOf, NO_USAGE } from './call-end.js'

type Part = LanguageModelV4StreamPart

/**
 * It is computed as it is read, and a little ahead. Cancelling it, or the signal, frees its place in the batch; the signal's
 * reason is the stream's error. Other errors are parts of it.
 */
export function answerStream(
  answer: PreparedAnswer,
  opening: readonly Part[],
  { abortSignal, includeRawChunks = false }: LanguageModelV4CallOptions,
): LanguageModelV4StreamResult['stream'] {
  const steps = answerChat(answer, abortSignal)
  const blocks = new Blocks()
  const next = async (): Promise<{ parts: Part[]; done: boolean }> => {
    try {
      const { value, done } = await steps.next()
      if (done) return { parts: [...blocks.end(), { type: 'finish', ...endOf(value, answer.model) }], done }
      const { parts, piece } = value
      const raw: Part[] = includeRawChunks && piece ? [{ type: 'raw', rawValue: piece }] : []
      return { parts: [...raw, ...parts.flatMap((part) => blocks.add(part))], done: false }
    } catch (error) {
      abortSignal?.throwIfAborted()
      const raw = error instanceof OnebitError ? error.code : undefined
      const end: Part = { type: 'finish', usage: NO_USAGE, finishReason: { unified: 'error', raw } }
      return { parts: [...blocks.end(), { type: 'error', error }, end], done: true }
    }
  }
  return new ReadableStream<Part>({
    start(controller) {
      for (const part of opening) controller.enqueue(part)
    },
    async pull(controller) {
      for (;;) {
        const { parts, done } = await next()
        for (const part of parts) controller.enqueue(part)
        if (done) controller.close()
        if (done || parts.length > 0) return
      }
    },
    async cancel() {
      await steps.return(undefined as never)
      // A generator that nobody has begun ends without having done anything.
      answer.constraint?.dispose()
    },
  }) as LanguageModelV4StreamResult['stream']
}

/** Which block is open. */
class Blocks {
  #open: { type: 'text' | 'reasoning' | 'tool-input'; id: string } | undefined
  #count = 0

  add(part: AnswerPart): Part[] {
    switch (part.type) {
      case 'text':
      case 'reasoning':
        return this.#delta(part.type, part.text)
      case 'call-start': {
        const closing = this.end()
        this.#open = { type: 'tool-input', id: part.id }
        return [...closing, { type: 'tool-input-start', id: part.id, toolName: part.name }]
      }
      case 'call-arguments':
        return this.#open ? [{ type: 'tool-input-delta', id: this.#open.id, delta: part.text }] : []
      case 'call-end': {
        const { id: toolCallId, name: toolName, arguments: input } = part
        return [...this.end(), { type: 'tool-call', toolCallId, toolName, input }]
      }
    }
  }

  /** Closes what is open: also a call that turned out to be none, whose text comes again as text. */
  end(): Part[] {
    if (!this.#open) return []
    const { type, id } = this.#open
    this.#open = undefined
    return [{ type: `${type}-end`, id }]
  }

  #delta(type: 'text' | 'reasoning', delta: string): Part[] {
    const opening: Part[] = []
    if (this.#open?.type !== type) {
      opening.push(...this.end())
      this.#open = { type, id: `${type}-${this.#count++}` }
      opening.push({ type: `${type}-start`, id: this.#open.id })
    }
    return [...opening, { type: `${type}-delta`, id: this.#open.id, delta }]
  }
}
