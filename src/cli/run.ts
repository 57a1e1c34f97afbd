import { LIMITS } from '../config/limits.js'
import { defaultModelPath } from '../run/default-model.js'
import { checkGenerateOptions } from '../run/generate-options.js'
import type { Model } from '../run/model.js'
import type { GenerateOptions, Piece } from '../run/session.js'
import { type Command, type OptionSpec, type OptionValues, UsageError } from './arguments.js'
import { optionText, readStandardInput, readTextFile, TEXT_RULES } from './input.js'
import { Interrupts } from './interrupts.js'
import { checkModelValues, loadModel, MODEL_OPTIONS } from './model-options.js'
import { reportSpeed } from './speed-line.js'
import { printSlowly } from './streams.js'

const SAMPLING: Record<string, OptionSpec> = {
  temp: {
    type: 'number',
    api: 'temperature',
    help: 'temperature; 0 always takes the likeliest token (default 0.8)',
  },
  'top-k': { type: 'integer', api: 'topK', help: 'sample from the k likeliest tokens; 0: from all (default 40)' },
  'top-p': {
    type: 'number',
    api: 'topP',
    help: 'sample from the likeliest tokens that sum to p, 0 to 1 (default 0.95)',
  },
  'min-p': {
    type: 'number',
    api: 'minP',
    help: 'leave out tokens below p times the likeliest one, 0 to 1 (default 0.05)',
  },
  'repeat-penalty': {
    type: 'number',
    api: 'repeatPenalty',
    help: 'divide the logits of recent tokens by this (default 1: off)',
  },
  'repeat-last-n': { type: 'integer', api: 'repeatLastN', help: 'how many tokens count as recent (default 64)' },
  'presence-penalty': { type: 'number', api: 'presencePenalty', help: 'subtract this from tokens that occurred' },
  'frequency-penalty': { type: 'number', api: 'frequencyPenalty', help: 'subtract this per occurrence' },
  seed: { type: 'integer', help: 'same seed, same text (default: random)' },
  stop: { type: 'string', value: 'TEXT', multiple: true, help: 'stop before this text; may be given several times' },
}

export const runCommand: Command = {
  name: 'run',
  summary: 'Chat with a model in the terminal, or complete a prompt in a script.',
  usage: 'run [MODEL.obt] [-p PROMPT | -f FILE] [-n N] [options]',
  positionals: { min: 0, max: 1 },
  options: {
    prompt: { type: 'string', short: 'p', value: 'TEXT', help: 'complete this text and exit' },
    file: { type: 'string', short: 'f', value: 'FILE', help: 'the same with the text of a file' },
    n: { type: 'integer', short: 'n', api: 'maxTokens', help: 'at most N new tokens (default: until the model ends)' },
    chat: { type: 'boolean', help: 'put the prompt through the chat template' },
    system: { type: 'string', value: 'TEXT', help: 'system message of the chat' },
    ...SAMPLING,
    ...MODEL_OPTIONS,
    quiet: { type: 'boolean', short: 'q', help: 'nothing on stderr but errors' },
  },
  notes: [
    "Without a model, the one that comes with onebit-run tells children's stories: begin one, and it goes on.",
    'Without -p and -f, a terminal starts a chat (Ctrl-C stops an answer, a second one leaves; /reset, /exit), and anything else on standard input is the prompt. Only generated text goes to stdout.',
    `Files and standard input are ${TEXT_RULES}`,
    "Prompts are raw text: special tokens in them are parsed, BOS is added as the tokenizer's own flag says.",
  ],
  check(values) {
    if (values.prompt !== undefined && values.file !== undefined) throw new UsageError('Give -p or -f, not both.')
    checkGenerateOptions(generateOptions(values), LIMITS.vocab)
    checkModelValues(values)
  },
  async run(values, [given]) {
    const path = given ?? defaultModelPath()
    if (given === undefined && !values.quiet) {
      process.stderr.write("No model was given: this one, made for trying things out, tells children's stories.\n")
    }
    const interactive = values.prompt === undefined && values.file === undefined && process.stdin.isTTY === true
    if (interactive) return talk(path, values)
    if (values.system !== undefined && !values.chat) {
      throw new UsageError(
        '--system has no place in raw text.',
        'Add --chat to put the prompt through the chat template.',
      )
    }
    const prompt = await promptOf(values)
    const model = await loadModel(path, values)
    try {
      warnOfUntrained(model, values)
      return await once(model, prompt, values)
    } finally {
      await model.dispose()
    }
  },
}

async function talk(path: string, values: OptionValues): Promise<number> {
  const model = await loadModel(path, values)
  try {
    model.chatTemplate?.warmUp()
    // Not needed for a prompt, whose first token should come soon.
    const { converse } = await import('./terminal.js')
    warnOfUntrained(model, values)
    return await converse(model, {
      generate: generateOptions(values),
      ...(values.system === undefined ? {} : { system: optionText(values.system as string) }),
      quiet: values.quiet === true,
    })
  } finally {
    await model.dispose()
  }
}

async function promptOf(values: OptionValues): Promise<string> {
  if (values.prompt !== undefined) return optionText(values.prompt as string)
  if (values.file !== undefined) return readTextFile(values.file as string)
  return readStandardInput()
}

export function generateOptions(values: OptionValues): GenerateOptions {
  const named = ['n', ...Object.keys(SAMPLING)].filter((name) => values[name] !== undefined)
  return Object.fromEntries(named.map((name) => [runCommand.options[name]!.api ?? name, values[name]]))
}

function warnOfUntrained(model: Model, values: OptionValues): void {
  if (values.quiet || model.provenance.trained !== false) return
  process.stderr.write(
    'note: this 1-bit model is an untrained start (SVID only); expect nonsense until it is distilled.\n',
  )
}

/** One prompt, one answer; Ctrl-C ends it with what there is and status 130. */
async function once(model: Model, prompt: string, values: OptionValues): Promise<number> {
  const interrupted = new Interrupts().begin()
  const options = { ...generateOptions(values), signal: interrupted.signal }
  const note = (line: string) => {
    if (!values.quiet) process.stderr.write(`${line}\n`)
  }
  const startChat = values.chat ? (await import('./terminal.js')).startChat : undefined
  const system = values.system === undefined ? undefined : optionText(values.system as string)
  const chat = startChat?.(model, system, note)
  const session = chat?.session ?? model.createSession()
  try {
    await print(chat ? chat.send(prompt, options) : session.generate(prompt, options))
  } catch (error) {
    if (!interrupted.signal.aborted) throw error
  }
  if (process.stdout.isTTY) process.stdout.write('\n')
  if (!values.quiet) reportSpeed((chat ?? session).last)
  return interrupted.signal.aborted ? 130 : 0
}

async function print(pieces: AsyncIterable<Piece>): Promise<void> {
  for await (const piece of pieces) await printSlowly(piece.text)
}
