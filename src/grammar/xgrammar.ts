/**
 * Loads XGrammar, in a worker thread only: its memory is bounded and what it prints is caught by changing globals of the
 * thread.
 */
import { readFileSync } from 'node:fs'
import Module, { createRequire } from 'node:module'

/** Node's types know it only with those of browsers. */
interface WasmMemory {
  readonly buffer: ArrayBuffer
  grow(pages: number): number
}
declare const WebAssembly: { Memory: { prototype: WasmMemory } }

/** What is used of the library. */
export interface XGrammar {
  TokenizerInfo: {
    createTokenizerInfo(
      names: string[],
      type: 'byte_level',
      prependSpace: boolean,
      vocabSize: number,
      stopIds: number[],
    ): Promise<TokenizerInfo>
  }
  GrammarCompiler: {
    createGrammarCompiler(info: TokenizerInfo, cache: boolean): Promise<GrammarCompiler>
  }
  GrammarMatcher: {
    createGrammarMatcher(grammar: CompiledGrammar): Promise<GrammarMatcher>
  }
}

export interface TokenizerInfo {
  dispose(): void
}

export interface CompiledGrammar {
  dispose(): void
}

export interface GrammarCompiler {
  compileGrammar(ebnf: string): Promise<CompiledGrammar>
  compileStructuralTag(tag: string): Promise<CompiledGrammar>
}

export interface GrammarMatcher {
  acceptToken(id: number): boolean
  getNextTokenBitmask(): Promise<Int32Array>
  isTerminated(): boolean
  dispose(): void
}

/** The package says that it is an ES module, but its file is none, so that neither import nor require gives anything. */
export function loadXGrammar(): XGrammar {
  const file = createRequire(import.meta.url).resolve('@mlc-ai/web-xgrammar')
  const module = new Module(file) as Module & { _compile(source: string, file: string): void }
  module.filename = file
  module._compile(readFileSync(file, 'utf8'), file)
  return module.exports as XGrammar
}

/** The limits that Node has for threads do not count WebAssembly's memory. */
export function limitWasmMemory(bytes: number): void {
  const grow = WebAssembly.Memory.prototype.grow
  WebAssembly.Memory.prototype.grow = function (this: WasmMemory, pages: number): number {
    if (this.buffer.byteLength + pages * 65536 > bytes) throw new RangeError('beyond the limit')
    return grow.call(this, pages)
  }
}

/** The lines that the library prints go here instead; they say what it ignores and why it gave up. */
export function catchOutput(): string[] {
  const lines: string[] = []
  const take = (...parts: unknown[]) => void lines.push(parts.join(' '))
  for (const name of ['log', 'info', 'warn', 'error'] as const) console[name] = take
  return lines
}
