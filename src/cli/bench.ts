import { FORMATS, type Format, rowFormat } from '../bench/formats.js'
import type { ModelSource } from '../bench/jobs.js'
import { writeReport } from '../bench/report.js'
import { defaultThreads, runTable, type TablePlan } from '../bench/run-table.js'
import { parseWeightType, SHAPE_NAMES } from '../bench/shapes.js'
import { MOST_UBATCH, parseIntegers, parsePair, testMatrix } from '../bench/test-matrix.js'
import { badOption } from '../errors.js'
import { ACTIVATIONS } from '../run/model-options.js'
import { KV_TYPES, type KvType } from '../run/session.js'
import { type Command, type OptionValues, UsageError } from './arguments.js'
import { modelFile } from './model-file.js'

const MOST_TOKENS = 1 << 22

export const benchCommand: Command = {
  name: 'bench',
  summary: 'Measure speed as llama-bench does, and how far it is from what this machine can do.',
  usage: 'bench [MODEL …] [--shape S --type T] [-p N -n N -pg P,G -d N -t N -r N -o md|json|jsonl|csv] [--report DIR]',
  positionals: { min: 0, max: 64 },
  aliases: {
    '-pg': '--pg',
    '-ub': '--ubatch-size',
    '-ctk': '--cache-type-k',
    '-ctv': '--cache-type-v',
    '-np': '--parallel',
  },
  options: {
    model: {
      type: 'string',
      short: 'm',
      value: 'FILE',
      multiple: true,
      help: 'a .obt or GGUF file, or a folder; may also be given without -m',
    },
    shape: { type: 'string', value: 'S,…', help: `random weights in a known shape: ${SHAPE_NAMES.join(', ')}` },
    type: {
      type: 'string',
      value: 'T,…',
      help: 'their type: onebit (default), column, chain:B (B bits), q1_0, ternary, q8, f16',
    },
    'n-prompt': { type: 'string', short: 'p', value: 'N,…', multiple: true, help: 'tokens of a prompt (default 512)' },
    'n-gen': { type: 'string', short: 'n', value: 'N,…', multiple: true, help: 'tokens to decode (default 128)' },
    pg: {
      type: 'string',
      value: 'P,G',
      multiple: true,
      help: 'a prompt and what is decoded after it, timed as one (also -pg)',
    },
    'n-depth': {
      type: 'string',
      short: 'd',
      value: 'N,…',
      multiple: true,
      help: 'tokens in the cache before (default 0)',
    },
    threads: { type: 'string', short: 't', value: 'N,…', help: 'threads that compute (default: physical cores)' },
    'batch-size': { type: 'string', short: 'b', value: 'N,…', help: 'prompt tokens given to one call (default 2048)' },
    'ubatch-size': {
      type: 'string',
      value: 'N,…',
      help: `tokens computed in one pass over the weights, at most ${MOST_UBATCH}; 0: as many as take 100 ms (default; also -ub)`,
    },
    parallel: {
      type: 'string',
      value: 'N,…',
      help: 'sessions that go through each step together (default 1; also -np)',
    },
    'cache-type-k': {
      type: 'string',
      value: KV_TYPES.join('|'),
      help: 'numbers in the KV cache (default f16; also -ctk)',
    },
    'cache-type-v': { type: 'string', value: KV_TYPES.join('|'), help: 'the same as for K (also -ctv)' },
    activations: {
      type: 'string',
      value: 'int8,int4,f32',
      help: 'round activations to int8 (default) or int4, or keep floats',
    },
    isa: { type: 'string', value: 'I,…', help: 'instruction sets (default: ONEBIT_ISA, or the best there is)' },
    repetitions: { type: 'integer', short: 'r', min: 1, max: 1000, help: 'how often each test is timed (default 5)' },
    output: { type: 'string', short: 'o', choices: FORMATS, help: 'default md' },
    'no-warmup': { type: 'boolean', help: 'time from the first run on' },
    'no-peaks': { type: 'boolean', help: "leave this machine's limits unmeasured (saves some seconds)" },
    'no-first-token': { type: 'boolean', help: 'leave the times to the first token unmeasured' },
    report: {
      type: 'string',
      value: 'DIR',
      help: 'write a report with charts: report.html, report.md and report.json',
    },
    budget: { type: 'number', min: 0.05, max: 600, help: 'minutes that a report may take (default 12)' },
  },
  notes: [
    'Lists (512,1024) and ranges (1-8, 64-256+64, 1-8*2) are read as llama-bench reads them, and JSON rows have its keys; ours follow: isa, weight_bytes, gbps, dram_gbps, dram_pct and so on. t/s is mean ± standard deviation; the GB/s and shares come from the median.',
    'For exact figures leave the machine alone and run node itself: node node_modules/onebit-run/dist/cli/onebit.js bench …',
    'A report without a model measures random ones of several shapes and types; -p, -n and the other lists do not apply to it, and what does not fit into memory or time is left out by name.',
  ],
  check(values, positionals) {
    const sources = sourcesOf(values, positionals)
    if (values.report !== undefined) return refuseLists(values)
    if (values.budget !== undefined) throw new UsageError('--budget belongs to --report.')
    if (sources.length === 0) throw new UsageError('Name a MODEL, or a --shape.', 'See `onebit bench --help`.')
    tablePlan(values, sources)
  },
  async run(values, positionals) {
    const sources: ModelSource[] = []
    for (const source of sourcesOf(values, positionals)) {
      sources.push('file' in source ? { file: await modelFile(source.file) } : source)
    }
    if (values.report === undefined) {
      return table(tablePlan(values, sources), (values.output as Format | undefined) ?? 'md')
    }
    await writeReport(values.report as string, {
      sources,
      minutes: (values.budget as number | undefined) ?? 12,
      repetitions: (values.repetitions as number | undefined) ?? 5,
      command: repeatable(values, sources),
      progress: note,
    })
    return 0
  },
}

