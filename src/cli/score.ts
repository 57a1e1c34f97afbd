import { LIMITS } from '../config/limits.js'
import { badOption } from '../errors.js'
import type { Model } from '../run/model.js'
import { checkScoreOptions, type ScoreOptions } from '../run/session-options.js'
import type { Command, OptionValues } from './arguments.js'
import { UsageError } from './arguments.js'
import { optionIds, optionText, readTextFile, TEXT_RULES } from './input.js'
import { checkModelValues, loadModel, MODEL_OPTIONS } from './model-options.js'

export const scoreCommand: Command = {
  name: 'score',
  summary: 'Print the log-probability of every token of a text, and the likeliest ones beside it.',
  usage: 'score MODEL (--text T | --file F | --ids 1,2,3) [--top N] [--json]',
  positionals: { min: 1, max: 1 },
  options: {
    text: { type: 'string', value: 'T', help: 'the text' },
    file: { type: 'string', value: 'F', help: 'a UTF-8 file with the text' },
    ids: { type: 'string', value: '1,2,3', help: 'token ids instead of a text' },
    top: { type: 'integer', help: 'how many of the likeliest tokens to print (default 5)' },
    ...MODEL_OPTIONS,
    json: { type: 'boolean', help: 'print JSON: {ids, token_logprobs, top_logprobs}' },
  },
  notes: [
    `Files are ${TEXT_RULES}`,
    "Texts are raw: special tokens are parsed, BOS is added as the tokenizer's own flag says.",
  ],
  check(values) {
    if (['text', 'file', 'ids'].filter((name) => values[name] !== undefined).length !== 1) {
      throw new UsageError('Give one of --text, --file and --ids.')
    }
    if (values.ids !== undefined) parseIds(values.ids as string)
    checkScoreOptions(scoreOptions(values, LIMITS.vocab), LIMITS.vocab)
    checkModelValues(values)
  },
  async run(values, [path]) {
    const { file, text } = values
    const scored = file === undefined ? optionText((text ?? '') as string) : await readTextFile(file as string)
    const model = await loadModel(path!, values)
    try {
      const ids = values.ids === undefined ? await model.encode(scored) : parseIds(values.ids as string)
      if (ids.length === 0) throw new UsageError('The text is empty: there is nothing to score.')
      const session = model.createSession()
      const scores = await session.score(ids, scoreOptions(values, model.config.vocab_size))
      print(model, ids, scores, values)
      return 0
    } finally {
      await model.dispose()
    }
  },
}

function scoreOptions({ top }: OptionValues, vocabSize: number): ScoreOptions {
  return { top: (top as number | undefined) ?? Math.min(5, vocabSize) }
}

function parseIds(list: string): Int32Array {
  const ids = optionIds('ids', list)
  if (ids.some((id) => id > 0x7fffffff)) {
    throw badOption('ids', `${JSON.stringify(list)} is not a list of token ids such as 1,2,3.`)
  }
  return Int32Array.from(ids)
}

type Scores = { logprobs: Float32Array; top: { id: number; logprob: number }[][] }

/** A token's text; a name in brackets where it has no text of its own (control tokens, models without tokenizer). */
function tokenText(model: Model, id: number): string {
  return model.tokenizer?.decode([id], { continuation: true }) ?? `<${id}>`
}

function print(model: Model, ids: Int32Array, { logprobs, top }: Scores, values: OptionValues): void {
  if (values.json) {
    const topLogprobs = top.map((row, i) => {
      if (i === 0) return null
      const named: Record<string, number> = {}
      // Two tokens can have the same text (bytes of a split character); the likelier one comes first and stays.
      for (const { id, logprob } of row) named[tokenText(model, id)] ??= logprob
      return named
    })
    const tokenLogprobs = Array.from(logprobs, (value, i) => (i === 0 ? null : value))
    console.log(JSON.stringify({ ids: Array.from(ids), token_logprobs: tokenLogprobs, top_logprobs: topLogprobs }))
    return
  }
  for (const [i, id] of ids.entries()) {
    const best = (top[i] ?? []).map(
      ({ id, logprob }) => `${JSON.stringify(tokenText(model, id))} ${logprob.toFixed(3)}`,
    )
    const own = i === 0 ? '-' : logprobs[i]!.toFixed(4)
    console.log(
      `${String(id).padStart(7)} ${own.padStart(10)}  ${JSON.stringify(tokenText(model, id)).padEnd(16)} ${i === 0 ? '' : best.join('  ')}`,
    )
  }
}
