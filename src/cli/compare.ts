import { LIMITS } from '../config/limits.js'
import { type CompareOptions, type CompareResult, checkCompareOptions, compare } from '../eval/compare.js'
import { type Command, type OptionValues, UsageError } from './arguments.js'
import { readWholeText } from './input.js'
import { checkModelValues, loadModel, MODEL_OPTIONS } from './model-options.js'
import { progressBar } from './progress.js'

/** The second model's own: what it has of the first one's where nothing is said. */
const OF_B = ['activations', 'kv'] as const

export const compareCommand: Command = {
  name: 'compare',
  summary: 'Say what a model loses against another on a text: perplexity, divergence, likeliest tokens.',
  usage: 'compare A B --file TEXT [--ctx 512] [--chunks N] [--json]',
  positionals: { min: 2, max: 2 },
  options: {
    file: { type: 'string', short: 'f', value: 'FILE', help: 'the text, UTF-8' },
    ...MODEL_OPTIONS,
    ctx: { ...MODEL_OPTIONS.ctx!, help: 'tokens a block, each from nothing (default 512)' },
    chunks: { type: 'integer', help: 'use the first N blocks only' },
    'b-activations': { ...MODEL_OPTIONS.activations!, help: 'activations of B (default: as A)' },
    'b-kv': { ...MODEL_OPTIONS.kv!, help: "numbers in B's KV cache (default: as A)" },
    json: { type: 'boolean', help: 'print JSON' },
  },
  notes: [
    'A is taken for the truth: KL divergence is D(A || B), in nats. Of each block the second half counts, which has context before it.',
    'A and B may be one file: --activations f32 --b-activations int8 says what rounding activations costs.',
  ],
  check(values) {
    if (values.file === undefined) throw new UsageError('Name the text: --file TEXT.')
    checkModelValues(values)
    checkModelValues(valuesOfB(values))
    checkCompareOptions(compareOptions(values), LIMITS.context)
  },
  async run(values, [pathA, pathB]) {
    const text = await readWholeText(values.file as string)
    const a = await loadModel(pathA!, values)
    try {
      const b = await loadModel(pathB!, valuesOfB(values))
      const bar = progressBar('compare')
      try {
        const result = await compare(a, b, text, { ...compareOptions(values), onBlock: bar.update })
        bar.done()
        console.log(values.json ? JSON.stringify(result) : shownResult(result))
        return 0
      } finally {
        bar.done()
        await b.dispose()
      }
    } finally {
      await a.dispose()
    }
  },
}

function valuesOfB(values: OptionValues): OptionValues {
  const own = OF_B.flatMap((name) => (values[`b-${name}`] === undefined ? [] : [[name, values[`b-${name}`]]]))
  return { ...values, ...Object.fromEntries(own) }
}

function compareOptions(values: OptionValues): CompareOptions {
  const named = (['ctx', 'chunks'] as const).filter((name) => values[name] !== undefined)
  return Object.fromEntries(named.map((name) => [name, values[name] as number]))
}

function shownResult(result: CompareResult): string {
  const short = (x: number) => String(Number(x.toPrecision(3)))
  const percent = (share: number) => `${(100 * share).toFixed(2)} %`
  const rows = [
    ['perplexity of A', result.perplexityA.toFixed(4)],
    [
      'perplexity of B',
      `${result.perplexityB.toFixed(4)} = ${result.ratio.toFixed(4)} ± ${result.ratioStderr.toFixed(4)} times A's`,
    ],
    [
      'KL divergence',
      `mean ${short(result.klMean)} ± ${short(result.klStderr)}, median ${short(result.klMedian)}, 99 % ${short(result.kl99)}, most ${short(result.klMax)}`,
    ],
    ['same likeliest token', `${percent(result.sameTop)} ± ${percent(result.sameTopStderr)}`],
    ['difference of p', `${percent(result.probabilityRms)} (root mean square)`],
    ['positions', `${result.positions} in ${result.chunks} blocks of ${result.ctx}`],
  ]
  return rows.map(([name, value]) => `${name!.padEnd(22)}${value}`).join('\n')
}
