/**
 * A chat in the file of its session: the messages, and which of their answers stand in the cache as they were generated.
 * The ids of those are not written again: the session's tokens have them.
 */
import { OnebitError } from '../errors.js'
import { weighJson } from '../files/json-depth.js'
import { type ChatMessage, checkMessages } from '../text/chat-template.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { isRecord } from '../text/tokenizer-json.js'
import type { CachedAnswer } from './chat-turn.js'
import { MOST_EXTRA } from './session-file.js'

const VERSION = 1
/** Arguments of tool calls are the deepest that a conversation has. */
const MAX_DEPTH = 80

export interface Conversation {
  messages: readonly ChatMessage[]
  answers: readonly CachedAnswer[]
}

/** @throws OnebitError ERR_CHAT_SIZE */
export function conversationText({ messages, answers }: Conversation, tokens: Int32Array): string {
  const places = inCache(answers, tokens).map(({ message, at, ids }) => [message, at, ids.length])
  const text = JSON.stringify({ chat: VERSION, messages, answers: places })
  if (text.length <= MOST_EXTRA) return text
  throw new OnebitError('ERR_CHAT_SIZE', `The conversation has ${text.length} characters; ${MOST_EXTRA} can be saved.`)
}

/** Those that the cache really holds, up to the first that it does not. */
function inCache(answers: readonly CachedAnswer[], tokens: Int32Array): readonly CachedAnswer[] {
  let grown = 0
  const lost = answers.findIndex(({ at, encoded, ids }) => {
    const start = at + grown
    grown += ids.length - encoded.length
    return !ids.every((id, i) => tokens[start + i] === id)
  })
  return lost < 0 ? answers : answers.slice(0, lost)
}

/** @throws OnebitError ERR_SESSION_FILE when the text is that of no chat */
export function parseConversation(text: string | undefined, tokens: Int32Array, tokenizer: Tokenizer): Conversation {
  if (text === undefined) {
    throw new OnebitError('ERR_SESSION_FILE', 'The saved session is not that of a chat', {
      hint: 'It was saved by `session.save`: use `Session.restore`.',
    })
  }
  const saved = parseJson(text)
  if (!isRecord(saved) || saved.chat !== VERSION || !Array.isArray(saved.answers)) return damaged('it has no messages')
  const messages = saved.messages as ChatMessage[]
  try {
    if (!Array.isArray(messages) || messages.length > 0) checkMessages(messages)
  } catch (cause) {
    return damaged((cause as Error).message)
  }
  return { messages, answers: parseAnswers(saved.answers, messages, tokens, tokenizer) }
}

function parseJson(text: string): unknown {
  if (weighJson(Buffer.from(text)).depth > MAX_DEPTH) return damaged('its messages are nested too deep')
  try {
    return JSON.parse(text)
  } catch {
    return damaged('its messages are not JSON')
  }
}

function parseAnswers(
  places: readonly unknown[],
  messages: readonly ChatMessage[],
  tokens: Int32Array,
  tokenizer: Tokenizer,
): CachedAnswer[] {
  let [grown, before] = [0, -1]
  return places.map((place) => {
    const [message, at, length] = Array.isArray(place) ? (place as unknown[]) : []
    const whole = [message, at, length].every((number) => Number.isSafeInteger(number) && (number as number) >= 0)
    if (!whole) return damaged('its answers are in no place')
    const [index, start, count] = [message as number, (at as number) + grown, length as number]
    const { role, content } = messages[index] ?? {}
    const there = index > before && role === 'assistant' && typeof content === 'string'
    if (!there || start < 0 || start + count > tokens.length) return damaged('its answers are in no place')
    const encoded = tokenizer.encode(content, { bos: false })
    grown += count - encoded.length
    before = index
    return { message: index, at: at as number, encoded, ids: tokens.slice(start, start + count) }
  })
}

function damaged(problem: string): never {
  throw new OnebitError('ERR_SESSION_FILE', `The saved chat is damaged: ${problem}`, {
    hint: 'Copy the file again, or save the chat again.',
  })
}
