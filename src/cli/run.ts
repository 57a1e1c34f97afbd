import { LIMITS } from '../config/limits.js'
import { defaultModelPath } from '../run/default-model.js'
import { checkGenerateOptions } from '../run/generate-options.js'
import type { Model } from '../run/model.js'
import { ANSWER_OPTIONS, generateOptions } from './answer-options.js'
import { type Command, type OptionValues, UsageError } from './arguments.js'
import { optionText, readStandardInput, readTextFile, TEXT_RULES } from './input.js'
import { Interrupts } from './interrupts.js'
import { checkModelValues, DRAFT_OPTION, loadModel, MODEL_OPTIONS } from './model-options.js'
import { reportSpeed } from './speed-line.js'
import { AnswerPrinter, sendOptions, THINK_OPTION, thinkNote } from './thinking.js'

export const runCommand: Command = {
  name: 'run',
  summary: 'Chat with a model in the terminal, or complete a prompt in a script.',
  usage: 'run [MODEL] [-p PROMPT | -f FILE] [-n N] [options]',
  positionals: { min: 0, max: 1 },
  options: {
    prompt: { type: 'string', short: 'p', value: 'TEXT', help: 'complete this text and exit' },
    file: { type: 'string', short: 'f', value: 'FILE', help: 'the same with the text of a file' },
    chat: { type: 'boolean', help: 'put the prompt through the chat template' },
    system: { type: 'string', value: 'TEXT', help: 'system message of the chat' },
    think: THINK_OPTION,
    ...ANSWER_OPTIONS,
    ...MODEL_OPTIONS,
    draft: DRAFT_OPTION,
    quiet: { type: 'boolean', short: 'q', help: 'nothing on stderr but errors' },
  },
  notes: [
    'MODEL is a .obt file, a GGUF file, or a folder as Hugging Face has them; what is no .obt is converted on its way into memory.',
    'hf:OWNER/NAME is a model of the hub, hf:OWNER/NAME:Q4_0 or hf:OWNER/NAME:FILE.gguf one of several, https://…/FILE.gguf one from elsewhere. It is downloaded once, into the cache of Hugging Face (HF_HOME, HF_HUB_CACHE); HF_TOKEN, HF_ENDPOINT and HTTPS_PROXY are obeyed.',
    "Without a model, the one that comes with onebit-run tells children's stories: begin one, and it goes on.",
    'Without -p and -f, a terminal starts a chat (Ctrl-C stops an answer; /help lists its commands), and anything else on standard input is the prompt. Only generated text goes to stdout.',
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
    const misplaced = ['system', 'think'].find((name) => values[name] !== undefined)
    if (misplaced !== undefined && !values.chat) {
      throw new UsageError(
        `--${misplaced} has no place in raw text.`,
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
      values,
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

function warnOfUntrained(model: Model, values: OptionValues): void {
  if (values.quiet || model.provenance.trained !== false) return
  process.stderr.write(
    'note: this 1-bit model is an untrained start (SVID only); expect nonsense until it is distilled.\n',
  )
}

/** One prompt, one answer; Ctrl-C ends it with what there is and status 130. */
async function once(model: Model, prompt: string, values: OptionValues): Promise<number> {
  const { signal } = new Interrupts().begin()
  const note = (line: string) => {
    if (!values.quiet) process.stderr.write(`${line}\n`)
  }
  const startChat = values.chat ? (await import('./talk.js')).startChat : undefined
  const system = values.system === undefined ? undefined : optionText(values.system as string)
  const chat = startChat?.(model, system, note)
  const session = chat?.session ?? model.createSession()
  const aboutThinking = thinkNote(model, values)
  if (aboutThinking) note(aboutThinking)
  try {
    const pieces = chat
      ? chat.send(prompt, { ...sendOptions(values), signal })
      : session.generate(prompt, { ...generateOptions(values), signal })
    await new AnswerPrinter(values, values.quiet === true).print(pieces)
  } catch (error) {
    if (!signal.aborted) throw error
  }
  if (process.stdout.isTTY) process.stdout.write('\n')
  if (!values.quiet) reportSpeed((chat ?? session).last)
  return signal.aborted ? 130 : 0
}
