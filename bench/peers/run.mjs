// `npm run bench:peers`: this engine in 1 bit against llama.cpp in its small types, the same shapes with random weights,
// both through their Node packages, on this machine and in this run. Prints a table in Markdown for the README, and
// writes every measurement as JSON.
//
//   npm run bench:peers -- [--shape smollm2-135m,tinyllama-1.1b,llama-7b] [--rounds 3] [--types Q4_0,TQ2_0] [--threads 1,2]
//                          [--isa avx2,avx512vnni] [--prompt 512] [--tokens N] [--json PATH] [--with "nice -n -5"]
//
// Each configuration of the peer (a type on a number of threads) is measured with this engine right beside it, each
// measurement in a process of its own, in as many rounds; a ratio is taken within such a pair, and the table has medians.
// What is far behind in the first round is not measured again, and is named. --isa: this engine's instruction sets, the
// best last. --with: a command to put before each measurement. Files for the peer lie below scratch/ meanwhile: of the 7B
// shape 7 GB for the largest, and at most 20 GB at once.
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { SHAPES } from '../../dist/bench/shapes.js'
import { addon } from '../../dist/native/addon.js'
import { tableRows } from './comparison.mjs'
import { ensurePeer, ROOT, SCRATCH } from './llama-cpp.mjs'
import { describeMachine } from './machine.mjs'
import { markdown } from './markdown.mjs'
import { bitsPerWeight, fits, TYPES, weightBytes } from './random-gguf.mjs'
import { ShapeRounds } from './rounds.mjs'

/** Those that were the peer's fastest for some figure on some machine, and its smallest. */
const CANDIDATES = ['Q8_0', 'Q4_0', 'IQ4_NL', 'TQ2_0', 'IQ2_XXS', 'Q1_0']

/** `warm`: tokens computed before the clock runs; `tokens`: how many are decoded. */
const WORK = {
  'smollm2-135m': { warm: 512, tokens: 64 },
  'tinyllama-1.1b': { warm: 64, tokens: 48 },
  'llama-7b': { warm: 32, tokens: 24 },
  'llama-13b': { warm: 32, tokens: 16 },
}

const cores = availableParallelism()
const { values } = parseArgs({
  options: {
    shape: { type: 'string', default: 'smollm2-135m,tinyllama-1.1b,llama-7b' },
    rounds: { type: 'string', default: '3' },
    types: { type: 'string', default: CANDIDATES.join(',') },
    threads: { type: 'string', default: [...new Set([1, cores])].join(',') },
    isa: { type: 'string', default: defaultIsas().join(',') },
    prompt: { type: 'string', default: '512' },
    tokens: { type: 'string' },
    json: { type: 'string', default: join(SCRATCH, 'bench-peers.json') },
    with: { type: 'string', default: '' },
  },
})

function refuse(message) {
  console.error(message)
  process.exit(2)
}

/** AVX2 is what most processors have: beside the best path of this one, where that is another. */
function defaultIsas() {
  const { isas, chosen, why } = addon().info()
  if (chosen === null) refuse(why)
  const avx2 = isas.some(({ name, state }) => name === 'avx2' && state === 'usable')
  return avx2 && chosen !== 'avx2' ? ['avx2', chosen] : [chosen]
}

function listOf(option, known) {
  const names = values[option].split(',')
  const unknown = names.find((name) => !known.includes(name))
  if (unknown !== undefined) refuse(`--${option} takes ${known.join(', ')}; not ${JSON.stringify(unknown)}`)
  return names
}

function count(option, text = values[option]) {
  const number = Number(text)
  if (!Number.isInteger(number) || number < 1) refuse(`--${option} takes whole numbers from 1, not ${text}`)
  return number
}

/** What is measured of each shape. */
function plans() {
  const types = listOf('types', Object.keys(TYPES)).sort((a, b) => bitsPerWeight(a) - bitsPerWeight(b))
  const common = {
    threads: values.threads.split(',').map((text) => count('threads', text)),
    isas: listOf('isa', usableIsas()),
    ownThreads: cores,
    rounds: count('rounds'),
    prefix: values.with.split(' ').filter((word) => word !== ''),
  }
  return listOf('shape', Object.keys(WORK)).map((shape) => {
    const fitting = types.filter((type) => fits(type, SHAPES[shape]))
    if (fitting.length === 0) refuse(`none of ${types.join(', ')} fits the columns of ${shape}`)
    const { warm, tokens } = WORK[shape]
    const prompt = count('prompt')
    const work = { prompt, warm: Math.min(warm, prompt), tokens: values.tokens ? count('tokens') : tokens }
    return { ...common, shape, types: fitting, misfits: types.filter((type) => !fitting.includes(type)), work }
  })
}

