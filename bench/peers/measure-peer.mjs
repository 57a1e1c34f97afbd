// One measurement of the peer in a process of its own: node measure-peer.mjs '{"path", "threads", "prompt", "warm", "tokens"}'
// Prints { prefill, decode, version, uses } in tokens a second: `prompt` tokens at once, then `tokens` one by one.
import { openPeer } from './llama-cpp.mjs'
import { promptOf } from './prompt.mjs'

const { path, threads, prompt, warm, tokens } = JSON.parse(process.argv[2])
// Flash attention was the faster setting wherever we tried it.
const peer = await openPeer({ path, threads, context: prompt + tokens + 64, flashAttention: true })
const { sequence, vocabSize } = peer
const ids = promptOf(prompt, vocabSize)

/** A file whose blocks decode to nonsense would be fast or slow for the wrong reason: NaN spreads, and can be slow. */
function mustBeNumbers(probabilities) {
  const values = [...probabilities.values()]
  const sum = values.reduce((total, value) => total + value, 0)
  if (values.length === 0 || !(Math.abs(sum - 1) < 0.01)) throw new Error(`the probabilities add up to ${sum}`)
}

// Once for nothing: the first pass also faults the weights in.
await sequence.evaluateWithoutGeneratingNewTokens(ids.slice(0, warm))
for await (const { probabilities } of sequence.evaluateWithMetadata([300], { probabilities: true })) {
  mustBeNumbers(probabilities)
  break
}
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
if (made !== tokens + 1) throw new Error(`${made} tokens were made`)
const result = { prefill: (prompt / (prefilled - start)) * 1000, decode: (tokens / (end - first)) * 1000 }
console.log(JSON.stringify({ ...result, version: peer.version, uses: peer.uses }))
await peer.close()
