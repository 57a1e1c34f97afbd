/** Texts by the thousand, for whoever trains on them: orders in, texts out, a line of JSON each. */
import { createInterface } from 'node:readline'
import { checkTextOptions, type TextOptions, type TextOrder, TextWriter, type WrittenText } from '../batch/texts.js'
import { LIMITS } from '../config/limits.js'
import { badOption, OnebitError } from '../errors.js'
import { packageVersion } from '../package-version.js'
import type { Model } from '../run/model.js'
import { apiOptions, type Command, type OptionSpec, type OptionValues } from './arguments.js'
import { optionIds } from './input.js'
import { checkModelValues, loadModel, MODEL_OPTIONS } from './model-options.js'
import { printSlowly } from './streams.js'

/** Whoever reads knows by it that this is alive, and this knows by it that somebody reads. */
const NEWS_MS = 5000

const TEXT_OPTIONS: Record<string, OptionSpec> = {
  length: { type: 'integer', short: 'n', help: 'tokens of a text at most, the given ones among them' },
  parallel: { type: 'integer', help: 'texts that are written at the same time, at most 256 (default 64)' },
  temp: { type: 'number', api: 'temperature', help: 'temperature, above 0 (default 1)' },
  'top-k': { type: 'integer', api: 'topK', help: 'draw from the k likeliest tokens; 0: from all (default 50)' },
}

export const textsCommand: Command = {
  name: 'texts',
  summary: 'Write many texts at once from token ids, as JSON lines: what `distill` trains on.',
  usage: 'texts MODEL --length N [--parallel 64] [--temp 1] [--top-k 50] [--stop IDS] < ORDERS',
  positionals: { min: 1, max: 1 },
  options: {
    ...TEXT_OPTIONS,
    stop: { type: 'string', api: 'stopTokens', value: '1,2', help: 'ids of tokens that end a text (default: none)' },
    ...Object.fromEntries(Object.entries(MODEL_OPTIONS).filter(([name]) => name !== 'ctx')),
  },
  notes: [
    'Standard input has an order a line: {"sequence": 7, "ids": [101], "greedy": 3, "seed": 5}. The text begins with `ids`; until it has `greedy` tokens the likeliest follows, then they are drawn by `seed`. What a text becomes does not depend on the others.',
    'Standard output has a line about the model, {"model": …}; then, as they end, {"sequence": 7, "ids": […], "end": "stop"}: the token that ended a text is left out, "length" is one that was cut. Every five seconds {"tokens": N} says how many were chosen so far.',
  ],
  check(values) {
    checkModelValues(values)
    if (values.length === undefined) throw badOption('length', 'say how many tokens a text may have.')
    checkTextOptions(textOptions(values), LIMITS.context, LIMITS.vocab)
  },
  async run(values, [path]) {
    const model = await loadModel(path!, values)
    try {
      const writer = new TextWriter(model, textOptions(values))
      const orders = new Orders()
      try {
        console.log(JSON.stringify({ model: described(model) }))
        await writeAll(writer, orders)
        return 0
      } finally {
        orders.close()
        writer.dispose()
      }
    } finally {
      await model.dispose()
    }
  },
}

async function writeAll(writer: TextWriter, orders: Orders): Promise<void> {
  let told = performance.now()
  for (;;) {
    for (let order = orders.next(writer.free); order; order = orders.next(writer.free)) writer.begin(order)
    if (writer.running === 0) {
      if (orders.ended) return
      await orders.more()
      continue
    }
    let lines = (await writer.step()).map(textLine).join('')
    if (performance.now() - told > NEWS_MS) {
      told = performance.now()
      lines += `${JSON.stringify({ tokens: writer.made })}\n`
    }
    await printSlowly(lines)
  }
}

function textLine(text: WrittenText): string {
  return `${JSON.stringify(text)}\n`
}

/** The lines of standard input, read while texts are written. */
class Orders {
  readonly #reader = createInterface({ input: process.stdin, crlfDelay: Number.POSITIVE_INFINITY })
  readonly #lines: string[] = []
  /** those that were given out already */
  #taken = 0
  #wake = () => {}
  ended = false

  constructor() {
    this.#reader.on('line', (line) => {
      this.#lines.push(line)
      this.#wake()
    })
    this.#reader.on('close', () => {
      this.ended = true
      this.#wake()
    })
  }

  /** Whoever writes to us may leave his end open for ever: after an error too this process comes to its end. */
  close(): void {
    this.#reader.close()
    process.stdin.destroy()
  }

  /** The next order, where there is one and a place for it. @throws OnebitError ERR_ORDER */
  next(places: number): TextOrder | undefined {
    while (places > 0 && this.#lines.length > this.#taken) {
      const line = this.#lines[this.#taken]!
      this.#lines[this.#taken++] = ''
      if (line.trim() !== '') return parseOrder(line, this.#taken)
    }
    return undefined
  }

  /** Resolves when there is more, or the end. */
  async more(): Promise<void> {
    if (this.ended || this.#lines.length > this.#taken) return
    await new Promise<void>((resolve) => {
      this.#wake = resolve
    })
  }
}

function parseOrder(line: string, number: number): TextOrder {
  let order: unknown
  try {
    order = JSON.parse(line)
  } catch {}
  const fields = ['sequence', 'ids', 'greedy', 'seed']
  if (typeof order === 'object' && order !== null && fields.every((field) => Object.hasOwn(order, field))) {
    return order as TextOrder
  }
  throw new OnebitError('ERR_ORDER', `Line ${number} of standard input is not an order: ${line.slice(0, 80)}`, {
    hint: 'Each is an object with sequence, ids, greedy and seed.',
  })
}

function described(model: Model) {
  const { architecture, vocab_size, context_length } = model.config
  const { activations, isa, threads } = model
  return { version: packageVersion(), architecture, vocab_size, context_length, activations, isa, threads }
}

function textOptions(values: OptionValues): TextOptions {
  const stop = (values.stop ?? '') as string
  const stopTokens = stop.trim() === '' ? [] : optionIds('stopTokens', stop)
  return { ...apiOptions(TEXT_OPTIONS, values), stopTokens } as unknown as TextOptions
}
