/** `onebit bench`, run once and tiny in every format: that it works and says what it must, not how fast anything is. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { Batch } from '../dist/batch/batch.js'
import { speedUps } from '../dist/bench/bar-charts.js'
import { growthCharts } from '../dist/bench/growth-charts.js'
import { createLanes } from '../dist/bench/lanes.js'
import { type Report, typeSeries } from '../dist/bench/report-data.js'
import { reportHtml } from '../dist/bench/report-html.js'
import { findings, servingTable, warning } from '../dist/bench/report-words.js'
import { rooflines } from '../dist/bench/roofline.js'
import type { BenchRow } from '../dist/bench/rows.js'
import { ServingMeasurement } from '../dist/bench/serving.js'
import { servingCharts } from '../dist/bench/serving-charts.js'
import { median, quantile, standardDeviation } from '../dist/bench/statistics.js'
import { type Box, escapeXml, overlap, placeLabels, short } from '../dist/bench/svg.js'
import { type BenchTest, parseIntegers, testMatrix, testName } from '../dist/bench/test-matrix.js'
import { weightWork } from '../dist/bench/work.js'
import { withDefaults } from '../dist/config/fields.js'
import { Model } from '../dist/run/model.js'
import { Session } from '../dist/run/session.js'
import { PROJECT } from './data.js'
import { codeOf } from './expect-code.js'
import { temporaryFolder, tinyConfig, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const MODEL = folder.path('tiny.obt')
const BARE = folder.path('bare.obt')

beforeAll(async () => {
  await writeTinyModel(MODEL)
  await writeTinyModel(BARE, { tokenizer: false, chat: false, kind: 'q8' })
})
afterAll(() => folder.remove())

function bench(...args: string[]) {
  const argv = [join(PROJECT, 'dist', 'cli', 'onebit.js'), 'bench', ...args]
  const env = { ...process.env, ONEBIT_ISA: '' }
  return spawnSync(process.execPath, argv, { encoding: 'utf8', env, maxBuffer: 1 << 26 })
}

const QUICK = ['-r', '2', '-p', '24', '-n', '4', '--no-peaks', '--no-first-token']

/** llama-bench's keys in its order, then ours. */
const LLAMA_BENCH_KEYS = (
  'build_commit build_number cpu_info gpu_info backends model_filename model_type model_size model_n_params n_batch ' +
  'n_ubatch n_threads type_k type_v n_prompt n_gen n_depth test_time avg_ns stddev_ns avg_ts stddev_ts samples_ns samples_ts'
).split(' ')
const OUR_KEYS =
  'isa weight_bytes gbps dram_gbps dram_pct int8_peak_gmacs int8_pct lookup_peak_gws lookup_pct ttft_cold_ms ttft_ms rss_mb'.split(
    ' ',
  )

