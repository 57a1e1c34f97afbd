import { join } from 'node:path'
import { findQuestions } from '../eval/data/find-questions.js'
import { evalTable } from '../eval/eval-table.js'
import {
  checkEvaluateOptions,
  type EvaluateOptions,
  type EvaluateResult,
  evaluate,
  TASK_NAMES,
} from '../eval/evaluate.js'
import { modelName } from '../files/model-name.js'
import type { Command, OptionValues } from './arguments.js'
import { checkModelValues, loadModel, MODEL_OPTIONS } from './model-options.js'
import { progressBar } from './progress.js'

export const evalCommand: Command = {
  name: 'eval',
  summary: 'Score models on the tasks of the paper, by the definitions of lm-evaluation-harness.',
  usage: 'eval MODEL … --data DIR [--tasks piqa,boolq] [--limit N] [--out DIR] [--json]',
  positionals: { min: 1, max: 16 },
  options: {
    tasks: { type: 'string', value: 'A,B', help: `some of ${TASK_NAMES.join(', ')} (default: all but lambada)` },
    data: {
      type: 'string',
      value: 'DIR',
      help: "the folder with the tasks' files: JSONL or parquet, as the hub has them",
    },
    limit: { type: 'integer', help: 'only the first N questions of each task' },
    bos: { type: 'boolean', help: 'put BOS in front of every prompt (the paper did not)' },
    out: { type: 'string', value: 'DIR', help: "keep every answer's score there, and go on from what is there" },
    ...MODEL_OPTIONS,
    json: { type: 'boolean', help: 'print JSON' },
  },
  notes: [
    'Several models stand side by side. ± is the standard error. The average is the one of the paper: acc_norm of hellaswag and ARC, acc of the others.',
    'A run with --out that was ended goes on where it was when the same command is given again.',
  ],
  check(values) {
    checkModelValues(values)
    checkEvaluateOptions(evaluateOptions(values))
  },
  async run(values, models) {
    const options = evaluateOptions(values)
    // What is missing is said before anything is computed.
    const { tasks, data } = checkEvaluateOptions(options)
    for (const task of tasks) await findQuestions(data, task)
    const results: { model: string; result: EvaluateResult }[] = []
    for (const path of models) results.push({ model: path, result: await evaluateOne(path, models, values, options) })
    console.log(values.json ? JSON.stringify(asJson(results)) : evalTable(results))
    return 0
  },
}

async function evaluateOne(
  path: string,
  models: readonly string[],
  values: OptionValues,
  { out, ...options }: Partial<EvaluateOptions>,
): Promise<EvaluateResult> {
  const model = await loadModel(path, values)
  let bar = progressBar('eval')
  let running: string | undefined
  try {
    return await evaluate(model, {
      ...(options as EvaluateOptions),
      ...(out === undefined ? {} : { out: models.length === 1 ? out : join(out, modelName(path)) }),
      onQuestion: (task, done, total) => {
        if (task !== running) {
          bar.done()
          bar = progressBar(models.length === 1 ? task : `${modelName(path)} ${task}`)
          running = task
        }
        bar.update(done, total)
      },
    })
  } finally {
    bar.done()
    await model.dispose()
  }
}

function evaluateOptions({ tasks, data, limit, bos, out }: OptionValues): Partial<EvaluateOptions> {
  const given = { data, limit, bos, out, tasks: (tasks as string | undefined)?.split(',').map((name) => name.trim()) }
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
}

function asJson(results: readonly { model: string; result: EvaluateResult }[]) {
  return results.map(({ model, result }) => ({
    model,
    average: result.average ?? null,
    tasks: Object.fromEntries(
      result.tasks.map(({ task, questions, figures, seconds, computed }) => [
        task,
        { questions, ...figures, seconds, computed },
      ]),
    ),
  }))
}
