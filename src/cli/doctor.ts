import { cpus, freemem, totalmem } from 'node:os'
import { Model } from '../index.js'
import { addon } from '../native/addon.js'
import type { Command } from './arguments.js'
import { formatBytes } from './format.js'
import { modelFile } from './model-file.js'

const STATES = {
  usable: 'usable',
  not_present: 'this CPU lacks it',
  not_built: 'for another processor family or system',
} as const

const WRONG_TILES = 'WRONG: they do not multiply as plain arithmetic does; please report this machine'

export const doctorCommand: Command = {
  name: 'doctor',
  summary: 'Check this machine (CPU, paths, threads, addon) and, if named, a model on every path.',
  usage: 'doctor [MODEL] [--json]',
  positionals: { min: 0, max: 1 },
  options: { json: { type: 'boolean', help: 'print JSON' } },
  notes: [
    'With a model: every checksum is compared, and each usable path must give the same bytes of logits for a short text as the scalar one. Exit status 1 when something is wrong.',
  ],
  async run(values, [path]) {
    const machine = {
      node: process.version,
      platform: `${process.platform}-${process.arch}`,
      cpu: cpus()[0]?.model.trim() ?? 'unknown',
      logical_cpus: cpus().length,
      memory_bytes: totalmem(),
      free_memory_bytes: freemem(),
    }
    const say = (line: string) => {
      if (!values.json) console.log(line)
    }
    say(`node        ${machine.node} on ${machine.platform}`)
    say(`cpu         ${machine.cpu}, ${machine.logical_cpus} logical`)
    say(`memory      ${formatBytes(machine.free_memory_bytes)} free of ${formatBytes(machine.memory_bytes)}`)
    const native = addon().info() // its error ends the list: nothing more can be found out without it
    say(`addon       loads; built with ${native.compiler}`)
    say(`threads     ${native.default_threads} compute by default`)
    const tiles = addon().checkTiles()
    const checks = path === undefined ? [] : await checkModel(await modelFile(path), native.isas)
    const healthy = native.chosen !== null && tiles !== false && checks.every(({ ok }) => ok)
    if (values.json) {
      console.log(JSON.stringify({ ...machine, ...native, tiles, checks, healthy }, null, 2))
      return healthy ? 0 : 1
    }
    for (const { name, state, runs } of native.isas) {
      const as = runs === undefined || runs === name ? '' : `, as ${runs}`
      console.log(`path        ${name.padEnd(11)} ${STATES[state]}${as}`)
    }
    if (tiles !== null) console.log(`tiles       ${tiles ? 'multiply as plain arithmetic does' : WRONG_TILES}`)
    console.log(`chosen      ${native.chosen ?? `none: ${native.why}`}`)
    for (const { path, ok, detail } of checks)
      console.log(`model       ${path.padEnd(11)} ${ok ? 'ok' : 'WRONG'}: ${detail}`)
    console.log(healthy ? 'All is well.' : 'Something is wrong; see above.')
    return healthy ? 0 : 1
  },
}

interface ModelCheck {
  path: string
  ok: boolean
  detail: string
}

/** Loads the model on each usable path in turn and compares the bytes of its logits with the scalar path's. */
async function checkModel(path: string, isas: { name: string; state: string }[]): Promise<ModelCheck[]> {
  const checks: ModelCheck[] = []
  let expected: Buffer | undefined
  for (const { name } of isas.filter(({ state }) => state === 'usable')) {
    const model = await Model.load(path, { isa: name, context: 32 })
    try {
      const count = Math.min(16, model.config.vocab_size)
      const ids = Int32Array.from({ length: count }, (_, i) => (i * 7919) % model.config.vocab_size)
      const started = performance.now()
      const { data } = await model.createSession().logits(ids, { all: true })
      const ms = performance.now() - started
      const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
      expected ??= bytes
      const same = bytes.equals(expected)
      const detail = same
        ? `checksums match, logits of ${count} positions are the same bytes as on ${isas[0]?.name} (${ms.toFixed(0)} ms)`
        : `its logits differ from those of ${isas[0]?.name}; please report this machine`
      checks.push({ path: name, ok: same, detail })
    } finally {
      await model.dispose()
    }
  }
  return checks
}
