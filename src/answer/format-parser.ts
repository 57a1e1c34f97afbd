/** An answer's text as parts, while it comes: thinking, text and calls. */
import { randomUUID } from 'node:crypto'
import type { ToolFormat } from './call-shape.js'
import { type CallReader, JsonCallReader } from './json-call.js'
import type { AnswerParser, AnswerPart, Tool } from './parts.js'
import { THINK, type ThinkingMarks } from './thinking.js'
import { XmlCallReader } from './xml-call.js'

export interface ParserOptions {
  toolFormat: ToolFormat | undefined
  /** undefined: it does not think */
  marks: ThinkingMarks | undefined
  opened: boolean
  tools: readonly Tool[]
}

const CALL = '<tool_call>'
const END_OF_CALL = '</tool_call>'
const FUNCTION = '<function='
const PYTHON_TAG = '<|python_tag|>'

/** `start`: nothing but white space yet. `after`: a call has ended, its closing marker may follow. */
type Mode = 'start' | 'reasoning' | 'text' | 'call' | 'after'

export class FormatParser implements AnswerParser {
  readonly #options: ParserOptions
  #mode: Mode
  readonly #open: string
  readonly #close: string
  /** came and is not told yet */
  #held = ''
  /** white space that goes away when a marker follows it */
  #space = ''
  #reader: CallReader | undefined
  #calls = 0
  #parts: AnswerPart[] = []
  /** no thinking has begun yet in this part of the answer */
  #mayThink: boolean
  /** the first of the thinking or of what follows it: white space there is only layout */
  #skipsSpace = false