describe('the table', () => {
  it('has llama-bench’s keys and ours in JSON, with figures that agree with each other', () => {
    const { status, stdout, stderr } = bench(
      MODEL,
      '-p',
      '24',
      '-n',
      '4',
      '-pg',
      '8,2',
      '-r',
      '3',
      '-t',
      '2',
      '-o',
      'json',
    )
    expect(stderr).toBe('')
    expect(status).toBe(0)
    const rows = JSON.parse(stdout) as BenchRow[]
    expect(rows.map(testName)).toEqual(['pp24', 'tg4', 'pp8+tg2'])
    for (const row of rows) {
      expect(Object.keys(row).slice(0, LLAMA_BENCH_KEYS.length)).toEqual(LLAMA_BENCH_KEYS)
      expect(Object.keys(row).slice(LLAMA_BENCH_KEYS.length, LLAMA_BENCH_KEYS.length + OUR_KEYS.length)).toEqual(
        OUR_KEYS,
      )
      expect(row.samples_ns).toHaveLength(3)
      const tokens = row.n_prompt + row.n_gen
      for (const [i, ns] of row.samples_ns.entries()) expect(row.samples_ts[i]).toBeCloseTo((tokens * 1e9) / ns, 6)
      expect(row.avg_ts).toBeCloseTo(row.samples_ts.reduce((sum, value) => sum + value, 0) / 3, 6)
      expect(row.stddev_ts).toBeCloseTo(standardDeviation(row.samples_ts), 6)
      expect(row.median_ts).toBeCloseTo(median(row.samples_ts), 6)
      expect(row.model_type).toMatch(/^llama .*M onebit$/)
      expect(row.n_threads).toBe(2)
      for (const key of [
        'dram_gbps',
        'int8_peak_gmacs',
        'lookup_peak_gws',
        'ttft_cold_ms',
        'ttft_ms',
        'rss_mb',
      ] as const)
        expect(row[key]).toBeGreaterThan(0)
    }
    // Starting a process and loading the model comes on top of what a loaded model needs.
    expect(rows.some((row) => row.ttft_cold_ms! > row.ttft_ms!)).toBe(true)
    const [prefill, decode] = rows as [BenchRow, BenchRow]
    expect(prefill.gbps).toBeNull() // how many tokens share a pass was the engine's choice
    const { weightBytes, linearWeights, headWeights } = weightWork(withDefaults(tinyConfig()))
    expect(decode.weight_bytes).toBe(weightBytes)
    expect(decode.gbps).toBeCloseTo((decode.median_ts * weightBytes) / 1e9, 6)
    expect(decode.dram_pct).toBeCloseTo((100 * decode.gbps!) / decode.dram_gbps!, 6)
    expect(decode.gws).toBeCloseTo((decode.median_ts * (linearWeights + headWeights)) / 1e9, 6)
    expect(decode.lookup_pct).toBeCloseTo((100 * decode.gws) / decode.lookup_peak_gws!, 6)
  })

  it('says the same in JSON lines, CSV and Markdown', () => {
    const lines = bench(MODEL, ...QUICK, '-o', 'jsonl')
    const rows = lines.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as BenchRow)
    expect(rows.map(testName)).toEqual(['pp24', 'tg4'])
    expect(rows[0]!.dram_gbps).toBeNull()
    expect(rows[0]!.ttft_ms).toBeNull()

    const csv = bench(MODEL, ...QUICK, '-o', 'csv')
      .stdout.trim()
      .split('\n')
    expect(csv).toHaveLength(3)
    const keys = csv[0]!.split(',')
    expect(keys).toEqual(Object.keys(rows[0]!).filter((key) => !key.startsWith('samples_')))
    const fields = csv[2]!.slice(1, -1).split('","')
    expect(fields).toHaveLength(keys.length)
    expect(fields[keys.indexOf('n_gen')]).toBe('4')

    const md = bench(MODEL, ...QUICK, '-ub', '0,8', '-o', 'md').stdout.split('\n')
    const cells = (line: string) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim())
    expect(cells(md[0]!).slice(0, 5)).toEqual(['model', 'size', 'params', 'backend', 'threads'])
    expect(cells(md[0]!)).toContain('n_ubatch')
    expect(cells(md[2]!)).toHaveLength(cells(md[0]!).length)
    expect(md.filter((line) => /\| +pp24 +\| +[\d.]+ ± [\d.]+ \|/.test(line))).toHaveLength(2)
    expect(md.join('\n')).toContain('peak memory')
  })

  it('combines lists of threads, depths, sessions, activations and models', () => {
    const { stdout, status } = bench(
      ...[MODEL, '-m', BARE, '-p', '0', '-n', '3', '-d', '0,16', '-t', '1-2', '-np', '1,3', '-r', '1'],
      ...[
        '--activations',
        'int8,f32',
        '--isa',
        'scalar',
        '--no-peaks',
        '--no-first-token',
        '-ctk',
        'f32',
        '-o',
        'jsonl',
      ],
    )
    expect(status).toBe(0)
    const rows = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as BenchRow)
    expect(rows).toHaveLength(2 * 2 * 2 * 2 * 2)
    const keys = rows.map((row) =>
      [row.model_filename, row.n_threads, row.n_depth, row.n_parallel, row.activations].join(),
    )
    expect(new Set(keys).size).toBe(rows.length)
    for (const row of rows) {
      expect([row.isa, row.type_k, row.type_v]).toEqual(['scalar', 'f32', 'f32'])
      expect(row.samples_ts[0]).toBeCloseTo((row.n_parallel * 3e9) / row.samples_ns[0]!, 6)
    }
  })

  it('measures shapes without a file, and skips by name what does not fit', () => {
    const shape = [
      '--shape',
      'smollm2-135m',
      '-p',
      '8',
      '-n',
      '1',
      '-r',
      '1',
      '--no-peaks',
      '--no-first-token',
      '-o',
      'jsonl',
    ]
    const { status, stdout, stderr } = bench(...shape, '--type', 'onebit,q1_0')
    expect(status).toBe(0)
    const rows = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as BenchRow)
    expect(rows.map(({ model_type }) => model_type)).toEqual(['smollm2-135m onebit', 'smollm2-135m onebit'])
    expect(stderr).toMatch(/skipped: smollm2-135m q1_0: .*576 columns/)
    const alone = bench(...shape, '--type', 'q1_0')
    expect(alone.status).toBe(1)
    expect(alone.stderr).toContain('ERR_SHAPE')
  })
})

