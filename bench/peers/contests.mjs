// Who is compared with whom on which shape, and what the comparison is meant to show.
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { architectureOf } from './gguf-models.mjs'
import { ensurePeer } from './llama-cpp.mjs'
import { ensurePythonPeer, PYTHON } from './python-peers.mjs'

const HERE = dirname(fileURLToPath(import.meta.url))

const python = (name) => ({
  ensure: () => ensurePythonPeer(name),
  command: [PYTHON, join(HERE, 'measure-python-peer.py')],
})

/** How a peer is installed, and the command that measures it; its one argument is JSON. */
export const ENGINES = {
  'node-llama-cpp': { ensure: ensurePeer, command: [process.execPath, join(HERE, 'measure-peer.mjs')] },
  'ik-llama-cpp-python': python('ik-llama-cpp-python'),
  'llama-cpp-py-sync': python('llama-cpp-py-sync'),
}

/** Those that were the peer's fastest for some figure on some machine, and its smallest. */
const AGAINST_ONE_BIT = ['Q8_0', 'Q4_0', 'IQ4_NL', 'TQ2_0', 'IQ2_XXS', 'Q1_0']

/** 1-bit models have an embedding and a head of 8 bits; so has the peer, whatever its linears are. */
export function againstOneBit(type) {
  return { engine: 'node-llama-cpp', type, arch: 'llama', tables: 'Q8_0' }
}

/** `warm`: tokens computed before the clock runs; `tokens`: how many are decoded. */
const oneBit = (warm, tokens) => ({
  type: 'onebit',
  work: { prompt: 512, warm, tokens },
  candidates: AGAINST_ONE_BIT.map(againstOneBit),
})

/** Both sides have their matrices, and their embedding and head, in as many bits. */
const ternary = (shape, work, candidates, bars, reference) => ({
  type: 'ternary',
  work,
  candidates: candidates.map((one) => ({ engine: 'node-llama-cpp', arch: architectureOf(shape), ...one })),
  bars,
  reference,
})

/** Of what shows a limit of the other side only, `where` says when it counts. */
const BARS = {
  memory: { figure: 'decode', against: 'memory', least: 0.85 },
  decode: { figure: 'decode', against: 'peer', least: 2, where: { peerShareAtMost: 0.42 } },
  prompt: { figure: 'prefill', against: 'peer', least: 2 },
  decodeHalfAgain: { figure: 'decode', against: 'peer', least: 1.5 },
  oneBit512: { figure: 'prefill', against: 'one bit', least: 0.6, isas: /^avx512/ },
  oneBitAvx2: { figure: 'prefill', against: 'one bit', least: 0.5, isas: /^avx2$/ },
}

const TQ2_0 = { type: 'TQ2_0', tables: 'TQ2_0' }

/**
 * Of each shape: this engine's `type`, `candidates` of the peers ({ engine, type, arch, tables: of embedding and head }),
 * `reference`: another type of this engine to compare with, `bars`: what is to be reached. IQ2_BN_R4 is IQ2_BN with its
 * rows interleaved while loading.
 */
export const CONTESTS = {
  'smollm2-135m': oneBit(512, 64),
  'tinyllama-1.1b': oneBit(64, 48),
  'llama-7b': oneBit(32, 24),
  'llama-13b': oneBit(32, 16),
  'qwen3-1.7b': ternary(
    'qwen3-1.7b',
    { prompt: 512, warm: 64, tokens: 32 },
    [TQ2_0],
    [BARS.oneBit512, BARS.oneBitAvx2, BARS.prompt],
    'onebit',
  ),
  // Its bar is about decoding; a prompt of 512 would take the peer minutes.
  'qwen3-8b': ternary('qwen3-8b', { prompt: 64, warm: 16, tokens: 32 }, [TQ2_0], [BARS.memory, BARS.decode]),
  'bitnet-2b4t': ternary(
    'bitnet-2b4t',
    { prompt: 512, warm: 64, tokens: 32 },
    [
      // Not its I2_S: that package computes something else with it. On a tiny model of which transformers' logits are known it
      // correlates with them by 0.23, and claims four times the multiply-adds that the processor can do.
      { engine: 'ik-llama-cpp-python', type: 'IQ2_BN', tables: 'Q8_0' },
      { engine: 'ik-llama-cpp-python', type: 'IQ2_BN_R4', file: 'IQ2_BN', repack: true, tables: 'Q8_0' },
      // It has no BitNet: the same sizes as a Llama.
      { type: 'TQ2_0', tables: 'Q8_0', arch: 'llama' },
    ],
    [BARS.decodeHalfAgain, BARS.prompt],
  ),
  'qwen35-2b': ternary(
    'qwen35-2b',
    { prompt: 512, warm: 64, tokens: 32 },
    [{ engine: 'llama-cpp-py-sync', type: 'Q2_0', tables: 'Q2_0' }],
    [BARS.decodeHalfAgain, BARS.prompt],
  ),
}
