// One measurement of this engine in a process of its own: node measure-onebit.mjs FILE THREADS
// Prints { prefill, decode } in tokens a second: 512 tokens at once, then 64 one by one. The same steps as
// measure-peer.mjs, through the public API.
import { Model } from '../../dist/index.js'

const PROMPT = 512
const NEW = 64
const [path, threads] = process.argv.slice(2)
const model = await Model.load(path, { threads: Number(threads), context: 1024 })
const prompt = Array.from({ length: PROMPT }, (_, i) => 1000 + ((i * 7919) % 40000))
const session = model.createSession()

// Once for nothing, as the peer does.
await session.logits(prompt)
session.rewind(0)

const start = performance.now()
await session.logits(prompt)
const prefilled = performance.now()
let made = 0
let first = 0
for await (const _piece of session.generate([100], { maxTokens: NEW + 1, temperature: 0, ignoreEos: true })) {
  if (made++ === 0) first = performance.now()
}
const end = performance.now()
if (made !== NEW + 1) throw new Error(`${made} tokens were made`)
const result = { prefill: (PROMPT / (prefilled - start)) * 1000, decode: (NEW / (end - first)) * 1000 }
console.log(JSON.stringify({ ...result, isa: model.isa }))
await model.dispose()
