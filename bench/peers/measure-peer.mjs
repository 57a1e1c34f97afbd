// One measurement of the peer in a process of its own: node measure-peer.mjs '{"path", "threads", "prompt", "warm", "tokens"}'
// Prints { prefill, decode } in tokens a second: `prompt` tokens at once, then `tokens` one by one.
import { openPeer } from './llama-cpp.mjs'

const { path, threads, prompt, warm, tokens } = JSON.parse(process.argv[2])
// Flash attention was the faster setting wherever we tried it.
const peer = await openPeer({ path, threads, context: prompt + tokens + 64, flashAttention: true })
const { sequence, vocabSize } = peer
const ids = Array.from({ length: prompt }, (_, i) => 300 + ((i * 7919) % (vocabSize - 300)))

// Once for nothing: the first pass also faults the weights in.
await sequence.evaluateWithoutGeneratingNewTokens(ids.slice(0, warm))
await sequence.clearHistory()

const start = performance.now()
await sequence.evaluateWithoutGeneratingNewTokens(ids)
const prefilled = performance.now()
let made = 0
let first = 0
for await (const _token of sequence.evaluate([300], { temperature: 0, yieldEogToken: true })) {
  if (made++ === 0) first = performance.now()
  if (made === tokens + 1) break
}
const end = performance.now()
const result = { prefill: (prompt / (prefilled - start)) * 1000, decode: (tokens / (end - first)) * 1000 }
console.log(JSON.stringify({ ...result, version: peer.version }))
await peer.close()