function usableIsas() {
  const usable = addon()
    .info()
    .isas.filter(({ state }) => state === 'usable')
  return usable.map(({ name }) => name)
}

/**
 * Seconds that a plan's pair may take: a guess before anything is measured. An engine reads weights at some 8 GB/s and
 * multiplies some 40 G weights in a second on each core; starting and loading are as much again for large files.
 */
function guessSeconds({ shape, types, threads, isas, work }) {
  const guess = (bytes, weights, onThreads) =>
    2 + bytes / 1e9 + ((work.prompt + work.warm) * weights) / (4e10 * onThreads) + (work.tokens * bytes) / 8e9
  const weights = (8 * weightBytes(shape, 'Q8_0')) / bitsPerWeight('Q8_0')
  const ours = isas.length * guess(weights / 8, weights, cores)
  const pairs = types.flatMap((type) => threads.map((n) => guess(weightBytes(shape, type), weights, n) + ours))
  return pairs.reduce((sum, seconds) => sum + seconds, 0)
}

/** About half of the configurations are given up in the first round, after a second try. */
function guessShape(plan) {
  return guessSeconds(plan) * (1.5 + (plan.rounds - 1) / 2)
}

const minutes = (seconds) => `${Math.max(1, Math.round(seconds / 60))} min`

/** Written anew after each pair: a run that is cut off loses one. */
function writeReport(report) {
  const path = resolve(values.json)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(`${path}.part`, `${JSON.stringify(report, null, 2)}\n`)
  renameSync(`${path}.part`, path)
}

/** What the later rounds of a shape will take, by what its configurations have taken. */
function secondsLeft(rounds, plan, round) {
  const roundSeconds = rounds.alive().reduce((sum, { pairs }) => sum + pairs.at(-1).seconds, 0)
  return (plan.rounds - round) * roundSeconds
}

function measureShape(plan, report, laterSeconds) {
  const speeds = ({ prefill, decode }) => `${prefill.toFixed(1)}, ${decode.toFixed(1)}`
  const rounds = new ShapeRounds(plan, ({ type, threads }, pair) => {
    const ours = Object.entries(pair.ours).map(([isa, result]) => `${isa} ${speeds(result)}`)
    const left = pair.round > 1 ? `; about ${minutes(secondsLeft(rounds, plan, pair.round) + laterSeconds)} left` : ''
    const name = `${type} on ${threads} thread${threads === 1 ? '' : 's'} ${speeds(pair.peer)}`
    console.error(`${plan.shape}, round ${pair.round}: ${name}; ${ours.join('; ')}${left}`)
    report.peer ??= { ...rounds.state.peer, threads: plan.threads }
    writeReport(report)
  })
  report.shapes.push(rounds.state)
  rounds.run()
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0)

function main() {
  const all = plans()
  ensurePeer()
  const guesses = all.map(guessShape)
  console.error(`this takes roughly ${minutes(sum(guesses))}, more on a slow machine; leave it alone meanwhile`)
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  const report = {
    date: new Date().toISOString().slice(0, 10),
    machine: describeMachine(),
    onebit: { version, isas: all[0].isas, threads: cores },
    peer: undefined,
    rounds: all[0].rounds,
    shapes: [],
  }
  for (const [i, plan] of all.entries()) measureShape(plan, report, sum(guesses.slice(i + 1)))
  for (const shape of report.shapes) shape.rows = tableRows(shape, report.onebit.isas)
  writeReport(report)
  console.log(markdown(report))
  console.error(`\nevery measurement: ${resolve(values.json)}`)
}

// A file of some gigabytes does not stay behind: an interrupted measurement fails, and the rest is cleaned up first.
process.on('SIGINT', () => process.exit(130))
try {
  main()
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
