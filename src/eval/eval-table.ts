/** The results of an evaluation as a table: a row for each figure, a column for each model. */
import { modelName } from '../files/model-name.js'
import type { EvaluateResult } from './evaluate.js'
import type { Figure } from './metrics.js'
import type { Metric } from './tasks/task.js'

export interface NamedResult {
  model: string
  result: EvaluateResult
}

/** Of several models, whose results are of the same tasks. */
export function evalTable(results: readonly NamedResult[]): string {
  const head = ['task', 'questions', 'metric', ...results.map(({ model }) => modelName(model))]
  const rows = results[0]!.result.tasks.flatMap(({ task, questions, figures }) =>
    (Object.keys(figures) as Metric[]).map((metric, n) => [
      n === 0 ? task : '',
      n === 0 ? String(questions) : '',
      metric,
      ...results.map(({ result }) =>
        shownFigure(metric, result.tasks.find((one) => one.task === task)?.figures[metric]),
      ),
    ]),
  )
  const averages = results.map(({ result }) => (result.average === undefined ? '' : percent(result.average)))
  const last = averages.some((text) => text !== '') ? [['average', '', '', ...averages]] : []
  return aligned([head, ...rows, ...last])
}

function shownFigure(metric: Metric, figure: Figure | undefined): string {
  if (!figure) return ''
  if (metric === 'perplexity') return `${figure.value.toFixed(3)} ± ${figure.stderr.toFixed(3)}`
  return `${percent(figure.value)} ± ${percent(figure.stderr)}`
}

/** As the paper prints them. */
function percent(share: number): string {
  return (100 * share).toFixed(2)
}

/** Words to the left, figures to the right. */
function aligned(rows: readonly string[][]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  const pad = (text: string, column: number) =>
    column === 0 || column === 2 ? text.padEnd(widths[column]!) : text.padStart(widths[column]!)
  return rows.map((row) => row.map(pad).join('  ').trimEnd()).join('\n')
}
