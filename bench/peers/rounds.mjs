// The rounds of one shape: each configuration of the peer in turn, and this engine right beside it, every measurement in
// a process of its own.
import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { decodeWeightBytes, shapeConfig } from '../../dist/bench/shapes.js'
import { addon } from '../../dist/native/addon.js'
import { isHopeless, sharesOfFastest, withFewestBits } from './comparison.mjs'
import { ENGINES } from './contests.mjs'
import { bitsPerWeight } from './gguf-types.mjs'
import { ROOT, SCRATCH } from './llama-cpp.mjs'
import { decodeBytes, makeRandomGguf } from './random-gguf.mjs'

const HERE = dirname(fileURLToPath(import.meta.url))
/** For what hangs: the slowest measurement that ends takes some minutes. */
const PATIENCE_MS = 3_600_000

const own = (script) => [process.execPath, join(HERE, script)]

/** One measurement in a process of its own; what the process printed, or an error with its last words. */
function measure(command, argument, prefix, Failed = Error) {
  const argv = [...prefix, ...command, JSON.stringify(argument)]
  const options = { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }
  const limits = { timeout: PATIENCE_MS, killSignal: 'SIGKILL' }
  const { status, signal, error, stdout, stderr } = spawnSync(argv[0], argv.slice(1), { ...options, ...limits })
  if (status === 0) return JSON.parse(stdout)
  if (signal === 'SIGINT' || signal === 'SIGTERM') throw new Error(`interrupted by ${signal}`)
  const words = error?.message ?? /^.*Error: .*$/m.exec(stderr)?.[0] ?? stderr.trim().split('\n').at(-1)
  throw new Failed(`${basename(command.at(-1))} ended with ${signal ?? `exit status ${status}`}: ${words}`)
}

const fileName = ({ shape, arch, type, tables }) => `${shape}.${arch}.${type}.${tables}.gguf`

/** The peer refused a file, or crashed. */
class PeerFailed extends Error {}

export class ShapeRounds {
  #plan
  #told
  #files = new Map()

  /**
   * @param plan { shape, type, reference, candidates, misfits, threads, sameThreads, isas, ownThreads, rounds, deadline,
   *   memory, work: { prompt, warm, tokens }, prefix }: shape to candidates as in contests.mjs; `threads` of the peers;
   *   `sameThreads`: this engine has as many, else `ownThreads`; `isas` of this engine, the best one last; `deadline`:
   *   of performance.now(), after which no round but the first begins; `memory`: whether its speed is measured in each
   *   round; `prefix`, a command to put before each measurement
   * @param told called with each pair and its configuration
   */
  constructor(plan, told) {
    this.#plan = plan
    this.#told = told
    const { shape, type, reference, work, misfits, candidates, threads } = plan
    this.state = { shape, type, reference, work, misfits, peers: {}, memory: [], configurations: [] }
    for (const candidate of candidates) {
      const form = { shape, arch: candidate.arch, type: candidate.file ?? candidate.type, tables: candidate.tables }
      const about = { engine: candidate.engine, type: candidate.type, bits: bitsPerWeight(form.type), form }
      for (const n of threads) {
        this.state.configurations.push({ ...about, repack: candidate.repack, threads: n, pairs: [] })
      }
    }
  }

  run() {
    try {
      this.#first()
      for (let round = 2; round <= this.#plan.rounds && this.#hasTime(); round++) {
        this.#measureMemory(round)
        for (const configuration of this.alive()) this.#pair(configuration, round)
      }
    } finally {
      for (const path of this.#files.values()) rmSync(path, { force: true })
    }
  }

  /** Whether another round fits in, by what the last one took. */
  #hasTime() {
    const seconds = this.alive().reduce((sum, { pairs }) => sum + pairs.at(-1).seconds, 0)
    return performance.now() + 1000 * seconds <= this.#plan.deadline
  }

  /** Configurations that were measured and not given up. */
  alive() {
    return this.#configurations(({ pairs, dropped }) => pairs.length > 0 && !dropped)
  }

  /** Type by type, so that the file of one that is given up is gone before the next is written. */
  #first() {
    this.#measureMemory(1)
    for (const { engine, type } of this.#plan.candidates) {
      const ofType = this.#configurations((one) => one.engine === engine && one.type === type)
      for (const configuration of ofType) this.#try(configuration)
      this.#giveUpTheHopeless()
    }
    const measured = this.#measured()
    if (measured.length === 0) {
      const reasons = this.state.configurations.map(({ type, refused }) => `${type}: ${refused}`)
      throw new Error(`the peer ran none of its types: ${reasons.join('; ')}`)
    }
    // What was given up on the way was so beside what was known by then.
    for (const one of measured) if (one.dropped) one.dropped = sharesOfFastest(one, measured, this.#best)
  }

