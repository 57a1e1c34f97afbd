/** The library's Unigram model, filled from our vocabulary and freed of special tokens. */
import { Unigram } from '@huggingface/tokenizers'
import type { UnigramModel } from './tokenizer-json.js'

/**
 * An id is a position in a Unigram vocabulary, so what text must not match stays in its place under a name that no
 * text contains: a lone surrogate, which well-formed text has not.
 */
export function buildUnigram(model: UnigramModel, hidden: ReadonlySet<string>): Unigram {
  const vocab = model.vocab.map(([piece, score], id): [string, number] =>
    hidden.has(piece) ? [`\ud800${id}`, score] : [piece, score],
  )
  const unigram = new Unigram({ type: 'Unigram', vocab, unk_id: model.unk_id ?? 0 }, '')
  // The library keeps its input and does not read it again.
  unigram.config = {}
  return unigram
}
