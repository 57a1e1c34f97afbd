/**
 * Text to ids, on the parts of @huggingface/tokenizers: normalizer, pre-tokenizer and model are the library's; which
 * added tokens may match, how long texts are cut and what is remembered is decided here. Special tokens are taken out
 * of the model's vocabulary, so no path leads from ordinary text to a special id.
 */
import { ByteLevelPreTokenizer, SequenceNormalizer, SequencePreTokenizer } from '@huggingface/tokenizers'
import { type Accept, AddedTokenSplitter, type Section } from './added-tokens.js'
import { Bpe } from './bpe.js'
import { BYTE_OF_CHARACTER, BYTE_TOKENS } from './byte-names.js'
import type { IdBuffer } from './id-buffer.js'
import { cutLongText, cutWords, piecesSpanningWords, SPACE_SIGN } from './long-text.js'
import { escapeRegex, planPreTokenizer } from './pre-tokenizers.js'
import {
  type AddedToken,
  type BpeModel,
  type Step,
  type TokenizerBlob,
  type UnigramModel,
  unsupportedTokenizer,
} from './tokenizer-json.js'
import { buildUnigram } from './unigram.js'
import type { Vocabulary } from './vocabulary.js'

/** Above this many entries the memory of encoded words is dropped and starts again. */
const REMEMBERED_WORDS = 1 << 16
const LONGEST_REMEMBERED = 48

/** Of added tokens: those that are matched as they are written, and those that are matched after the normalizer. */
interface Splitters {
  raw: AddedTokenSplitter
  normalized: AddedTokenSplitter
}

export class Encoder {
  readonly #normalizer: SequenceNormalizer | undefined
  readonly #splits: SequencePreTokenizer | undefined
  readonly #byteLevel: ByteLevelPreTokenizer | undefined
  readonly #prefixSpace: boolean
  readonly #dummyPrefix: boolean
  /** a word as its tokens; characters that no token has come back as they are */
  readonly #split: (word: string) => string[]
  readonly #modelIds: ReadonlyMap<string, number>
  readonly #fusesUnknown: boolean
  readonly #byteIds: Int32Array | undefined
  readonly #spanning: Set<string>
  readonly #unknownId: number | undefined
  readonly #absentBytes: RegExp | undefined
  readonly #words = new Map<string, Int32Array>()
  readonly #added: readonly AddedToken[]
  readonly #splitters = new Map<string, Splitters>()

