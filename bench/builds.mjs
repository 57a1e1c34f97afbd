// `npm run bench:builds -- ADDON [BASE]`: two builds of the addon, side by side: whether what another compiler made of the same
// sources is as fast. BASE is this clone's own build unless named. For each shape and instruction set each build has a process of
// its own with the same model; the two take turns at a prompt and at decoding, and whoever began in one round is second in the next.
//
//   npm run bench:builds -- prebuilds/linux-x64/onebit.glibc.node [--shape smollm2-135m,llama-7b] [--type onebit]
//                           [--isa avx2,…] [--rounds 9] [--threads 2] [--seconds 1.5]
//
// Prints medians of speed(ADDON) / speed(BASE), their geometric mean, and what the probes of `onebit bench` say in either build.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { randomModel } from '../dist/bench/random-model.js'
import { geometricMean, median } from '../dist/bench/statistics.js'
import { addon } from '../dist/native/addon.js'
import { promptOf } from './peers/prompt.mjs'

const SCRIPT = fileURLToPath(import.meta.url)
const OWN = join(SCRIPT, '..', '..', 'build', 'Release', 'onebit.node')
const PROMPTS = [512, 256, 128, 64, 32, 16]
const DECODES = [64, 32, 16, 8, 4]
const PROBES = ['int8', 'lookup', 'f32']

/** What one build is asked, in the process that has it; each answer is { seconds } or the probes' figures. */
async function answer(message, state) {
  if (message.open) {
    const { shape, ...options } = message.open
    state.model = await randomModel(shape, { ...options, context: 1024 })
    state.session = state.model.createSession()
    return { isa: state.model.isa }
  }
  if (message.probe) return addon().measurePeaks(message.probe)
  const { model, session } = state
  const { prompt, decode } = message
  if (prompt) session.rewind(0)
  const start = performance.now()
  if (prompt) await session.logits(promptOf(prompt, model.config.vocab_size))
  else {
    const { usage } = await session.complete([300], { maxTokens: decode, temperature: 0, ignoreEos: true })
    if (usage.newTokens !== decode) throw new Error(`${usage.newTokens} tokens were made`)
    session.rewind(session.position - decode)
  }
  return { seconds: (performance.now() - start) / 1000 }
}

function serve() {
  const state = {}
  process.on('message', (message) => {
    answer(message, state).then(
      (result) => process.send(result),
      (error) => process.send({ error: `${error.code ?? ''} ${error.message}` }),
    )
  })
}

/** A process with one build of the addon. */
class Side {
  #process
  #ended

  constructor(addon) {
    this.#process = fork(SCRIPT, ['--side'], { env: { ...process.env, ONEBIT_ADDON: addon } })
    this.#process.setMaxListeners(0)
    this.#ended = once(this.#process, 'exit').then(([code, signal]) => [{ error: `it ended (${signal ?? code})` }])
  }

