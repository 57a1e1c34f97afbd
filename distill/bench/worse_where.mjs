// Where a student is worse than its teacher: `node distill/bench/worse_where.mjs TEACHER STUDENT TEXT.txt [EVERY]`.
//
// Of every so many blocks of 2,048 tokens (4) the log-likelihood of each token by both: the ratio of their perplexities, by the
// place in a block, the blocks where it is largest, and the tokens that own most of the difference, with what each costs.
import { readFile } from 'node:fs/promises'
import { Model } from '../../dist/index.js'

const BLOCK = 2048

/** By block, the negative log-likelihood of each token but the first, in nats. */
async function losses(model, ids, every) {
  const session = model.createSession({ context: BLOCK })
  const found = []
  for (let first = 0; first + BLOCK <= ids.length; first += BLOCK * every) {
    session.rewind(0)
    const { logprobs } = await session.score(ids.subarray(first, first + BLOCK))
    found.push({ first, nats: Array.from(logprobs, (one) => -one) })
  }
  return found
}

/** Adds `count`, and both losses, to what is known of a key. */
function add(sums, key, teacher, student) {
  const sum = sums.get(key) ?? { count: 0, teacher: 0, student: 0 }
  sums.set(key, { count: sum.count + 1, teacher: sum.teacher + teacher, student: sum.student + student })
}

const ratio = ({ count, teacher, student }) => Math.exp((student - teacher) / count).toFixed(2)
const mean = (sum, count) => (sum / count).toFixed(2)

const [teacherPath, studentPath, textPath, every = '4'] = process.argv.slice(2)
const teacher = await Model.load(teacherPath)
const student = await Model.load(studentPath)
const ids = await teacher.encode(await readFile(textPath, 'utf8'))
const theirs = await losses(teacher, ids, Number(every))
const ours = await losses(student, ids, Number(every))

const all = new Map()
const places = new Map()
const blocks = new Map()
const tokens = new Map()
for (const [index, { first, nats }] of theirs.entries()) {
  for (let place = 1; place < BLOCK; place++) {
    const pair = [nats[place], ours[index].nats[place]]
    add(all, 'all', ...pair)
    add(places, 2 ** Math.floor(Math.log2(place)), ...pair)
    add(blocks, first / BLOCK, ...pair)
    add(tokens, ids[first + place], ...pair)
  }
}
const whole = all.get('all')
const { log } = console
log(`${whole.count} tokens: teacher ${Math.exp(whole.teacher / whole.count).toFixed(2)}, ratio ${ratio(whole)}`)
for (const [place, sum] of places) log(`from place ${place}: ${ratio(sum)}`)
const apart = (sum) => sum.student - sum.teacher
const worst = (sums, count) => [...sums].sort(([, a], [, b]) => apart(b) / b.count - apart(a) / a.count).slice(0, count)
for (const [block, sum] of worst(blocks, 5)) log(`block ${block}: ${ratio(sum)}`)
const owners = [...tokens].sort(([, a], [, b]) => apart(b) - apart(a)).slice(0, 40)
for (const [id, sum] of owners) {
  const { count } = sum
  const each = `${mean(sum.student, count)} (teacher ${mean(sum.teacher, count)})`
  const share = (apart(sum) / whole.count).toFixed(4)
  log(`${JSON.stringify(teacher.tokenizer.decode([id]))} x ${count}: ${each} nats each, ${share} of the whole`)
}
await teacher.dispose()
await student.dispose()
