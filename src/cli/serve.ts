import { modelName } from '../files/model-name.js'
import type { Model } from '../run/model.js'
import { checkServeOptions, type ServeOptions, serve } from '../server/serve.js'
import { apiOptions, type Command, type OptionValues, UsageError } from './arguments.js'
import { describeError } from './describe-error.js'
import { Interrupts } from './interrupts.js'
import { checkModelValues, loadModel, MODEL_OPTIONS } from './model-options.js'

export const serveCommand: Command = {
  name: 'serve',
  summary: 'Serve models over HTTP, as OpenAI has it, with a chat page.',
  usage: 'serve [NAME=]MODEL … [--port 8080] [options]',
  positionals: { min: 1, max: 64 },
  options: {
    host: {
      type: 'string',
      value: 'NAME',
      help: 'where to listen (default 127.0.0.1); beyond this machine a key is needed',
    },
    port: { type: 'integer', short: 'p', help: 'port (default 8080; 0: one that is free)' },
    parallel: { type: 'integer', help: 'requests that are computed together (default 4)' },
    queue: { type: 'integer', help: 'requests that wait; one more gets 429 (default 16)' },
    'cache-mib': { type: 'integer', api: 'cacheMiB', help: 'MiB kept of prompts that may come again (default 512)' },
    'api-key': { type: 'string', api: 'apiKey', value: 'KEY', help: 'clients must send it (or: ONEBIT_API_KEY)' },
    'allow-host': {
      type: 'string',
      api: 'allowHosts',
      value: 'NAME',
      multiple: true,
      help: 'another name of this server',
    },
    'allow-origin': {
      type: 'string',
      api: 'allowOrigins',
      value: 'ORIGIN',
      multiple: true,
      help: 'web pages from there may use it, such as https://app.example',
    },
    'max-body': { type: 'integer', api: 'maxBody', help: 'bytes of a request (default 1048576)' },
    'no-special': { type: 'boolean', help: 'special tokens written out in raw prompts are plain text' },
    ...MODEL_OPTIONS,
    json: { type: 'boolean', help: 'print where it listens as JSON' },
  },
  notes: [
    "A model is called by its file's name without the ending, or by NAME. Requests name one of them; they never reach files.",
    'Endpoints: /v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings, /v1/models, /tokenize, /detokenize, /tokenizer_info, /apply-template, /health, /metrics, and a page to chat at /.',
    'Ctrl-C lets answers end, for 10 seconds at most; a second one does not.',
  ],
  check(values, positionals) {
    checkModelValues(values)
    checkServeOptions(serveOptions(values))
    namesOf(positionals)
  },
  async run(values, positionals) {
    const named = namesOf(positionals)
    const models: { name: string; model: Model }[] = []
    try {
      for (const [name, path] of named) models.push({ name, model: await loadModel(path, values) })
      return await serveUntilStopped(models, values)
    } finally {
      for (const { model } of models) await model.dispose()
    }
  },
}

async function serveUntilStopped(models: { name: string; model: Model }[], values: OptionValues): Promise<number> {
  const server = await serve(models, {
    ...serveOptions(values),
    onError: (error) => process.stderr.write(`${describeError(error)}\n`),
  })
  const names = models.map(({ name }) => name)
  if (values.json) console.log(JSON.stringify({ url: server.url, port: server.port, models: names, pid: process.pid }))
  else console.log(`${names.join(', ')}: ${server.url}  (a page to chat; the API is at ${server.url}/v1)`)
  for (const { model } of models) model.chatTemplate?.warmUp()
  const interrupts = new Interrupts()
  await stopWanted(interrupts.begin().signal)
  if (!values.json) process.stderr.write('stopping: answers under way may end, for 10 seconds at most\n')
  interrupts.wait().signal.addEventListener('abort', () => process.exit(130))
  await server.close()
  return 0
}

/** Resolves at the first Ctrl-C or SIGTERM. */
function stopWanted(interrupted: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    interrupted.addEventListener('abort', () => resolve())
    process.once('SIGTERM', () => resolve())
  })
}

function namesOf(positionals: readonly string[]): Map<string, string> {
  const named = new Map<string, string>()
  for (const given of positionals) {
    const [, alias, file] = /^([\w.:-]+)=(.+)$/s.exec(given) ?? []
    const path = file ?? given
    const name = alias ?? modelName(path)
    if (named.has(name)) throw new UsageError(`Two models are called ${JSON.stringify(name)}.`, 'Name one: other=MODEL')
    named.set(name, path)
  }
  return named
}

function serveOptions(values: OptionValues): ServeOptions {
  const others = [...Object.keys(MODEL_OPTIONS), 'json', 'no-special']
  const own = Object.entries(serveCommand.options).filter(([name]) => !others.includes(name))
  const options: Record<string, unknown> = apiOptions(Object.fromEntries(own), values)
  if (values['no-special']) options.parseSpecial = false
  const key = process.env.ONEBIT_API_KEY
  if (options.apiKey === undefined && key !== undefined && key !== '') options.apiKey = key
  return options as ServeOptions
}
