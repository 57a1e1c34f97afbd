/** The report as Markdown: the same figures, with bars of letters where the page has charts. */
import { alternatives, type BarChart, memoryShares, speedUps } from './bar-charts.js'
import { growthCharts } from './growth-charts.js'
import type { Report } from './report-data.js'
import {
  definitions,
  findings,
  limitsTable,
  machineFacts,
  measurementTables,
  modelsTable,
  servingTable,
  type Table,
  warning,
} from './report-words.js'
import { rooflines } from './roofline.js'
import { short } from './svg.js'

function escapeCell(text: string): string {
  return text.replaceAll('|', '\\|').replace(/[\r\n]+/g, ' ')
}

function tableMarkdown({ columns, rows }: Table): string {
  const line = (cells: string[]) => `| ${cells.map(escapeCell).join(' | ')} |`
  return [
    line(columns.map(({ name }) => name)),
    `|${columns.map(({ right }) => (right ? '---:' : '---')).join('|')}|`,
    ...rows.map(line),
  ].join('\n')
}

const LONGEST_BAR = 30

function barsMarkdown(chart: BarChart): string {
  const most = Math.max(...chart.groups.flatMap(({ bars }) => bars.map(({ value }) => value)))
  const nameWidth = Math.max(...chart.groups.flatMap(({ bars }) => bars.map(({ name }) => name.length)))
  const lines = chart.groups.flatMap(({ name, bars }) => [
    name,
    ...bars.map((bar) => {
      const length = Math.max(1, Math.round((bar.value / most) * LONGEST_BAR))
      return `  ${bar.name.padEnd(nameWidth)} ${'█'.repeat(length).padEnd(LONGEST_BAR)} ${bar.text}`
    }),
  ])
  return ['```text', ...lines, '```', '', `*${chart.xTitle}*`].join('\n')
}

function barSection(chart: BarChart | undefined): string[] {
  return chart === undefined ? [] : [`### ${chart.title}`, barsMarkdown(chart)]
}

function rooflineSection(report: Report): string[] {
  const parts = rooflines(report).map((data) => {
    const rows = data.points.map((point) => [
      point.row.n_prompt > 0
        ? `prefill, ${point.label} tokens a pass`
        : point.row.n_parallel > 1
          ? `${point.row.n_parallel} sessions decode`
          : point.label,
      short(point.intensity),
      short(point.gws),
      `${(100 * point.share).toFixed(0)} %`,
    ])
    const right = (name: string) => ({ name, right: true as const })
    const columns = [{ name: 'work' }, right('weights per byte'), right('Gw/s'), right('of the roof above it')]
    return `### ${data.shape}\n\n${tableMarkdown({ columns, rows })}`
  })
  return parts.length === 0 ? [] : ['## Roofline', ...parts]
}

function growthSection(report: Report): string[] {
  const parts = growthCharts(report).map((chart) => {
    const rows = chart.lines.flatMap(({ name, points }) => points.map(({ x, label }) => [name, short(x), label]))
    const columns = [
      { name: 'line' },
      { name: chart.xTitle, right: true as const },
      { name: chart.yTitle, right: true as const },
    ]
    return `### ${chart.title}\n\n${tableMarkdown({ columns, rows })}`
  })
  return parts.length === 0 ? [] : ['## Growth', ...parts]
}

export function reportMarkdown(report: Report): string {
  const skipped = report.skips.map(({ what, why }) => `- ${what}: ${why}`)
  const alternative = (['paths', 'activations'] as const).flatMap((experiment) =>
    (['decode', 'prefill'] as const).flatMap((work) => barSection(alternatives(report, experiment, work))),
  )
  const sections = [
    '# onebit benchmark report',
    findings(report)
      .map((sentence) => `- ${sentence}`)
      .join('\n'),
    warning(report) && `> **${warning(report)}**`,
    machineFacts(report)
      .map(([name, text]) => `- **${name}:** ${text}`)
      .join('\n'),
    '## What this machine can do',
    tableMarkdown(limitsTable(report)),
    ...rooflineSection(report),
    '## 1 bit against other types',
    ...barSection(speedUps(report, 'decode')),
    ...barSection(speedUps(report, 'prefill')),
    ...barSection(memoryShares(report)),
    tableMarkdown(modelsTable(report)),
    ...growthSection(report),
    ...(report.serving.length > 0 ? ['## Sessions and throughput', tableMarkdown(servingTable(report))] : []),
    ...(alternative.length > 0 ? ['## Paths and ways to multiply', ...alternative] : []),
    '## All measurements',
    ...measurementTables(report).flatMap(({ name, table }) => [`### ${name}`, tableMarkdown(table)]),
    ...(skipped.length > 0 ? ['## Left out', skipped.join('\n')] : []),
    '## How to repeat it',
    `\`\`\`sh\n${report.command}\n\`\`\``,
    `Leave the machine alone meanwhile. Medians of ${report.repetitions} repetitions; the figures are also in report.json.`,
    '## What the words mean',
    definitions(report)
      .map(([word, meaning]) => `- **${word}:** ${meaning}`)
      .join('\n'),
  ]
  return `${sections.filter((section) => section !== '').join('\n\n')}\n`
}
