/**
 * The thread that compiles grammars and makes masks. A grammar of a client can need any time and memory: here it can be
 * ended, and takes nothing else with it. It serves one answer at a time.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { OnebitError } from '../errors.js'
import { BYTE_OF_CHARACTER } from '../text/byte-names.js'
import { type ShapeText, shapeGrammar } from './shape-grammar.js'
import { WRONG_SECOND } from './vocabulary-text.js'
import {
  type CompiledGrammar,
  catchOutput,
  type GrammarCompiler,
  type GrammarMatcher,
  limitWasmMemory,
  loadXGrammar,
} from './xgrammar.js'

export interface WorkerSetup {
  /** of vocabularyText() */
  vocabulary: string
  /** the same with the markers of tool calls that are special tokens; undefined where there are none */
  vocabularyWithMarkers: string | undefined
  vocabSize: number
  stopIds: number[]
  memoryBytes: number
}

export type WorkerRequest = { shape: ShapeText } | { accept: number } | { end: true }

export type WorkerAnswer =
  | { ready: true }
  | { mask: Int32Array<ArrayBuffer> }
  /** unusable: the library gave up, and what is in its memory means nothing any more */
  | { error: { code: string; message: string; hint: string | undefined }; unusable: boolean }

const COMPILED_KEPT = 4

const setup = workerData as WorkerSetup
const output = catchOutput()
limitWasmMemory(setup.memoryBytes)
const library = loadXGrammar()

const compilers = new Map<string, Promise<GrammarCompiler>>()
/** oldest first */
const compiled = new Map<string, CompiledGrammar>()
let matcher: GrammarMatcher | undefined
/** the last byte of the text so far */
let lastByte = 0
let names: string[] = []
const stopMask = new Int32Array(Math.ceil(setup.vocabSize / 32))
for (const id of setup.stopIds) stopMask[id >> 5]! |= 1 << (id & 31)

/** GPT-2's characters of each token, by vocabulary */
const namesByText = new Map<string, string[]>()
function namesOf(vocabulary: string): string[] {
  const known = namesByText.get(vocabulary) ?? vocabulary.split('\n')
  namesByText.set(vocabulary, known)
  return known
}

function compilerFor(vocabulary: string): Promise<GrammarCompiler> {
  let compiler = compilers.get(vocabulary)
  if (!compiler) {
    compiler = library.TokenizerInfo.createTokenizerInfo(
      namesOf(vocabulary),
      'byte_level',
      false,
      setup.vocabSize,
      setup.stopIds,
    ).then((info) => library.GrammarCompiler.createGrammarCompiler(info, false))
    compilers.set(vocabulary, compiler)
  }
  return compiler
}

function vocabularyOf({ kind }: ShapeText): string {
  return (kind === 'tag' && setup.vocabularyWithMarkers) || setup.vocabulary
}

async function compile(shape: ShapeText): Promise<CompiledGrammar> {
  const key = `${shape.kind} ${shape.text}`
  const known = compiled.get(key)
  compiled.delete(key)
  const grammar = known ?? (await compileNew(shape))
  compiled.set(key, grammar)
  if (compiled.size > COMPILED_KEPT) {
    const [oldest, dropped] = compiled.entries().next().value!
    compiled.delete(oldest)
    dropped.dispose()
  }
  return grammar
}

async function compileNew(shape: ShapeText): Promise<CompiledGrammar> {
  const form = shapeGrammar(shape)
  const compiler = await compilerFor(vocabularyOf(shape))
  output.length = 0
  const grammar =
    'tag' in form ? await compiler.compileStructuralTag(form.tag) : await compiler.compileGrammar(form.grammar)
  const ignored = output.map(saying).find((line) => line !== undefined)
  if (ignored === undefined) return grammar
  grammar.dispose()
  throw new OnebitError('ERR_GRAMMAR', `The grammar cannot be kept as it is: ${ignored}`)
}