  async ask(message) {
    this.#process.send(message)
    const [result] = await Promise.race([once(this.#process, 'message'), this.#ended])
    if (result.error) throw new Error(result.error)
    return result
  }

  close() {
    this.#process.kill()
  }
}

/** The largest of `sizes` that takes the base no longer than `seconds`, or the smallest. */
async function fitting(side, name, sizes, seconds) {
  for (const size of sizes.toReversed()) {
    const took = await side.ask({ [name]: size }).then((one) => one.seconds)
    const larger = sizes[sizes.indexOf(size) - 1]
    if (larger === undefined || (took * larger) / size > seconds) return size
  }
  return sizes[0]
}

/** Calls `ask` of both in turn, `rounds` times. @returns the two lists of answers */
async function inTurn(sides, rounds, message, read) {
  const found = sides.map(() => [])
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? [0, 1] : [1, 0]
    for (const i of order) found[i].push(read(await sides[i].ask(message)))
  }
  return found
}

async function comparePath(addons, open, { rounds, seconds }) {
  const sides = addons.map((path) => new Side(path))
  try {
    for (const side of sides) {
      const { isa } = await side.ask({ open })
      if (isa !== open.isa) throw new Error(`asked for ${open.isa}, got ${isa}`)
    }
    const prompt = await fitting(sides[1], 'prompt', PROMPTS, seconds)
    await sides[0].ask({ prompt })
    const prefill = ratios(await inTurn(sides, rounds, { prompt }, (one) => prompt / one.seconds))
    const count = await fitting(sides[1], 'decode', DECODES, seconds)
    await sides[0].ask({ decode: count })
    const decode = ratios(await inTurn(sides, rounds, { decode: count }, (one) => count / one.seconds))
    return { prompt, prefill, decode }
  } finally {
    for (const side of sides) side.close()
  }
}

/** { ratio, speed }: the median of the pairs' ratios, and of the first list. */
function ratios([ours, base]) {
  return { ratio: median(ours.map((speed, i) => speed / base[i])), speed: median(ours) }
}

/** What each probe says in either build. */
async function compareProbes(addons, isas, { rounds, threads }) {
  console.log('\n| probe | isa | ADDON | BASE | ratio |\n|---|---|---:|---:|---:|')
  const sides = addons.map((path) => new Side(path))
  try {
    for (const isa of isas)
      for (const what of PROBES) {
        const key = { int8: 'int8_peak_gmacs', lookup: 'lookup_peak_gws', f32: 'f32_peak_gmacs' }[what]
        const [ours, base] = await inTurn(
          sides,
          rounds,
          { probe: { threads, isa, what: [what] } },
          (one) => one[key] ?? 0,
        )
        const ratio = median(ours.map((speed, i) => speed / base[i]))
        console.log(
          `| ${what} | ${isa} | ${median(ours).toFixed(0)} | ${median(base).toFixed(0)} | ${ratio.toFixed(3)} |`,
        )
      }
  } finally {
    for (const side of sides) side.close()
  }
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      shape: { type: 'string', default: 'smollm2-135m,tinyllama-1.1b,llama-7b' },
      type: { type: 'string', default: 'onebit' },
      isa: { type: 'string' },
      rounds: { type: 'string', default: '9' },
      threads: { type: 'string', default: String(Math.min(2, availableParallelism())) },
      seconds: { type: 'string', default: '1.5' },
    },
  })
  const addons = [positionals[0], positionals[1] ?? OWN].map((path) => path && resolve(path))
  const missing = addons.find((path) => !path || !existsSync(path))
  if (missing !== undefined || !addons[0])
    throw new Error(`usage: bench:builds -- ADDON [BASE]; there is no ${missing}`)
  const usable = addon()
    .info()
    .isas.filter(({ state }) => state === 'usable')
    .map(({ name }) => name)
  const isas = values.isa?.split(',') ?? usable
  const [rounds, threads, seconds] = [values.rounds, values.threads, values.seconds].map(Number)
  console.log(`${cpus()[0].model}, ${threads} threads, ${rounds} rounds; speed of ADDON / BASE, medians`)
  console.log(`ADDON ${addons[0]}\nBASE  ${addons[1]}\n`)
  console.log(
    '| shape | type | isa | prompt of | prefill, tokens/s | ratio | decode, tokens/s | ratio |\n|---|---|---|---:|---:|---:|---:|---:|',
  )
  const all = []
  for (const shape of values.shape.split(','))
    for (const type of values.type.split(','))
      for (const isa of isas) {
        const found = await comparePath(addons, { shape, type, isa, threads }, { rounds, seconds })
        const { prompt, prefill, decode } = found
        all.push(prefill.ratio, decode.ratio)
        const cells = [prefill, decode].map(({ speed, ratio }) => `${speed.toFixed(1)} | ${ratio.toFixed(3)}`)
        console.log(`| ${shape} | ${type} | ${isa} | ${prompt} | ${cells.join(' | ')} |`)
      }
  const mean = geometricMean(all)
  console.log(`\nworst ${Math.min(...all).toFixed(3)}, geometric mean ${mean.toFixed(3)}`)
  await compareProbes(addons, isas, { rounds, threads })
}

if (process.argv[2] === '--side') serve()
else
  await main().catch((error) => {
    console.error(error.message)
    process.exitCode = 1
  })
