// `npm run bench:overhead`: how much of the time between two tokens is not computing. Wall time is what a program that
// reads the pieces of session.generate() measures, from the first token to the last; native time is what the engine's own
// thread took for the same tokens. The rest is the way between threads, JavaScript, and the building of the text.
//
//   npm run bench:overhead -- [MODEL.obt] [--shape smollm2-135m] [--prompt 512] [--tokens 128] [--rounds 5] [--threads N]
//
// Rounds of greedy decoding and of the default sampling alternate; the first of each is not counted. Medians.
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { A_STEP_EACH } from '../dist/bench/lanes.js'
import { randomModel } from '../dist/bench/random-model.js'
import { median } from '../dist/bench/statistics.js'
import { Model } from '../dist/index.js'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    shape: { type: 'string', default: 'smollm2-135m' },
    prompt: { type: 'string', default: '512' },
    tokens: { type: 'string', default: '128' },
    rounds: { type: 'string', default: '5' },
    threads: { type: 'string' },
  },
})
const [prompt, tokens, rounds] = [values.prompt, values.tokens, values.rounds].map(Number)
const WAYS = { greedy: { temperature: 0 }, 'default sampling': { seed: 1 } }

/** Milliseconds a token: by the clock of who reads the pieces, and natively. */
async function once(session, options) {
  session.rewind(prompt)
  let [made, first, last] = [0, 0, 0]
  const pieces = session.generate([100], { ...A_STEP_EACH, maxTokens: tokens + 1, ...options })
  for await (const _ of pieces) {
    last = performance.now()
    if (made++ === 0) first = last
  }
  return { wall: (last - first) / tokens, native: session.last.timings.decodeMs / tokens }
}

const settings = { context: prompt + tokens + 8, ...(values.threads ? { threads: Number(values.threads) } : {}) }
const model = positionals[0] ? await Model.load(positionals[0], settings) : await randomModel(values.shape, settings)
const session = model.createSession()
const { vocab_size } = model.config
await session.logits(Array.from({ length: prompt }, (_, i) => ((i + 1) * 7919) % vocab_size))
const found = Object.fromEntries(Object.keys(WAYS).map((name) => [name, []]))
for (let round = 0; round <= rounds; round++) {
  for (const [name, options] of Object.entries(WAYS)) {
    const result = await once(session, options)
    if (round > 0) found[name].push(result)
  }
}
const what = positionals[0] ?? `${values.shape}, random`
console.log(`${cpus()[0].model}, ${model.isa}, ${model.threads} threads; ${what}; ${tokens} tokens after ${prompt}\n`)
console.log('| | wall ms | native ms | 1 − native / wall | tokens/s |\n|---|---:|---:|---:|---:|')
for (const [name, results] of Object.entries(found)) {
  const [wall, native] = ['wall', 'native'].map((key) => median(results.map((result) => result[key])))
  const share = median(results.map((result) => 1 - result.native / result.wall))
  console.log(
    `| ${name} | ${wall.toFixed(3)} | ${native.toFixed(3)} | ${(100 * share).toFixed(1)} % | ${(1000 / wall).toFixed(1)} |`,
  )
}
await model.dispose()
