import { LIMITS } from '../config/limits.js'
import { checkPerplexityOptions, type PerplexityOptions, perplexity } from '../eval/perplexity.js'
import type { Command, OptionValues } from './arguments.js'
import { formatRate } from './format.js'
import { readWholeText } from './input.js'
import { checkModelValues, loadModel, MODEL_OPTIONS } from './model-options.js'
import { progressBar } from './progress.js'

export const perplexityCommand: Command = {
  name: 'perplexity',
  summary: 'Measure the perplexity of a model on a text.',
  usage: 'perplexity MODEL.obt TEXTFILE [--ctx 2048] [--chunks N] [--json]',
  positionals: { min: 2, max: 2 },
  options: {
    ...MODEL_OPTIONS,
    ctx: {
      ...MODEL_OPTIONS.ctx!,
      help: 'tokens a block, and positions of context (default 2048, or the context if shorter)',
    },
    chunks: { type: 'integer', help: 'use the first N blocks only' },
    json: { type: 'boolean', help: 'print JSON' },
  },
  notes: [
    "The file is UTF-8 text. It is tokenised whole, once, special tokens parsed and BOS as the tokenizer's own flag says; consecutive blocks of --ctx tokens each start from nothing (the GPTQ convention).",
  ],
  check(values) {
    checkModelValues(values)
    checkPerplexityOptions(blockOptions(values), LIMITS.context)
  },
  async run(values, [path, file]) {
    const text = await readWholeText(file!)
    const model = await loadModel(path!, values)
    try {
      const ids = await model.encode(text)
      const bar = progressBar('perplexity')
      const started = performance.now()
      const result = await perplexity(model, ids, {
        ...blockOptions(values),
        onBlock: bar.update,
      }).finally(bar.done)
      const ms = performance.now() - started
      if (values.json) {
        console.log(JSON.stringify({ ...result, seconds: ms / 1000, isa: model.isa, activations: model.activations }))
      } else {
        console.log(`perplexity ${result.perplexity.toFixed(4)}`)
        const rate = formatRate(result.chunks * result.ctx, ms)
        const blocks = `${result.chunks} ${result.chunks === 1 ? 'block' : 'blocks'}`
        process.stderr.write(`${blocks} of ${result.ctx} from ${result.tokens} tokens, ${rate}\n`)
      }
      return 0
    } finally {
      await model.dispose()
    }
  },
}

function blockOptions({ ctx, chunks }: OptionValues): PerplexityOptions {
  return {
    ...(ctx === undefined ? {} : { ctx: ctx as number }),
    ...(chunks === undefined ? {} : { chunks: chunks as number }),
  }
}
