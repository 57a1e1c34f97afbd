// `node scripts/soak.mjs --minutes 20`: mixed clients of `onebit serve` for a while: streaming chats, completions, scoring,
// embeddings, structured answers, long prompts; a fifth of them leave before their answer is whole, some send nonsense. On
// loopback only, with a server of its own. What must hold:
//
//   - the server lives, says nothing on standard error, and answers nothing with 5xx
//   - whoever asks for the same gets the same answer, whatever else runs, and the same again when asked alone at the end
//   - nonsense is answered with 4xx and a message, more than can wait with 429 and Retry-After
//   - when all clients are gone nothing is running, waiting, or takes memory for keys and values; no files stay open
//   - memory is flat: in the last quarter of the time within 5 % of the second (10 % in less than 10 minutes)
//   - SIGTERM ends it within 10 seconds, with streams under way
//
// --minutes N (2)  --clients N (8)  --seed TEXT (soak)  --numbers N (60): different requests of each kind  --verbose
// --pauses: now and then the server is stopped for 3 seconds, as busy machines do (not on Windows)
//
// Ends with `N passed, N failed, N skipped`.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { importTypeScript } from './import-typescript.mjs'
import { ROOT } from './native-tests.mjs'
import { closeConnections, fingerprint, metrics, send } from './soak/client.mjs'
import { openFiles, ProcessWatch } from './soak/process-watch.mjs'
import { KIND_NAMES, MALFORMED, numbers, requestOf } from './soak/requests.mjs'
import { Tally } from './tally.mjs'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '2' },
    clients: { type: 'string', default: '8' },
    seed: { type: 'string', default: 'soak' },
    numbers: { type: 'string', default: '60' },
    pauses: { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
  },
})
const [minutes, clients, most] = [values.minutes, values.clients, values.numbers].map(Number)

const LEAVING = 0.2
const MALFORMED_SHARE = 0.1
/** Between two requests of a client: the machine does other things too. */
const MOST_PAUSE_MS = 150
/** Growth of memory that is none. A process that is a minute old has not grown up yet. */
const FLAT = minutes >= 10 ? 0.05 : 0.1
/** The cache has to be full early, or its filling would look like a leak. */
const CACHE_MIB = 8
const PAUSE_MS = 3000
/** Between two pauses, at most. */
const MOST_BETWEEN_PAUSES_MS = 15_000
const QUIET_MS = 10_000
const STOP_MS = 10_000
/** Streams may go on for as long as that; then the machine may be busy with other things. */
const LATE_MS = 5000

const tally = new Tally()
/** Every check is one thing that holds or not; what is wrong is said a few times, then counted. */
class Check {
  wrong = 0
  first = ''
  constructor(name) {
    this.name = name
  }

  fail(what) {
    if (this.wrong === 0) this.first = what.slice(0, 300)
    if (this.wrong++ < 5) console.error(`  ${this.name}: ${what}`)
  }

  end() {
    // The first is said once more: of a long output often only the last lines are kept.
    if (this.wrong > 0) tally.fail(`soak: ${this.name} (${this.wrong} times; first ${this.first})`)
    else tally.passed++
  }
}

async function startServer(folder) {
  const { writeTinyModel } = await importTypeScript('test/tiny-model.ts')
  const tiny = join(folder, 'tiny.obt')
  await writeTinyModel(tiny, { context: 4096 })
  const models = [`tiny=${tiny}`, `stories=${join(ROOT, 'models', 'stories-5M.obt')}`]
  const limits = ['--parallel', '4', '--queue', '3', '--cache-mib', String(CACHE_MIB)]
  const argv = [join(ROOT, 'dist', 'cli', 'onebit.js'), 'serve', ...models, '--port', '0', '--json', ...limits]
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'pipe'] })
  const server = { child, said: '', ended: undefined, url: '' }
  child.stderr.setEncoding('utf8').on('data', (text) => {
    server.said += text
  })
  child.on('exit', (code, signal) => {
    server.ended = signal ?? `exit status ${code}`
  })
  const [line] = await Promise.race([
    once(createInterface({ input: child.stdout }), 'line'),
    once(child, 'exit').then(() => {
      throw new Error(`the server did not start: ${server.said}`)
    }),
  ])
  server.url = JSON.parse(line).url
  return server
}

const checks = {
  answers: new Check('every complete answer is the same as any other to the same request'),
  statuses: new Check('requests are answered, or refused with 429 and Retry-After'),
  malformed: new Check('malformed requests are answered with 4xx and a message'),
}
const counts = { complete: 0, left: 0, busy: 0, malformed: 0 }
/** "kind number" -> fingerprint of the first answer */
const known = new Map()

