/** What the time to the first token is measured with: a prompt of 16 tokens, made from text where the model can. */
import type { Model } from '../run/model.js'
import { arbitraryIds } from './lanes.js'

export const FIRST_TOKEN_PROMPT = 16

const TEXT =
  'Once upon a time there was a small machine that could read and write, although it had only one bit for each of ' +
  'its many weights.'

/** The tokenizer's work belongs to the time that is measured. */
export async function firstTokenPrompt(model: Model): Promise<Int32Array> {
  const count = Math.min(FIRST_TOKEN_PROMPT, model.context)
  if (!model.tokenizer) return arbitraryIds(count, model.config.vocab_size)
  const ids = await model.encode(TEXT)
  return ids.slice(0, count)
}
