// `npm run bench:peers`: a 135M model in 1 bit on this engine against the same model in Q8_0 on llama.cpp, both through
// their Node packages, on this machine and in this run.
//
//   node bench/peers/run.mjs [--rounds 5] [--isa avx2]
//
// Every round measures each configuration once, in a process of its own, one after the other, so that a machine that
// grows slower or faster meanwhile does so for all. Figures are medians over the rounds; the peer's is the better of
// its medians at 1 and 2 threads. Needs SmolLM2-135M-Instruct.Q4_1.gguf in the data folder (ONEBIT_DATA).
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, renameSync } from 'node:fs'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { ROOT, SCRATCH } from './llama-cpp.mjs'
import { toQ8 } from './requantise.mjs'

const HERE = dirname(fileURLToPath(import.meta.url))
const DATA = process.env.ONEBIT_DATA ?? join(ROOT, '..', 'shared', 'data')
const SOURCE = join(DATA, 'weights', 'SmolLM2-135M-Instruct.Q4_1.gguf')
const PEER_MODEL = join(SCRATCH, 'smollm2-135m.Q8_0.gguf')
const OUR_MODEL = join(SCRATCH, 'smollm2-135m.onebit.obt')

function node(argv, env = process.env) {
  const run = spawnSync(process.execPath, argv, { cwd: ROOT, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 2] })
  if (run.status !== 0) throw new Error(`node ${argv.join(' ')}: ${run.signal ?? `exit status ${run.status}`}`)
  return run.stdout
}

async function makeModels() {
  mkdirSync(SCRATCH, { recursive: true })
  if (!existsSync(PEER_MODEL)) {
    console.error('writing the peer’s Q8_0 file')
    await toQ8(SOURCE, `${PEER_MODEL}.part`)
    renameSync(`${PEER_MODEL}.part`, PEER_MODEL)
  }
  if (!existsSync(OUR_MODEL))
    node([join(ROOT, 'dist/cli/onebit.js'), 'convert', SOURCE, '--type', 'onebit', '-o', OUR_MODEL])
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

function configurations(isa) {
  const peer = (threads) => ({
    name: `llama.cpp Q8_0, ${threads} thread${threads > 1 ? 's' : ''}`,
    // Flash attention was the faster setting wherever we tried it.
    measure: () => JSON.parse(node([join(HERE, 'measure-peer.mjs'), PEER_MODEL, String(threads), '1'])),
  })
  const ours = (threads) => ({
    name: `onebit 1 bit, ${isa}, ${threads} thread${threads > 1 ? 's' : ''}`,
    measure: () => {
      const env = { ...process.env, ONEBIT_ISA: isa }
      return JSON.parse(node([join(HERE, 'measure-onebit.mjs'), OUR_MODEL, String(threads)], env))
    },
  })
  return { peers: [peer(1), peer(2)], ours: [ours(1), ours(2)] }
}

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '5' }, isa: { type: 'string', default: 'avx2' } },
})
if (!existsSync(SOURCE)) {
  console.error(`${SOURCE} is not there; set ONEBIT_DATA to the folder that has weights/`)
  process.exit(1)
}
await makeModels()
const { peers, ours } = configurations(values.isa)
const results = new Map([...peers, ...ours].map(({ name }) => [name, []]))
for (let round = 1; round <= Number(values.rounds); round++) {
  for (const { name, measure } of [...peers, ...ours]) {
    const result = measure()
    results.get(name).push(result)
    const speeds = `prefill ${result.prefill.toFixed(1)}, decode ${result.decode.toFixed(1)} tokens/s`
    console.error(`round ${round}: ${name}: ${speeds}`)
  }
}

const of = ({ name }, metric) => median(results.get(name).map((result) => result[metric]))
const best = (metric) => Math.max(...peers.map((peer) => of(peer, metric)))
console.log(`${cpus()[0].model}; ${results.get(peers[0].name)[0].version}; medians of ${values.rounds} rounds\n`)
console.log('| | prefill 512 tokens/s | decode after 512 tokens/s | × prefill | × decode |\n|---|---:|---:|---:|---:|')
for (const configuration of [...peers, ...ours]) {
  const [prefill, decode] = [of(configuration, 'prefill'), of(configuration, 'decode')]
  const ratios = [prefill / best('prefill'), decode / best('decode')].map((ratio) => ratio.toFixed(2))
  console.log(`| ${[configuration.name, prefill.toFixed(1), decode.toFixed(1), ...ratios].join(' | ')} |`)
}