function judge(kind, number, body, { lost, status, headers, text }) {
  const name = `${kind} ${number}`
  if (lost) return checks.statuses.fail(`${name}: ${lost}`)
  if (status === 429) {
    counts.busy++
    if (!(Number(headers['retry-after']) > 0)) checks.statuses.fail(`${name}: 429 without Retry-After`)
    return
  }
  if (status !== 200) return checks.statuses.fail(`${name}: ${status} ${text.slice(0, 300)}`)
  counts.complete++
  try {
    const print = fingerprint(text, body.stream === true)
    if (!known.has(name)) known.set(name, print)
    else if (known.get(name) !== print) checks.answers.fail(`${name}: another answer than before`)
  } catch (error) {
    checks.answers.fail(`${name}: ${error.message}`)
  }
}

async function sendMalformed(url, random) {
  const [path, body, statuses] = MALFORMED[Math.floor(random() * MALFORMED.length)]
  const { lost, status, text } = await send(url, path, body)
  counts.malformed++
  const what = `${path} ${body.slice(0, 60)}`
  // A body that is refused in the middle may end the connection before its answer is read.
  if (lost && statuses[0] === 413) return
  if (lost) return checks.malformed.fail(`${what}: ${lost}`)
  if (!statuses.includes(status)) return checks.malformed.fail(`${what}: ${status}, not ${statuses}`)
  if (typeof JSON.parse(text).error?.message !== 'string') checks.malformed.fail(`${what}: no message`)
}

/** One client after the other at the same place, until the time is over. */
async function client(server, index, until) {
  const random = numbers(`${values.seed} client ${index}`)
  while (performance.now() < until && server.ended === undefined) {
    await pause(MOST_PAUSE_MS * random())
    if (random() < MALFORMED_SHARE) {
      await sendMalformed(server.url, random)
      continue
    }
    const kind = KIND_NAMES[Math.floor(random() * KIND_NAMES.length)]
    const number = Math.floor(random() * most)
    const { path, body } = requestOf(kind, number)
    const leaves = random() < LEAVING
    const how = !leaves
      ? { keep: random() < 0.5 }
      : body.stream && random() < 0.7
        ? { leaveAfter: 1 + Math.floor(10 * random()) }
        : { leaveAtOnceMs: 40 * random() }
    const result = await send(server.url, path, JSON.stringify(body), how)
    if (result.left) counts.left++
    else judge(kind, number, body, result)
    if (result.status === 429) await pause(100)
  }
}

async function pauses({ child }, until) {
  const random = numbers(`${values.seed} pauses`)
  const wait = () => MOST_BETWEEN_PAUSES_MS * random()
  for (let ms = wait(); performance.now() + ms + PAUSE_MS < until; ms = wait()) {
    await pause(ms)
    child.kill('SIGSTOP')
    await pause(PAUSE_MS)
    child.kill('SIGCONT')
  }
}

async function everyMinute(server, watch, until) {
  while (performance.now() < until && server.ended === undefined) {
    await pause(Math.min(60_000, Math.max(1, until - performance.now())))
    const left = Math.max(0, (until - performance.now()) / 60_000).toFixed(1)
    const { complete, left: gone, busy, malformed } = counts
    const memory = watch.now === undefined ? '' : `, ${watch.now.toFixed(0)} MB`
    console.error(
      `${left} min left: ${complete} answers, ${gone} left, ${busy} refused, ${malformed} malformed${memory}`,
    )
  }
}

/** Every request that was answered is asked for once more, when nothing else runs. */
async function askAgainAlone(url) {
  const check = new Check('answers are those of the same requests alone')
  for (const [name, print] of known) {
    const [, kind, number] = /^(.*) (\d+)$/.exec(name)
    const { path, body } = requestOf(kind, Number(number))
    const { lost, status, text } = await send(url, path, JSON.stringify(body))
    if (lost || status !== 200) check.fail(`${name}: ${lost ?? `${status} ${text.slice(0, 200)}`}`)
    else if (fingerprint(text, body.stream === true) !== print) check.fail(`${name}: another answer than among others`)
  }
  check.end()
}