describe('bad command lines', () => {
  it.each([
    [[], 'Name a MODEL, or'],
    [[MODEL, '-p', '5x'], 'whole number or a range'],
    [[MODEL, '-p', '9-3'], 'whole number or a range'],
    [[MODEL, '-pg', '512'], 'pair'],
    [[MODEL, '-p', '0', '-n', '0'], 'nothing to measure'],
    [[MODEL, '-ub', '257'], 'not from 0 to 256'],
    [[MODEL, '-t', '0'], 'not from 1 to 256'],
    [[MODEL, '-o', 'xml'], 'not one of md, json'],
    [[MODEL, '-ctk', 'f16', '-ctv', 'f32'], 'same type'],
    [[MODEL, '--type', 'onebit'], '--type belongs to --shape'],
    [['--shape', 'llama-8b'], 'not one of'],
    [['--shape', 'llama-7b', '--type', 'q9'], 'onebit'],
    [[MODEL, '--report', 'x', '-p', '5'], 'does not apply to --report'],
    [[MODEL, '--budget', '3'], 'belongs to --report'],
    [[MODEL, '--activations', 'int3'], 'not one of int8, f32'],
  ])('%j', (args, message) => {
    const { status, stderr, stdout } = bench(...args)
    expect(stderr).toContain(message)
    expect(status).toBe(2)
    expect(stdout).toBe('')
  })

  it('a missing file, a file that is no model, and a context that is too short end with status 1', () => {
    const missing = bench(folder.path('none.obt'))
    expect([missing.status, missing.stdout]).toEqual([1, ''])
    expect(missing.stderr).toContain('ERR_FILE_NOT_FOUND')
    writeFileSync(folder.path('text.obt'), 'not a model at all')
    expect(bench(folder.path('text.obt')).stderr).toContain('ERR_NOT_OBT')
    const long = bench(MODEL, '-p', '5000', '-n', '0', '--no-peaks', '--no-first-token')
    expect(long.status).toBe(1)
    expect(long.stderr).toContain('256 positions of the model')
    expect(bench(MODEL, ...QUICK, '--isa', 'vax').stderr).toContain('ERR_ISA')
  })
})

