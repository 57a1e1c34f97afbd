/**
 * Pre-tokenizers: the regular expressions that cut text before BPE, by the names GGUF files give them, and the
 * rewriting of a tokenizer.json's own steps into forms that the library runs exactly.
 */
import type { Step } from './tokenizer-json.js'
import { isRecord, unsupportedTokenizer } from './tokenizer-json.js'

/** openai/gpt-2, src/encoder.py; also what Hugging Face's ByteLevel uses with `use_regex`. */
const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/** Without (?i), whose case folding in Unicode would let U+017F (long s) count as s in some engines. */
const CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
const WORDS = '[^\\r\\n\\p{L}\\p{N}]?\\p{L}+'
const REST = ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'

interface NamedPreTokenizer {
  splits: string[]
  /** a pre-token that is in the vocabulary is taken whole, before any merge */
  ignoreMerges?: boolean
  /** Unicode normalization before everything else */
  nfc?: boolean
  /** whether BOS is added when the file does not say */
  addBos?: boolean
}

const LLAMA3: NamedPreTokenizer = {
  splits: [`${CONTRACTIONS}|${WORDS}|\\p{N}{1,3}|${REST}`],
  ignoreMerges: true,
  addBos: true,
}

/**
 * The values of `tokenizer.ggml.pre` that we know (llama.cpp, src/llama-vocab.cpp). smollm: every digit alone, then
 * GPT-2's. The NFC of qwen2, qwen35 and olmo comes from the tokenizer.json in their makers' repositories.
 */
const NAMED: Record<string, NamedPreTokenizer> = {
  'gpt-2': { splits: [GPT2] },
  olmo: { splits: [GPT2], nfc: true },
  smollm: { splits: ['\\p{N}', GPT2] },
  qwen2: { splits: [`${CONTRACTIONS}|${WORDS}|\\p{N}|${REST}`], nfc: true },
  qwen35: {
    splits: [`${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|${REST.replace('\\p{L}', '\\p{L}\\p{M}')}`],
    nfc: true,
  },
  'llama-bpe': LLAMA3,
}
/** Other names of the same thing, which converters have used. */
const LLAMA3_NAMES = ['llama3', 'llama-v3', 'falcon3', 'falcon_e', 'falcon-h1', 'pixtral', 'midm-2.0', 'lfm2']
for (const name of LLAMA3_NAMES) NAMED[name] = LLAMA3

export interface PreTokenization extends NamedPreTokenizer {
  preTokenizer: Step
  normalizer: Step | null
}

/** The steps for a `tokenizer.ggml.pre`; an unknown name is ERR_UNSUPPORTED_TOKENIZER, not a guess. */
export function namedPreTokenizer(name: string): PreTokenization {
  const known = Object.hasOwn(NAMED, name) ? NAMED[name] : undefined
  if (!known) throw unsupportedTokenizer(`the pre-tokenizer ${JSON.stringify(name.slice(0, 60))}`)
  return {
    ...known,
    preTokenizer: { type: 'Sequence', pretokenizers: [...known.splits.map(isolate), byteLevel()] },
    normalizer: known.nfc ? { type: 'NFC' } : null,
  }
}

function isolate(regex: string): Step {
  return { type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false }
}

function byteLevel(): Step {
  return { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false }
}

/** What the encoder runs: splitting steps, then perhaps bytes as characters. */
export interface PreTokenizerPlan {
  /** a space goes in front of text that does not start with one */
  prefixSpace: boolean
  splits: Step[]
  byteLevel: boolean
  /** no piece reaches across a space sign, whatever the vocabulary holds (Metaspace with `split`) */
  splitAtSpaces: boolean
}

/**
 * A tokenizer.json's pre-tokenizer as a plan. Two of the library's steps differ from the original there (ByteLevel's
 * and Digits' expressions use JavaScript's \s and \d, which leave out U+0085 and digits beyond ASCII), so they become
 * Split steps, whose expressions the library translates.
 */
export function planPreTokenizer(step: Step | null | undefined): PreTokenizerPlan {
  const plan: PreTokenizerPlan = { prefixSpace: false, splits: [], byteLevel: false, splitAtSpaces: false }
  for (const item of flatten(step)) {
    if (plan.byteLevel) throw unsupportedTokenizer('a pre-tokenizer step after ByteLevel')
    if (item.type === 'ByteLevel') addByteLevel(plan, item)
    else if (item.type === 'Digits') plan.splits.push(isolate(item.individual_digits ? '\\p{N}' : '\\p{N}+'))
    else if (item.type === 'Split') plan.splits.push(checkedSplit(item))
    else if (item.type === 'Metaspace') addMetaspace(plan, item)
    else throw unsupportedTokenizer(`a pre-tokenizer of type ${JSON.stringify(item.type)}`)
  }
  return plan
}

function flatten(step: Step | null | undefined): Step[] {
  if (!step) return []
  if (step.type !== 'Sequence') return [step]
  const steps = step.pretokenizers
  if (!Array.isArray(steps)) throw unsupportedTokenizer('a pre-tokenizer sequence without steps')
  return steps.flatMap((item: Step) => flatten(item))
}

function addByteLevel(plan: PreTokenizerPlan, step: Step): void {
  if (step.add_prefix_space === true) {
    if (plan.splits.length > 0) throw unsupportedTokenizer('ByteLevel with a prefix space after another step')
    plan.prefixSpace = true
  }
  if (step.use_regex !== false) plan.splits.push(isolate(GPT2))
  plan.byteLevel = true
}

/** Files before 2024 say `add_prefix_space` where newer ones have a scheme, and always split. */
function addMetaspace(plan: PreTokenizerPlan, step: Step): void {
  const scheme = step.prepend_scheme ?? (step.add_prefix_space === false ? 'never' : 'always')
  plan.splits.push({ ...step, prepend_scheme: scheme })
  plan.splitAtSpaces = step.split !== false
}

/**
 * Isolated keeps matches and gaps alike, so inverting it changes nothing; the library would drop the gaps. A plain
 * string becomes an expression, because the library keeps it as a group, which `split` would not remove.
 */
function checkedSplit(step: Step): Step {
  const behavior = String(step.behavior).toLowerCase()
  const pattern = isRecord(step.pattern) ? step.pattern : {}
  if (behavior !== 'isolated' && behavior !== 'removed') throw unsupportedTokenizer(`Split with behavior ${behavior}`)
  const regex = typeof pattern.String === 'string' ? escapeRegex(pattern.String) : pattern.Regex
  if (typeof regex !== 'string') throw unsupportedTokenizer('Split without a pattern')
  return { ...isolate(regex), behavior, invert: behavior === 'removed' && step.invert === true }
}

export function escapeRegex(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
}
