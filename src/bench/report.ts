/** `onebit bench --report`: measures within a budget of time, then writes the pages. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { readModelHeader } from '../convert/foreign-model.js'
import { OnebitError } from '../errors.js'
import { checkTarget, writeAtomically, writeFully } from '../files/atomic-file.js'
import { fileError } from '../files/file-errors.js'
import { type ModelSource, sourceName } from './jobs.js'
import { emptyReport, type Report } from './report-data.js'
import { reportHtml } from './report-html.js'
import { reportMarkdown } from './report-markdown.js'
import { defaultSources, type PlannedJob, reportPlan } from './report-plan.js'
import { DRAM_BYTES, type JobListener, MachineLimits, runJob } from './run-job.js'
import { isUnfit } from './run-table.js'
import { parseWeightType, type ShapeName, shapeConfig } from './shapes.js'

export interface ReportOptions {
  /** empty: random models of several shapes and types */
  sources: ModelSource[]
  minutes: number
  repetitions: number
  /** the command line, for "how to repeat it" */
  command: string
  progress(text: string): void
}

export const REPORT_FILES = { html: 'report.html', markdown: 'report.md', json: 'report.json' } as const

/** Loading and first tokens come on top of a job's share of the time. */
const PATIENCE_SECONDS = 60

/** Files are opened and types compared with shapes before anything is measured; a misfit is skipped. */
async function contexts(sources: readonly ModelSource[], report: Report): Promise<Map<ModelSource, number>> {
  const found = new Map<ModelSource, number>()
  for (const source of sources) {
    try {
      const config =
        'file' in source
          ? (await readModelHeader(source.file)).config
          : shapeConfig(source.shape as ShapeName, parseWeightType(source.type))
      found.set(source, config.context_length)
    } catch (error) {
      if (!isUnfit(error) || sources.length === 1) throw error
      report.skips.push({ what: sourceName(source), why: error.message })
    }
  }
  return found
}

/** Runs the plan; each job may take its share of the time that is left. */
async function measure(plan: PlannedJob[], report: Report, options: ReportOptions): Promise<void> {
  const started = performance.now()
  const secondsLeft = () => options.minutes * 60 - (performance.now() - started) / 1000
  const limits = new MachineLimits(report.dram_bytes)
  const unfit = new Set<string>()
  let shares = plan.reduce((sum, { share }) => sum + share, 0)
  for (const { experiment, job, share } of plan) {
    const name = sourceName(job.source)
    const seconds = (secondsLeft() * share) / shares
    shares -= share
    if ((job.kind === 'bench' && job.tests.length === 0) || unfit.has(name)) continue
    if (seconds < 0.2) {
      report.skips.push({ what: `${name}: ${experiment}`, why: 'the time was used up' })
      continue
    }
    job.peaks = await limits.get(job.threads, job.isa)
    if (!report.peaks.some(({ isa, threads }) => isa === job.peaks!.isa && threads === job.peaks!.threads))
      report.peaks.push({ ...job.peaks, when: 'start' })
    job.seconds = seconds
    const listener: JobListener = {
      row: (row) => experiment !== 'serving' && report.rows.push({ ...row, experiment }),
      serving: (row) => report.serving.push(row),
      skip: (what, why) => report.skips.push({ what: `${what} (${experiment})`, why }),
      progress: (text) => options.progress(`${Math.max(0, secondsLeft()).toFixed(0).padStart(4)} s left  ${text}`),
    }
    await runJob(job, listener, Math.min(2 * seconds, secondsLeft()) + PATIENCE_SECONDS).catch((error) => {
      const late = error instanceof OnebitError && error.code === 'ERR_BENCH_TIMEOUT'
      if (!late && !isUnfit(error)) throw error
      if (!late) unfit.add(name)
      report.skips.push({ what: late ? `${name} (${experiment})` : name, why: error.message })
    })
  }
  const { threads, isa } = report.machine
  if (plan.length > 0) report.peaks.push({ ...(await limits.again(threads, isa)), when: 'end' })
}

async function writeText(path: string, text: string): Promise<void> {
  await writeAtomically(path, (file) => writeFully(file, Buffer.from(text), 0))
}

/**
 * Measures and writes report.html, report.md and report.json into `folder`, which is made if need be.
 * @throws OnebitError before anything is measured when the folder cannot be written or a model is no model; ERR_BENCH
 *   when nothing could be measured
 */
export async function writeReport(folder: string, options: ReportOptions): Promise<Report> {
  const paths = {
    html: join(folder, REPORT_FILES.html),
    markdown: join(folder, REPORT_FILES.markdown),
    json: join(folder, REPORT_FILES.json),
  }
  await mkdir(folder, { recursive: true }).catch((cause) => {
    throw fileError(cause, folder, 'writing')
  })
  for (const path of Object.values(paths)) await checkTarget(path)
  const { minutes, repetitions, command } = options
  const report = emptyReport({
    budget_minutes: minutes,
    repetitions,
    command,
    dram_bytes: minutes < 2 ? DRAM_BYTES / 8 : DRAM_BYTES,
  })
  const wanted = options.sources.length > 0 ? options.sources : defaultSources()
  const contextOf = await contexts(wanted, report)
  const sources = [...contextOf.keys()]
  const started = performance.now()
  if (sources.length > 0) {
    const { machine } = report
    const plan = reportPlan({ sources, machine, repetitions, contextOf: (source) => contextOf.get(source)! })
    await measure(plan, report, options)
  }
  if (report.rows.length === 0) {
    const why = report.skips.map(({ what, why }) => `${what}: ${why}`).join('; ')
    throw new OnebitError('ERR_BENCH', `Nothing could be measured: ${why}`)
  }
  report.seconds = Math.round((performance.now() - started) / 100) / 10
  await writeText(paths.json, `${JSON.stringify(report, null, 1)}\n`)
  await writeText(paths.markdown, reportMarkdown(report))
  await writeText(paths.html, reportHtml(report))
  options.progress(`wrote ${Object.values(paths).join(', ')}`)
  return report
}
