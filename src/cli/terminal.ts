/** The chat in a terminal. Prompts and notes go to stderr, so that `onebit run MODEL > answers.txt` holds answers only. */
import { createInterface } from 'node:readline/promises'
import { styleText } from 'node:util'
import { OnebitError } from '../errors.js'
import { Chat } from '../run/chat.js'
import type { Model } from '../run/model.js'
import type { GenerateOptions, GenerationSummary, Piece } from '../run/session.js'
import { describeError } from './describe-error.js'
import { Interrupts } from './interrupts.js'
import { reportSpeed } from './run.js'

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
  return takeTurns(talk, new Interrupts(), options, note)
}

async function takeTurns(
  talk: Talk,
  interrupts: Interrupts,
  options: ConverseOptions,
  note: (line: string) => void,
): Promise<number> {
  let history: string[] = []
  for (;;) {
    const asked = await ask(history, interrupts.wait())
    if (asked === undefined) return 0
    history = asked.history
    const line = asked.line.trim()
    if (line === '/exit') return 0
    if (line === '/reset') {
      talk.reset()
      note('The conversation is forgotten.')
    } else if (line.startsWith('/') && /^\/\w+$/.test(line)) {
      note(`There is no ${line}; there are /reset and /exit.`)
    } else if (line !== '') {
      await answer(talk, asked.line, interrupts.begin(), options)
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

/**
 * One line from the user; undefined at Ctrl-C or Ctrl-D. The interface lives only while we ask: with it gone the
 * terminal is in its normal mode, and Ctrl-C during an answer arrives as a signal.
 */
async function ask(
  history: string[],
  leaving: AbortController,
): Promise<{ line: string; history: string[] } | undefined> {
  const lines = createInterface({ input: process.stdin, output: process.stderr, terminal: true, history: [...history] })
  lines.on('SIGINT', () => leaving.abort())
  lines.on('close', () => leaving.abort())
  try {
    const line = await lines.question(styled('bold', '> '), { signal: leaving.signal })
    return { line, history: line.trim() === '' ? history : [line, ...history].slice(0, 200) }
  } catch (error) {
    if (!leaving.signal.aborted) throw error
    process.stderr.write('\n')
    return undefined
  } finally {
    lines.close()
  }
}

async function answer(talk: Talk, line: string, stop: AbortController, options: ConverseOptions): Promise<void> {
  try {
    for await (const piece of talk.say(line, { ...options.generate, signal: stop.signal }))
      process.stdout.write(piece.text)
    process.stdout.write('\n')
    if (!options.quiet) reportSpeed(talk.last())
  } catch (error) {
    process.stdout.write('\n')
    // The conversation outlives a bad turn (a message that is too long, say).
    if (!stop.signal.aborted) process.stderr.write(`${describeError(error)}\n`)
    else if (!options.quiet) process.stderr.write(`${styled('dim', 'stopped')}\n`)
  }
}

function styled(style: 'bold' | 'dim', text: string): string {
  return process.stderr.isTTY && !process.env.NO_COLOR ? styleText(style, text) : text
}