describe('lists and statistics', () => {
  it('reads ranges as llama-bench does', () => {
    expect(parseIntegers('p', '1,5-7', 0, 99)).toEqual([1, 5, 6, 7])
    expect(parseIntegers('p', '10-50+20', 0, 99)).toEqual([10, 30, 50])
    expect(parseIntegers('p', '1-20*3', 0, 99)).toEqual([1, 3, 9])
  })

  it.each(['', '1,', 'a', '1-', '-1', '1.5', '5-1', '1-9*1', '0-8*2', '1-9+0', '1e3', '0-99999999'])(
    'refuses %j',
    async (text) => {
      expect(await codeOf(() => parseIntegers('p', text, 0, 1e9))).toBe('ERR_BAD_OPTION')
    },
  )

  it('puts prompts first and leaves out what computes nothing', () => {
    const axes = { depths: [0, 9], batches: [2048], ubatches: [0], parallels: [1], kvs: ['f16' as const] }
    const tests = testMatrix({ ...axes, prompts: [0, 5], gens: [0, 3], pairs: [[4, 2]] })
    expect(tests.map(testName)).toEqual(['pp5', 'tg3', 'pp4+tg2', 'pp5 @ d9', 'tg3 @ d9', 'pp4+tg2 @ d9'])
  })

  it('gives median and sample deviation', () => {
    expect([median([3, 1, 2]), median([4, 1, 3, 2])]).toEqual([2, 2.5])
    expect(standardDeviation([2, 4, 4, 4, 5, 5, 7, 9])).toBeCloseTo(2.138, 3)
    expect(standardDeviation([5])).toBe(0)
    const hundred = Array.from({ length: 100 }, (_, i) => 100 - i)
    expect([quantile(hundred, 0.99), quantile(hundred, 0.5), quantile(hundred, 0), quantile([7], 0.99)]).toEqual([
      99, 50, 1, 7,
    ])
  })

  it('puts labels where they cover neither each other nor what is there', () => {
    const bounds: Box = { x: 0, y: 0, width: 600, height: 400 }
    const marks = Array.from(
      { length: 12 },
      (_, i): Box => ({ x: 200 + 11 * i, y: 150 + 5 * i, width: 14, height: 14 }),
    )
    const taken = [...marks]
    const requests = marks.map(({ x, y }, i) => ({ x: x + 7, y: y + 7, text: `label ${i}` }))
    placeLabels(requests, taken, bounds)
    const labels = taken.slice(marks.length)
    expect(labels).toHaveLength(12)
    for (const [i, label] of labels.entries()) {
      for (const other of [...marks, ...labels.slice(0, i)]) expect(overlap(label, other)).toBe(0)
      expect(overlap(label, bounds)).toBeCloseTo(label.width * label.height, 6)
    }
  })
})

describe('npm run bench', () => {
  it('times kernels and the ways to a token', () => {
    const script = join(PROJECT, 'bench', 'micro', 'run.mjs')
    const argv = [script, '--isa', 'scalar', '--time', '1', '--json', 'crc32c', 'table_build', 'decode']
    const { status, stdout } = spawnSync(process.execPath, argv, { encoding: 'utf8' })
    expect(status).toBe(0)
    const rows = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    const names = ['table_build', 'crc32c', 'decode-native', 'decode-greedy', 'decode-sampled']
    expect(rows.map(({ name }) => name)).toEqual(names)
    for (const { isa, speed, ns } of rows) {
      expect(isa).toBe('scalar')
      expect(speed).toBeGreaterThan(0)
      expect(ns).toBeGreaterThan(0)
    }
    expect(spawnSync(process.execPath, [script, '--isa', 'vax']).status).toBe(2)
  })
})

describe('a token that is measured', () => {
  it('takes a step of its own: what random weights repeat is not guessed', async () => {
    const sessions = vi.spyOn(Session.prototype, 'generate')
    const batches = vi.spyOn(Batch.prototype, 'generate')
    const model = await Model.load(MODEL)
    try {
      const lanes = createLanes(model, { n_parallel: 1, kv: 'f16' } as BenchTest, 32)
      await lanes.decode(8)
      lanes.dispose()
      const test = { n_sessions: 2, n_prompt: 4, n_gen: 8 }
      await new ServingMeasurement(model, { ...test, repetitions: 1 } as never).run(test)
      const asked = [...sessions.mock.calls, ...batches.mock.calls].map(([, options]) => options!.speculate)
      expect(asked.length).toBeGreaterThanOrEqual(1 + 2 * 2)
      expect(new Set(asked)).toEqual(new Set(['off']))
    } finally {
      vi.restoreAllMocks()
      await model.dispose()
    }
  })
})

