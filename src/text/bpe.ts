/**
 * Byte-pair encoding of one word: of all adjacent pairs that a merge joins, the one of the lowest rank goes first, the
 * leftmost of equals. Pairs wait in a heap of plain numbers, so a word of millions of letters takes a second or two.
 */
import { type BpeModel, tokenizerFileError, unsupportedTokenizer } from './tokenizer-json.js'
import { isTokenId } from './vocabulary-json.js'

/** A place in a word and a rank in one exact number: rank * PLACES + place. */
const PLACES = 2 ** 29
const NO_RANK = -1

export class Bpe {
  readonly #ids: ReadonlyMap<string, number>
  /** by "left right", as files write merges: taking them apart would take most of the loading time */
  readonly #ranks: Map<string, number>
  readonly #takesWhole: boolean
  readonly #heap = new NumberHeap()

  /** `ids`: of the tokens that text may become; no merge leads to a token of `special`. */
  constructor(model: BpeModel, ids: ReadonlyMap<string, number>, special: ReadonlySet<string>) {
    this.#ids = ids
    this.#takesWhole = model.ignore_merges === true
    this.#ranks = mergeRanks(model)
    for (const token of special) {
      for (let cut = 1; cut < token.length; cut++) this.#ranks.delete(`${token.slice(0, cut)} ${token.slice(cut)}`)
    }
  }

  /** The tokens of a word; characters that no token has come back as they are. */
  split(word: string): string[] {
    if (this.#takesWhole && this.#ids.has(word)) return [word]
    const symbols = Array.from(word)
    if (symbols.length < 2) return symbols
    if (symbols.length >= PLACES) throw unsupportedTokenizer('a word of more than 500 million characters')
    const chain = new Chain(symbols)
    for (let place = 0; place + 1 < symbols.length; place++) this.#queue(chain, place)
    for (let lowest = this.#heap.pop(); lowest !== undefined; lowest = this.#heap.pop()) {
      const place = lowest % PLACES
      // A pair whose left or right half has been merged since it was queued is another pair now, or none.
      if (chain.ranks[place] !== (lowest - place) / PLACES) continue
      chain.join(place)
      this.#queue(chain, place)
      const before = chain.before[place]!
      if (before >= 0) this.#queue(chain, before)
    }
    this.#heap.shrink()
    return chain.tokens()
  }

  /** Looks up the pair that begins at `place` and queues it when a merge joins it. */
  #queue(chain: Chain, place: number): void {
    const next = chain.after[place]!
    const rank = next < 0 ? undefined : this.#ranks.get(`${chain.symbols[place]} ${chain.symbols[next]}`)
    chain.ranks[place] = rank ?? NO_RANK
    if (rank !== undefined) this.#heap.push(rank * PLACES + place)
  }
}

/** A word's symbols as a linked list, each at the place of its first character. */
class Chain {
  readonly symbols: string[]
  /** the places beside each; -1 at the ends */
  readonly before: Int32Array
  readonly after: Int32Array
  /** of the pair that begins at each place */
  readonly ranks: Int32Array

  constructor(symbols: string[]) {
    const { length } = symbols
    this.symbols = symbols
    this.ranks = new Int32Array(length)
    this.before = new Int32Array(length)
    this.after = new Int32Array(length)
    for (let place = 0; place < length; place++) {
      this.ranks[place] = NO_RANK
      this.before[place] = place - 1
      this.after[place] = place + 1 < length ? place + 1 : -1
    }
  }

  /** Takes the next symbol into the one at `place`. */
  join(place: number): void {
    const next = this.after[place]!
    const second = this.after[next]!
    this.symbols[place] = this.symbols[place]! + this.symbols[next]!
    this.ranks[next] = NO_RANK
    this.after[place] = second
    if (second >= 0) this.before[second] = place
  }

  tokens(): string[] {
    const tokens: string[] = []
    for (let place = 0; place >= 0; place = this.after[place]!) tokens.push(this.symbols[place]!)
    return tokens
  }
}

const KEPT_VALUES = 1 << 12

/** A binary heap, the lowest first. */
class NumberHeap {
  #values = new Float64Array(64)
  #size = 0

  /** Gives back what one long word took. */
  shrink(): void {
    if (this.#values.length > KEPT_VALUES) this.#values = new Float64Array(KEPT_VALUES)
  }

  push(value: number): void {
    if (this.#size === this.#values.length) {
      const grown = new Float64Array(this.#size * 2)
      grown.set(this.#values)
      this.#values = grown
    }
    const values = this.#values
    let at = this.#size++
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (values[parent]! <= value) break
      values[at] = values[parent]!
      at = parent
    }
    values[at] = value
  }

  pop(): number | undefined {
    if (this.#size === 0) return undefined
    const values = this.#values
    const lowest = values[0]!
    const last = values[--this.#size]!
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= this.#size) break
      if (child + 1 < this.#size && values[child + 1]! < values[child]!) child++
      if (values[child]! >= last) break
      values[at] = values[child]!
      at = child
    }
    values[at] = last
    return lowest
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
