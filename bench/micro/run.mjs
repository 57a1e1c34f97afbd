// `npm run bench`: micro-benchmarks of every kernel on every path of this machine, and of the ways from TypeScript to a
// token, timed by tinybench. One thread for kernels. Figures are medians; leave the machine alone meanwhile.
//
//   npm run bench -- [WORD …] [--isa avx2] [--time 50] [--all] [--json]
//
// A WORD keeps what has it in its name ("sign_i8", "attend", "decode"). --all adds weights in DRAM; --time is how many
// milliseconds each case is measured.
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Bench } from 'tinybench'

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const ADDON = join(ROOT, 'build', 'micro', 'onebit_micro.node')

const { values, positionals: words } = parseArgs({
  allowPositionals: true,
  options: {
    isa: { type: 'string' },
    time: { type: 'string', default: '50' },
    all: { type: 'boolean' },
    json: { type: 'boolean' },
  },
})
const time = Number(values.time)
if (!(time >= 1 && time <= 60_000)) {
  console.error('--time is in milliseconds, from 1 to 60000')
  process.exit(2)
}

/** Ninja or make find out what has changed; a second run builds nothing. */
function build() {
  const cmakeJs = join(ROOT, 'node_modules', 'cmake-js', 'bin', 'cmake-js')
  const argv = ['compile', '--out', 'build', '--target', 'onebit_micro']
  const { status } = spawnSync(process.execPath, [cmakeJs, ...argv], {
    cwd: ROOT,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  if (status !== 0) process.exit(status ?? 1)
}

/** Runs of a case in one sample: at least about 20 microseconds, so that the clock and the call weigh nothing. */
function timesOf(micro, index) {
  for (let times = 1; ; times *= 4) {
    micro.run(index, times)
    const start = performance.now()
    micro.run(index, times)
    if (performance.now() - start > 0.02 || times >= 65_536) return times
  }
}

function print(row) {
  if (values.json) return console.log(JSON.stringify(row))
  const speed = row.speed.toFixed(row.speed < 10 ? 3 : 1).padStart(9)
  const spread = `± ${row.mad_pct.toFixed(1)} %`.padStart(9)
  console.log(
    `${row.isa.padEnd(11)} ${row.name.padEnd(14)} ${row.what.padEnd(48)} ${speed} ${row.unit.padEnd(9)} ${spread}`,
  )
}

/** One case at a time, so that a filter or Ctrl-C loses nothing. `work`: what one call of `run` does, in 1e9 units. */
async function measure({ isa, name, what, unit, work }, run) {
  const bench = new Bench({ time, warmupTime: Math.min(time, 20), iterations: 8, warmupIterations: 2, throws: true })
  bench.add(name, run)
  await bench.run()
  const { latency } = bench.tasks[0].result
  print({
    isa,
    name,
    what,
    unit,
    speed: work / latency.p50,
    ns: latency.p50 * 1e6,
    mad_pct: (100 * latency.mad) / latency.p50,
    samples: latency.samplesCount,
  })
}

const wanted = (name, what) => words.length === 0 || words.some((word) => `${name} ${what}`.includes(word))

async function kernels(micro, isa) {
  const cases = micro.cases(isa, values.all === true)
  for (const [index, { kernel, what, unit, work }] of cases.entries()) {
    if (!wanted(kernel, what)) continue
    const times = timesOf(micro, index)
    await measure({ isa, name: kernel, what, unit, work: work * times * 1e-6 }, () => micro.run(index, times))
  }
}

/** From TypeScript to a token: the same steps through the engine alone and through the public API. */
async function paths(addon) {
  const STEPS = 8
  const model = await randomModel('smollm2-135m', { type: 'onebit', ...(values.isa ? { isa: values.isa } : {}) })
  const engine = internals.native(model)
  const native = engine.createSession(STEPS + 2, 0)
  const session = model.createSession({ context: STEPS + 2 })
  const sampler = greedySampler(model.config.vocab_size)
  const what = `${model.threads} threads, smollm2-135m, 1 bit`
  const decode = async (options) => {
    session.rewind(0)
    for await (const _ of session.generate([1], { ...A_STEP_EACH, maxTokens: STEPS, ...options }));
  }
  const cases = {
    'decode-native': async () => {
      native.rewind(0)
      const tokens = Int32Array.of(1)
      const item = { session: native, tokens, logits: 0, sampler }
      for (let i = 0; i < STEPS; i++) await addon.step(engine, [item], { chunk: 0 })
    },
    'decode-greedy': async () => decode({ temperature: 0 }),
    'decode-sampled': async () => decode({ seed: 1 }),
  }
  for (const [name, run] of Object.entries(cases)) {
    if (wanted(name, what)) await measure({ isa: model.isa, name, what, unit: 'tokens/s', work: STEPS * 1e3 }, run)
  }
  await model.dispose()
}

build()
const { addon } = await import('../../dist/native/addon.js')
const { A_STEP_EACH, greedySampler } = await import('../../dist/bench/lanes.js')
const { randomModel } = await import('../../dist/bench/random-model.js')
const { internals } = await import('../../dist/run/model.js')
const micro = createRequire(import.meta.url)(ADDON)
const { isas } = addon().info()
const chosen = values.isa ? [values.isa] : isas.filter(({ state }) => state === 'usable').map(({ name }) => name)
for (const isa of chosen) {
  if (isas.some(({ name, state }) => name === isa && state === 'usable')) continue
  console.error(
    `--isa: this machine has no path ${isa}; it has ${isas
      .filter(({ state }) => state === 'usable')
      .map(({ name }) => name)
      .join(', ')}`,
  )
  process.exit(2)
}
if (!values.json) console.log(`${cpus()[0].model}; one thread for kernels; medians ± median absolute deviation\n`)
for (const isa of chosen) await kernels(micro, isa)
if (['decode-native', 'decode-greedy', 'decode-sampled'].some((name) => wanted(name, ''))) await paths(addon())
