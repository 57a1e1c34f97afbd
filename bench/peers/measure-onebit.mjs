// One measurement of this engine in a process of its own:
// node measure-onebit.mjs '{"shape", "type", "isa", "threads", "prompt", "warm", "tokens"}'
// Prints { prefill, decode, isa } in tokens a second, by the same steps as measure-peer.mjs, through the public API.
import { A_STEP_EACH } from '../../dist/bench/lanes.js'
import { randomModel } from '../../dist/bench/random-model.js'
import { promptOf } from './prompt.mjs'

const { shape, type, isa, threads, prompt, warm, tokens } = JSON.parse(process.argv[2])
const model = await randomModel(shape, { type, isa, threads, context: prompt + tokens + 64 })
const ids = promptOf(prompt, model.config.vocab_size)
const session = model.createSession()

// Once for nothing, as the peer does.
await session.logits(ids.slice(0, warm))
session.rewind(0)

const start = performance.now()
await session.logits(ids)
const prefilled = performance.now()
let made = 0
let first = 0
for await (const _piece of session.generate([300], { ...A_STEP_EACH, maxTokens: tokens + 1, temperature: 0 })) {
  if (made++ === 0) first = performance.now()
}
const end = performance.now()
if (made !== tokens + 1) throw new Error(`${made} tokens were made`)
const result = { prefill: (prompt / (prefilled - start)) * 1000, decode: (tokens / (end - first)) * 1000 }
console.log(JSON.stringify({ ...result, isa: model.isa }))
await model.dispose()
