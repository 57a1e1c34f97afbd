/** The answer of a chat while it comes, taken apart into thinking, text and calls. */
import type { AnswerPart } from '../answer/parts.js'
import type { FinishReason, GenerationSummary, Piece } from '../run/generation.js'
import type { PreparedAnswer } from './prepare-chat.js'

/** What one token brought. */
export interface ChatStep {
  parts: AnswerPart[]
  /** undefined: the answer has ended, and this was held back */
  piece?: Piece
}

export interface ChatEnd {
  finish: 'stop' | 'length' | 'tool_calls'
  summary: GenerationSummary
  reasoningTokens: number
}

/**
 * Leaving it frees the request's place within one step.
 * @throws OnebitError as Batch.generate; the signal's reason
 */
export async function* answerChat(
  { batch, ids, options, parser, constraint }: PreparedAnswer,
  signal: AbortSignal | undefined,
): AsyncGenerator<ChatStep, ChatEnd, undefined> {
  let reasoningTokens = 0
  let calls = 0
  const more = { ...(signal ? { signal } : {}), ...(constraint ? { constraint } : {}) }
  const pieces = batch.generate(ids, { ...options, ...more })
  const counted = (parts: AnswerPart[]) => {
    calls += parts.filter(({ type }) => type === 'call-end').length
    return parts
  }
  try {
    for (;;) {
      const { value, done } = await pieces.next()
      if (done) {
        yield { parts: counted(parser.flush()) }
        const finish = calls > 0 ? 'tool_calls' : finishOf(value.finishReason)
        return { finish, summary: value, reasoningTokens }
      }
      const parts = counted(parser.push(value.text))
      if (parts.some(({ type }) => type === 'reasoning')) reasoningTokens++
      yield { parts, piece: value }
    }
  } finally {
    // Whoever was to take them has left.
    await pieces.return(undefined as never)
  }
}

export function finishOf(reason: FinishReason): 'stop' | 'length' {
  return reason === 'stop' ? 'stop' : 'length'
}
