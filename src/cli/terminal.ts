/** The chat in a terminal. Prompts and notes go to stderr, so that `onebit run MODEL > answers.txt` holds answers only. */
import { styleText } from 'node:util'
import type { SendOptions } from '../run/chat-tools.js'
import type { Model } from '../run/model.js'
import type { Piece } from '../run/session.js'
import type { OptionValues } from './arguments.js'
import { chatCommand, type Desk, runChatCommand } from './chat-commands.js'
import { describeError } from './describe-error.js'
import { History, historyPath } from './history.js'
import { Interrupts, KEY } from './interrupts.js'
import { Keyboard } from './keyboard.js'
import { reportSpeed } from './speed-line.js'
import { type Note, startTalk, type Talk } from './talk.js'
import { AnswerPrinter, sendOptions, thinkNote } from './thinking.js'

export interface ConverseOptions {
  /** how answers are made */
  values: OptionValues
  system?: string
  quiet: boolean
}

const PROMPT = '> '
const NEXT_LINE = '… '

export async function converse(model: Model, { values, system, quiet }: ConverseOptions): Promise<number> {
  const note = quiet ? () => {} : tell
  const talk = startTalk(model, system, note)
  const aboutThinking = thinkNote(model, values)
  if (aboutThinking) note(aboutThinking)
  note('Ctrl-C stops an answer. /help lists the commands, /exit leaves.')
  const history = new History(historyPath())
  const interrupts = new Interrupts()
  const remembered = await history.read()
  const keyboard = new Keyboard(process.stdin, screen(), () => interrupts.key(), {
    remembered,
    onRemember: (typed) => history.add(typed),
  })
  try {
    const own = { ...values }
    const printer = new AnswerPrinter(own, quiet)
    await takeTurns({ talk, values: own, quiet, note, interrupts, keyboard, printer })
    return 0
  } finally {
    keyboard.close()
    await history.written()
  }
}

/** Where what is typed can be seen. */
function screen(): NodeJS.WriteStream {
  return process.stdout.isTTY && !process.stderr.isTTY ? process.stdout : process.stderr
}

interface Conversation {
  talk: Talk
  values: OptionValues
  quiet: boolean
  note: Note
  interrupts: Interrupts
  keyboard: Keyboard
  printer: AnswerPrinter
}

/** Until the person leaves. */
async function takeTurns(conversation: Conversation): Promise<void> {
  const { talk, values } = conversation
  // With the seed that was given the answer would be the same again.
  const regenerate = () => answer(conversation, ({ seed: _, ...options }) => talk.regenerate(options))
  let over = false
  const leave = () => {
    over = true
  }
  const desk: Desk = { talk, values, tell, regenerate, leave }
  while (!over) {
    const message = await nextMessage(conversation)
    if (message === undefined) return
    const command = chatCommand(message)
    if (command) {
      // The conversation outlives what went wrong: a file that is none, a setting out of range.
      await runChatCommand(desk, command).catch(complain)
    } else if (message.trim() !== '') {
      await answer(conversation, (options) => talk.say(message, options))
    }
  }
}

/** What is said next, also over several lines; undefined when the person leaves. */
async function nextMessage({ interrupts, keyboard }: Conversation): Promise<string | undefined> {
  let lines = ''
  let warned = false
  for (;;) {
    const { signal } = interrupts.wait()
    const line = await keyboard.ask(styled('bold', lines === '' ? PROMPT : NEXT_LINE), signal)
    if (line === undefined) {
      // The end of the input, or a signal from elsewhere. The key is for what was typed first.
      if (signal.reason !== KEY || (warned && lines === '' && keyboard.abandoned === '')) return undefined
      if (lines === '' && keyboard.abandoned === '') {
        warned = true
        tell('Ctrl-C once more leaves, as /exit does.')
      } else warned = false
      lines = ''
    } else if (line.endsWith('\\')) {
      lines += `${line.slice(0, -1)}\n`
    } else return lines + line
  }
}

async function answer(
  { talk, values, quiet, note, interrupts, keyboard, printer }: Conversation,
  pieces: (options: SendOptions) => AsyncIterable<Piece>,
): Promise<void> {
  const { signal } = interrupts.begin()
  try {
    await printer.print(pieces({ ...sendOptions(values), signal }))
    process.stdout.write('\n')
    if (!quiet) reportSpeed(talk.last)
  } catch (error) {
    process.stdout.write('\n')
    // The conversation outlives a bad turn (a message that is too long, say).
    if (!signal.aborted) return complain(error)
    // As a terminal does in its normal mode: Ctrl-C takes back what was typed and not read yet.
    const lines = keyboard.forget()
    note(lines === 0 ? 'stopped' : `stopped, and ${lines} waiting ${lines === 1 ? 'line' : 'lines'} forgotten`)
  }
}

/** To the person, whatever is said otherwise. */
function tell(line: string): void {
  process.stderr.write(`${styled('dim', line)}\n`)
}

function complain(error: unknown): void {
  process.stderr.write(`${describeError(error)}\n`)
}

function styled(style: 'bold' | 'dim', text: string): string {
  return process.stderr.isTTY && !process.env.NO_COLOR ? styleText(style, text) : text
}
