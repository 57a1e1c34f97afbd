/** The report as one HTML page that needs nothing else: charts, styles and the data itself are inside. */
import { alternatives, type BarChart, barChartSvg, memoryShares, speedUps, spreadSvg } from './bar-charts.js'
import { growthCharts, lineChartSvg } from './growth-charts.js'
import { type Report, rowsOf } from './report-data.js'
import { STYLE } from './report-style.js'
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
import { type RooflineData, rooflineSvg, rooflines } from './roofline.js'
import { servingCharts } from './serving-charts.js'
import { escapeXml } from './svg.js'

function tableHtml({ columns, rows }: Table): string {
  const cell = (tag: 'th' | 'td', text: string, i: number) =>
    `<${tag}${columns[i]!.right ? ' class="right"' : ''}>${escapeXml(text)}</${tag}>`
  const head = columns.map(({ name }, i) => cell('th', name, i)).join('')
  const body = rows.map((row) => `<tr>${row.map((text, i) => cell('td', text, i)).join('')}</tr>`).join('\n')
  return `<div class="scroll"><table><thead><tr>${head}</tr></thead><tbody>\n${body}\n</tbody></table></div>`
}

function figure(svg: string, caption: string, className = 'wide'): string {
  return `<figure class="${className}">${svg}<figcaption>${escapeXml(caption)}</figcaption></figure>`
}

function barFigure(chart: BarChart | undefined, caption: string): string {
  return chart === undefined ? '' : `<h3>${escapeXml(chart.title)}</h3>${figure(barChartSvg(chart), caption)}`
}

function rooflineSection(data: RooflineData[]): string {
  if (data.length === 0) return ''
  const caption =
    'Both axes are logarithmic. Under the sloping line the memory sets the pace: each byte of weights that is read ' +
    'serves few multiplications. Sessions that decode together and prompts computed in larger passes use each byte ' +
    'more often and move to the right, until lookups are the limit. A point above the slope was served from caches.'
  const figures = data.map(
    (one, i) => `<h3>${escapeXml(one.shape)}</h3>${figure(rooflineSvg(one), i === 0 ? caption : 'As above.')}`,
  )
  return `<h2>How far from the limit</h2>${figures.join('')}`
}

function comparison(report: Report): string {
  const note = (work: 'decode' | 'prefill') => {
    const tokens = rowsOf(report, 'types', work).map((row) => row.n_prompt + row.n_gen)
    const [least, most] = [Math.min(...tokens), Math.max(...tokens)]
    const counted = least === most ? `${most}` : `${least} to ${most} (slow ones do fewer)`
    return `${work === 'decode' ? 'New tokens' : 'Prompt tokens'} in each repetition: ${counted}. Longer is faster.`
  }
  const share =
    'Bytes of weights per second against the memory read speed measured in the same run. At 100 % (dashed) nothing ' +
    'but fewer bytes could make decoding faster; more than that comes out of caches.'
  const charts =
    barFigure(speedUps(report, 'decode'), note('decode')) +
    barFigure(speedUps(report, 'prefill'), note('prefill')) +
    barFigure(memoryShares(report), share)
  return `<h2>Models and types</h2>${charts}${tableHtml(modelsTable(report))}`
}

function growth(report: Report): string {
  const charts = growthCharts(report)
  if (charts.length === 0) return ''
  const figures = charts.map((chart) => `<figure><h3>${escapeXml(chart.title)}</h3>${lineChartSvg(chart)}</figure>`)
  const note =
    'Points are medians; thin bars reach from the slowest to the fastest repetition. Dashed lines are limits.'
  return `<h2>How speed grows</h2><p class="soft">${note}</p><div class="charts">${figures.join('')}</div>`
}

function servingSection(report: Report): string {
  const table = servingTable(report)
  if (table.rows.length === 0) return ''
  const figures = servingCharts(report).map(
    (chart) => `<figure><h3>${escapeXml(chart.title)}</h3>${lineChartSvg(chart)}</figure>`,
  )
  const note =
    'Requests that share every step of the model, each with a prompt of its own, as clients of onebit serve have them, ' +
    'without HTTP. Each has a share of the sum, and waits longer between two tokens the more there are.'
  return `<h2>Sessions and throughput</h2><p class="soft">${note}</p><div class="charts">${figures.join('')}</div>${tableHtml(table)}`
}

function pathSection(report: Report): string {
  const paths =
    barFigure(
      alternatives(report, 'paths', 'decode'),
      'Every path gives the same bytes of logits; only speed differs.',
    ) + barFigure(alternatives(report, 'paths', 'prefill'), 'The same for a prompt.')
  const ways =
    barFigure(
      alternatives(report, 'activations', 'decode'),
      'int8 and int4 round activations to 8 and 4 bits; f32 keeps them. The command onebit perplexity measures their losses.',
    ) + barFigure(alternatives(report, 'activations', 'prefill'), 'The same for a prompt.')
  return paths + ways === '' ? '' : `<h2>Paths and ways to multiply</h2>${paths}${ways}`
}

function lists(report: Report): string {
  const skips = report.skips.map(({ what, why }) => `<li>${escapeXml(what)}: ${escapeXml(why)}</li>`).join('\n')
  const left = skips === '' ? '' : `<h2>Left out</h2><ul>${skips}</ul>`
  const words = definitions(report).map(
    ([word, meaning]) => `<dt>${escapeXml(word)}</dt><dd>${escapeXml(meaning)}</dd>`,
  )
  const repeat =
    `<h2>How to repeat it</h2><pre><code>${escapeXml(report.command)}</code></pre>` +
    `<p>Leave the machine alone meanwhile. Every figure is a median of ${report.repetitions} repetitions unless it says ` +
    'otherwise. The data of this page is inside it as JSON, and beside it as report.json.</p>'
  return `${left}${repeat}<h2>What the words mean</h2><dl class="facts">${words.join('\n')}</dl>`
}

/** JSON inside a page must not end the element that holds it. */
function embedded(report: Report): string {
  return JSON.stringify(report).replaceAll('<', '\\u003c')
}

export function reportHtml(report: Report): string {
  const facts = machineFacts(report).map(([name, text]) => `<dt>${escapeXml(name)}</dt><dd>${escapeXml(text)}</dd>`)
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>onebit benchmark report: ${escapeXml(report.machine.cpu)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>onebit benchmark report</h1>
<ul class="lead">${findings(report)
    .map((sentence) => `<li>${escapeXml(sentence)}</li>`)
    .join('\n')}</ul>
${warning(report) && `<p class="warning">${escapeXml(warning(report))}</p>`}
<dl class="facts">${facts.join('\n')}</dl>
<h2>What this machine can do</h2>
${tableHtml(limitsTable(report))}
${rooflineSection(rooflines(report))}
${comparison(report)}
${growth(report)}
${servingSection(report)}
${pathSection(report)}
<h2>Spread of the repetitions</h2>
${figure(spreadSvg(report), 'One dot for each repetition of the measurements of models and types.')}
<h2>All measurements</h2>
${measurementTables(report)
  .map(({ name, table }) => `<h3>${escapeXml(name)}</h3>${tableHtml(table)}`)
  .join('\n')}
${lists(report)}
</main>
<script type="application/json" id="report">${embedded(report)}</script>
</body>
</html>
`
}
