/** A call as Qwen3.5 writes it: <function=NAME>, <parameter=NAME> with a value on lines of its own, and their ends. */
import type { CallProgress, CallReader, CallStart } from './json-call.js'
import type { AnswerPart, Tool } from './parts.js'
import { argumentJson } from './xml-value.js'

const FUNCTION = '<function='
const END_OF_FUNCTION = '</function>'
const PARAMETER = '<parameter='
const END_OF_PARAMETER = '</parameter>'

export class XmlCallReader implements CallReader {
  readonly before: string
  consumed = ''
  readonly #start: CallStart
  #body: string
  /** how far #body is understood */
  #at = 0
  #tool: Tool | undefined
  #arguments = ''
  readonly #seen = new Set<string>()

  /** what of #body stands in `before` already */
  readonly #given: number

  /** `isNamed`: `<function=` has come, and is the end of `before` */
  constructor(start: CallStart & { isNamed: boolean }) {
    this.#start = start
    this.before = start.before
    this.#body = start.isNamed ? FUNCTION : ''
    this.#given = this.#body.length
  }

  push(text: string, isEnd: boolean): CallProgress {
    this.#body += text
    const parts: AnswerPart[] = []
    for (;;) {
      const state = this.#tool ? this.#parameter(parts) : this.#name(parts)
      if (state === 'again') continue
      if (state === 'more' && !isEnd) return { parts, state, rest: '' }
      if (state === 'done') return { parts, state, rest: this.#body.slice(this.#at) }
      // The same place however the text was cut; the rest may hold another call.
      const taken = this.#tool ? this.#at : this.#given
      this.consumed = this.#body.slice(this.#given, taken)
      return { parts, state: 'broken', rest: this.#body.slice(taken) }
    }
  }

  #name(parts: AnswerPart[]): 'again' | 'more' | 'broken' {
    const body = this.#body.trimStart()
    if (body.length < FUNCTION.length) return FUNCTION.startsWith(body) ? 'more' : 'broken'
    const found = /^<function=([^<>\n]{1,256})>/.exec(body)
    if (!found)
      return body.startsWith(FUNCTION) && !/[<>\n]/.test(body.slice(FUNCTION.length)) && body.length < 300
        ? 'more'
        : 'broken'
    const { index, id, tools } = this.#start
    const tool = tools.find(({ name }) => name === found[1]!.trim())
    if (!tool) return 'broken'
    this.#tool = tool
    this.#at = this.#body.length - body.length + found[0].length
    parts.push({ type: 'call-start', index, id, name: tool.name })
    return 'again'
  }

  #parameter(parts: AnswerPart[]): 'again' | 'more' | 'done' | 'broken' {
    const text = this.#body.slice(this.#at).trimStart()
    const at = this.#body.length - text.length
    if (text.startsWith(END_OF_FUNCTION)) {
      this.#at = at + END_OF_FUNCTION.length
      const { index, id } = this.#start
      this.#tell(parts, this.#arguments === '' ? '{}' : '}')
      parts.push({ type: 'call-end', index, id, name: this.#tool!.name, arguments: this.#arguments })
      return 'done'
    }
    if (END_OF_FUNCTION.startsWith(text) || PARAMETER.startsWith(text)) return 'more'
    if (!text.startsWith(PARAMETER)) return 'broken'
    const end = text.indexOf(END_OF_PARAMETER)
    if (end < 0) return 'more'
    const found = /^<parameter=([^<>\n]{1,256})>/.exec(text)
    if (!found) return 'broken'
    const name = found[1]!.trim()
    this.#at = at + end + END_OF_PARAMETER.length
    // Of a parameter that comes twice the first counts: what was told cannot be taken back.
    if (this.#seen.has(name)) return 'again'
    this.#seen.add(name)
    const value = text
      .slice(found[0].length, end)
      .replace(/^\r?\n/, '')
      .replace(/\r?\n$/, '')
    const json = argumentJson(value, name, this.#tool!)
    this.#tell(parts, `${this.#arguments === '' ? '{' : ', '}${JSON.stringify(name)}: ${json}`)
    return 'again'
  }

  #tell(parts: AnswerPart[], text: string): void {
    this.#arguments += text
    parts.push({ type: 'call-arguments', index: this.#start.index, text })
  }
}
