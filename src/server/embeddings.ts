/** POST /v1/embeddings. */
import { someAtATime } from '../flow/some-at-a-time.js'
import { choiceOption, integerOption } from '../options.js'
import { badField } from './errors.js'
import type { Exchange } from './exchange.js'
import { type RawPrompt, rawPrompts } from './prompts.js'

export async function embeddings(exchange: Exchange): Promise<void> {
  const { fields, models, signal } = exchange
  const served = models.of(fields)
  const format = choiceOption(fields, 'encoding_format', ['float', 'base64']) ?? 'float'
  const pooling = choiceOption(fields, 'pooling', ['mean', 'last'])
  const { dim } = served.model.config
  const dimensions = integerOption(fields, 'dimensions', 1, 1 << 20) ?? dim
  if (dimensions !== dim)
    throw badField('dimensions', `this model's embeddings have ${dim} numbers, no other length is possible`)
  const prompts = await rawPrompts(exchange, served, 'input')
  const empty = prompts.findIndex(({ ids }) => ids.length === 0)
  if (empty >= 0) throw badField('input', `entry ${empty} is empty`)
  const embed = ({ ids }: RawPrompt, _: number, signal: AbortSignal) =>
    served.batch.embed(ids, { signal, ...(pooling ? { pooling } : {}) })
  const results = await someAtATime(prompts, Math.min(prompts.length, models.parallel), embed, signal)
  const data = results.map(({ embedding }, index) => ({
    object: 'embedding',
    index,
    embedding: format === 'float' ? Array.from(embedding) : base64(embedding),
  }))
  const tokens = results.reduce((total, one) => total + one.tokens, 0)
  const usage = { prompt_tokens: tokens, total_tokens: tokens }
  exchange.reply({ object: 'list', data, model: served.name, usage })
}

/** Little-endian floats, on every machine. */
function base64(numbers: Float32Array): string {
  const bytes = Buffer.alloc(4 * numbers.length)
  for (const [i, x] of numbers.entries()) bytes.writeFloatLE(x, 4 * i)
  return bytes.toString('base64')
}
