/**
 * Command lines: each command declares its options once, and parsing, checking and `--help` all read that declaration.
 * All options are checked before a command does anything, and what is wrong is told under the name that was typed.
 */
import { parseArgs } from 'node:util'
import { OnebitError, OptionError } from '../errors.js'

export interface OptionSpec {
  type: 'string' | 'boolean' | 'number' | 'integer'
  help: string
  short?: string
  /** what the API calls it, where that is another name */
  api?: string
  /** shown in help instead of the type's own word */
  value?: string
  choices?: readonly string[]
  /** limits of options that the API does not know; those of the others are the API's, see Command.check */
  min?: number
  max?: number
  multiple?: boolean
}

/** Integers that JavaScript's numbers cannot hold are bigints. */
export type OptionValue = string | boolean | number | bigint
export type OptionValues = Record<string, OptionValue | OptionValue[] | undefined>

/** What of `options` was given, by the API's names. */
export function apiOptions(options: Record<string, OptionSpec>, values: OptionValues): OptionValues {
  const given = Object.keys(options).filter((name) => values[name] !== undefined)
  return Object.fromEntries(given.map((name) => [options[name]!.api ?? name, values[name]]))
}

export interface Command {
  name: string
  summary: string
  /** after the program's name, e.g. "run MODEL [options]" */
  usage: string
  positionals: { min: number; max: number }
  options: Record<string, OptionSpec>
  /** words that other programs of the trade taught people, such as -pg, and the options they stand for */
  aliases?: Record<string, string>
  /** paragraphs below the options */
  notes?: string[]
  /** Checks what can be checked without reading any file, by the API's own checks. Its OptionErrors are wrong usage. */
  check?(values: OptionValues, positionals: string[]): void
  /** returns the exit status */
  run(values: OptionValues, positionals: string[]): Promise<number>
}

/** The command line itself is wrong: exit status 2. */
export class UsageError extends OnebitError {
  constructor(message: string, hint?: string) {
    super('ERR_USAGE', message, { hint })
  }
}

/** A command line that makes sense. */
export interface CommandLine {
  values: OptionValues
  positionals: string[]
  /** The same error, under the name that was typed when it is about an option. */
  asTyped(error: unknown): unknown
}

/** @throws UsageError */
export function parseCommand(command: Command, args: string[]): CommandLine {
  const help = `See \`onebit ${command.name} --help\`.`
  const words = joinValues(command, args, help)
  const parsed = parseWords(command, words, help)
  const typed = new Map<string, string>()
  for (const token of parsed.tokens ?? []) {
    if (token.kind === 'option') typed.set(token.name, words[token.index]!.name ?? token.rawName)
  }
  const asTyped = (error: unknown) => {
    if (!(error instanceof OptionError)) return error
    const name = Object.keys(command.options).find((own) => [own, command.options[own]!.api].includes(error.option))
    return name === undefined ? error : error.called(typed.get(name) ?? `--${name}`)
  }
  const { positionals } = parsed
  const { min, max } = command.positionals
  if (positionals.length < min) throw new UsageError(`Usage: onebit ${command.usage}`, help)
  if (positionals.length > max) throw new UsageError(`Unexpected argument ${JSON.stringify(positionals[max])}.`, help)
  try {
    const values = convertAll(command, parsed.values)
    command.check?.(values, positionals)
    return { values, positionals, asTyped }
  } catch (error) {
    const known = asTyped(error)
    throw known instanceof OptionError ? new UsageError(known.message, known.hint ?? help) : known
  }
}

interface Word {
  text: string
  /** the option's name as it was typed, where `text` has it no more */
  name?: string
}

/** What looks like an option is one, and not the value of the option before it. */
const OPTION = /^--?[a-z][\w-]*(=.*)?$/is

/**
 * Puts values that follow their option after a space into the same word, because parseArgs refuses all that begin with
 * a dash: negative numbers, and texts such as "- a list".
 */
function joinValues(command: Command, args: string[], help: string): Word[] {
  const words: Word[] = []
  for (let i = 0; i < args.length; i++) {
    const typed = args[i]!
    if (typed === '--') return [...words, ...args.slice(i).map((text) => ({ text }))]
    const own = command.aliases?.[typed] ?? typed
    const name = optionWithValue(command, own)
    if (name === undefined) {
      words.push({ text: own, ...(own === typed ? {} : { name: typed }) })
      continue
    }
    const value = args[++i]
    if (value === undefined || value === '--' || OPTION.test(value)) {
      const meant = value === undefined ? help : `If ${value} is the value, write --${name}=${value}`
      throw new UsageError(`${typed}: a value must follow.`, meant)
    }
    words.push({ text: `--${name}=${value}`, name: typed })
  }
  return words
}

/** The option that a word names, when its value has to be the next word. */
function optionWithValue({ options }: Command, word: string): string | undefined {
  const name = word.startsWith('--')
    ? word.slice(2)
    : Object.keys(options).find((own) => options[own]!.short !== undefined && word === `-${options[own]!.short}`)
  if (name === undefined || !Object.hasOwn(options, name)) return undefined
  return options[name]!.type === 'boolean' ? undefined : name
}

function parseWords({ options }: Command, words: Word[], help: string): ReturnType<typeof parseArgs> {
  const own = Object.entries(options).map(([name, spec]) => [
    name,
    {
      type: spec.type === 'boolean' ? ('boolean' as const) : ('string' as const),
      ...(spec.short ? { short: spec.short } : {}),
      ...(spec.multiple ? { multiple: true } : {}),
    },
  ])
  try {
    const args = words.map(({ text }) => text)
    return parseArgs({ args, options: Object.fromEntries(own), allowPositionals: true, strict: true, tokens: true })
  } catch (error) {
    // Node's sentences ("Unknown option '--x'. To specify …") are good; only their first one concerns our users.
    const message = error instanceof Error ? error.message : String(error)
    throw new UsageError(message.split('. To specify')[0] ?? message, help)
  }
}

function convertAll(command: Command, given: ReturnType<typeof parseArgs>['values']): OptionValues {
  const values: OptionValues = {}
  for (const [name, raw] of Object.entries(given)) {
    const spec = command.options[name]
    if (!spec || raw === undefined) continue
    values[name] = Array.isArray(raw) ? raw.map((one) => converted(name, spec, one)) : converted(name, spec, raw)
  }
  return values
}

/** The value that `raw` means. @throws OptionError */
export function converted(name: string, spec: OptionSpec, raw: string | boolean): OptionValue {
  if (typeof raw === 'boolean') return raw
  if (spec.choices && !spec.choices.includes(raw)) {
    throw new OptionError(name, `${JSON.stringify(raw)} is not one of ${spec.choices.join(', ')}.`)
  }
  if (spec.type === 'string') return raw
  const whole = spec.type === 'integer'
  const value = numberFrom(raw, whole)
  const { min, max } = spec
  if (value !== undefined && value >= (min ?? value) && value <= (max ?? value)) return value
  const range = [...(min === undefined ? [] : [`at least ${min}`]), ...(max === undefined ? [] : [`at most ${max}`])]
  const wanted = [whole ? 'a whole number' : 'a number', ...range].join(', ')
  throw new OptionError(name, `${JSON.stringify(raw)} is not ${wanted}.`)
}

function numberFrom(text: string, whole: boolean): number | bigint | undefined {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (!Number.isFinite(value)) return undefined
  if (!whole || Number.isSafeInteger(value)) return value
  return /^\s*[+-]?\d+\s*$/.test(text) ? BigInt(text) : undefined
}
