/**
 * What a person types, from the beginning of a conversation to its end, in order and without loss: keys that come while
 * nobody asks wait until somebody does. Lines are edited by node:readline; a paste in brackets, as terminals send it
 * when asked to, is one text with line ends in it and no Enter.
 */
import { createInterface, emitKeypressEvents, type Interface, type Key } from 'node:readline'
import { PassThrough } from 'node:stream'
import { MOST_REMEMBERED } from './history.js'

export interface KeyboardInput extends NodeJS.ReadableStream {
  setRawMode?(mode: boolean): unknown
}

/** Letters are kept together: readline looks at the whole line for every piece it gets. */
type Typed = { letters: string } | { text: string | undefined; key: Key } | { paste: string }

interface Question {
  line: Interface
  /** undefined: there is no answer */
  finish(answer: string | undefined): void
}

const PASTES_IN_BRACKETS = '\x1b[?2004h'
const PASTES_PLAIN = '\x1b[?2004l'

/** What the arrow keys find. */
export interface Memory {
  /** from earlier, the latest first */
  remembered: readonly string[]
  onRemember: (typed: string) => void
}

export class Keyboard {
  readonly #input: KeyboardInput
  readonly #screen: NodeJS.WritableStream
  readonly #onInterrupt: () => void
  readonly #onRemember: ((typed: string) => void) | undefined
  readonly #waiting: Typed[] = []
  #history: readonly string[]
  /** the paste under way */
  #pasted: string | undefined
  #question: Question | undefined
  #ended = false
  #abandoned = ''
  #delivering = false

  /** Takes the terminal over until `close`. `onInterrupt`: Ctrl-C, which is a key like any other in this mode. */
  constructor(input: KeyboardInput, screen: NodeJS.WritableStream, onInterrupt: () => void, memory?: Memory) {
    this.#input = input
    this.#screen = screen
    this.#onInterrupt = onInterrupt
    this.#onRemember = memory?.onRemember
    this.#history = memory?.remembered ?? []
    emitKeypressEvents(input)
    input.on('keypress', this.#onKey)
    input.on('end', this.#onEnd)
    input.on('error', this.#onEnd) // the terminal is gone
    process.on('SIGCONT', this.#takeTerminal)
    process.on('exit', this.#leaveTerminal)
    this.#takeTerminal()
    input.resume()
  }

  /** What stood in the line when the last question was taken back. */
  get abandoned(): string {
    return this.#abandoned
  }

  /** The next message; undefined at Ctrl-D, at the end of the input, and when `signal` aborts. */
  ask(prompt: string, signal: AbortSignal): Promise<string | undefined> {
    // Its input is nobody's: keys come from us, one by one, so that it takes none beyond the end of its line.
    const line = createInterface({
      input: new PassThrough(),
      output: this.#screen,
      terminal: true,
      prompt,
      history: [...this.#history],
      historySize: MOST_REMEMBERED,
    })
    return new Promise((resolve) => {
      const finish = (answer: string | undefined) => {
        if (this.#question?.line !== line) return
        this.#question = undefined
        signal.removeEventListener('abort', onAbort)
        this.#abandoned = line.line
        line.close()
        if (answer === undefined) this.#screen.write('\n')
        else this.#remember(answer)
        resolve(answer)
      }
      const onAbort = () => finish(undefined)
      this.#question = { line, finish }
      signal.addEventListener('abort', onAbort)
      line.on('line', finish)
      line.on('close', onAbort)
      line.prompt()
      this.#deliver()
    })
  }

  #remember(typed: string): void {
    if (typed.trim() === '' || typed === this.#history[0]) return
    this.#history = [typed, ...this.#history].slice(0, MOST_REMEMBERED)
    this.#onRemember?.(typed)
  }

  /** Forgets what waits; returns how many lines that were. */
  forget(): number {
    const lines = this.#waiting.filter((typed) => 'key' in typed && ['return', 'enter'].includes(typed.key.name ?? ''))
    this.#waiting.length = 0
    return lines.length
  }

  /** Gives the terminal back. */
  close(): void {
    this.#input.off('keypress', this.#onKey)
    process.off('SIGCONT', this.#takeTerminal)
    process.off('exit', this.#leaveTerminal)
    this.#leaveTerminal()
    this.#input.pause()
  }

  readonly #takeTerminal = () => {
    this.#input.setRawMode?.(true)
    if (process.env.TERM !== 'dumb') this.#screen.write(PASTES_IN_BRACKETS)
  }

  readonly #leaveTerminal = () => {
    if (process.env.TERM !== 'dumb') this.#screen.write(PASTES_PLAIN)
    this.#input.setRawMode?.(false)
  }

  readonly #onEnd = () => {
    this.#ended = true
    this.#deliver()
  }

  readonly #onKey = (text: string | undefined, key: Key) => {
    if (key.ctrl && key.name === 'c') {
      this.#pasted = undefined
      this.#onInterrupt()
    } else if (key.name === 'paste-start') this.#pasted = ''
    else if (this.#pasted === undefined) this.#type(text, key)
    else if (key.name === 'paste-end') {
      this.#waiting.push({ paste: this.#pasted })
      this.#pasted = undefined
    } else this.#pasted += text ?? key.sequence
    this.#deliverSoon()
  }

  #type(text: string | undefined, key: Key): void {
    const last = this.#waiting.at(-1)
    if (key.ctrl && key.name === 'z') this.#suspend()
    // readline ends a line at these too.
    else if (text === '\u2028' || text === '\u2029') this.#waiting.push({ paste: text })
    else if (text === undefined || key.ctrl || key.meta || /\p{Cc}/u.test(text)) this.#waiting.push({ text, key })
    else if (last && 'letters' in last) last.letters += text
    else this.#waiting.push({ letters: text })
  }

  /** Ctrl-Z, as a terminal does it by itself in its normal mode: for the whole group, npm included. */
  #suspend(): void {
    if (process.platform === 'win32') return
    this.#leaveTerminal()
    process.kill(0, 'SIGTSTP')
    // Here again when somebody continues us.
    this.#takeTerminal()
    this.#question?.line.prompt(true)
  }

  /** When all keys are there that came together. */
  #deliverSoon(): void {
    if (this.#delivering) return
    this.#delivering = true
    queueMicrotask(() => {
      this.#delivering = false
      this.#deliver()
    })
  }

  /** Gives what waits to the question that is asked, as far as it takes it. */
  #deliver(): void {
    while (this.#question && this.#waiting.length > 0) {
      const typed = this.#waiting.shift()!
      const { line } = this.#question
      if ('paste' in typed) insert(line, typed.paste)
      else if ('letters' in typed) line.write(typed.letters)
      else line.write(typed.text as string, typed.key)
    }
    if (this.#ended) this.#question?.finish(undefined)
  }
}

/** Puts text where the cursor is. readline's own write would take each line end for an Enter. */
function insert(line: Interface, pasted: string): void {
  const text = pasted.replace(/\r\n?/g, '\n').replace(/\n$/, '')
  const at = line.cursor
  Object.assign(line, { line: line.line.slice(0, at) + text + line.line.slice(at), cursor: at + text.length })
  line.prompt(true)
}
