// `npm run bench:speculate -- MODEL [--draft SMALL] [--tokens 160] [--rounds 5] [--threads N] [--verbose]`: what guessing tokens from
// what was said, and by a small model where one is named, gains, on texts that are edited and elsewhere (stories, questions, lists).
// An answer is an edit if half of its words and more stand in the prompt with the two before them: asked to copy code, a small model
// explains it instead. Each prompt goes through the model's chat template and is answered greedily, with guesses (auto) and without in
// turns; the texts must be the same. Prints tokens/s without, and medians of speed(auto) / speed(off).
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { geometricMean, median } from '../dist/bench/statistics.js'
import { Model } from '../dist/index.js'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    tokens: { type: 'string', default: '160' },
    rounds: { type: 'string', default: '5' },
    threads: { type: 'string' },
    draft: { type: 'string' },
    verbose: { type: 'boolean', default: false },
  },
})
if (positionals.length !== 1) {
  console.error('Name a model with a chat template.')
  process.exit(2)
}
const [tokens, rounds] = [values.tokens, values.rounds].map(Number)

const LETTER = `Dear Mrs Miller,
thank you for your letter of 3 May. We are sorry that the lamp which you bought in our shop was broken when it arrived. We have sent
you a new one today, and it should be with you by Friday. You need not send the broken lamp back to us. If there is anything else
that we can do for you, please call us between 9 and 5 on any day but Sunday.
Yours sincerely, Tom Baker`
const CODE = `function total(items) {
  let sum = 0
  for (const item of items) {
    if (item.price > 0) sum += item.price * item.count
  }
  return sum
}

function average(items) {
  let sum = 0
  for (const item of items) {
    if (item.price > 0) sum += item.price
  }
  return sum / items.length
}`
const NOTES = `- Monday: the meeting begins at 10, in the large room on the second floor.
- Tuesday: the painters come, all windows have to be closed.
- Wednesday: no meeting; the report has to be ready by noon.
- Thursday: lunch with the people from the north office.
- Friday: the large room is closed, everything is on the first floor.`

const RECIPE = `Mix two cups of flour with a spoon of sugar and a little salt. Beat three eggs with half a cup of milk, and add them to
the flour. Stir until there are no lumps left. Melt some butter in a pan, pour in enough for one thin pancake, and turn it when the
edges are brown. Serve the pancakes warm, with sugar and lemon.`
const NEWS = `The library on Mill Street will be closed from Monday to Wednesday next week, because the roof is being mended. Books that
are due in these days may be brought back until Saturday. The reading room of the school is open to everybody in the meantime. Mary
Brown, who has led the library for ten years, says that the work will be finished before the summer begins.`

const PROMPTS = [
  `Repeat this letter word for word, but write "chair" instead of "lamp":\n\n${LETTER}`,
  `Copy this letter exactly:\n\n${LETTER}`,
  `Repeat this code exactly, but call the variable "result" instead of "sum":\n\n${CODE}`,
  `Copy this code:\n\n${CODE}`,
  `Write these notes once more, with "Saturday" instead of "Friday":\n\n${NOTES}`,
  `Write this recipe again, with "honey" instead of "sugar":\n\n${RECIPE}`,
  `Repeat this text with the name Anna Green instead of Mary Brown:\n\n${NEWS}`,
  'Tell me a story about a dog who finds a red ball.',
  'What is the capital of France, and what is it known for?',
  'List ten things that one needs for a journey by train.',
  'Explain to a child why the sky is blue.',
  'Write a poem about the sea in winter.',
]

/** Three words in a row, from each word on. */
function triples(text) {
  const words = text.match(/[\p{L}\p{N}]+/gu) ?? []
  return words.slice(2).map((word, index) => `${words[index]} ${words[index + 1]} ${word}`)
}

/** Of an answer's words, the share that stand in the prompt with the two before them. */
function shareSaid(prompt, text) {
  const said = new Set(triples(prompt))
  const wanted = triples(text)
  return wanted.filter((three) => said.has(three)).length / Math.max(1, wanted.length)
}

async function answer(model, prompt, speculate) {
  const session = model.createSession()
  const messages = [{ role: 'user', content: prompt }]
  const { text, timings, usage } = await session.complete(messages, { temperature: 0, maxTokens: tokens, speculate })
  session.dispose()
  return { text, newTokens: usage.newTokens, tokensPerSecond: timings.tokensPerSecond }
}

const { threads, draft } = values
const model = await Model.load(positionals[0], {
  ...(threads && { threads: Number(threads) }),
  ...(draft && { draft }),
})
const models = draft ? `${positionals[0]}, guessed by ${draft}` : positionals[0]
console.log(`${cpus()[0].model}, ${model.isa}, ${model.threads} threads; ${models}; ${rounds} rounds\n`)
console.log('| | prompt | said before | tokens | tokens/s without | with / without |\n|---|---|---:|---:|---:|---:|')
const found = { edits: [], elsewhere: [] }
for (const prompt of PROMPTS) {
  const ratios = []
  let plain
  for (let round = 0; round <= rounds; round++) {
    const order = round % 2 === 0 ? ['off', 'auto'] : ['auto', 'off']
    const got = {}
    for (const speculate of order) got[speculate] = await answer(model, prompt, speculate)
    if (got.auto.text !== got.off.text) throw new Error(`another text with guesses: ${prompt}`)
    if (round > 0) ratios.push(got.auto.tokensPerSecond / got.off.tokensPerSecond)
    plain = got.off
  }
  if (values.verbose) console.error(`${prompt}\n=> ${plain.text}\n`)
  const share = shareSaid(prompt, plain.text)
  const set = share >= 0.5 ? 'edits' : 'elsewhere'
  found[set].push(median(ratios))
  const about = prompt.split('\n')[0].slice(0, 50)
  const cells = [set, about, `${Math.round(share * 100)} %`, plain.newTokens, plain.tokensPerSecond.toFixed(1)]
  console.log(`| ${cells.join(' | ')} | ${found[set].at(-1).toFixed(2)} |`)
}
for (const [set, all] of Object.entries(found)) {
  if (all.length > 0) console.log(`\n${set}: ${geometricMean(all).toFixed(2)} x in the geometric mean`)
}
await model.dispose()