describe('the report', () => {
  const out = folder.path('out')
  let report: Report
  let html: string
  let markdown: string

  beforeAll(() => {
    const { status, stderr } = bench(MODEL, BARE, '--report', out, '-r', '2', '--budget', '1.9')
    expect(stderr).toContain('report.html')
    expect(status).toBe(0)
    report = JSON.parse(readFileSync(join(out, 'report.json'), 'utf8'))
    html = readFileSync(join(out, 'report.html'), 'utf8')
    markdown = readFileSync(join(out, 'report.md'), 'utf8')
  })

  it('leaves three whole files and nothing else', () => {
    expect(readdirSync(out).sort()).toEqual(['report.html', 'report.json', 'report.md'])
    expect(html).toMatch(/<\/html>\n$/)
    expect(report.rows.length).toBeGreaterThan(15)
    expect(report.peaks.map(({ when }) => when)).toContain('end')
  })

  it('needs nothing from anywhere: no address, no file, no script that runs', () => {
    expect(html).not.toMatch(/<(link|img|iframe|object|embed|base|source)\b/i)
    expect(html).not.toMatch(/\b(src|href|srcset|action)\s*=/i)
    expect(html).not.toMatch(/@import|url\((?!#)|https?:\/\/(?!www\.w3\.org\/2000\/svg)/i)
    expect(html.match(/<script[^>]*>/g)).toEqual(['<script type="application/json" id="report">'])
    expect(html).toContain('prefers-color-scheme: dark')
  })

  it('holds its own data, the same as in report.json', () => {
    const json = /<script type="application\/json" id="report">([\s\S]*?)<\/script>/.exec(html)?.[1]
    expect(JSON.parse(json!)).toEqual(report)
  })

  it('shows every row with the numbers of its data, in both pages', () => {
    for (const row of report.rows) {
      const cells = [short(row.median_ts), `${short(row.avg_ts)} ± ${short(row.stddev_ts)}`]
      for (const cell of cells) {
        expect(html).toContain(`>${cell}</td>`)
        expect(markdown).toContain(`| ${cell} |`)
      }
      if (row.dram_pct !== null) expect(html).toContain(`>${row.dram_pct.toFixed(1)} %</td>`)
    }
  })

  it('draws rooflines and growth from these rows', () => {
    const drawn = rooflines(report)
    expect(drawn.length).toBeGreaterThan(0)
    for (const { shape, points, roofs } of drawn) {
      expect(html).toContain(`aria-label="Roofline of ${shape}"`)
      for (const { row, intensity, gws, share } of points) {
        expect(intensity).toBeCloseTo(row.gws / row.gbps!, 9)
        expect(html).toContain(`${short(gws)} Gw/s at ${short(intensity)} weights per byte`)
        if (row.lookup_pct !== null)
          expect(share).toBeCloseTo(gws / Math.min(roofs.dram_gbps * intensity, roofs.lookup_peak_gws!), 9)
      }
    }
    const charts = growthCharts(report)
    expect(charts.map(({ title }) => title)).toContain('Threads')
    for (const chart of charts) {
      expect(html).toContain(`aria-label="${escapeXml(chart.title)}"`)
      expect(html).toContain(`>${escapeXml(chart.xTitle)}</text>`)
      expect(html).toContain(`>${escapeXml(chart.yTitle)}</text>`)
      for (const { points } of chart.lines)
        for (const { label } of points) if (label !== '') expect(html).toContain(`>${escapeXml(label)}</text>`)
    }
    expect(html).not.toMatch(/NaN|Infinity|undefined/)
  })

  it('has a section on requests at once, with figures that agree with each other', () => {
    const { serving } = report
    // On a machine that is slow enough, some are left out by name.
    const skipped = report.skips.flatMap(({ what }) => /requests at once: (\d+)/.exec(what)?.[1] ?? [])
    const counts = serving.map(({ n_sessions }) => n_sessions)
    expect([...counts, ...skipped.map(Number)].sort((a, b) => a - b)).toEqual([1, 2, 4, 8, 16])
    for (const row of serving) {
      expect(row.samples_ts).toHaveLength(2)
      expect(row.median_ts).toBeCloseTo(median(row.samples_ts), 6)
      expect(row.session_ts).toBeCloseTo(row.median_ts / row.n_sessions, 6)
      expect(row.gap_p99_ms).toBeGreaterThanOrEqual(row.gap_p50_ms)
      expect(row.n_prompt + row.n_gen).toBeLessThanOrEqual(256)
    }
    const { rows } = servingTable(report)
    expect(rows.map((cells) => cells[3])).toEqual(counts.map(String))
    expect(rows[0]![6]).toBe('1.00')
    for (const cell of rows.flat().filter((cell) => cell !== '')) {
      expect(html).toContain(`>${escapeXml(cell)}</td>`)
      expect(markdown).toContain(`| ${cell} |`)
    }
    const charts = servingCharts(report)
    expect(charts).toHaveLength(2)
    for (const chart of charts) {
      expect(html).toContain(`aria-label="${escapeXml(chart.title)}"`)
      for (const { points } of chart.lines) {
        expect(points.map(({ x }) => x)).toEqual(counts)
        for (const { label } of points) expect(html).toContain(`>${escapeXml(label)}</text>`)
      }
    }
    expect(findings(report).at(-1)).toMatch(
      /^\d+ requests at once get .* tokens per second together, .* those of one\.$/,
    )
    const none = { ...report, serving: [] }
    expect(reportHtml(none)).not.toContain('Sessions and throughput')
    expect(findings(none)).not.toContain(findings(report).at(-1))
  })

  it('says how to repeat it and what was left out', () => {
    expect(html).toContain(`<code>${escapeXml(report.command)}</code>`)
    expect(report.command).toMatch(/bench .*tiny\.obt.*--repetitions 2 --budget 1\.9 --report/)
    for (const { what } of report.skips) expect(markdown).toContain(`- ${what}: `)
  })

  it('warns when the machine was not quiet, and only then', () => {
    const steady = structuredClone(report)
    for (const row of steady.rows) row.stddev_ts = 0.01 * row.avg_ts
    const end = steady.peaks.find(({ when }) => when === 'end')!
    Object.assign(end, { ...steady.peaks[0], when: 'end' })
    expect(warning(steady)).toBe('')
    end.dram_gbps! *= 0.7
    expect(warning(steady)).toContain('limits changed by 30 %')
    expect(reportHtml(steady)).toContain(warning(steady))
    end.dram_gbps! /= 0.7
    for (const row of steady.rows) row.stddev_ts = 0.3 * row.avg_ts
    expect(warning(steady)).toContain('repetitions typically differ by 30 %')
  })

  it('has a colour of its own for each type', () => {
    const series = ['onebit', 'column', 'chain:2.0', 'ternary', 'q1_0', 'q8', 'f16'].map(typeSeries)
    expect(new Set(series).size).toBe(series.length)
    for (const one of series) expect(reportHtml(report)).toContain(`svg .s${one}, svg .m${one} { color:`)
  })

  it('names a type only beside f16 or int8 of the same shape, and 1 bit only by its own rows', () => {
    const [row] = report.rows.filter(({ experiment, n_prompt }) => experiment === 'types' && n_prompt === 0)
    const as = (type: string, median_ts: number) => ({
      ...row!,
      model_type: `s ${type}`,
      model_filename: `s ${type}`,
      median_ts,
    })
    const compared = (...rows: ReturnType<typeof as>[]) => speedUps({ ...report, rows }, 'decode')
    expect(compared(as('onebit', 50), as('q1_0', 40))).toBeUndefined()
    const [group] = compared(as('onebit', 50), as('f16', 5), as('q8', 10))!.groups
    expect(group!.name).toBe('s, f16 = 1')
    expect(group!.bars.map(({ name, value }) => [name, value])).toEqual([
      ['1 bit', 10],
      ['int8', 2],
      ['f16', 1],
    ])
  })

  it('refuses a folder that is a file before it measures', () => {
    const { status, stderr } = bench(MODEL, '--report', MODEL)
    expect(status).toBe(1)
    expect(stderr).toMatch(/ERR_/)
    const taken = folder.path('taken')
    mkdirSync(join(taken, 'report.html'), { recursive: true })
    expect(bench(MODEL, '--report', taken).stderr).toContain('ERR_IS_DIRECTORY')
    expect(existsSync(join(taken, 'report.json'))).toBe(false)
  })
})
