/** Answers taken apart into thinking, text and calls while they come. */
import { afterThinking } from '../answer/answer-shapes.js'
import { type AnswerFormat, answerFormat, answerStart } from '../answer/format.js'
import type { AnswerParser, AnswerPart } from '../answer/parts.js'
import { WholeAnswer } from '../answer/whole-answer.js'
import type { AnswerShape } from '../grammar/constraint.js'
import type { ChatMessage, RenderOptions } from '../text/chat-template.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { CheckedGenerateOptions } from './generate-options.js'
import type { Piece } from './pieces.js'

/** A piece with the parts that it is made of. */
export interface PartedPiece extends Piece {
  parts: AnswerPart[]
}

export class PartedAnswer {
  readonly #parser: AnswerParser
  readonly #whole = new WholeAnswer()
  #lastId = -1
  /** what the parser held back until the answer had ended */
  #rest: AnswerPart[] | undefined

  constructor(parser: AnswerParser) {
    this.#parser = parser
  }

  get calls(): readonly { id: string; name: string; arguments: string }[] {
    return this.#whole.calls
  }

  piece(piece: Piece): PartedPiece {
    this.#lastId = piece.id
    return { ...piece, ...this.#told(this.#parser.push(piece.text)) }
  }

  *rest(): Generator<PartedPiece> {
    this.message()
    const parts = this.#rest!
    if (parts.length > 0) yield { id: this.#lastId, released: true, ...saidIn(parts) }
  }

  message(): ChatMessage {
    if (!this.#rest) {
      this.#rest = this.#parser.flush()
      this.#told(this.#rest)
    }
    const { text: content, reasoning, calls } = this.#whole
    const made = calls.map(({ id, name, arguments: args }) => ({
      id,
      type: 'function',
      function: { name, arguments: JSON.parse(args) as unknown },
    }))
    return {
      role: 'assistant',
      content,
      ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
      ...(made.length > 0 ? { tool_calls: made } : {}),
    }
  }

  #told(parts: AnswerPart[]): Omit<PartedPiece, 'id'> {
    for (const part of parts) this.#whole.add(part)
    return saidIn(parts)
  }
}

function saidIn(parts: AnswerPart[]): Omit<PartedPiece, 'id'> {
  const said = (kind: 'text' | 'reasoning') => parts.map((part) => (part.type === kind ? part.text : '')).join('')
  const reasoning = said('reasoning')
  return { text: said('text'), ...(reasoning === '' ? {} : { reasoning }), parts }
}

/** How an answer to a prompt that a chat template rendered is generated, and taken apart. */
export interface AnswerForm {
  /** undefined: the model does not think, all is text */
  parser: AnswerParser | undefined
  /** options of the generation */
  options: { thinking?: readonly [string, string]; showSpecial?: string[] }
  /** the form that is asked of the whole answer, where one is asked of its text */
  shape: AnswerShape | undefined
}

/** @param shape the form that the answer's text must have */
export function formOfAnswer(
  template: string | undefined,
  tokenizer: Tokenizer,
  prompt: Int32Array,
  shape: AnswerShape | undefined,
): AnswerForm {
  const format: AnswerFormat = answerFormat(template)
  const { marks } = format
  if (marks === undefined) return { parser: undefined, options: {}, shape }
  const start = answerStart(format, prompt, (end) => tokenizer.decode(end))
  return {
    parser: format.parser([], start),
    options: { thinking: marks, showSpecial: [...marks] },
    shape: shape && start.opened ? afterThinking(shape, marks) : shape,
  }
}

/** What of a model talking with its template needs. */
interface TalkingModel {
  readonly chatTemplate?: { readonly source: string } | undefined
  encodeChat(messages: readonly ChatMessage[], options: RenderOptions): Promise<Int32Array>
  requireTokenizer(): Tokenizer
}

/** The ids of a conversation, and how its answer is generated and taken: with the thinking told apart where there is some. */
export async function conversationForm(
  model: TalkingModel,
  messages: readonly ChatMessage[],
  given: CheckedGenerateOptions,
) {
  const { signal } = given
  const ids = await model.encodeChat(messages, signal ? { signal } : {})
  const { parser, options, shape } = formOfAnswer(
    model.chatTemplate?.source,
    model.requireTokenizer(),
    ids,
    given.shape,
  )
  const showSpecial = [...given.showSpecial, ...(options.showSpecial ?? [])]
  const apart = (pieces: AsyncGenerator<Piece, void, undefined>) => (parser ? thinkingApart(pieces, parser) : pieces)
  return { ids, options: { ...options, showSpecial, shape }, apart }
}

/** The same pieces, with the thinking in `reasoning` instead of in `text`. */
export async function* thinkingApart<R>(
  pieces: AsyncGenerator<Piece, R, undefined>,
  parser: AnswerParser,
): AsyncGenerator<Piece, R, undefined> {
  const answer = new PartedAnswer(parser)
  const plain = ({ parts: _, ...piece }: PartedPiece): Piece => piece
  try {
    for (;;) {
      const { value, done } = await pieces.next()
      if (!done) yield plain(answer.piece(value))
      else {
        for (const piece of answer.rest()) yield plain(piece)
        return value
      }
    }
  } finally {
    // Whoever was to take them has left.
    await pieces.return(undefined as never)
  }
}