/** What a printed line says about the grammar, without the place in the library's source. */
function saying(line: string): string | undefined {
  return /^\[(?:WARNING|FATAL)\] \S+:\d+: (.*)/s.exec(line)?.[1]
}

async function begin(shape: ShapeText): Promise<Int32Array<ArrayBuffer>> {
  matcher?.dispose()
  matcher = undefined
  lastByte = 0
  names = namesOf(vocabularyOf(shape))
  matcher = await library.GrammarMatcher.createGrammarMatcher(await compile(shape))
  return mask()
}

async function mask(): Promise<Int32Array<ArrayBuffer>> {
  if (matcher!.isTerminated()) return stopMask.slice()
  const bits = (await matcher!.getNextTokenBitmask()) as Int32Array<ArrayBuffer>
  const wrong = WRONG_SECOND.get(lastByte)
  if (wrong) forbid(bits, wrong)
  if (bits.every((word) => word === 0)) {
    throw new OnebitError('ERR_GRAMMAR', 'The grammar leads to a place where no token of this model may come.', {
      hint: 'It may refer to itself without end, or ask for characters that the model has no tokens for.',
    })
  }
  return bits
}

/** A class of characters lets bytes pass that are no UTF-8 together, such as half of a surrogate pair. */
function forbid(bits: Int32Array, [first, last]: readonly [number, number]): void {
  for (let id = 0; id < names.length; id++) {
    const byte = BYTE_OF_CHARACTER.get(names[id]![0] ?? '')
    if (byte !== undefined && byte >= first && byte <= last) bits[id >> 5]! &= ~(1 << (id & 31))
  }
}

async function accept(id: number): Promise<Int32Array<ArrayBuffer>> {
  if (!matcher) throw new OnebitError('ERR_GRAMMAR', 'There is no answer under way.')
  output.length = 0
  if (!matcher.isTerminated() && !matcher.acceptToken(id)) {
    throw new OnebitError('ERR_GRAMMAR', `Token ${id} is none that may come here.`)
  }
  lastByte = BYTE_OF_CHARACTER.get(names[id]?.at(-1) ?? '') ?? 0
  return mask()
}

async function answer(request: WorkerRequest): Promise<WorkerAnswer | undefined> {
  try {
    if ('shape' in request) return { mask: await begin(request.shape) }
    if ('accept' in request) return { mask: await accept(request.accept) }
    matcher?.dispose()
    matcher = undefined
    return undefined
  } catch (error) {
    if (error instanceof OnebitError) {
      const { code, message, hint } = error
      return { error: { code, message, hint }, unusable: false }
    }
    return { error: failure(error), unusable: true }
  }
}

/** The library gave up, for lack of memory if it did not say why. */
function failure(error: unknown): { code: string; message: string; hint: string | undefined } {
  const reason = output.map(saying).findLast((line) => line !== undefined)
  if (reason !== undefined)
    return { code: 'ERR_GRAMMAR', message: `The grammar is not usable: ${reason}`, hint: undefined }
  // An exception of C++, of which only the address comes out.
  if (typeof error === 'number') {
    return { code: 'ERR_GRAMMAR', message: 'The grammar is not usable; the library does not say why.', hint: undefined }
  }
  return {
    code: 'ERR_GRAMMAR_LIMIT',
    message: `The grammar needs more memory or depth than there is (${(error as Error)?.message ?? 'no reason given'})`,
    hint: 'Use a smaller or less deeply nested one.',
  }
}

/**
 * One after the other, in their order, and none before the library is there: two first calls at the same time would load it
 * twice, and one's memory means nothing to the other.
 */
let last: Promise<unknown> = compilerFor(setup.vocabulary).then(() => {
  parentPort!.postMessage({ ready: true } satisfies WorkerAnswer)
})
parentPort!.on('message', (request: WorkerRequest) => {
  last = last.then(async () => {
    const reply = await answer(request)
    if (reply) parentPort!.postMessage(reply, 'mask' in reply ? [reply.mask.buffer] : [])
  })
})
