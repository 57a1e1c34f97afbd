/** The thinking of a model before its answer, told by the marks around it. */

export type ThinkingMarks = readonly [open: string, close: string]

/** What nearly all models have. */
export const THINK: ThinkingMarks = ['<think>', '</think>']

/** As chat templates write them. */
const MARKS: readonly ThinkingMarks[] = [
  THINK,
  ['<thinking>', '</thinking>'],
  ['<seed:think>', '</seed:think>'],
  ['[THINK]', '[/THINK]'],
  ['<|START_THINKING|>', '<|END_THINKING|>'],
]

/** The marks that a template writes or looks for; undefined: its model does not think. */
export function thinkingMarks(template: string): ThinkingMarks | undefined {
  return MARKS.find(([open, close]) => template.includes(open) || template.includes(close))
}

/** Whether a prompt that ends like this leaves the model thinking; a few tokens of its end are enough. */
export function opensThinking(promptEnd: string, [open]: ThinkingMarks = THINK): boolean {
  return promptEnd.trimEnd().endsWith(open)
}

/** A piece of a text, parted. */
interface Passed {
  /** thinking, with its marks and the empty lines behind it */
  thinking: string
  /** what comes behind it */
  answer: string
}

/** Parts a text that comes in pieces, without changing it: stop texts are looked for in the answer only. */
export class ThinkingGate {
  readonly #open: string
  readonly #close: string
  /** gap: white space between the closing mark and the answer */
  #mode: 'start' | 'thinking' | 'gap' | 'answer'
  /** at the start: what may become the opening mark; in the thinking: the last of it, which may be half a mark */
  #held = ''

  constructor([open, close]: ThinkingMarks, opened: boolean) {
    this.#open = open
    this.#close = close
    this.#mode = opened ? 'thinking' : 'start'
  }

  push(text: string): Passed {
    switch (this.#mode) {
      case 'start':
        return this.#atStart(text)
      case 'thinking':
        return this.#inThinking(text)
      case 'gap':
        return this.#inGap(text)
      default:
        return { thinking: '', answer: text }
    }
  }

  /** What was held back, when no more text comes. */
  flush(): string {
    return this.#mode === 'start' ? this.#held : ''
  }

  #atStart(text: string): Passed {
    const all = this.#held + text
    const begun = all.trimStart()
    if (begun.length < this.#open.length && this.#open.startsWith(begun)) {
      this.#held = all
      return { thinking: '', answer: '' }
    }
    this.#held = ''
    if (!begun.startsWith(this.#open)) {
      this.#mode = 'answer'
      return { thinking: '', answer: all }
    }
    this.#mode = 'thinking'
    const inside = all.length - begun.length + this.#open.length
    const { thinking, answer } = this.#inThinking(all.slice(inside))
    return { thinking: all.slice(0, inside) + thinking, answer }
  }

  #inThinking(text: string): Passed {
    const before = this.#held.length
    const all = this.#held + text
    const at = all.indexOf(this.#close)
    if (at < 0) {
      this.#held = all.slice(-(this.#close.length - 1))
      return { thinking: text, answer: '' }
    }
    this.#mode = 'gap'
    const end = at + this.#close.length - before
    const { thinking, answer } = this.#inGap(text.slice(end))
    return { thinking: text.slice(0, end) + thinking, answer }
  }

  #inGap(text: string): Passed {
    const answer = text.trimStart()
    if (answer !== '') this.#mode = 'answer'
    return { thinking: text.slice(0, text.length - answer.length), answer }
  }
}
