// `npm run bench:grammar`: answers of a given form. 200 prompts under 10 schemas: how many are valid by ajv (all have to be,
// but for those that maxTokens cuts off), and what a mask costs of a token's time, with and without it in turn.
//
//   npm run bench:grammar -- [MODEL.obt …] [--prompts 200] [--tokens 300]
//
// Without a model: the built-in one.
import { parseArgs } from 'node:util'
import { Ajv } from 'ajv'
import { A_STEP_EACH } from '../dist/bench/lanes.js'
import { median } from '../dist/bench/statistics.js'
import { defaultModelPath, Model } from '../dist/index.js'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { prompts: { type: 'string', default: '200' }, tokens: { type: 'string', default: '300' } },
})

const string = { type: 'string', maxLength: 40 }
const object = (properties, required = Object.keys(properties)) => ({
  type: 'object',
  properties,
  required,
  additionalProperties: false,
})
const SCHEMAS = {
  person: object({ name: string, age: { type: 'integer', minimum: 0, maximum: 120 } }),
  colours: { type: 'array', items: { enum: ['red', 'green', 'blue'] }, minItems: 1, maxItems: 5 },
  verdict: object({ verdict: { enum: ['yes', 'no', 'unknown'] }, sure: { type: 'boolean' } }),
  price: object({ amount: { type: 'number', minimum: 0, maximum: 1000 }, currency: { const: 'EUR' } }),
  matrix: {
    type: 'array',
    items: { type: 'array', items: { type: 'integer', minimum: -9, maximum: 9 }, minItems: 2, maxItems: 2 },
    minItems: 2,
    maxItems: 2,
  },
  optional: object(
    {
      title: string,
      subtitle: { anyOf: [string, { type: 'null' }] },
      tags: { type: 'array', items: string, maxItems: 3 },
    },
    ['title'],
  ),
  tree: {
    $defs: {
      node: object({
        label: { type: 'string', maxLength: 10 },
        children: { type: 'array', items: { $ref: '#/$defs/leaf' }, maxItems: 2 },
      }),
      leaf: object({ label: { type: 'string', maxLength: 10 } }),
    },
    $ref: '#/$defs/node',
  },
  date: object({ date: { type: 'string', pattern: '^(19|20)\\d{2}-(0[1-9]|1[0-2])-(0[1-9]|[12]\\d)$' } }),
  orders: object({
    orders: {
      type: 'array',
      items: object({
        id: { type: 'integer', minimum: 1, maximum: 9999 },
        item: string,
        sizes: { type: 'array', items: { enum: ['S', 'M', 'L'] }, minItems: 1, maxItems: 2 },
      }),
      minItems: 1,
      maxItems: 2,
    },
  }),
  shape: {
    oneOf: [
      object({ kind: { const: 'circle' }, radius: { type: 'number', exclusiveMinimum: 0, maximum: 100 } }),
      object({ kind: { const: 'square' }, side: { type: 'integer', minimum: 1, maximum: 100 } }),
    ],
  },
}
const SUBJECTS = ['a farmer', 'the sea', 'an old car', 'two friends', 'a small town', 'bread', 'the moon', 'a letter']

/** Milliseconds between tokens, as who reads the pieces sees them. */
async function timed(session, prompt, options) {
  session.rewind(0)
  let [first, last, count] = [0, 0, 0]
  let text = ''
  for await (const piece of session.generate(prompt, options)) {
    last = performance.now()
    if (count++ === 0) first = last
    text += piece.text
  }
  return { text, finish: session.last.finishReason, ms: count > 1 ? (last - first) / (count - 1) : undefined, count }
}

for (const path of positionals.length > 0 ? positionals : [defaultModelPath()]) {
  const model = await Model.load(path)
  const session = model.createSession()
  const names = Object.keys(SCHEMAS)
  const checks = Object.fromEntries(names.map((name) => [name, new Ajv({ strict: false }).compile(SCHEMAS[name])]))
  const [bad, ratios] = [[], []]
  let [valid, cut, tokens] = [0, 0, 0]
  for (let i = 0; i < Number(values.prompts); i++) {
    const name = names[i % names.length]
    const prompt = `Write JSON about ${SUBJECTS[i % SUBJECTS.length]} number ${i}:\n`
    const options = { seed: i, maxTokens: Number(values.tokens) }
    const held = await timed(session, prompt, { ...options, schema: SCHEMAS[name] })
    tokens += held.count
    if (held.finish !== 'stop') cut++
    else if (checks[name](JSON.parse(held.text))) valid++
    else bad.push(`${name}: ${held.text}`)
    const free = await timed(session, prompt, { ...options, ...A_STEP_EACH, maxTokens: Math.max(8, held.count) })
    if (held.ms && free.ms && held.count >= 8) ratios.push(held.ms / free.ms)
  }
  console.log(`${path}: ${values.prompts} prompts under ${names.length} schemas, ${tokens} tokens`)
  console.log(`valid: ${valid}, invalid: ${bad.length}, cut off by maxTokens: ${cut}`)
  for (const one of bad) console.log(`  ${one}`)
  console.log(
    `a token with its mask takes ${median(ratios).toFixed(3)} times one without (median of ${ratios.length} pairs)`,
  )
  await model.dispose()
}
