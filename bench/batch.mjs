// `npm run bench:batch`: how much more several requests get together than one, and how evenly their tokens come, also while
// a long prompt is computed beside them. Tokens/s are those of all streams, from the moment when each has its first token
// until the first of them ends. Gaps are the times between the moments at which tokens of a stream come, over all streams;
// one that is alone gets those of 8 ms together.
//
//   npm run bench:batch -- [MODEL.obt] [--shape smollm2-135m] [--sessions 1,2,4,8,16] [--prompt 64] [--tokens 128]
//                          [--long 1024] [--rounds 3] [--threads N]
//
// Rounds alternate between the numbers of streams; medians over the rounds. "not computing": 1 - native / wall time, the
// share of a step that is JavaScript and the way between threads. "JS": what the event loop is busy with, for each step.
import { cpus } from 'node:os'
import { performance } from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import { Batch } from '../dist/batch/batch.js'
import { A_STEP_EACH } from '../dist/bench/lanes.js'
import { randomModel } from '../dist/bench/random-model.js'
import { median } from '../dist/bench/statistics.js'
import { Model } from '../dist/index.js'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    shape: { type: 'string', default: 'smollm2-135m' },
    sessions: { type: 'string', default: '1,2,4,8,16' },
    prompt: { type: 'string', default: '64' },
    tokens: { type: 'string', default: '128' },
    long: { type: 'string', default: '1024' },
    rounds: { type: 'string', default: '3' },
    threads: { type: 'string' },
  },
})
const [prompt, tokens, long, rounds] = [values.prompt, values.tokens, values.long, values.rounds].map(Number)
const numbers = values.sessions.split(',').map(Number)

const settings = {
  context: Math.max(long + 2, prompt + tokens + 8),
  ...(values.threads ? { threads: Number(values.threads) } : {}),
}
const model = positionals[0] ? await Model.load(positionals[0], settings) : await randomModel(values.shape, settings)
const { vocab_size } = model.config
/** Texts that have nothing in common. */
const ids = (count, seed) =>
  Int32Array.from({ length: count }, (_, i) => ((i + 1) * 7919 + seed * 104_729) % vocab_size)

function quantile(list, q) {
  const sorted = list.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]
}

/** Tokens that are handed out in one go are closer to each other than two steps. */
const isApart = (gap) => gap > 0.05

/** When each token of a stream came, and what the engine took for them. */
async function stream(batch, seed) {
  const times = []
  const pieces = batch.generate(ids(prompt, seed), { ...A_STEP_EACH, maxTokens: tokens, temperature: 0 })
  for (;;) {
    const { value, done } = await pieces.next()
    if (done) return { times, native: value.timings.decodeMs }
    times.push(performance.now())
  }
}

async function longPrompt(batch) {
  const start = performance.now()
  for await (const _ of batch.generate(ids(long, 999), { maxTokens: 1 })) return performance.now() - start
}

/** `withLong`: a long prompt comes when a quarter of the tokens are there. */
async function once(count, withLong) {
  const batch = new Batch(model, { parallel: count + 1, cacheMiB: 0 })
  const before = performance.eventLoopUtilization()
  const streams = Array.from({ length: count }, (_, i) => stream(batch, i))
  let toLong
  if (withLong) {
    while (batch.state.newTokens < (count * tokens) / 4) await new Promise((resolve) => setTimeout(resolve, 2))
    toLong = await longPrompt(batch)
  }
  const results = await Promise.all(streams)
  const { active } = performance.eventLoopUtilization(before)
  const { steps } = batch.state
  await batch.close()
  const from = Math.max(...results.map(({ times }) => times[0]))
  const to = Math.min(...results.map(({ times }) => times.at(-1)))
  const within = results.reduce((sum, { times }) => sum + times.filter((time) => time > from && time <= to).length, 0)
  const gaps = results.flatMap(({ times }) => times.slice(1).map((time, i) => time - times[i])).filter(isApart)
  const [{ times, native }] = results
  return {
    speed: (1000 * within) / (to - from),
    p50: quantile(gaps, 0.5),
    p99: quantile(gaps, 0.99),
    most: Math.max(...gaps),
    idle: 1 - native / (times.at(-1) - times[0]),
    js: active / steps,
    toLong,
  }
}

async function alone() {
  const batch = new Batch(model, { parallel: 1, cacheMiB: 0 })
  await longPrompt(batch) // learns the pace
  const ms = await longPrompt(batch)
  await batch.close()
  return ms
}

const found = new Map(numbers.map((count) => [count, { plain: [], long: [] }]))
const aloneMs = []
await once(Math.max(...numbers), false)
for (let round = 0; round < rounds; round++) {
  for (const count of numbers) {
    found.get(count).plain.push(await once(count, false))
    found.get(count).long.push(await once(count, true))
  }
  aloneMs.push(await alone())
}
const what = positionals[0] ?? `${values.shape}, random`
console.log(`${cpus()[0].model}, ${model.isa}, ${model.threads} threads; ${what}; ${tokens} tokens after ${prompt}`)
console.log(`a prompt of ${long} tokens alone: ${median(aloneMs).toFixed(0)} ms to its first token\n`)
console.log(
  '| streams | tokens/s | x one | p50 ms | p99 ms | p99/p50 | not computing | JS ms/step | with a long prompt: p50 | p99 | most | its first token |',
)
console.log(`|${'---:|'.repeat(12)}`)
const of = (list, name) => median(list.map((one) => one[name]))
const one = of(found.get(numbers[0]).plain, 'speed')
for (const [count, { plain, long }] of found) {
  const cells = [
    count,
    of(plain, 'speed').toFixed(1),
    (of(plain, 'speed') / one).toFixed(2),
    of(plain, 'p50').toFixed(1),
    of(plain, 'p99').toFixed(1),
    (of(plain, 'p99') / of(plain, 'p50')).toFixed(2),
    `${(100 * of(plain, 'idle')).toFixed(1)} %`,
    of(plain, 'js').toFixed(2),
    of(long, 'p50').toFixed(1),
    of(long, 'p99').toFixed(1),
    of(long, 'most').toFixed(1),
    `${of(long, 'toLong').toFixed(0)} ms`,
  ]
  console.log(`| ${cells.join(' | ')} |`)
}
await model.dispose()