  /** Anything of ours that fails ends the benchmark; what the peer refuses is named in the report. */
  #try(configuration) {
    try {
      this.#pair(configuration, 1)
    } catch (error) {
      if (!(error instanceof PeerFailed)) throw error
      configuration.refused = error.message
    }
  }

  get #best() {
    return this.#plan.isas.at(-1)
  }

  #measured() {
    return this.#configurations(({ pairs }) => pairs.length > 0)
  }

  #configurations(condition) {
    return this.state.configurations.filter(condition)
  }

  #file({ form }) {
    const name = fileName(form)
    if (!this.#files.has(name)) {
      mkdirSync(SCRATCH, { recursive: true })
      const path = join(SCRATCH, name)
      this.#files.set(name, path)
      makeRandomGguf(path, form)
    }
    return this.#files.get(name)
  }

  /** 10^9 bytes a second on as many threads as decode, which decoding is compared with in this round. */
  #measureMemory(round) {
    const { memory, threads, prefix } = this.#plan
    if (!memory) return
    const most = Math.max(...threads)
    this.state.memory.push({ round, threads: most, ...measure(own('measure-memory.mjs'), { threads: most }, prefix) })
  }

  /** The peer and this engine one after the other; which of them begins alternates. */
  #pair(configuration, round) {
    const path = this.#file(configuration)
    const pair = { round, peer: undefined, ours: {} }
    const steps = [() => this.#measurePeer(path, configuration, pair), () => this.#measureOurs(configuration, pair)]
    const started = performance.now()
    for (const step of round % 2 === 1 ? steps : steps.reverse()) step()
    pair.seconds = (performance.now() - started) / 1000
    this.#addShares(configuration, pair)
    configuration.pairs.push(pair)
    this.#told(configuration, pair)
  }

  #measurePeer(path, { engine, threads, repack }, pair) {
    const { work, prefix } = this.#plan
    const argument = { engine, path, threads, repack, ...work }
    const { prefill, decode, ...about } = measure(ENGINES[engine].command, argument, prefix, PeerFailed)
    pair.peer = { prefill, decode }
    this.state.peers[engine] ??= about
  }

  #measureOurs({ threads }, pair) {
    const { shape, type, reference, isas, ownThreads, sameThreads, work, prefix } = this.#plan
    const speeds = (isa, ofType) => {
      const argument = { shape, type: ofType, isa, threads: sameThreads ? threads : ownThreads, ...work }
      const { isa: had, prefill, decode } = measure(own('measure-onebit.mjs'), argument, prefix)
      const { runs } = addon()
        .info()
        .isas.find(({ name }) => name === isa)
      if (had !== runs) throw new Error(`asked for ${isa}, got ${had}`)
      return { prefill, decode }
    }
    for (const isa of isas) pair.ours[isa] = speeds(isa, type)
    if (reference) pair.reference = Object.fromEntries(isas.map((isa) => [isa, speeds(isa, reference)]))
  }

  /** What both read of their weights in a second of decoding, as shares of the memory's read speed in this round. */
  #addShares({ form }, pair) {
    const memory = this.state.memory.find(({ round }) => round === pair.round)
    if (!memory) return
    const share = (bytes, { decode }) => (bytes * decode) / (memory.gbps * 1e9)
    const bytes = decodeWeightBytes(shapeConfig(this.#plan.shape, this.#plan.type))
    const ours = Object.entries(pair.ours).map(([isa, speeds]) => [isa, share(bytes, speeds)])
    pair.shares = { peer: share(decodeBytes(form), pair.peer), ours: Object.fromEntries(ours) }
  }

  /** The type nearest to 1 bit has a row of its own: of it, only what is hopeless beside itself. */
  #giveUpTheHopeless() {
    for (const one of this.alive()) {
      const hopeless = () => isHopeless(one, this.#rivals(one), this.#best)
      if (!hopeless()) continue
      if (one.pairs.length === 1) this.#pair(one, 1)
      if (hopeless()) one.dropped = sharesOfFastest(one, this.#measured(), this.#best)
    }
    this.#removeFilesOfTheDead()
  }

  #rivals(one) {
    const smallest = withFewestBits(this.#configurations(({ refused }) => !refused))
    return smallest.includes(one) ? smallest.filter(({ pairs }) => pairs.length > 0) : this.#measured()
  }

  /** A file serves all configurations that are measured with it, also those whose turn is still to come. */
  #removeFilesOfTheDead() {
    const wanted = this.#configurations(({ dropped, refused }) => !dropped && !refused)
    const names = new Set(wanted.map(({ form }) => fileName(form)))
    for (const [name, path] of this.#files) {
      if (names.has(name)) continue
      rmSync(path, { force: true })
      this.#files.delete(name)
    }
  }
}