  constructor({ tokenizer, config }: TokenizerBlob, vocabulary: Vocabulary) {
    this.#added = vocabulary.added
    const plan = planPreTokenizer(tokenizer.pre_tokenizer)
    this.#normalizer = buildNormalizer(tokenizer.normalizer)
    this.#splits = plan.splits.length > 0 ? buildSplits(plan.splits) : undefined
    this.#byteLevel = plan.byteLevel ? new ByteLevelPreTokenizer({ type: 'ByteLevel', use_regex: false }) : undefined
    this.#prefixSpace = plan.prefixSpace
    this.#dummyPrefix = config.add_dummy_prefix === true
    this.#byteIds = tokenizer.model.byte_fallback ? byteTokenIds(vocabulary) : undefined
    this.#unknownId = unknownId(tokenizer.model, vocabulary)
    if (plan.byteLevel && this.#unknownId === undefined) this.#absentBytes = absentBytes(vocabulary)
    const special = this.#added.filter((token) => token.special).map((token) => token.content)
    vocabulary.takeOut(special)
    this.#modelIds = vocabulary.modelIds
    this.#split = buildModel(tokenizer.model, vocabulary, new Set(special))
    this.#fusesUnknown = tokenizer.model.type === 'BPE' && tokenizer.model.fuse_unk === true
    const spansWords = !plan.byteLevel && !plan.splitAtSpaces
    this.#spanning = spansWords ? piecesSpanningWords(vocabulary.modelIds.keys()) : new Set()
  }

  /** Appends the ids of `text`; `special` says whether special tokens written out in it count as such. */
  encode(text: string, special: boolean, out: IdBuffer): void {
    const splitters = this.#splittersFor(special, [])
    this.#encodeSections(splitters.raw.split(text), splitters, out)
  }

  /**
   * Appends the ids of text that was cut before: the strings are plain, whatever is written in them, and hold no token of
   * `without`.
   */
  encodeParts(parts: readonly Section[], without: readonly string[], out: IdBuffer): void {
    const splitters = this.#splittersFor(false, without)
    const plain = (part: Section) => (typeof part === 'string' ? splitters.raw.split(part) : [part])
    this.#encodeSections(parts.flatMap(plain), splitters, out)
  }

  /** Those in use: with special tokens, without them, and without what a chat template writes itself. */
  #splittersFor(special: boolean, without: readonly string[]): Splitters {
    const key = special ? 'special' : JSON.stringify(without)
    let splitters = this.#splitters.get(key)
    if (!splitters) {
      const tokens = this.#added.filter((token) => (special || !token.special) && !without.includes(token.content))
      const normalized = tokens.filter((token) => this.#isNormalized(token))
      splitters = {
        raw: new AddedTokenSplitter(tokens.filter((token) => !this.#isNormalized(token))),
        normalized: new AddedTokenSplitter(normalized, (token) => this.normalizedContent(token)!),
      }
      this.#splitters.set(key, splitters)
    }
    return splitters
  }

  #encodeSections(sections: readonly Section[], splitters: Splitters, out: IdBuffer): void {
    for (const [index, section] of sections.entries()) {
      if (typeof section !== 'string') {
        // A user-defined piece does not take the dummy prefix in: it stands before it, alone.
        if (this.#dummyPrefix && !section.special && startsText(sections[index - 1])) {
          this.#encodePlain(SPACE_SIGN, index, out)
        }
        out.push(section.id)
        continue
      }
      const normalized = this.#normalize(section, sections[index - 1])
      for (const inner of splitters.normalized.split(normalized)) {
        if (typeof inner === 'string') this.#encodePlain(inner, index, out)
        else out.push(inner.id)
      }
    }
  }

  /**
   * Cuts tokens out of a text where `accept` lets them stand: all special ones and `markers`. What is left is plain text
   * for `encodeParts`, and so are the tokens that it must not find there.
   */
  cutOut(text: string, markers: readonly AddedToken[], accept: Accept): { parts: Section[]; without: string[] } {
    const cut = [
      ...this.#added.filter((token) => token.special),
      ...markers.filter((token) => !this.#isNormalized(token)),
    ]
    // A normalized token's surroundings are normalized with it, so it is cut out only when it must be.
    for (const marker of markers.filter((token) => this.#isNormalized(token))) {
      const all = new AddedTokenSplitter([marker], (token) => this.normalizedContent(token)!)
      const allowed = new AddedTokenSplitter([marker]).count(text, accept)
      if (all.count(this.#normalizer!.normalize(text)) > allowed) cut.push(marker)
    }
    const without = cut.filter((token) => !token.special).map(({ content }) => content)
    return { parts: new AddedTokenSplitter(cut).split(text, accept), without }
  }

  /** A token as it stands in normalized text when it is matched there; undefined for one that is matched as it is written. */
  normalizedContent(token: AddedToken): string | undefined {
    return this.#isNormalized(token) ? this.#normalizer!.normalize(token.content) : undefined
  }

  #isNormalized(token: AddedToken): boolean {
    // Hugging Face's default: special tokens are matched as they are written, others after the normalizer.
    return this.#normalizer !== undefined && (token.normalized ?? !token.special)
  }

  #normalize(text: string, before: Section | undefined): string {
    const prefixed = this.#dummyPrefix && startsText(before) ? ` ${text}` : text
    const normalized = this.#normalizer ? this.#normalizer.normalize(prefixed) : prefixed
    return this.#prefixSpace && !normalized.startsWith(' ') ? ` ${normalized}` : normalized
  }

  #encodePlain(text: string, section: number, out: IdBuffer): void {
    const splits = this.#splits
    if (!splits) {
      this.#encodePreToken(text, out)
      return
    }
    const split = (part: string, start: number) =>
      splits.pre_tokenize(part, { section_index: start === 0 ? section : 1 })
    // Metaspace prefixes whatever it is given, so only byte-level text can be cut before it.
    const pieces = this.#byteLevel ? cutLongText(text, (part) => split(part, 1)) : [text]
    let start = 0
    for (const piece of pieces) {
      for (const preToken of split(piece, start)) this.#encodePreToken(preToken, out)
      start += piece.length
    }
  }

  #encodePreToken(preToken: string, out: IdBuffer): void {
    if (this.#byteLevel) {
      this.#encodeWord(preToken, out)
      return
    }
    for (const word of cutWords(preToken, this.#spanning)) this.#encodeWord(word, out)
  }

  #encodeWord(word: string, out: IdBuffer): void {
    let ids = this.#words.get(word)
    if (!ids) {
      ids = this.#runModel(word)
      if (word.length <= LONGEST_REMEMBERED) {
        if (this.#words.size >= REMEMBERED_WORDS) this.#words.clear()
        this.#words.set(word, ids)
      }
    }
    out.append(ids)
  }

  #modelText(word: string): string {
    const text = this.#byteLevel ? this.#byteLevel.pre_tokenize(word).join('') : word
    return this.#absentBytes ? text.replace(this.#absentBytes, '') : text
  }

  #runModel(word: string): Int32Array {
    const ids: number[] = []
    let isUnknown = false
    for (const token of this.#split(this.#modelText(word))) {
      const id = this.#modelIds.get(token)
      const follows = isUnknown
      isUnknown = id === undefined
      if (id !== undefined) ids.push(id)
      else if (this.#byteIds) ids.push(...bytesOf(token, this.#byteIds))
      else if (this.#unknownId !== undefined && !(follows && this.#fusesUnknown)) ids.push(this.#unknownId)
    }
    return Int32Array.from(ids)
  }
}

/** SentencePiece puts one space in front of a text; a user-defined piece in the middle starts no new text. */
function startsText(before: Section | undefined): boolean {
  return before === undefined || (typeof before !== 'string' && before.special === true)
}

const utf8 = new TextEncoder()

function bytesOf(text: string, byteIds: Int32Array): number[] {
  return Array.from(utf8.encode(text), (byte) => byteIds[byte]!)
}

const NORMALIZERS = new Set(['NFC', 'NFD', 'NFKC', 'NFKD', 'Replace', 'Prepend', 'Strip', 'Lowercase', 'StripAccents'])

function buildNormalizer(step: Step | null | undefined): SequenceNormalizer | undefined {
  if (!step) return undefined
  const steps = flattenNormalizer(step)
  if (steps.length === 0) return undefined
  try {
    return new SequenceNormalizer({ type: 'Sequence', normalizers: steps })
  } catch (error) {
    throw unsupportedTokenizer(`a normalizer expression (${(error as Error).message})`)
  }
}

function flattenNormalizer(step: Step): Step[] {
  if (step.type === 'Sequence' && Array.isArray(step.normalizers)) {
    return step.normalizers.flatMap((item: Step) => flattenNormalizer(item))
  }
  if (!NORMALIZERS.has(step.type)) throw unsupportedTokenizer(`a normalizer of type ${JSON.stringify(step.type)}`)
  return [step]
}

function buildSplits(splits: Step[]): SequencePreTokenizer {
  try {
    return new SequencePreTokenizer({ type: 'Sequence', pretokenizers: splits })
  } catch (error) {
    throw unsupportedTokenizer(`a pre-tokenizer expression (${(error as Error).message})`)
  }
}

function unknownId(model: BpeModel | UnigramModel, vocabulary: Vocabulary): number | undefined {
  if (model.type === 'Unigram') return model.unk_id ?? undefined
  return typeof model.unk_token === 'string' ? vocabulary.idOf(model.unk_token) : undefined
}

/**
 * Some vocabularies lack bytes that their training text did not have (the teacher's lacks F1, so planes 4 to 7).
 * Without an unknown token they vanish, and do so before merging, as in Hugging Face's own implementation.
 */
function absentBytes(vocabulary: Vocabulary): RegExp | undefined {
  const absent = [...BYTE_OF_CHARACTER.keys()].filter((character) => !vocabulary.modelIds.has(character))
  return absent.length > 0 ? new RegExp(absent.map(escapeRegex).join('|'), 'gu') : undefined
}

/** The ids of <0x00> to <0xFF>, or nothing where one is missing (then unknown characters become the unknown token). */
function byteTokenIds(vocabulary: Vocabulary): Int32Array | undefined {
  const found = BYTE_TOKENS.map((token) => vocabulary.modelIds.get(token))
  return found.includes(undefined) ? undefined : Int32Array.from(found as number[])
}

function buildModel(
  model: BpeModel | UnigramModel,
  vocabulary: Vocabulary,
  special: Set<string>,
): (word: string) => string[] {
  if (model.type === 'BPE') {
    const bpe = new Bpe(model, vocabulary.modelIds, special)
    return (word) => bpe.split(word)
  }
  const unigram = buildUnigram(model, model.byte_fallback ? new Set([...special, ...BYTE_TOKENS]) : special)
  return (word) => unigram._call([word])
}