  constructor(options: ParserOptions) {
    this.#options = options
    this.#mode = options.opened ? 'reasoning' : 'start'
    this.#mayThink = options.marks !== undefined && !options.opened
    ;[this.#open, this.#close] = options.marks ?? THINK
    this.#skipsSpace = options.opened
  }

  push(text: string): AnswerPart[] {
    this.#held += text
    while (this.#step(false));
    return this.#taken()
  }

  flush(): AnswerPart[] {
    while (this.#step(true));
    this.#say(this.#mode === 'reasoning' ? 'reasoning' : 'text', this.#space)
    this.#space = ''
    return this.#taken()
  }

  #taken(): AnswerPart[] {
    const parts = this.#parts
    this.#parts = []
    return parts
  }

  /** Takes something of what is held; false when more has to come first. */
  #step(isEnd: boolean): boolean {
    if (this.#held === '' && !(isEnd && this.#reader)) return false
    switch (this.#mode) {
      case 'start':
        return this.#atStart(isEnd)
      case 'reasoning':
        return this.#inReasoning(isEnd)
      case 'call':
        return this.#inCall(isEnd)
      case 'after':
        return this.#afterCall(isEnd)
      default:
        return this.#inText(isEnd)
    }
  }

  #atStart(isEnd: boolean): boolean {
    const trimmed = this.#held.trimStart()
    const space = this.#held.length - trimmed.length
    if (trimmed === '' && !isEnd) return false
    const openers = [
      ...(this.#mayThink ? [this.#open] : []),
      ...(this.#options.toolFormat === 'llama3' ? [PYTHON_TAG] : []),
    ]
    if (!isEnd && openers.some((opener) => trimmed.length < opener.length && opener.startsWith(trimmed))) return false
    if (this.#mayThink && trimmed.startsWith(this.#open)) {
      this.#held = trimmed.slice(this.#open.length)
      this.#mayThink = false
      this.#skipsSpace = true
      this.#mode = 'reasoning'
      return true
    }
    if (this.#options.toolFormat === 'llama3') {
      const isTagged = trimmed.startsWith(PYTHON_TAG)
      const body = isTagged ? trimmed.slice(PYTHON_TAG.length) : trimmed
      if (body === '' && !isEnd) return false
      if (body.trimStart().startsWith('{')) {
        this.#beginCall(this.#held.slice(0, this.#held.length - body.length), body)
        return true
      }
      if (isTagged && body.trim() === '' && !isEnd) return false
    }
    if (this.#skipsSpace) this.#held = this.#held.slice(space)
    this.#skipsSpace = false
    this.#mode = 'text'
    return this.#held !== ''
  }

  #inReasoning(isEnd: boolean): boolean {
    if (this.#skipsSpace) {
      this.#held = this.#held.trimStart()
      if (this.#held === '') return false
    }
    this.#skipsSpace = false
    const at = this.#held.indexOf(this.#close)
    if (at < 0) return this.#sayUpTo('reasoning', [this.#close], isEnd)
    this.#saySpaced('reasoning', this.#held.slice(0, at))
    this.#space = ''
    this.#held = this.#held.slice(at + this.#close.length)
    this.#skipsSpace = true
    this.#mode = 'start'
    return true
  }

  #inText(isEnd: boolean): boolean {
    const { toolFormat } = this.#options
    const openers = toolFormat === 'xml' ? [CALL, FUNCTION] : toolFormat === 'hermes' ? [CALL] : []
    const [at, opener] = firstOf(this.#held, openers)
    if (opener === undefined) return this.#sayUpTo('text', openers, isEnd)
    this.#saySpaced('text', this.#held.slice(0, at))
    const before = this.#space + opener
    this.#space = ''
    this.#beginCall(before, this.#held.slice(at + opener.length), opener === FUNCTION)
    return true
  }

  /** Tells what certainly is no marker: all but white space at its end and what may be the beginning of one. */
  #sayUpTo(kind: 'text' | 'reasoning', markers: readonly string[], isEnd: boolean): boolean {
    const certain = isEnd ? this.#held.length : beginningOf(this.#held, markers)
    this.#saySpaced(kind, this.#held.slice(0, certain))
    this.#held = this.#held.slice(certain)
    return false
  }

  #beginCall(before: string, body: string, isNamed = false): void {
    const index = this.#calls
    const id = `call_${randomUUID().replaceAll('-', '')}`
    const { toolFormat, tools } = this.#options
    this.#reader =
      toolFormat === 'xml'
        ? new XmlCallReader({ index, id, before, tools, isNamed })
        : new JsonCallReader({ index, id, before, tools, isTagged: toolFormat === 'hermes' })
    this.#held = body
    this.#mode = 'call'
  }

  #inCall(isEnd: boolean): boolean {
    const reader = this.#reader!
    const { parts, state, rest } = reader.push(this.#held, isEnd)
    this.#parts.push(...parts)
    // One that breaks off keeps its place: what follows is another call.
    if (parts.some(({ type }) => type === 'call-start')) this.#calls++
    this.#held = rest
    if (state === 'more') return false
    this.#reader = undefined
    if (state === 'done') {
      this.#mode = 'after'
      return this.#held !== ''
    }
    this.#mode = 'text'
    this.#say('text', reader.before)
    // What was told as a call's beginning is no text that could begin another; the rest may be.
    this.#say('text', reader.consumed)
    return this.#held !== ''
  }

  #afterCall(isEnd: boolean): boolean {
    const trimmed = this.#held.trimStart()
    if (this.#options.toolFormat === 'llama3') {
      const next = trimmed.replace(/^[;,]\s*/, '')
      if (next === '' && !isEnd) return false
      if (next.startsWith('{')) {
        this.#beginCall(this.#held.slice(0, this.#held.length - next.length), next)
        return true
      }
    } else if (trimmed.startsWith(END_OF_CALL)) {
      this.#held = trimmed.slice(END_OF_CALL.length).trimStart()
      this.#mode = 'start'
      this.#skipsSpace = true
      return this.#held !== ''
    } else if (!isEnd && END_OF_CALL.startsWith(trimmed)) return false
    this.#mode = 'text'
    return true
  }

  /** Tells a text; white space at its end waits for what follows. */
  #saySpaced(kind: 'text' | 'reasoning', text: string): void {
    const end = text.trimEnd()
    if (end === '') {
      this.#space += text
      return
    }
    this.#say(kind, this.#space + end)
    this.#space = text.slice(end.length)
  }

  #say(type: 'text' | 'reasoning', text: string): void {
    if (text !== '') this.#parts.push({ type, text })
  }
}

function firstOf(text: string, markers: readonly string[]): [number, string | undefined] {
  let first: [number, string | undefined] = [text.length, undefined]
  for (const marker of markers) {
    const at = text.indexOf(marker)
    if (at >= 0 && at < first[0]) first = [at, marker]
  }
  return first
}

/** Where the ending that may become a marker begins. */
function beginningOf(text: string, markers: readonly string[]): number {
  const longest = Math.max(0, ...markers.map((marker) => marker.length))
  for (let at = Math.max(0, text.length - longest + 1); at < text.length; at++) {
    const ending = text.slice(at)
    if (markers.some((marker) => marker.startsWith(ending))) return at
  }
  return text.length
}
