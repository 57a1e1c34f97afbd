/** What a terminal shows of a model's thinking: on stderr, so that stdout holds answers only. */
import { styleText } from 'node:util'
import { thinkingMarks } from '../answer/thinking.js'
import type { SendOptions } from '../run/chat-tools.js'
import type { Model } from '../run/model.js'
import type { Piece } from '../run/session.js'
import { generateOptions } from './answer-options.js'
import type { OptionSpec, OptionValues } from './arguments.js'
import { printSlowly } from './streams.js'

export const THINK_CHOICES = ['show', 'hide', 'off'] as const

export const THINK_OPTION: OptionSpec = {
  type: 'string',
  choices: [...THINK_CHOICES],
  help: "show a model's thinking (default), only say that it thinks, or turn it off where the template can",
}

/** How the answers of a chat are made; what was not asked for is as the model's template has it. */
export function sendOptions(values: OptionValues): SendOptions {
  const { think } = values
  return { ...generateOptions(values), ...(think === undefined ? {} : { think: think !== 'off' }) }
}

/** What to tell whoever wants a model not to think that cannot be told so; undefined: nothing. */
export function thinkNote(model: Model, { think }: OptionValues): string | undefined {
  const source = model.chatTemplate?.source ?? ''
  if (think !== 'off' || thinkingMarks(source) === undefined || /\b(enable_)?thinking\b/.test(source)) return undefined
  return "The model's chat template has no switch for thinking: it is only hidden."
}

interface Screen {
  write(text: string): unknown
  isTTY?: boolean
}

/** Prints one answer after another. */
export class AnswerPrinter {
  readonly #values: OptionValues
  readonly #isQuiet: boolean
  readonly #screen: Screen
  readonly #say: (text: string) => Promise<void>
  /** of the thinking that is under way; 0: there is none */
  #tokens = 0

  /** @param values `think` is looked at whenever an answer thinks */
  constructor(
    values: OptionValues,
    isQuiet: boolean,
    screen: Screen = process.stderr,
    say: (text: string) => Promise<void> = printSlowly,
  ) {
    this.#values = values
    this.#isQuiet = isQuiet
    this.#screen = screen
    this.#say = say
  }

  async print(pieces: AsyncIterable<Piece>): Promise<void> {
    try {
      for await (const { text, reasoning } of pieces) {
        if (reasoning !== undefined) this.#think(reasoning)
        if (text === '') continue
        this.#endThinking()
        await this.#say(text)
      }
    } finally {
      this.#endThinking()
    }
  }

  get #mode(): unknown {
    return this.#isQuiet ? 'off' : (this.#values.think ?? 'show')
  }

  #think(text: string): void {
    const isFirst = this.#tokens++ === 0
    if (this.#mode === 'show') this.#screen.write(this.#dim(text))
    else if (this.#mode === 'hide' && isFirst && this.#screen.isTTY) this.#screen.write(this.#dim('thinking…'))
  }

  #endThinking(): void {
    if (this.#tokens === 0) return
    const count = `${this.#tokens} ${this.#tokens === 1 ? 'token' : 'tokens'}`
    this.#tokens = 0
    if (this.#mode === 'show') this.#screen.write('\n\n')
    if (this.#mode !== 'hide') return
    const start = this.#screen.isTTY ? '\r\u001b[K' : ''
    this.#screen.write(`${start}${this.#dim(`thought for ${count}`)}\n`)
  }

  #dim(text: string): string {
    return this.#screen.isTTY && !process.env.NO_COLOR ? styleText('dim', text, { validateStream: false }) : text
  }
}