/** Which of the tests' options are meaningless with --report. */
function refuseLists(values: OptionValues): void {
  const allowed = ['report', 'budget', 'repetitions', 'model', 'shape', 'type']
  const other = Object.keys(values).find((name) => !allowed.includes(name))
  if (other !== undefined) throw badOption(other, 'does not apply to --report, which chooses its own tests.')
}

/** The command that makes the same report again, spelt out. */
function repeatable(values: OptionValues, sources: readonly ModelSource[]): string {
  const quoted = (text: string) => (/^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`)
  const files = sources.flatMap((source) => ('file' in source ? [source.file] : []))
  const named = (['shape', 'type', 'repetitions', 'budget'] as const).flatMap((name) =>
    values[name] === undefined ? [] : [`--${name}`, String(values[name])],
  )
  const isa = process.env.ONEBIT_ISA ? `ONEBIT_ISA=${process.env.ONEBIT_ISA} ` : ''
  const words = [...files, ...named, '--report', String(values.report)].map(quoted)
  return `${isa}node node_modules/onebit-run/dist/cli/onebit.js bench ${words.join(' ')}`
}

function note(text: string): void {
  process.stderr.write(`${text}\n`)
}

function strings(values: OptionValues, name: string): string[] {
  const value = values[name]
  if (value === undefined) return []
  return (Array.isArray(value) ? value : [value]).flatMap((text) => String(text).split(',')).map((text) => text.trim())
}

function sourcesOf(values: OptionValues, positionals: string[]): ModelSource[] {
  const files = [...((values.model as string[] | undefined) ?? []), ...positionals]
  const shapes = strings(values, 'shape')
  if (values.type !== undefined && shapes.length === 0) throw new UsageError('--type belongs to --shape.')
  checkKnown('shape', shapes, SHAPE_NAMES)
  const types = values.type === undefined ? ['onebit'] : strings(values, 'type')
  for (const type of types) parseWeightType(type)
  return [...files.map((file) => ({ file })), ...shapes.flatMap((shape) => types.map((type) => ({ shape, type })))]
}

function checkKnown(name: string, given: readonly string[], known: readonly string[]): void {
  const unknown = given.find((text) => !known.includes(text))
  if (unknown !== undefined) throw badOption(name, `${JSON.stringify(unknown)} is not one of ${known.join(', ')}.`)
}

function integers(values: OptionValues, name: string, min: number, max: number, otherwise: number[]): number[] {
  const value = values[name]
  if (value === undefined) return otherwise
  return (Array.isArray(value) ? value : [value]).flatMap((text) => parseIntegers(name, String(text), min, max))
}

function choices<T extends string>(values: OptionValues, name: string, known: readonly T[]): T[] {
  const given = strings(values, name)
  checkKnown(name, given, known)
  return given as T[]
}

function cacheTypes(values: OptionValues): KvType[] {
  const k = choices(values, 'cache-type-k', KV_TYPES)
  const v = choices(values, 'cache-type-v', KV_TYPES)
  if (k.length > 0 && v.length > 0 && k.join() !== v.join()) {
    throw badOption('cache-type-v', 'K and V have the same type here; give the same list as for K.')
  }
  return k.length > 0 ? k : v.length > 0 ? v : ['f16']
}

function pairs(values: OptionValues): [number, number][] {
  return ((values.pg as string[] | undefined) ?? []).map((text) => parsePair('pg', text))
}

function tablePlan(values: OptionValues, sources: ModelSource[]): TablePlan {
  const tests = testMatrix({
    prompts: integers(values, 'n-prompt', 0, MOST_TOKENS, [512]),
    gens: integers(values, 'n-gen', 0, MOST_TOKENS, [128]),
    pairs: pairs(values),
    depths: integers(values, 'n-depth', 0, MOST_TOKENS, [0]),
    batches: integers(values, 'batch-size', 1, MOST_TOKENS, [2048]),
    ubatches: integers(values, 'ubatch-size', 0, MOST_UBATCH, [0]),
    parallels: integers(values, 'parallel', 1, 256, [1]),
    kvs: cacheTypes(values),
  })
  if (tests.length === 0) throw new UsageError('There is nothing to measure: -p and -n are both 0.')
  const activations = choices(values, 'activations', ACTIVATIONS)
  const isas = strings(values, 'isa')
  return {
    sources,
    threads: integers(values, 'threads', 1, 256, [defaultThreads()]),
    isas: isas.length > 0 ? isas : [process.env.ONEBIT_ISA ?? ''],
    activations: activations.length > 0 ? activations : ['int8'],
    tests,
    repetitions: (values.repetitions as number | undefined) ?? 5,
    warmup: values['no-warmup'] !== true,
    firstToken: values['no-first-token'] !== true,
    peaks: values['no-peaks'] !== true,
  }
}

const unique = (values: readonly unknown[]) => new Set(values).size

async function table(plan: TablePlan, format: Format): Promise<number> {
  const varied = (['n_batch', 'n_ubatch'] as const).filter((key) => unique(plan.tests.map((test) => test[key])) > 1)
  const kvs = unique(plan.tests.map(({ kv }) => kv)) > 1 ? (['type_k'] as const) : []
  const output = rowFormat(format, [...varied, ...kvs])
  let rows = 0
  const say = process.stderr.isTTY ? note : () => {}
  const print = (text: string) => process.stdout.write(text)
  await runTable(plan, {
    row(row) {
      if (rows++ === 0) print(output.begin())
      print(output.row(row))
    },
    skip: (what, why) => note(`skipped: ${what}: ${why}`),
    progress: say,
  })
  if (rows > 0) print(output.end())
  return rows > 0 ? 0 : 1
}
