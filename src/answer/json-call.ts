/** A call as JSON: {"name": …, "arguments": {…}}, as Hermes and Qwen3 write it in <tool_call>, and Llama 3 by itself. */
import { isRecord } from '../text/tokenizer-json.js'
import { JsonScanner } from './json-scanner.js'
import type { AnswerPart, Tool } from './parts.js'

export interface CallStart {
  index: number
  id: string
  /** the text before the call's own, told again as text if it turns out to be none */
  before: string
  tools: readonly Tool[]
}

/** more: the call goes on. done: it is complete. broken: it is none, and its text is `before` and `consumed`. */
export interface CallProgress {
  parts: AnswerPart[]
  state: 'more' | 'done' | 'broken'
  /** what does not belong to it, or has to be given again with what follows */
  rest: string
}

export interface CallReader {
  readonly before: string
  /** of the call's text, after it broke: what is no longer in `rest` */
  readonly consumed: string
  push(text: string, isEnd: boolean): CallProgress
}

const ARGUMENT_NAMES = ['arguments', 'parameters']
/** Names and ids are shorter; a longer beginning is none. */
const MOST_HEAD = 512

type Head = { kind: 'more' } | { kind: 'other' } | { kind: 'call'; name: string; at: number }

export class JsonCallReader implements CallReader {
  readonly before: string
  consumed = ''
  readonly #start: CallStart & { isTagged: boolean }
  /** everything of the call so far */
  #body = ''
  #name: string | undefined
  /** where the arguments lie in #body */
  #from = 0
  #to = 0
  readonly #arguments = new JsonScanner()
  readonly #whole = new JsonScanner()
  /** how far #whole has read */
  #scanned = 0
  /** no beginning that could be told while it comes: what it is shows only when it is complete */
  #isOther = false

  constructor(start: CallStart & { isTagged: boolean }) {
    this.#start = start
    this.before = start.before
  }

  push(text: string, isEnd: boolean): CallProgress {
    this.#body += text
    const parts: AnswerPart[] = []
    if (this.#name === undefined && !this.#isOther) {
      const head = headOf(this.#body)
      if (head.kind === 'more' && !isEnd) return { parts, state: 'more', rest: '' }
      if (head.kind === 'call' && this.#isTool(head.name)) {
        this.#name = head.name
        this.#from = head.at
        this.#to = head.at
        parts.push({ type: 'call-start', index: this.#start.index, id: this.#start.id, name: head.name })
      } else if (head.kind === 'other' && this.#start.isTagged && startsObject(this.#body)) this.#isOther = true
      else return this.#broken(parts, 0)
    }
    if (this.#name !== undefined) this.#tellArguments(parts)
    const end = this.#endOfObject()
    if (end === undefined) return isEnd ? this.#broken(parts, this.#body.length) : { parts, state: 'more', rest: '' }
    return this.#finish(parts, end)
  }

  #isTool(name: string): boolean {
    return this.#start.tools.some((tool) => tool.name === name)
  }

  #tellArguments(parts: AnswerPart[]): void {
    if (this.#arguments.done) return
    const from = this.#to
    this.#to += this.#arguments.push(this.#body.slice(from))
    const text = this.#body.slice(from, this.#to)
    if (text !== '') parts.push({ type: 'call-arguments', index: this.#start.index, text })
  }

  /** Where the whole object ends, once it has. */
  #endOfObject(): number | undefined {
    if (this.#scanned === 0) this.#scanned = this.#body.length - this.#body.trimStart().length
    this.#scanned += this.#whole.push(this.#body.slice(this.#scanned))
    return this.#whole.done ? this.#scanned : undefined
  }

  #finish(parts: AnswerPart[], end: number): CallProgress {
    const rest = this.#body.slice(end)
    const value = parsed(this.#body.slice(0, end))
    const { index, id } = this.#start
    if (this.#name !== undefined && value !== undefined) {
      const text = this.#body.slice(this.#from, this.#to)
      parts.push({ type: 'call-end', index, id, name: this.#name, arguments: text })
      return { parts, state: 'done', rest }
    }
    const call = value === undefined ? undefined : wholeCall(value)
    if (!call || !this.#isTool(call.name)) return this.#broken(parts, end)
    parts.push(
      { type: 'call-start', index, id, name: call.name },
      { type: 'call-arguments', index, text: call.arguments },
      { type: 'call-end', index, id, ...call },
    )
    return { parts, state: 'done', rest }
  }

  #broken(parts: AnswerPart[], at: number): CallProgress {
    this.consumed = this.#body.slice(0, at)
    return { parts, state: 'broken', rest: this.#body.slice(at) }
  }
}

function startsObject(body: string): boolean {
  return body.trimStart().startsWith('{')
}

/** How a call begins that can be told while it comes: its name, other short texts, then its arguments. */
function headOf(body: string): Head {
  if (body.length > MOST_HEAD) return { kind: 'other' }
  let at = skipSpace(body, 0)
  if (at === body.length) return { kind: 'more' }
  if (body[at] !== '{') return { kind: 'other' }
  at++
  let name: string | undefined
  for (;;) {
    const key = textAt(body, skipSpace(body, at))
    if (typeof key === 'string') return { kind: key as 'more' | 'other' }
    at = skipSpace(body, key.end)
    if (at === body.length) return { kind: 'more' }
    if (body[at] !== ':') return { kind: 'other' }
    at = skipSpace(body, at + 1)
    if (at === body.length) return { kind: 'more' }
    if (ARGUMENT_NAMES.includes(key.value)) {
      return name !== undefined && body[at] === '{' ? { kind: 'call', name, at } : { kind: 'other' }
    }
    const value = textAt(body, at)
    if (typeof value === 'string') return { kind: value as 'more' | 'other' }
    if (key.value === 'name') name = value.value
    at = skipSpace(body, value.end)
    if (at === body.length) return { kind: 'more' }
    if (body[at] !== ',') return { kind: 'other' }
    at++
  }
}

function skipSpace(text: string, from: number): number {
  let at = from
  while (at < text.length && ' \t\n\r'.includes(text[at]!)) at++
  return at
}

/** The JSON string here. */
function textAt(body: string, at: number): 'more' | 'other' | { value: string; end: number } {
  if (at >= body.length) return 'more'
  if (body[at] !== '"') return 'other'
  let end = at + 1
  while (end < body.length && body[end] !== '"') end += body[end] === '\\' ? 2 : 1
  if (end >= body.length) return 'more'
  const value = parsed(body.slice(at, end + 1))
  return typeof value === 'string' ? { value, end: end + 1 } : 'other'
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Any order of keys, arguments as an object, as the JSON text of one, or none at all. */
function wholeCall(value: unknown): { name: string; arguments: string } | undefined {
  if (!isRecord(value) || typeof value.name !== 'string') return undefined
  const given = value.arguments ?? value.parameters ?? {}
  const inner = typeof given === 'string' ? parsed(given) : given
  return isRecord(inner) && !Array.isArray(inner) ? { name: value.name, arguments: JSON.stringify(inner) } : undefined
}
