/** What `onebit` and `onebit-run` share: finding the command, and turning errors into one line and an exit status. */
import { packageVersion } from '../package-version.js'
import { type Command, parseCommand, UsageError } from './arguments.js'
import { commandHelp } from './command-help.js'
import { describeError } from './describe-error.js'
import { allPrinted, guardStreams } from './streams.js'

/** Commands are loaded when they are called: starting fast is part of the product. */
const COMMANDS: Record<string, () => Promise<Command>> = {
  run: async () => (await import('./run.js')).runCommand,
  convert: async () => (await import('./convert.js')).convertCommand,
  info: async () => (await import('./info.js')).infoCommand,
  doctor: async () => (await import('./doctor.js')).doctorCommand,
  score: async () => (await import('./score.js')).scoreCommand,
  perplexity: async () => (await import('./perplexity.js')).perplexityCommand,
  compare: async () => (await import('./compare.js')).compareCommand,
  eval: async () => (await import('./eval.js')).evalCommand,
  bench: async () => (await import('./bench.js')).benchCommand,
  serve: async () => (await import('./serve.js')).serveCommand,
  texts: async () => (await import('./texts.js')).textsCommand,
  pull: async () => (await import('./pull.js')).pullCommand,
  list: async () => (await import('./list.js')).listCommand,
  rm: async () => (await import('./rm.js')).rmCommand,
  build: async () => (await import('./build.js')).buildCommand,
}

async function overview(): Promise<string> {
  const rows = await Promise.all(Object.values(COMMANDS).map((load) => load()))
  const commands = rows.map(({ name, summary }) => `  ${name.padEnd(12)}${summary}`)
  return [
    'onebit: run, make and measure 1-bit language models on an ordinary CPU.',
    '',
    'Usage: onebit COMMAND [options]        onebit-run [MODEL] [options]  is short for  onebit run [MODEL] [options]',
    '',
    ...commands,
    '',
    'MODEL is a .obt file, a GGUF file, a folder as Hugging Face has them, or a name: hf:OWNER/NAME[:FILE-OR-TYPE] is',
    'downloaded when it is first used.',
    '`onebit COMMAND --help` explains a command; `onebit --version` prints the version.',
  ].join('\n')
}

async function dispatch(args: string[], assumed: string | undefined): Promise<number> {
  const first = args[0]
  if (first === '--version' || first === '-V') {
    console.log(packageVersion())
    return 0
  }
  const wantsHelp = assumed === undefined && (first === undefined || first === '--help' || first === '-h')
  if (wantsHelp || first === 'help') {
    console.log(await overview())
    return first === undefined ? 2 : 0
  }
  const named = first !== undefined && Object.hasOwn(COMMANDS, first) ? first : assumed
  const load = named === undefined ? undefined : COMMANDS[named]
  if (!load) {
    const problem = first!.startsWith('-')
      ? `Unknown option ${first}.`
      : `There is no command ${JSON.stringify(first)}.`
    throw new UsageError(problem, `Commands: ${Object.keys(COMMANDS).join(', ')}. See \`onebit --help\`.`)
  }
  const command = await load()
  const rest = named === first ? args.slice(1) : args
  const options = rest.includes('--') ? rest.slice(0, rest.indexOf('--')) : rest
  if (options.includes('--help') || options.includes('-h')) {
    console.log(commandHelp(command))
    return 0
  }
  const { values, positionals, asTyped } = parseCommand(command, rest)
  try {
    return await command.run(values, positionals)
  } catch (error) {
    throw asTyped(error)
  }
}

/** Runs a command line and sets the process's exit status. `assumed`: the command when none is named. */
export async function main(args: string[], assumed?: string): Promise<void> {
  guardStreams()
  try {
    process.exitCode = await dispatch(args, assumed)
  } catch (error) {
    process.stderr.write(`${describeError(error)}\n`)
    process.exitCode = error instanceof UsageError ? 2 : 1
    if (process.env.ONEBIT_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`)
  }
  // At the end of a program Node takes handlers away while it still cleans up: one more Ctrl-C then would make a killed
  // process of one that was leaving. So what handles Ctrl-C leaves by itself, when all is written.
  if (process.listenerCount('SIGINT') > 0) {
    await allPrinted()
    process.exit()
  }
}
