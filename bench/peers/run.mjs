// `npm run bench:peers`: this engine in 1 bit against llama.cpp in its own small types, the same shapes with random
// weights, both through their Node packages, on this machine and in this run.
//
//   npm run bench:peers -- [--shapes 135m,1.1b,7b] [--rounds 5] [--isa ,avx2] [--types TQ2_0,IQ2_XXS] [--with "nice -n -5"]
//
// Every round measures each configuration once, in a process of its own, one after the other, so that a machine that
// grows slower or faster meanwhile does so for all. Figures are medians over the rounds; the peer's is its best over its
// types and 1 or 2 threads, for each figure by itself; what is far behind in the first round is not measured again.
// An empty --isa is the best there is. --with: a command to put before each measurement. Files for the peer are written
// to scratch/ (7B: 2 GB each).
import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { ROOT, SCRATCH } from './llama-cpp.mjs'
import { bitsPerWeight, makeRandomGguf } from './random-gguf.mjs'

const HERE = dirname(fileURLToPath(import.meta.url))

/**
 * The peer's fastest types on the machines we saw. Of TQ2_0, TQ1_0, IQ1_S, IQ2_XXS and Q1_0, the first decoded fastest
 * and IQ2_XXS read prompts fastest; 1.1B is compared with the type that has as many bits as ours. The columns of 135M
 * fit none of these. `warm`: tokens computed before the clock runs.
 */
const SHAPES = {
  '135m': { shape: 'smollm2-135m', types: ['Q8_0', 'Q4_0', 'IQ4_NL'], prompt: 512, warm: 512, tokens: 64 },
  '1.1b': { shape: 'tinyllama-1.1b', types: ['Q1_0'], prompt: 512, warm: 64, tokens: 48 },
  '7b': { shape: 'llama-7b', types: ['TQ2_0', 'IQ2_XXS'], prompt: 512, warm: 32, tokens: 24 },
}

/** Below this share of the best, in both figures of the first round, a configuration of the peer is given up. */
const HOPELESS = 0.7

const { values } = parseArgs({
  options: {
    shapes: { type: 'string', default: '135m,1.1b,7b' },
    rounds: { type: 'string', default: '5' },
    isa: { type: 'string', default: ',avx2' },
    types: { type: 'string' },
    with: { type: 'string' },
  },
})
const rounds = Number(values.rounds)
const unknown = values.shapes.split(',').find((name) => !SHAPES[name])
if (unknown !== undefined || !(rounds >= 1)) {
  console.error(`--shapes takes ${Object.keys(SHAPES).join(', ')}; --rounds a number from 1`)
  process.exit(2)
}

/** One measurement in a process of its own. */
function measure(script, argument, env = {}) {
  const argv = [...(values.with?.split(' ') ?? []), process.execPath, join(HERE, script), JSON.stringify(argument)]
  const options = { cwd: ROOT, env: { ...process.env, ...env }, encoding: 'utf8', stdio: ['ignore', 'pipe', 2] }
  const run = spawnSync(argv[0], argv.slice(1), options)
  if (run.status !== 0) throw new Error(`${argv.join(' ')}: ${run.signal ?? `exit status ${run.status}`}`)
  return JSON.parse(run.stdout)
}

function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b)
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2
}

const plural = (threads) => `${threads} thread${threads > 1 ? 's' : ''}`

function configurations({ shape, types, ...work }) {
  const peers = types.flatMap((type) => {
    const path = join(SCRATCH, `${shape}.${type}.gguf`)
    makeRandomGguf(path, shape, type)
    return [1, 2].map((threads) => ({
      name: `llama.cpp ${type} (${bitsPerWeight(type).toFixed(2)} bits), ${plural(threads)}`,
      measure: () => measure('measure-peer.mjs', { path, threads, ...work }),
      results: [],
    }))
  })
  const ours = values.isa.split(',').map((isa) => ({
    name: `onebit-run 1 bit, ${isa || 'best path'}, ${plural(2)}`,
    measure: () => measure('measure-onebit.mjs', { shape, threads: 2, ...work }, { ONEBIT_ISA: isa }),
    results: [],
  }))
  return { peers, ours }
}

const figure = ({ results }, metric) => median(results.map((result) => result[metric]))
const bestOf = (peers, metric) => Math.max(...peers.map((peer) => figure(peer, metric)))

function hopeful(peers) {
  return peers.filter((peer) =>
    ['prefill', 'decode'].some((metric) => figure(peer, metric) >= HOPELESS * bestOf(peers, metric)),
  )
}

/** @returns the rows of a table */
function compare(name) {
  const { peers, ours } = configurations({ ...SHAPES[name], ...(values.types && { types: values.types.split(',') }) })
  let alive = peers
  for (let round = 1; round <= rounds; round++) {
    for (const configuration of [...alive, ...ours]) {
      const result = configuration.measure()
      configuration.results.push(result)
      const speeds = `prefill ${result.prefill.toFixed(1)}, decode ${result.decode.toFixed(1)} tokens/s`
      console.error(`${name}, round ${round}: ${configuration.name}: ${speeds}`)
    }
    if (round === 1) alive = hopeful(peers)
  }
  const row = (configuration) => {
    const [prefill, decode] = ['prefill', 'decode'].map((metric) => figure(configuration, metric))
    const ratios = [prefill / bestOf(alive, 'prefill'), decode / bestOf(alive, 'decode')]
    const cells = [SHAPES[name].shape, configuration.name, prefill.toFixed(1), decode.toFixed(1)]
    return [...cells, ...ratios.map((ratio) => ratio.toFixed(2))].join(' | ')
  }
  return { rows: [...alive, ...ours].map(row), version: peers[0].results[0].version }
}

mkdirSync(SCRATCH, { recursive: true })
const found = values.shapes.split(',').map(compare)
console.log(`${cpus()[0].model}; ${found[0].version}; medians of ${rounds} rounds; prompts of 512, decode after them\n`)
console.log('| shape | | prefill tokens/s | decode tokens/s | × prefill | × decode |\n|---|---|---:|---:|---:|---:|')
for (const { rows } of found) for (const row of rows) console.log(`| ${row} |`)