/** All clients are gone: nothing may be left of them. */
async function checkQuiet(server, filesBefore) {
  const check = new Check('no place is taken and nothing waits when all clients are gone')
  const end = performance.now() + QUIET_MS
  const busy = ({ requests_running, requests_waiting, kv_running_bytes }) =>
    requests_running + requests_waiting + kv_running_bytes > 0
  let told = await metrics(server.url)
  while (busy(told) && performance.now() < end) {
    await pause(50)
    told = await metrics(server.url)
  }
  const { requests_running, requests_waiting, kv_running_bytes, kv_cache_bytes } = told
  if (busy(told)) check.fail(`${requests_running} running, ${requests_waiting} waiting, ${kv_running_bytes} bytes`)
  // Two models, each with a cache of its own.
  if (kv_cache_bytes > 2 * CACHE_MIB * 2 ** 20) check.fail(`${kv_cache_bytes} bytes are kept`)
  check.end()
  if (filesBefore === undefined) return tally.skip('soak: open files (not on this system)')
  const files = new Check('no files stay open')
  // Up to eight threads for structured answers and the template's process have a few each; one for each request that was
  // answered would be thousands.
  const allowed = filesBefore + 80
  const now = openFiles(server.child.pid)
  if (now > allowed) files.fail(`${now}, ${filesBefore} at the start`)
  files.end()
}

function checkMemory(quarters) {
  if (!quarters) return tally.skip('soak: memory (not told by this system, or too short a time)')
  const [, second, , last] = quarters
  console.log(`memory by quarters: ${quarters.map((mb) => `${mb.toFixed(1)} MB`).join(', ')}`)
  const check = new Check('memory is flat')
  if (last > (1 + FLAT) * second)
    check.fail(`${last.toFixed(1)} MB in the last quarter, ${second.toFixed(1)} in the second`)
  check.end()
}

async function stop(server) {
  const check = new Check('SIGTERM ends it within 10 seconds')
  const bodies = [0, 1, 2].map((seed) => ({ model: 'tiny', prompt: 'x', ignore_eos: true, stream: true, seed }))
  const streams = bodies.map((body) => send(server.url, '/v1/completions', JSON.stringify(body)))
  let over = false
  void Promise.race(streams).then(() => {
    over = true
  })
  while (!over && (await metrics(server.url)).requests_running < streams.length) await pause(10)
  const begun = performance.now()
  server.child.kill('SIGTERM')
  const late = setTimeout(() => server.child.kill('SIGKILL'), 2 * STOP_MS)
  if (server.ended === undefined) await once(server.child, 'exit')
  clearTimeout(late)
  const ms = performance.now() - begun
  if (ms > STOP_MS + LATE_MS) check.fail(`after ${ms.toFixed(0)} ms`)
  if (server.ended !== 'exit status 0') check.fail(`it ended with ${server.ended}`)
  for (const { status, text = '', lost } of await Promise.all(streams)) {
    const isWhole = status === 200 && /data: (\[DONE\]|\{"error":.*)\n\n$/s.test(text)
    if (!isWhole) check.fail(`a stream was cut off: ${lost ?? text.slice(-100)}`)
  }
  console.log(`ended ${ms.toFixed(0)} ms after SIGTERM`)
  check.end()
}

async function soak(server) {
  const { pid } = server.child
  await metrics(server.url)
  const filesBefore = openFiles(pid)
  const watch = new ProcessWatch(pid)
  const until = performance.now() + 60_000 * minutes
  const lanes = Array.from({ length: clients }, (_, i) => client(server, i, until))
  const stopping = values.pauses && process.platform !== 'win32' ? [pauses(server, until)] : []
  await Promise.all([...lanes, ...stopping, everyMinute(server, watch, until)])
  const quarters = watch.end()
  closeConnections()
  for (const check of Object.values(checks)) check.end()
  if (counts.complete === 0) tally.fail('soak: no answer at all')
  checkMemory(quarters)
  if (server.ended === undefined) {
    await checkQuiet(server, filesBefore)
    await askAgainAlone(server.url)
  }
  const lives = new Check('the server lives and says nothing of errors')
  if (server.ended !== undefined) lives.fail(server.ended)
  if (server.said !== '') lives.fail(server.said.slice(0, 2000))
  lives.end()
  if (server.ended === undefined) await stop(server)
}

const folder = mkdtempSync(join(tmpdir(), 'onebit-soak-'))
let server
try {
  server = await startServer(folder)
  await soak(server)
} catch (error) {
  tally.fail(`soak: ${error.stack}`)
} finally {
  server?.child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
}
if (values.verbose) console.log(counts, `${known.size} different requests`)
tally.finish()
