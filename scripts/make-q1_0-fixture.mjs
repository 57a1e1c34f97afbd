// Makes test/fixtures/qwen3-q1_0.json: the logits that llama.cpp computes for the model of test/fixtures/tiny-qwen3.ts.
// Needed again only when that model changes:  node scripts/make-q1_0-fixture.mjs
import { createHash } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { openPeer, ROOT, SCRATCH } from '../bench/peers/llama-cpp.mjs'
import { importTypeScript } from './import-typescript.mjs'

const { tinyQwen3, tinyQwen3Prompt } = await importTypeScript('test/fixtures/tiny-qwen3.ts')
const gguf = tinyQwen3()
const tokens = tinyQwen3Prompt()
const path = join(SCRATCH, 'tiny-qwen3.gguf')
mkdirSync(SCRATCH, { recursive: true })
writeFileSync(path, gguf)

const peer = await openPeer({ path, threads: 1, context: 256, kv: 'F32' })
const evaluated = await peer.sequence.controlledEvaluate(
  tokens.map((token) => [token, { generateNext: { logits: true, options: { temperature: 0 } } }]),
)
// Every second position keeps the file small; together they see every distance up to the whole prompt.
const positions = tokens.map((_, position) => position).filter((position) => position % 2 === 1)
const logits = Buffer.alloc(positions.length * peer.vocabSize * 4)
positions.forEach((position, row) => {
  const found = evaluated[position].next.logits
  if (found.size !== peer.vocabSize) throw new Error(`position ${position}: ${found.size} logits`)
  for (const [token, value] of found) logits.writeFloatLE(value, (row * peer.vocabSize + token) * 4)
})
const fixture = {
  about: 'Logits of the model of tiny-qwen3.ts by llama.cpp, which rounds activations to 8 bits per 32 columns.',
  made_by: 'node scripts/make-q1_0-fixture.mjs',
  peer: `${peer.version}, CPU, 1 thread, f32 KV cache, no flash attention`,
  gguf_sha256: createHash('sha256').update(gguf).digest('hex'),
  tokens,
  positions,
  vocab_size: peer.vocabSize,
  logits_f32le_base64: logits.toString('base64'),
}
// One line a field: the arrays would otherwise take a line a number.
const lines = Object.entries(fixture).map(([key, value]) => `  ${JSON.stringify(key)}: ${JSON.stringify(value)}`)
writeFileSync(join(ROOT, 'test/fixtures/qwen3-q1_0.json'), `{\n${lines.join(',\n')}\n}\n`)
await peer.close()
console.error(`${positions.length} x ${peer.vocabSize} logits from ${peer.version}`)
