// `npm run bench:serve`: what several clients of `onebit serve` get, and what HTTP costs. The server, its clients and the
// TypeScript API that it is held against are three processes on the same processors; only one of them computes at a time.
//
//   npm run bench:serve -- [MODEL.obt] [--streams 8] [--prompt 64] [--tokens 128] [--long 2000] [--beside 4] [--rounds 5]
//                          [--threads N] [--json]
//
// Every round has each of: session.generate in this process; one client; `--streams` clients; a prompt of `--long` tokens that
// arrives while `--beside` clients read. The first round is not counted; medians over the others. Tokens/s are those of all
// streams, from the moment when each has its first token until the first of them ends. Gaps are the times between the
// moments at which tokens of a stream come to its client; a client that is alone gets those of 8 ms together. It is served as
// anyone is: what it said before may be guessed ahead, which makes one client, here and there, faster, and eight no faster.
import { fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpus, loadavg } from 'node:os'
import { dirname, join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { median } from '../dist/bench/statistics.js'
import { Model } from '../dist/index.js'

const HERE = dirname(fileURLToPath(import.meta.url))
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    streams: { type: 'string', default: '8' },
    prompt: { type: 'string', default: '64' },
    tokens: { type: 'string', default: '128' },
    long: { type: 'string', default: '2000' },
    beside: { type: 'string', default: '4' },
    rounds: { type: 'string', default: '5' },
    threads: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
})
const [streams, prompt, tokens, beside, rounds] = ['streams', 'prompt', 'tokens', 'beside', 'rounds'].map((name) =>
  Number(values[name]),
)
const file = positionals[0] ?? join(HERE, '..', 'models', 'stories-5M.obt')

function quantile(list, q) {
  const order = list.toSorted((a, b) => a - b)
  return order[Math.min(order.length - 1, Math.floor(q * order.length))]
}

async function startServer() {
  const argv = [join(HERE, '..', 'dist', 'cli', 'onebit.js'), 'serve', `it=${file}`, '--port', '0', '--json']
  argv.push('--parallel', String(Math.max(streams, beside) + 1), '--queue', '0', '--cache-mib', '0')
  if (values.threads) argv.push('--threads', values.threads)
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })
  const ended = once(child, 'exit').then(() => {
    throw new Error('the server ended')
  })
  ended.catch(() => {})
  const [line] = await Promise.race([once(lines, 'line'), ended])
  return { child, url: JSON.parse(line).url }
}

const model = await Model.load(file, values.threads ? { threads: Number(values.threads) } : {})
const { vocab_size, context_length } = model.config
const long = Math.min(Number(values.long), context_length - 16)
/** Texts that have nothing in common. */
const ids = (count, seed) =>
  Array.from({ length: count }, (_, i) => ((i + 1) * 7919 + seed * 104_729 + (i % 13) * 31) % vocab_size)

const server = await startServer()
const clients = fork(join(HERE, 'serve-clients.mjs'), [], { execArgv: [] })
const clientsEnded = once(clients, 'exit').then(() => [{ error: 'the clients ended' }])

/** @returns what each client saw, the late one last */
async function ask(count, late) {
  const task = {
    url: server.url,
    model: 'it',
    streams: Array.from({ length: count }, (_, i) => ({ ids: ids(prompt, i), tokens })),
    ...(late ? { late: { ids: ids(long, 999), tokens: 8 } } : {}),
  }
  clients.send(task)
  const [{ results, error }] = await Promise.race([once(clients, 'message'), clientsEnded])
  if (error) throw new Error(error)
  return results
}

const gapsOf = ({ times }) => times.slice(1).flatMap((time, i) => (time > times[i] ? [time - times[i]] : []))

/** Tokens a second of all streams while all of them run. An event is a token, or where a character has several, a bit more. */
function totalSpeed(results) {
  const from = Math.max(...results.map(({ times }) => times[0]))
  const to = Math.min(...results.map(({ times }) => times.at(-1)))
  const within = results.map(({ times, tokens: made }) => {
    const events = times.filter((time) => time > from && time <= to).length
    return (events * made) / times.length
  })
  return (1000 * within.reduce((sum, count) => sum + count, 0)) / (to - from)
}

function together(results) {
  const found = results.flatMap(gapsOf)
  const gaps = found.length > 0 ? found : [0]
  const [p50, p99] = [quantile(gaps, 0.5), quantile(gaps, 0.99)]
  return { speed: totalSpeed(results), p50, p99, ratio: p99 / (p50 || 1), most: Math.max(...gaps) }
}

/** From asking to the last token, and between the first token and the last. */
const whole = ({ sentMs, times }) => ({ totalMs: times.at(-1) - sentMs, decodeMs: times.at(-1) - times[0] })

async function throughTypeScript() {
  const sentMs = performance.now()
  const session = model.createSession()
  const times = []
  const options = { maxTokens: tokens, temperature: 0, ignoreEos: true }
  for await (const { text } of session.generate(ids(prompt, 0), options)) if (text !== '') times.push(performance.now())
  session.dispose()
  return { sentMs, times }
}

