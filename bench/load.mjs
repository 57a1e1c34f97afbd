// `npm run bench:load`: what opening a model takes: its time beside that of reading the same file into memory, and the memory
// that a process has more than an empty one of Node, beyond the file's own size.
//
//   npm run bench:load -- [MODEL.obt ...] [--shape smollm2-135m,tinyllama-1.1b,llama-7b] [--type onebit]
//                         [--rounds 7] [--threads N]
//
// Without a model, files of these shapes with random weights are made below scratch/ (7B: 1.1 GB). Every measurement is a
// process of its own, reading and loading in turns, and all files are in the page cache; medians. The last column is from the
// start of a process to its first token, as `onebit run` starts.
import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, statSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { availableParallelism, cpus } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { coldFirstToken } from '../dist/bench/first-token-times.js'
import { shapeConfig } from '../dist/bench/shapes.js'
import { median } from '../dist/bench/statistics.js'
import { tensorBytes } from '../dist/config/tensors.js'
import { Model } from '../dist/index.js'
import { writeObt } from '../dist/obt/obt.js'
import { SCRATCH } from './peers/llama-cpp.mjs'

const PIECE = 1 << 20

/** What a process measures, by name: it prints what comes back, with the memory that it has then. */
const MEASURES = {
  /** The whole file into memory that nobody had, as many pieces at a time as there are threads. */
  async read({ path, threads }) {
    const { size } = statSync(path)
    const file = await open(path)
    const start = performance.now()
    const memory = Buffer.allocUnsafeSlow(size)
    let next = 0
    const reader = async () => {
      while (next < size) {
        const at = next
        next += PIECE
        await file.read(memory, at, Math.min(PIECE, size - at), at)
      }
    }
    await Promise.all(Array.from({ length: threads }, reader))
    const ms = performance.now() - start
    await file.close()
    return { ms }
  },

  async load({ path, threads }) {
    const start = performance.now()
    const model = await Model.load(path, { threads })
    const ms = performance.now() - start
    return { ms, model } // which nobody may take back before its memory is known
  },
}

/** Its text is run by the process that this one is compared with, too, which has no module of ours. */
const memory = () => ({ resident: process.memoryUsage().rss, peak: process.resourceUsage().maxRSS * 1024 })

async function measureHere({ what, ...given }) {
  const found = await MEASURES[what](given)
  console.log(JSON.stringify({ ms: found.ms, ...memory() }))
}

function printed(what, ...words) {
  const { status, stdout, stderr } = spawnSync(process.execPath, words, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`measuring ${what} failed: ${stderr}`)
  return JSON.parse(stdout)
}

const emptyProcess = () => printed('an empty process', '-p', `JSON.stringify((${memory})())`)

function measured(what, given) {
  return printed(
    `${what} of ${given.path}`,
    fileURLToPath(import.meta.url),
    '--measure',
    JSON.stringify({ what, ...given }),
  )
}

/** Of four ternary codes, none of which is 3. */
const CODES = [0x00, 0x12, 0x21, 0x98, 0x64, 0x09, 0x8a, 0x56]

/** Numbers that every kind of tensor may hold: any bits as signs and int8, floats near 0.01. */
function noise(spec, length) {
  if (spec.name.endsWith('.codes')) return Uint8Array.from({ length }, (_, i) => CODES[(i * 5 + (i >> 7)) & 7])
  if (spec.dtype === 'F32') return new Uint8Array(new Float32Array(length / 4).fill(0.01).buffer)
  if (spec.dtype === 'F16') return new Uint8Array(new Uint16Array(length / 2).fill(0x211f).buffer)
  return Uint8Array.from({ length }, (_, i) => (i * 7919 + (i >> 8)) & 0x7f)
}

async function* randomTensor(spec) {
  const bytes = tensorBytes(spec)
  const piece = noise(spec, Math.min(bytes, PIECE))
  for (let at = 0; at < bytes; at += piece.length) yield piece.subarray(0, Math.min(piece.length, bytes - at))
}

async function makeModel(shape, type) {
  mkdirSync(SCRATCH, { recursive: true })
  const path = join(SCRATCH, `load-${shape}-${type.replaceAll(':', '-')}.obt`)
  const provenance = { source: 'bench/load.mjs, random weights' }
  await writeObt(path, { config: shapeConfig(shape, type), provenance }, randomTensor)
  return path
}

const MB = (bytes) => (bytes / 1e6).toFixed(0)

async function row(path, threads, rounds, empty) {
  const bytes = statSync(path).size
  const found = { read: [], load: [] }
  for (let round = 0; round <= rounds; round++) {
    for (const what of Object.keys(found)) {
      const result = measured(what, { path, threads })
      if (round > 0) found[what].push(result)
    }
  }
  const of = (what, field) => median(found[what].map((result) => result[field]))
  const ratio = median(found.load.map(({ ms }, i) => ms / found.read[i].ms))
  const beyond = ['resident', 'peak'].map((field) => MB(of('load', field) - empty[field] - bytes))
  const cold = await coldFirstToken({ path, threads, activations: 'int8', isa: '' }, rounds)
  const times = [of('read', 'ms'), of('load', 'ms')].map((ms) => ms.toFixed(1))
  return [basename(path), MB(bytes), ...times, `${ratio.toFixed(2)} ×`, ...beyond, cold.toFixed(0)]
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      shape: { type: 'string', default: 'smollm2-135m,tinyllama-1.1b,llama-7b' },
      type: { type: 'string', default: 'onebit' },
      rounds: { type: 'string', default: '7' },
      threads: { type: 'string', default: String(availableParallelism()) },
      measure: { type: 'string' },
    },
  })
  if (values.measure) return measureHere(JSON.parse(values.measure))
  const [rounds, threads] = [Number(values.rounds), Number(values.threads)]
  const empty = emptyProcess()
  console.log(`${cpus()[0].model}, ${threads} threads; an empty process of Node: ${MB(empty.resident)} MB\n`)
  const head = [
    'model',
    'MB',
    'reading, ms',
    'loading, ms',
    '',
    'resident beyond, MB',
    'at most, MB',
    'first token, ms',
  ]
  console.log(`| ${head.join(' | ')} |\n|---|${'---:|'.repeat(head.length - 1)}`)
  const print = async (path) => console.log(`| ${(await row(path, threads, rounds, empty)).join(' | ')} |`)
  for (const path of positionals) await print(path)
  for (const shape of positionals.length > 0 ? [] : values.shape.split(',')) {
    const path = await makeModel(shape, values.type)
    await print(path).finally(() => rmSync(path, { force: true }))
  }
}

await main()
