/** What begins with a slash in the chat of a terminal. */
import { homedir } from 'node:os'
import { join } from 'node:path'
import { LIMITS } from '../config/limits.js'
import { OnebitError, OptionError } from '../errors.js'
import { checkGenerateOptions } from '../run/generate-options.js'
import { shown } from '../shown-value.js'
import { ANSWER_OPTIONS, generateOptions } from './answer-options.js'
import { converted, type OptionValue, type OptionValues } from './arguments.js'
import type { Talk } from './talk.js'
import { THINK_CHOICES } from './thinking.js'

/** What the commands work on. */
export interface Desk {
  talk: Talk
  /** how answers are made; /set changes them */
  values: OptionValues
  /** Says something on the screen. */
  tell: (line: string) => void
  /** Shows an answer as it comes. */
  regenerate: () => Promise<void>
  /** The chat is over. */
  leave: () => void
}

interface ChatCommand {
  /** what follows its name, in /help */
  takes?: string
  help: string
  run(desk: Desk, rest: string): void | Promise<void>
}

const COMMANDS: Record<string, ChatCommand> = {
  help: { help: 'this list', run: ({ tell }) => tell(helpText()) },
  regen: { help: 'answer the last message again', run: ({ regenerate }) => regenerate() },
  undo: { help: 'take the last message and its answer back', run: undo },
  system: { takes: '[TEXT | none]', help: 'show or change the system message', run: system },
  set: { takes: '[NAME [VALUE | default]]', help: 'show or change how answers are made', run: set },
  think: { takes: '[show | hide | off]', help: "show the model's thinking, shorten it, or turn it off", run: think },
  save: { takes: 'FILE', help: 'write the conversation, with all that is computed of it', run: save },
  load: { takes: 'FILE', help: 'go on with a saved conversation', run: load },
  reset: {
    help: 'forget the conversation',
    run({ talk, tell }) {
      talk.reset()
      tell('The conversation is forgotten.')
    },
  },
  exit: { help: 'leave', run: ({ leave }) => leave() },
}

/** The command that a message is, if it is one: `/usr/bin is a folder` and `/ 2` are messages. */
export function chatCommand(message: string): { name: string; rest: string } | undefined {
  const found = /^\s*\/([a-z]\w*)(?:\s+(.*))?$/is.exec(message)
  if (!found) return undefined
  const [, name, rest = ''] = found
  // A word with a slash that is none of ours, and a sentence after it: somebody writes about a path or a command.
  if (!Object.hasOwn(COMMANDS, name!) && rest.trim() !== '') return undefined
  return { name: name!, rest: rest.trim() }
}

/** Does it. Its errors are for the person, and the chat goes on. */
export async function runChatCommand(desk: Desk, { name, rest }: { name: string; rest: string }): Promise<void> {
  if (!Object.hasOwn(COMMANDS, name)) {
    desk.tell(`There is no /${name}; /help lists what there is.`)
    return
  }
  const command = COMMANDS[name]!
  if (rest !== '' && command.takes === undefined) {
    desk.tell(`/${name} takes nothing after it.`)
    return
  }
  await command.run(desk, rest)
}

function helpText(): string {
  const rows = Object.entries(COMMANDS).map(([name, { takes, help }]) => [
    `/${name}${takes === undefined ? '' : ` ${takes}`}`,
    help,
  ])
  const width = Math.max(...rows.map(([left]) => left!.length))
  return [
    ...rows.map(([left, right]) => `${left!.padEnd(width)}  ${right}`),
    'A line that ends with \\ goes on in the next. Ctrl-C stops an answer. Arrow keys find what was typed before.',
  ].join('\n')
}

function undo({ talk, tell }: Desk): void {
  const taken = talk.undo()
  tell(taken === undefined ? 'There is nothing to take back.' : `Taken back: ${shortened(taken)}`)
}

function shortened(text: string): string {
  const [line] = text.trim().split('\n')
  return line!.length > 60 || line !== text.trim() ? `${line!.slice(0, 60)}…` : line!
}

function system({ talk, tell }: Desk, rest: string): void {
  if (rest === '') {
    tell(talk.system === undefined ? 'There is no system message.' : `System message: ${talk.system}`)
    return
  }
  talk.setSystem(rest === 'none' ? undefined : rest)
  tell(rest === 'none' ? 'The system message is gone.' : 'The system message is changed.')
}

function think({ values, tell }: Desk, rest: string): void {
  const choices: readonly string[] = THINK_CHOICES
  if (rest !== '' && !choices.includes(rest)) {
    throw new OnebitError('ERR_BAD_OPTION', `/think takes ${choices.join(', ')}, not ${shown(rest)}.`)
  }
  if (rest !== '') values.think = rest
  tell(`Thinking: ${values.think ?? 'show'}`)
}

function set({ values, tell }: Desk, rest: string): void {
  const [, name = '', typed] = /^(\S+)(?:\s+(.+))?$/s.exec(rest) ?? []
  if (name === '') {
    tell(
      Object.keys(ANSWER_OPTIONS)
        .map((known) => shownSetting(values, known))
        .join('\n'),
    )
    return
  }
  if (!Object.hasOwn(ANSWER_OPTIONS, name)) {
    throw new OnebitError('ERR_BAD_OPTION', `There is no setting ${name}.`, {
      hint: `There are ${Object.keys(ANSWER_OPTIONS).join(', ')}.`,
    })
  }
  if (typed !== undefined) {
    const value = typed === 'default' ? undefined : settingValue(name, typed)
    checkGenerateOptions(generateOptions({ ...values, [name]: value }), LIMITS.vocab)
    values[name] = value
  }
  tell(shownSetting(values, name))
}

function settingValue(name: string, typed: string): OptionValue | OptionValue[] {
  const spec = ANSWER_OPTIONS[name]!
  try {
    const value = converted(name, spec, typed)
    return spec.multiple ? [value] : value
  } catch (error) {
    throw error instanceof OptionError ? error.called(name) : error
  }
}

function shownSetting(values: OptionValues, name: string): string {
  const value = values[name]
  const shown = value === undefined ? 'default' : Array.isArray(value) ? JSON.stringify(value) : String(value)
  return `${name.padEnd(18)} ${shown.padEnd(9)} ${ANSWER_OPTIONS[name]!.help}`
}

async function save({ talk, tell }: Desk, rest: string): Promise<void> {
  const path = pathOf('save', rest)
  await talk.save(path)
  tell(`Saved to ${path}; /load ${rest} goes on from here.`)
}

async function load({ talk, tell }: Desk, rest: string): Promise<void> {
  const path = pathOf('load', rest)
  tell(`Loaded ${path}: ${await talk.load(path)}.`)
}

function pathOf(command: string, typed: string): string {
  if (typed === '') throw new OnebitError('ERR_USAGE', `/${command} needs the name of a file.`)
  const bare = /^(["'])(.+)\1$/.exec(typed)?.[2] ?? typed
  return bare.startsWith('~/') ? join(homedir(), bare.slice(2)) : bare
}
