// Puts words where a text has `<unk>`: `node distill/bench/fill_unknown.mjs MODEL IN.txt OUT.txt [FIRST] [COUNT]`, of so many lines.
//
// WikiText-2 in words, which is what there is to learn from here, has `<unk>` for one word in eighteen; its raw form, which
// students are measured on, has names there. So the teacher says what it would write, from what stands before in the line, with the
// same seeds for the same lines. docs/reconstruct.md says what that is worth.
import { readFile, writeFile } from 'node:fs/promises'
import { Model } from '../../dist/index.js'

const UNKNOWN = '<unk>'
const WORD = /^ ?(\p{L}[\p{L}\p{N}'-]*)/u

/** The line with a word in the place of each unknown one; where the model has none to say, without it. */
async function filled(session, line, seed) {
  const [first, ...rest] = line.split(UNKNOWN)
  let text = first.trimEnd()
  let pending = text
  session.rewind(0)
  for (const part of rest) {
    const options = { maxTokens: 4, temperature: 0.8, topP: 0.9, seed }
    const { text: said, usage } = await session.complete(pending || '\n', options)
    session.rewind(session.position - usage.newTokens)
    const word = WORD.exec(said)?.[1]
    pending = `${word ? ` ${word}` : ''}${part.trimEnd()}`
    text += pending
  }
  return `${text.trimEnd()} `
}

const [path, from, to, start = '0', count = 'Infinity'] = process.argv.slice(2)
const model = await Model.load(path, { context: 2048, threads: 1 })
const session = model.createSession()
const all = (await readFile(from, 'utf8')).split('\n').filter((line) => line.trim() !== '')
const lines = all.slice(Number(start), Number(start) + Number(count))
const out = []
for (const [i, line] of lines.entries()) {
  out.push(await filled(session, line, Number(start) + i))
  if (i % 100 === 0) console.error(`${i} of ${lines.length} lines`)
}
await writeFile(to, `${out.join('\n')}\n`)
await model.dispose()
