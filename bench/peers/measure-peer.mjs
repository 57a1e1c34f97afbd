// One measurement of the peer in a process of its own: node measure-peer.mjs FILE THREADS FLASH(0|1)
// Prints { prefill, decode } in tokens a second: 512 tokens at once, then 64 one by one.
import { openPeer } from './llama-cpp.mjs'

const PROMPT = 512
const NEW = 64
const [path, threads, flash] = process.argv.slice(2)
const peer = await openPeer({ path, threads: Number(threads), context: 1024, flashAttention: flash === '1' })
const prompt = Array.from({ length: PROMPT }, (_, i) => 1000 + ((i * 7919) % 40000))
const { sequence } = peer

// Once for nothing: the first pass also faults the weights in.
await sequence.evaluateWithoutGeneratingNewTokens(prompt)
await sequence.clearHistory()

const start = performance.now()
await sequence.evaluateWithoutGeneratingNewTokens(prompt)
const prefilled = performance.now()
let made = 0
let first = 0
for await (const _token of sequence.evaluate([100], { temperature: 0, yieldEogToken: true })) {
  if (made++ === 0) first = performance.now()
  if (made === NEW + 1) break
}
const end = performance.now()
const result = { prefill: (PROMPT / (prefilled - start)) * 1000, decode: (NEW / (end - first)) * 1000 }
console.log(JSON.stringify({ ...result, version: peer.version }))
await peer.close()
