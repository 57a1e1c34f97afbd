import { LIMITS } from '../config/limits.js'
import { OnebitError } from '../errors.js'
import { readRecords } from '../eval/data/read-records.js'
import {
  checkPerplexityOptions,
  type PerplexityOptions,
  type PerplexityResult,
  perplexity,
  perplexityOfTexts,
} from '../eval/perplexity.js'
import type { Model } from '../run/model.js'
import type { Command, OptionValues } from './arguments.js'
import { formatRate } from './format.js'
import { readWholeText } from './input.js'
import { checkModelValues, loadModel, MODEL_OPTIONS } from './model-options.js'
import { progressBar } from './progress.js'

export const perplexityCommand: Command = {
  name: 'perplexity',
  summary: 'Measure the perplexity of a model on a text.',
  usage: 'perplexity MODEL TEXTFILE [--ctx 2048] [--stride N] [--chunks N] [--each] [--json]',
  positionals: { min: 2, max: 2 },
  options: {
    ...MODEL_OPTIONS,
    ctx: {
      ...MODEL_OPTIONS.ctx!,
      help: 'tokens a block, and positions of context (default 2048, or the context if shorter)',
    },
    stride: { type: 'integer', help: 'begin a block every N tokens, and count only what no earlier one had' },
    chunks: { type: 'integer', help: 'use the first N blocks only; of JSONL: draw N windows (default 256)' },
    seed: { type: 'integer', help: 'of JSONL: which windows are drawn (default 0)' },
    each: { type: 'boolean', help: 'print a line for each block: its number, and the perplexity so far' },
    json: { type: 'boolean', help: 'print JSON' },
  },
  notes: [
    "The file is UTF-8 text. It is tokenised whole, once, special tokens parsed and BOS as the tokenizer's own flag says; consecutive blocks of --ctx tokens each start from nothing (the GPTQ convention).",
    'Of a file of records with a text each (.jsonl, .json, .parquet, also .gz), as C4 has them, windows of --ctx tokens are drawn at random.',
  ],
  check(values) {
    checkModelValues(values)
    checkPerplexityOptions(blockOptions(values), LIMITS.context)
  },
  async run(values, [path, file]) {
    const texts = RECORDS.test(file!) ? await recordTexts(file!) : undefined
    const text = texts ? '' : await readWholeText(file!)
    const model = await loadModel(path!, values)
    const bar = progressBar('perplexity')
    try {
      const started = performance.now()
      const options = { ...blockOptions(values), onBlock: values.each && !values.json ? printBlock : bar.update }
      const result = texts
        ? await perplexityOfTexts(model, texts, options)
        : await perplexity(model, await model.encode(text), options)
      bar.done()
      report(model, result, values, performance.now() - started)
      return 0
    } finally {
      bar.done()
      await model.dispose()
    }
  },
}

const RECORDS = /\.(jsonl|json|parquet)(\.gz|\.bz2)?$/i

async function recordTexts(file: string): Promise<string[]> {
  const { records } = await readRecords(file)
  return records.map(({ record, place }) => {
    if (typeof record.text === 'string') return record.text
    throw new OnebitError('ERR_DATA_FILE', `${file}, ${place}: there is no text in it.`)
  })
}

function printBlock(done: number, _total: number, soFar: number): void {
  console.log(`${done}\t${soFar.toFixed(4)}`)
}

function report(model: Model, result: PerplexityResult, values: OptionValues, ms: number): void {
  if (values.json) {
    const { chunkNlls, ...figures } = result
    const each = values.each ? { chunkNlls } : {}
    const more = { seconds: ms / 1000, isa: model.isa, activations: model.activations }
    console.log(JSON.stringify({ ...figures, ...each, ...more }))
    return
  }
  console.log(`perplexity ${result.perplexity.toFixed(4)}`)
  const rate = formatRate(result.chunks * result.ctx, ms)
  const blocks = `${result.chunks} ${result.chunks === 1 ? 'block' : 'blocks'}`
  process.stderr.write(`${blocks} of ${result.ctx} from ${result.tokens} tokens, ${rate}\n`)
}

function blockOptions(values: OptionValues): PerplexityOptions {
  const named = (['ctx', 'chunks', 'stride', 'seed'] as const).filter((name) => values[name] !== undefined)
  return Object.fromEntries(named.map((name) => [name, values[name] as number]))
}
