// `npm run bench:peers`: this engine against others in their small types, the same shapes with random weights, on this
// machine and in this run. Prints tables in Markdown for the README, and writes every measurement as JSON.
//
//   npm run bench:peers -- [--shape smollm2-135m,tinyllama-1.1b,llama-7b] [--rounds 3] [--types Q4_0,TQ2_0] [--threads 1,2]
//                          [--isa avx2,avx512vnni] [--prompt 512] [--tokens N] [--minutes N] [--json PATH]
//                          [--with "nice -n -5"]
//
// In 1 bit against llama.cpp through its Node package (the default), 20 to 40 minutes on two cores:
//   npm run bench:peers
// Ternary, with BitNet and Bonsai 2 against the Python packages that run them; about 12 minutes:
//   npm run bench:peers -- --shape qwen3-1.7b,qwen3-8b,bitnet-2b4t,qwen35-2b --minutes 11 --json scratch/bench-ternary.json
//
// Each configuration of a peer (a type on a number of threads) is measured with this engine right beside it, each
// measurement in a process of its own, in as many rounds; a ratio is taken within such a pair, and the table has medians.
// What is far behind in the first round is not measured again, and is named. Ternary comparisons have the same threads on
// both sides, all cores unless told otherwise, and say what share of the memory's read speed decoding reaches. --isa: this
// engine's instruction sets, the best last. --minutes: fewer rounds of a shape where its share of the time is over; the
// first one is always whole. --with: a command to put before each measurement. Files for the peers lie below
// scratch/ meanwhile: of the 7B shape 7 GB for the largest, and at most 20 GB at once.
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { SHAPES } from '../../dist/bench/shapes.js'
import { addon } from '../../dist/native/addon.js'
import { barsOf } from './bars.mjs'
import { tableRows } from './comparison.mjs'
import { againstOneBit, CONTESTS, ENGINES } from './contests.mjs'
import { bitsPerWeight, fits, TYPES } from './gguf-types.mjs'
import { ROOT, SCRATCH } from './llama-cpp.mjs'
import { describeMachine } from './machine.mjs'
import { markdown } from './markdown.mjs'
import { weightBytes } from './random-gguf.mjs'
import { ShapeRounds } from './rounds.mjs'

