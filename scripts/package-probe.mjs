// Runs in a project that has onebit-run installed, in any runtime: prints one line of JSON with what the package computes there,
// the hash of the built-in model's logits on every path of the machine, and a text.
import { createHash } from 'node:crypto'
import { defaultModelPath, Model } from 'onebit-run'
import { addon } from './node_modules/onebit-run/dist/native/addon.js'

const ids = Int32Array.from({ length: 48 }, (_, i) => (i * 37) % 500)
const logits = {}
for (const { name } of addon()
  .info()
  .isas.filter(({ state }) => state === 'usable')) {
  const model = await Model.load(defaultModelPath(), { isa: name })
  const { data } = await model.createSession().logits(ids, { all: true })
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  logits[name] = createHash('sha256').update(bytes).digest('hex')
  await model.dispose()
}
const model = await Model.load(defaultModelPath())
const options = { maxTokens: 40, temperature: 0.8, seed: 3 }
const { text } = await model.createSession().complete('Once upon a time', options)
await model.dispose()
console.log(JSON.stringify({ logits, text, compiler: addon().info().compiler.trim() }))
