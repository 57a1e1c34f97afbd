/** Raw prompts: one or several, as text or as token ids. */

import { badField } from './errors.js'
import type { Exchange } from './exchange.js'
import { idList } from './fields.js'
import type { Served } from './served.js'

export interface RawPrompt {
  ids: Int32Array
  /** what it was written as; ids have none */
  text?: string
}

const MOST_PROMPTS = 1024

/** @throws HttpError, OnebitError */
export async function rawPrompts(exchange: Exchange, served: Served, name: string): Promise<RawPrompt[]> {
  const value = exchange.fields[name]
  if (value === undefined) throw badField(name, 'is missing')
  if (typeof value === 'string') return [await encoded(exchange, served, value)]
  if (!Array.isArray(value) || value.length === 0) throw badField(name, WANTED)
  if (typeof value[0] === 'number') return [{ ids: idList(name, value, served.model.config.vocab_size) }]
  if (value.length > MOST_PROMPTS)
    throw badField(name, `has ${value.length} entries, at most ${MOST_PROMPTS} are possible`)
  const prompts: RawPrompt[] = []
  for (const [i, one] of (value as unknown[]).entries()) {
    if (typeof one === 'string') prompts.push(await encoded(exchange, served, one))
    else if (Array.isArray(one)) prompts.push({ ids: idList(`${name}[${i}]`, one, served.model.config.vocab_size) })
    else throw badField(`${name}[${i}]`, WANTED)
  }
  return prompts
}

const WANTED = 'must be a string, an array of token ids, or an array of these'

async function encoded({ signal, parseSpecial }: Exchange, { model }: Served, text: string): Promise<RawPrompt> {
  const tokenizer = model.requireTokenizer()
  return { ids: await tokenizer.encodeLong(text, { special: parseSpecial, signal }), text }
}
