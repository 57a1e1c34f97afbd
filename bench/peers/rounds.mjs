// The rounds of one shape: each configuration of the peer in turn, and this engine right beside it, every measurement in
// a process of its own.
import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isHopeless, sharesOfFastest, withFewestBits } from './comparison.mjs'
import { ROOT, SCRATCH } from './llama-cpp.mjs'
import { bitsPerWeight, makeRandomGguf } from './random-gguf.mjs'

const HERE = dirname(fileURLToPath(import.meta.url))
/** For what hangs: the slowest measurement that ends takes some minutes. */
const PATIENCE_MS = 3_600_000

/** One measurement in a process of its own; what the process printed, or an error with its last words. */
function measure(script, argument, prefix, Failed = Error) {
  const argv = [...prefix, process.execPath, join(HERE, script), JSON.stringify(argument)]
  const options = { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }
  const limits = { timeout: PATIENCE_MS, killSignal: 'SIGKILL' }
  const { status, signal, error, stdout, stderr } = spawnSync(argv[0], argv.slice(1), { ...options, ...limits })
  if (status === 0) return JSON.parse(stdout)
  if (signal === 'SIGINT' || signal === 'SIGTERM') throw new Error(`interrupted by ${signal}`)
  const words = error?.message ?? /^.*Error: .*$/m.exec(stderr)?.[0] ?? stderr.trim().split('\n').at(-1)
  throw new Failed(`${script} ended with ${signal ?? `exit status ${status}`}: ${words}`)
}

/** The peer refused a file, or crashed. */
class PeerFailed extends Error {}

export class ShapeRounds {
  #plan
  #told
  #files = new Map()

  /**
   * @param plan { shape, types, misfits, threads, isas, ownThreads, rounds, work: { prompt, warm, tokens }, prefix }:
   *   `isas` of this engine, the best one last; `prefix`, a command to put before each measurement
   * @param told called with each pair and its configuration
   */
  constructor(plan, told) {
    this.#plan = plan
    this.#told = told
    const { shape, work, misfits, types, threads } = plan
    const each = types.flatMap((type) =>
      threads.map((n) => ({ type, bits: bitsPerWeight(type), threads: n, pairs: [] })),
    )
    this.state = { shape, work, misfits, configurations: each }
  }

  run() {
    try {
      this.#first()
      for (let round = 2; round <= this.#plan.rounds; round++) {
        for (const configuration of this.alive()) this.#pair(configuration, round)
      }
    } finally {
      for (const path of this.#files.values()) rmSync(path, { force: true })
    }
  }

  /** Configurations that were measured and not given up. */
  alive() {
    return this.#configurations(({ pairs, dropped }) => pairs.length > 0 && !dropped)
  }

  /** Type by type, so that the file of one that is given up is gone before the next is written. */
  #first() {
    for (const type of this.#plan.types) {
      for (const configuration of this.#configurations((one) => one.type === type)) this.#try(configuration)
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

  #file(type) {
    if (!this.#files.has(type)) {
      mkdirSync(SCRATCH, { recursive: true })
      const path = join(SCRATCH, `${this.#plan.shape}.${type}.gguf`)
      this.#files.set(type, path)
      makeRandomGguf(path, this.#plan.shape, type)
    }
    return this.#files.get(type)
  }

  /** The peer and this engine one after the other; which of them begins alternates. */
  #pair(configuration, round) {
    const path = this.#file(configuration.type)
    const pair = { round, peer: undefined, ours: {} }
    const steps = [() => this.#measurePeer(path, configuration, pair), () => this.#measureOurs(pair)]
    const started = performance.now()
    for (const step of round % 2 === 1 ? steps : steps.reverse()) step()
    pair.seconds = (performance.now() - started) / 1000
    configuration.pairs.push(pair)
    this.#told(configuration, pair)
  }

  #measurePeer(path, { threads }, pair) {
    const { work, prefix } = this.#plan
    const { prefill, decode, ...about } = measure('measure-peer.mjs', { path, threads, ...work }, prefix, PeerFailed)
    pair.peer = { prefill, decode }
    this.state.peer ??= about
  }

  #measureOurs(pair) {
    const { shape, isas, ownThreads, work, prefix } = this.#plan
    for (const wanted of isas) {
      const argument = { shape, isa: wanted, threads: ownThreads, ...work }
      const { isa, prefill, decode } = measure('measure-onebit.mjs', argument, prefix)
      if (isa !== wanted) throw new Error(`asked for ${wanted}, got ${isa}`)
      pair.ours[isa] = { prefill, decode }
    }
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

  #removeFilesOfTheDead() {
    const alive = new Set(this.alive().map(({ type }) => type))
    for (const [type, path] of this.#files) {
      if (alive.has(type)) continue
      rmSync(path, { force: true })
      this.#files.delete(type)
    }
  }
}
