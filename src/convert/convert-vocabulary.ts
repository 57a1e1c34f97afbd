/** A tokenizer cut to the tokens that its model has rows for. */
import { type BpeModel, type TokenizerBlob, tokenizerFileError, type UnigramModel } from '../text/tokenizer-json.js'

/**
 * Added tokens without a row are left out, with a warning: a text that holds one would stop the model. Any other token
 * without a row means that the tokenizer is another model's.
 * @throws OnebitError ERR_TOKENIZER_FILE
 */
export function withinRows(blob: TokenizerBlob, vocabSize: number, warnings: string[]): TokenizerBlob {
  const { tokenizer } = blob
  const added = tokenizer.added_tokens ?? []
  const beyond = added.filter(({ id }) => id >= vocabSize)
  const names = new Set(beyond.map(({ content }) => content))
  const model = tokenizer.model.type === 'BPE' ? cutBpe(tokenizer.model, names) : cutUnigram(tokenizer.model, names)
  const last = highestId(model)
  if (last >= vocabSize) {
    throw tokenizerFileError(`it has ${last + 1} tokens and the model ${vocabSize}: it belongs to another model`)
  }
  if (beyond.length === 0) return blob
  const list = beyond.slice(0, 5).map(({ content, id }) => `${content} (${id})`)
  warnings.push(
    `The model has ${vocabSize} tokens. Added tokens beyond them are left out: ${list.join(', ')}${beyond.length > 5 ? ', …' : ''}.`,
  )
  const kept = added.filter(({ id }) => id < vocabSize)
  return { ...blob, tokenizer: { ...tokenizer, model, added_tokens: kept } }
}

export function hasToken({ tokenizer: { model, added_tokens: added } }: TokenizerBlob, token: string): boolean {
  if ((added ?? []).some(({ content }) => content === token)) return true
  if (model.type === 'Unigram') return model.vocab.some(([piece]) => piece === token)
  return model.vocab instanceof Map ? model.vocab.has(token) : Object.hasOwn(model.vocab, token)
}

function cutBpe(model: BpeModel, names: ReadonlySet<string>): BpeModel {
  if (names.size === 0) return model
  const entries = model.vocab instanceof Map ? [...model.vocab] : Object.entries(model.vocab)
  return { ...model, vocab: new Map(entries.filter(([token]) => !names.has(token))) }
}

/** Positions are ids there, so only the end can go. */
function cutUnigram(model: UnigramModel, names: ReadonlySet<string>): UnigramModel {
  let length = model.vocab.length
  while (length > 0 && names.has(model.vocab[length - 1]![0])) length--
  return { ...model, vocab: model.vocab.slice(0, length) }
}

function highestId(model: BpeModel | UnigramModel): number {
  if (model.type === 'Unigram') return model.vocab.length - 1
  let highest = -1
  const ids = model.vocab instanceof Map ? model.vocab.values() : Object.values(model.vocab)
  for (const id of ids) if (id > highest) highest = id
  return highest
}