const cores = availableParallelism()
const { values } = parseArgs({
  options: {
    shape: { type: 'string', default: 'smollm2-135m,tinyllama-1.1b,llama-7b' },
    rounds: { type: 'string', default: '3' },
    types: { type: 'string' },
    threads: { type: 'string' },
    isa: { type: 'string', default: defaultIsas().join(',') },
    prompt: { type: 'string' },
    tokens: { type: 'string' },
    minutes: { type: 'string' },
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
  const best = isas.find(({ runs }) => runs === chosen).name // a Zen 4 runs avx512vnni+avx2 by the name avx512vnni
  return avx2 && best !== 'avx2' ? ['avx2', best] : [best]
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

/** Against 1 bit any type may be asked for; elsewhere --types chooses among the contest's. */
function askedFor(shape, shapes) {
  const { type, candidates } = CONTESTS[shape]
  if (!values.types) return candidates
  const ofContests = shapes.flatMap((one) => CONTESTS[one].candidates.map((candidate) => candidate.type))
  const types = listOf('types', [...new Set([...Object.keys(TYPES), ...ofContests])])
  if (type === 'onebit') return types.filter((name) => TYPES[name]?.scaleAt !== undefined).map(againstOneBit)
  return candidates.filter((candidate) => types.includes(candidate.type))
}

/** What a shape is measured against, the fewest bits first, and the types that do not fit its columns. */
function candidatesOf(shape, shapes) {
  const bits = ({ type, file }) => bitsPerWeight(file ?? type)
  const wanted = [...askedFor(shape, shapes)].sort((a, b) => bits(a) - bits(b))
  const candidates = wanted.filter(({ type, file }) => fits(file ?? type, SHAPES[shape]))
  if (candidates.length === 0) refuse(`none of the types ${values.types ?? ''} can be compared with on ${shape}`)
  return { candidates, misfits: wanted.filter((one) => !candidates.includes(one)).map(({ type }) => type) }
}

function workOf(shape) {
  const { work } = CONTESTS[shape]
  const prompt = values.prompt ? count('prompt') : work.prompt
  return { prompt, warm: Math.min(work.warm, prompt), tokens: values.tokens ? count('tokens') : work.tokens }
}

/** What is measured of each shape. */
function plans() {
  const common = {
    isas: listOf('isa', usableIsas()),
    ownThreads: cores,
    rounds: count('rounds'),
    prefix: values.with.split(' ').filter((word) => word !== ''),
  }
  const shapes = listOf('shape', Object.keys(CONTESTS))
  return shapes.map((shape) => {
    const { type, reference } = CONTESTS[shape]
    const sameThreads = type !== 'onebit'
    const threads = values.threads?.split(',').map((text) => count('threads', text))
    const ofShape = { threads: threads ?? (sameThreads ? [cores] : [...new Set([1, cores])]), sameThreads }
    const memory = sameThreads
    return {
      ...common,
      shape,
      type,
      reference,
      ...candidatesOf(shape, shapes),
      ...ofShape,
      memory,
      work: workOf(shape),
    }
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
function guessSeconds({ shape, type: ownType, candidates, reference, threads, isas, work }) {
  const guess = (bytes, weights, onThreads) =>
    2 + bytes / 1e9 + ((work.prompt + work.warm) * weights) / (4e10 * onThreads) + (work.tokens * bytes) / 8e9
  const bytesOf = ({ arch, type, file, tables }) => weightBytes({ shape, arch, type: file ?? type, tables })
  const weights = (8 * bytesOf({ ...candidates[0], file: 'Q8_0', tables: 'Q8_0' })) / bitsPerWeight('Q8_0')
  const own = [ownType, reference].filter((type) => type !== undefined)
  const ours = isas.length * sum(own.map((type) => guess(weights / (type === 'onebit' ? 8 : 4), weights, cores)))
  const pairs = candidates.flatMap((one) => threads.map((n) => guess(bytesOf(one), weights, n) + ours))
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
  const rounds = new ShapeRounds(plan, ({ engine, type, threads }, pair) => {
    const ours = Object.entries(pair.ours).map(([isa, result]) => `${isa} ${speeds(result)}`)
    const left = pair.round > 1 ? `; about ${minutes(secondsLeft(rounds, plan, pair.round) + laterSeconds)} left` : ''
    const name = `${engine} ${type} on ${threads} thread${threads === 1 ? '' : 's'} ${speeds(pair.peer)}`
    console.error(`${plan.shape}, round ${pair.round}: ${name}; ${ours.join('; ')}${left}`)
    writeReport(report)
  })
  report.shapes.push(rounds.state)
  rounds.run()
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0)

function main() {
  const all = plans()
  for (const engine of new Set(all.flatMap(({ candidates }) => candidates.map((one) => one.engine))))
    ENGINES[engine].ensure()
  const guesses = all.map(guessShape)
  console.error(`this takes roughly ${minutes(sum(guesses))}, more on a slow machine; leave it alone meanwhile`)
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  const report = {
    date: new Date().toISOString().slice(0, 10),
    machine: describeMachine(),
    onebit: { version, isas: all[0].isas, threads: cores },
    rounds: all[0].rounds,
    shapes: [],
  }
  const end = values.minutes ? 60_000 * count('minutes') : Number.POSITIVE_INFINITY
  for (const [i, plan] of all.entries()) {
    const now = performance.now()
    plan.deadline = now + ((end - now) * guesses[i]) / sum(guesses.slice(i))
    measureShape(plan, report, sum(guesses.slice(i + 1)))
  }
  for (const shape of report.shapes) {
    shape.rows = tableRows(shape, report.onebit.isas)
    shape.bars = barsOf(shape, CONTESTS[shape.shape].bars ?? [], report.onebit.isas)
  }
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