function besideLong(results) {
  const asked = results.at(-1)
  const others = results.slice(0, -1)
  const [from, to] = [asked.sentMs, asked.times[0]]
  // A gap counts when any of it lies in the time in which the prompt was computed.
  const meanwhile = others.flatMap(({ times }) =>
    times.slice(1).flatMap((time, i) => (time > from && times[i] < to && time > times[i] ? [time - times[i]] : [])),
  )
  const before = others.flatMap(({ times }) =>
    times.slice(1).flatMap((time, i) => (time <= from && time > times[i] ? [time - times[i]] : [])),
  )
  // A quick model's streams can be over before the prompt arrives: then it held nobody up.
  const held = meanwhile.length > 0 ? meanwhile : [0]
  return {
    before: before.length > 0 ? median(before) : 0,
    p50: median(held),
    most: Math.max(...held),
    toFirst: to - from,
  }
}

const found = { api: [], one: [], alone: [], many: [], long: [] }
try {
  for (let round = 0; round <= rounds; round++) {
    // Who comes first changes from round to round.
    const direct = async () => whole(await throughTypeScript())
    const single = () => ask(1)
    const [first, second] = round % 2 === 0 ? [await direct(), await single()] : [await single(), await direct()]
    const [api, one] = round % 2 === 0 ? [first, second] : [second, first]
    const many = together(await ask(streams))
    const beyond = besideLong(await ask(beside, true))
    if (round === 0) continue
    found.api.push(api)
    found.one.push(whole(one[0]))
    found.alone.push(together(one))
    found.many.push(many)
    found.long.push(beyond)
  }
} finally {
  clients.disconnect()
  server.child.kill('SIGTERM')
}

const of = (list, name) => median(list.map((one) => one[name]))
const overhead = (name) => median(found.one.map((one, i) => one[name] / found.api[i][name] - 1))
const report = {
  cpu: cpus()[0].model,
  load: loadavg()[0],
  isa: model.isa,
  threads: model.threads,
  model: file,
  streams,
  prompt,
  tokens,
  rounds,
  one_tokens_per_s: of(found.alone, 'speed'),
  all_tokens_per_s: of(found.many, 'speed'),
  gain: median(found.many.map(({ speed }, i) => speed / found.alone[i].speed)),
  one: { p50_ms: of(found.alone, 'p50'), p99_ms: of(found.alone, 'p99'), p99_by_p50: of(found.alone, 'ratio') },
  all: { p50_ms: of(found.many, 'p50'), p99_ms: of(found.many, 'p99'), p99_by_p50: of(found.many, 'ratio') },
  overhead: { whole: overhead('totalMs'), between_tokens: overhead('decodeMs') },
  api: { whole_ms: of(found.api, 'totalMs'), between_tokens_ms: of(found.api, 'decodeMs') },
  http: { whole_ms: of(found.one, 'totalMs'), between_tokens_ms: of(found.one, 'decodeMs') },
  long: {
    beside,
    prompt: long,
    step_before_ms: of(found.long, 'before'),
    step_meanwhile_ms: of(found.long, 'p50'),
    longest_gap_ms: of(found.long, 'most'),
    worst_gap_ms: Math.max(...found.long.map(({ most }) => most)),
    first_token_ms: of(found.long, 'toFirst'),
  },
}

function table({ one, all, overhead, api, http, long }) {
  const ms = (value) => value.toFixed(1)
  const share = (value) => `${(100 * value).toFixed(1)} %`
  const row = (...cells) => console.log(`| ${cells.join(' | ')} |`)
  console.log(`${report.cpu}, ${model.isa}, ${model.threads} threads, load ${report.load.toFixed(1)}; ${file}`)
  console.log(`${tokens} tokens after ${prompt}; medians of ${rounds} rounds\n`)
  row('clients', 'tokens/s', 'x one', 'p50 ms', 'p99 ms', 'p99/p50')
  row('---:', '---:', '---:', '---:', '---:', '---:')
  row(1, ms(report.one_tokens_per_s), '1.00', ms(one.p50_ms), ms(one.p99_ms), one.p99_by_p50.toFixed(2))
  const gain = report.gain.toFixed(2)
  row(streams, ms(report.all_tokens_per_s), gain, ms(all.p50_ms), ms(all.p99_ms), all.p99_by_p50.toFixed(2))
  console.log()
  row('one client', 'whole answer ms', 'first to last token ms')
  row('---', '---:', '---:')
  row('session.generate', ms(api.whole_ms), ms(api.between_tokens_ms))
  row('HTTP and SSE', ms(http.whole_ms), ms(http.between_tokens_ms))
  row('overhead', share(overhead.whole), share(overhead.between_tokens))
  console.log(`\na prompt of ${long.prompt} tokens among ${beside} clients:`)
  console.log(
    `  between two tokens before it: ${ms(long.step_before_ms)} ms; meanwhile: ${ms(long.step_meanwhile_ms)} ms`,
  )
  console.log(`  longest gap: ${ms(long.longest_gap_ms)} ms (the worst of all rounds: ${ms(long.worst_gap_ms)} ms)`)
  console.log(`  its own first token: after ${long.first_token_ms.toFixed(0)} ms`)
}

if (values.json) console.log(JSON.stringify(report, null, 1))
else table(report)
await model.dispose()
