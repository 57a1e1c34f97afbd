/** The library's BPE and Unigram models, filled from our vocabulary and freed of special tokens. */
import { BPE, type BpeNode, type BpeQueue, Unigram } from '@huggingface/tokenizers'
import { type BpeModel, tokenizerFileError, type UnigramModel, unsupportedTokenizer } from './tokenizer-json.js'
import type { Vocabulary } from './vocabulary.js'
import { isTokenId } from './vocabulary-json.js'

/**
 * The library's BPE with its ranks under "left right" instead of JSON: files hold merges in that form already, and
 * writing 49,000 of them as JSON took most of the loading time.
 */
export class RankedBpe extends BPE {
  declare readonly ranks: Map<string, number>

  constructor(model: BpeModel, vocabulary: Vocabulary, special: ReadonlySet<string>) {
    super({ ...model, vocab: {}, merges: [], fuse_unk: model.fuse_unk === true })
    this.config = {}
    this.tokens_to_ids = vocabulary.modelIds
    this.ranks = mergeRanks(model)
    for (const token of special) this.#forget(token)
    if (typeof model.unk_token === 'string') this.unk_token_id = vocabulary.idOf(model.unk_token)
  }

  /** Called by the library for each adjacent pair; ties go to the lower `bias`, the place in the word. */
  override add_node(queue: BpeQueue, node: BpeNode): void {
    const rank = this.ranks.get(`${node.token} ${node.next.token}`)
    if (rank === undefined) return
    node.score = rank + node.bias
    queue.push(node)
  }

  /** Neither a merge nor a look-up leads to this token any more. */
  #forget(token: string): void {
    this.tokens_to_ids.delete(token)
    for (let cut = 1; cut < token.length; cut++) this.ranks.delete(`${token.slice(0, cut)} ${token.slice(cut)}`)
  }
}

function mergeRanks({ merges, merge_ranks: given }: BpeModel): Map<string, number> {
  if (given && (given.length !== merges.length || !given.every(isTokenId))) {
    throw tokenizerFileError('`model.merge_ranks` does not fit the merges')
  }
  const ranks = new Map<string, number>()
  for (let index = 0; index < merges.length; index++) ranks.set(mergeKey(merges[index]), given ? given[index]! : index)
  return ranks
}

function mergeKey(merge: unknown): string {
  if (typeof merge === 'string' && merge.includes(' ')) return merge
  if (!Array.isArray(merge) || merge.length !== 2 || !merge.every((part) => typeof part === 'string')) {
    throw tokenizerFileError(`a merge is not two tokens: ${JSON.stringify(merge)?.slice(0, 60)}`)
  }
  const [left, right] = merge as [string, string]
  if (left.includes(' ') || right.includes(' ')) throw unsupportedTokenizer('a merge of tokens with spaces in them')
  return `${left} ${right}`
}

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
