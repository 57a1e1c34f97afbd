/** Real models against what other programs computed from the same weights. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { convert } from '../dist/convert/convert.js'
import { perplexity } from '../dist/eval/perplexity.js'
import { Model } from '../dist/index.js'
import { dataFile, golden, missing, readJson } from './data.js'

const LONG = process.env.ONEBIT_LONG === '1'
const FLOATS = { activations: 'f32', kv: 'f32' } as const

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'onebit-golden-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe('stories260K against llama2.c', () => {
  it('generates the same greedy texts to the byte', async () => {
    const path = join(folder, 'stories.obt')
    const tokenizer = golden('stories260K/tok512.bin')
    await convert(golden('stories260K/stories260K.bin'), path, { tokenizer })
    const model = await Model.load(path, FLOATS)
    const { cases } = readJson<{ cases: { prompt: string; n: number; text: string }[] }>(
      golden('stories260K/greedy.json'),
    )
    expect(cases.length).toBe(4)
    for (const { prompt, n, text } of cases) {
      const session = model.createSession()
      const ids = await model.encode(prompt)
      // llama2.c counts positions; the first one is BOS and prints nothing.
      const maxTokens = n - (ids.length - 1)
      const result = await session.complete(ids, { maxTokens, temperature: 0 })
      const whole = prompt === '' ? result.text.trimStart() : prompt + result.text
      expect(whole).toBe(text)
    }
    await model.dispose()
  })
})

interface LogitsCase {
  name: string
  text: string
  ids: number[]
  token_logprobs: (number | null)[]
  last_top10: [number, number][]
  last_logits_every_997: number[]
  greedy_ids: number[]
  greedy_margins: number[]
}

const TEACHER = 'weights/SmolLM2-135M-Instruct.Q4_1.gguf'
const SMOLLM2_LOGITS = dataFile('golden/smollm2-135m-logits.json')

describe.skipIf(missing(TEACHER, 'golden/smollm2-135m-logits.json'))('SmolLM2 135M against PyTorch', () => {
  let model: Model
  beforeAll(async () => {
    const path = join(folder, 'smol-f32.obt')
    await convert(dataFile(TEACHER), path, { type: 'f32', embed: 'f32' })
    model = await Model.load(path, FLOATS)
  }, 120_000)
  afterAll(() => model?.dispose())

  it('gives every token log-probability within 1e-3, and the logits of the last position', async () => {
    const { cases } = readJson<{ cases: LogitsCase[] }>(SMOLLM2_LOGITS)
    expect(cases.length).toBe(6)
    let worst = 0
    for (const { name, ids, token_logprobs, last_top10, last_logits_every_997 } of cases) {
      const { logprobs } = await model.createSession().score(ids)
      for (const [i, expected] of token_logprobs.entries()) {
        if (expected !== null) worst = Math.max(worst, Math.abs(logprobs[i]! - expected))
      }
      const { data } = await model.createSession().logits(ids)
      for (const [id, logit] of last_top10) expect(Math.abs(data[id]! - logit), name).toBeLessThan(2e-3)
      for (const [i, logit] of last_logits_every_997.entries()) {
        expect(Math.abs(data[i * 997]! - logit), name).toBeLessThan(2e-3)
      }
    }
    console.log(`largest difference of a token log-probability: ${worst.toExponential(2)}`)
    expect(worst).toBeLessThan(1e-3)
  })

  it('chooses the same greedy tokens wherever the margin is above 1e-3', async () => {
    const { cases } = readJson<{ cases: LogitsCase[] }>(SMOLLM2_LOGITS)
    for (const { name, ids, greedy_ids, greedy_margins } of cases) {
      const options = { maxTokens: greedy_ids.length, temperature: 0, ignoreEos: true }
      const result = await model.createSession().complete(ids, options)
      for (const [i, id] of greedy_ids.entries()) {
        // Below the margin either token is right, and what follows the other one cannot be compared.
        if (greedy_margins[i]! <= 1e-3 && result.ids[i] !== id) break
        expect(result.ids[i], `${name}, token ${i}`).toBe(id)
      }
    }
  })

  it.skipIf(missing('text/wikitext2-raw-test.txt'))(
    "has PyTorch's perplexity on WikiText-2",
    async () => {
      // Two blocks by distill's own teacher in float32; six, which take minutes, as the data's manifest has them.
      const { chunks, expected } = LONG ? { chunks: 6, expected: 22.031 } : { chunks: 2, expected: 19.018 }
      const text = readFileSync(dataFile('text/wikitext2-raw-test.txt'), 'utf8').replaceAll('\r\n', '\n')
      const ids = await model.encode(text)
      expect(ids.length).toBe(301_948)
      const result = await perplexity(model, ids, { ctx: 2048, chunks })
      expect(Math.abs(result.perplexity - expected)).toBeLessThan(0.01)
    },
    600_000,
  )
})

interface OfficialLogits {
  ids: number[]
  logits_last: number[]
  argmax: number[]
  token_logprobs: (number | null)[]
}

async function loadOfficial(checkpoint: string, activations: 'int8' | 'int4' | 'f32' = 'f32') {
  const path = join(folder, 'official.obt')
  await convert(checkpoint, path)
  return Model.load(path, activations === 'f32' ? FLOATS : { activations })
}

async function expectLogits(checkpoint: string, expected: OfficialLogits) {
  const model = await loadOfficial(checkpoint)
  const { data, columns } = await model.createSession().logits(expected.ids, { all: true })
  const last = data.subarray((expected.ids.length - 1) * columns)
  for (const [id, logit] of expected.logits_last.entries()) {
    expect(Math.abs(last[id]! - logit), `logit ${id}`).toBeLessThan(1e-4)
  }
  for (const [i, id] of expected.argmax.entries()) {
    const row = data.subarray(i * columns, (i + 1) * columns)
    expect(row.indexOf(Math.max(...row)), `position ${i}`).toBe(id)
  }
  const { logprobs } = await model.createSession().score(expected.ids)
  for (const [i, logprob] of expected.token_logprobs.entries()) {
    if (logprob !== null) expect(Math.abs(logprobs[i]! - logprob), `token ${i}`).toBeLessThan(1e-4)
  }
  await model.dispose()
}

describe("checkpoints in the OneBit authors' layouts against their arithmetic", () => {
  it.each([
    ['onebit-tiny', 'train'],
    ['onebit-tiny', 'packed'],
    ['onebit-en10', 'packed'],
  ])('gives the logits of %s from the %s layout', async (name, layout) => {
    await expectLogits(golden(`${name}/${layout}`), readJson(golden(`${name}/logits.json`)))
  })

  // Every LayerNorm output is rounded, to 127 steps a side or to 7, and this untrained model has five layers of them.
  it.each([
    ['int8', 3e-3],
    ['int4', 0.4],
  ] as const)('stays close to them with %s activations', async (activations, most) => {
    const { ids } = readJson<OfficialLogits>(golden('onebit-en10/logits.json'))
    const packed = golden('onebit-en10/packed')
    const [exact, rounded] = [await loadOfficial(packed), await loadOfficial(packed, activations)]
    const rows = await Promise.all([exact, rounded].map((model) => model.createSession().logits(ids, { all: true })))
    const kl = meanKl(rows[0]!.data, rows[1]!.data, rows[0]!.columns)
    console.log(`mean KL of ${activations} from f32 activations: ${kl.toExponential(2)} nats`)
    expect(kl).toBeLessThan(most)
    await exact.dispose()
    await rounded.dispose()
  })
})

const RECORDED = 'golden/official-onebit-en10'
const LAYOUTS = ['packed', 'train']

describe.skipIf(missing(...LAYOUTS.map((layout) => `${RECORDED}/${layout}/pytorch_model.bin`)))(
  "a checkpoint against the OneBit authors' own class",
  () => {
    it.each(LAYOUTS)('gives the logits recorded of it from the %s layout', async (layout) => {
      await expectLogits(dataFile(`${RECORDED}/${layout}`), readJson(dataFile(`${RECORDED}/logits.json`)))
    })
  },
)

/** Mean over positions of KL(p || q), in nats. */
function meanKl(p: Float32Array, q: Float32Array, columns: number): number {
  const logSumExp = (row: Float32Array) => {
    const max = Math.max(...row)
    return max + Math.log(row.reduce((sum, x) => sum + Math.exp(x - max), 0))
  }
  let total = 0
  for (let at = 0; at < p.length; at += columns) {
    const [a, b] = [p.subarray(at, at + columns), q.subarray(at, at + columns)]
    const [la, lb] = [logSumExp(a), logSumExp(b)]
    for (let i = 0; i < columns; i++) total += Math.exp(a[i]! - la) * (a[i]! - la - (b[i]! - lb))
  }
  return total / (p.length / columns)
}
