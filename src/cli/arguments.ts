/**
 * Command lines: each command declares its options once, and parsing, checking and `--help` all read that declaration.
 */
import { parseArgs } from 'node:util'
import { OnebitError } from '../errors.js'

export interface OptionSpec {
  type: 'string' | 'boolean' | 'number' | 'integer'
  help: string
  short?: string
  /** shown in help instead of the type's own word */
  value?: string
  choices?: readonly string[]
  min?: number
  max?: number
  multiple?: boolean
}

export type OptionValue = string | boolean | number
export type OptionValues = Record<string, OptionValue | OptionValue[] | undefined>

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
  /** returns the exit status */
  run(values: OptionValues, positionals: string[]): Promise<number>
}

/** The command line itself is wrong: exit status 2. */
export class UsageError extends OnebitError {
  constructor(message: string, hint?: string) {
    super('ERR_USAGE', message, hint === undefined ? {} : { hint })
  }
}

export function parseCommand(command: Command, args: string[]): { values: OptionValues; positionals: string[] } {
  const options = Object.fromEntries(
    Object.entries(command.options).map(([name, spec]) => [
      name,
      {
        type: spec.type === 'boolean' ? ('boolean' as const) : ('string' as const),
        ...(spec.short ? { short: spec.short } : {}),
        ...(spec.multiple ? { multiple: true } : {}),
      },
    ]),
  )
  const help = `See \`onebit ${command.name} --help\`.`
  let parsed: ReturnType<typeof parseArgs>
  try {
    const own = args.map((arg) => command.aliases?.[arg] ?? arg)
    parsed = parseArgs({ args: own, options, allowPositionals: true, strict: true })
  } catch (error) {
    // Node's sentences ("Unknown option '--x'. To specify …") are good; only their first one concerns our users.
    const message = error instanceof Error ? error.message : String(error)
    throw new UsageError(message.split('. To specify')[0] ?? message, help)
  }
  const { min, max } = command.positionals
  if (parsed.positionals.length < min) throw new UsageError(`Usage: onebit ${command.usage}`, help)
  if (parsed.positionals.length > max) {
    throw new UsageError(`Unexpected argument ${JSON.stringify(parsed.positionals[max])}.`, help)
  }
  const values: OptionValues = {}
  for (const [name, raw] of Object.entries(parsed.values)) {
    const spec = command.options[name]
    if (!spec || raw === undefined) continue
    values[name] = Array.isArray(raw) ? raw.map((one) => checked(name, spec, one)) : checked(name, spec, raw)
  }
  return { values, positionals: parsed.positionals }
}

function checked(name: string, spec: OptionSpec, raw: string | boolean): OptionValue {
  if (typeof raw === 'boolean') return raw
  if (spec.choices && !spec.choices.includes(raw)) {
    throw new UsageError(`--${name}: ${JSON.stringify(raw)} is not one of ${spec.choices.join(', ')}.`)
  }
  if (spec.type === 'string') return raw
  const number = raw.trim() === '' ? Number.NaN : Number(raw)
  const whole = spec.type === 'integer'
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = spec
  const usable = Number.isFinite(number) && (!whole || Number.isSafeInteger(number)) && number >= min && number <= max
  if (usable) return number
  const range = [
    ...(spec.min === undefined ? [] : [`at least ${spec.min}`]),
    ...(spec.max === undefined ? [] : [`at most ${spec.max}`]),
  ]
  const wanted = [whole ? 'a whole number' : 'a number', ...range].join(', ')
  throw new UsageError(`--${name}: ${JSON.stringify(raw)} is not ${wanted}.`)
}

export function commandHelp(command: Command): string {
  const rows = Object.entries(command.options).map(([name, spec]) => {
    const value = spec.type === 'boolean' ? '' : ` ${spec.value ?? spec.choices?.join('|') ?? 'N'}`
    return [`${spec.short ? `-${spec.short}, ` : '    '}--${name}${value}`, spec.help] as const
  })
  const width = Math.min(34, Math.max(...rows.map(([left]) => left.length)))
  const lines = rows.flatMap(([left, help]) => {
    const indent = ' '.repeat(width + 4)
    const text = wrapped(help, 100 - width - 4).join(`\n${indent}`)
    return left.length <= width ? [`  ${left.padEnd(width)}  ${text}`] : [`  ${left}`, `${indent}${text}`]
  })
  const notes = (command.notes ?? []).map((note) => `\n${wrapped(note, 100).join('\n')}`)
  return [`Usage: onebit ${command.usage}`, '', command.summary, '', 'Options:', ...lines, ...notes].join('\n')
}

function wrapped(text: string, width: number): string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const last = lines.at(-1)
    if (last === undefined || last.length + word.length + 1 > width) lines.push(word)
    else lines[lines.length - 1] = `${last} ${word}`
  }
  return lines
}
