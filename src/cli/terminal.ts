/** The chat in a terminal. Prompts and notes go to stderr, so that `onebit run MODEL > answers.txt` holds answers only. */
import { styleText } from 'node:util'
import { OnebitError } from '../errors.js'
import { Chat } from '../run/chat.js'
import type { Model } from '../run/model.js'
import type { GenerateOptions, GenerationSummary, Piece } from '../run/session.js'
import { describeError } from './describe-error.js'
import { Interrupts } from './interrupts.js'
import { Keyboard } from './keyboard.js'
import { reportSpeed } from './speed-line.js'
import { printSlowly } from './streams.js'

export interface ConverseOptions {
  generate: GenerateOptions
  system?: string
  quiet: boolean
}

/** Where turns go: through the chat template, or, without one, appended to one growing text. */
interface Talk {
  /** what the last answer cost */
  last(): GenerationSummary | undefined
  say(text: string, options: GenerateOptions): AsyncIterable<Piece>
  reset(): void
}

export async function converse(model: Model, options: ConverseOptions): Promise<number> {
  const note = (line: string) => {
    if (!options.quiet) process.stderr.write(`${styled('dim', line)}\n`)
  }
  const talk = startTalk(model, options, note)
  note('Ctrl-C stops an answer, a second one leaves. /reset forgets the conversation, /exit leaves.')
  const interrupts = new Interrupts()
  const keyboard = new Keyboard(process.stdin, screen(), () => interrupts.key())
  try {
    return await takeTurns({ talk, interrupts, keyboard, options, note })
  } finally {
    keyboard.close()
  }
}

/** Where what is typed can be seen. */
function screen(): NodeJS.WriteStream {
  return process.stdout.isTTY && !process.stderr.isTTY ? process.stdout : process.stderr
}

interface Conversation {
  talk: Talk
  interrupts: Interrupts
  keyboard: Keyboard
  options: ConverseOptions
  note: (line: string) => void
}

async function takeTurns(conversation: Conversation): Promise<number> {
  const { talk, interrupts, keyboard, note } = conversation
  for (;;) {
    const message = await keyboard.ask(styled('bold', '> '), interrupts.wait().signal)
    const command = message?.trim()
    if (command === undefined || command === '/exit') return 0
    if (command === '/reset') {
      talk.reset()
      note('The conversation is forgotten.')
    } else if (/^\/\w+$/.test(command)) {
      note(`There is no ${command}; there are /reset and /exit.`)
    } else if (command !== '') {
      await answer(conversation, message!)
    }
  }
}

/** A conversation that says when the context is full. */
export function startChat(model: Model, system: string | undefined, note: (line: string) => void): Chat {
  return new Chat(model, {
    ...(system === undefined ? {} : { system }),
    onTrim: (gone) =>
      note(
        gone > 0
          ? `The context is full: the ${gone} oldest messages are forgotten.`
          : 'The context is full: the beginning of this answer is forgotten.',
      ),
  })
}

function startTalk(model: Model, options: ConverseOptions, note: (line: string) => void): Talk {
  if (model.hasChatTemplate) {
    const chat = startChat(model, options.system, note)
    return { last: () => chat.last, say: (text, generate) => chat.send(text, generate), reset: () => chat.reset() }
  }
  if (options.system !== undefined) {
    throw new OnebitError('ERR_NO_CHAT_TEMPLATE', 'This model has no chat template, so --system has no place in it.')
  }
  note('This model has no chat template: it continues your text.')
  const session = model.createSession()
  return {
    last: () => session.last,
    say: (text, generate) => session.generate(text, generate),
    reset: () => session.rewind(0),
  }
}

async function answer({ talk, interrupts, keyboard, options, note }: Conversation, message: string): Promise<void> {
  const { signal } = interrupts.begin()
  try {
    for await (const piece of talk.say(message, { ...options.generate, signal })) await printSlowly(piece.text)
    process.stdout.write('\n')
    if (!options.quiet) reportSpeed(talk.last())
  } catch (error) {
    process.stdout.write('\n')
    // The conversation outlives a bad turn (a message that is too long, say).
    if (!signal.aborted) return void process.stderr.write(`${describeError(error)}\n`)
    // As a terminal does in its normal mode: Ctrl-C takes back what was typed and not read yet.
    const lines = keyboard.forget()
    note(lines === 0 ? 'stopped' : `stopped, and ${lines} waiting ${lines === 1 ? 'line' : 'lines'} forgotten`)
  }
}

function styled(style: 'bold' | 'dim', text: string): string {
  return process.stderr.isTTY && !process.env.NO_COLOR ? styleText(style, text) : text
}
