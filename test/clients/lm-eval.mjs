// lm-evaluation-harness as it is, through `onebit serve`, against `onebit eval`: the same questions, the same answers.
// Options: --limit N questions of each task (20), --model FILE.obt (the stories), --tasks A,B (all six), --concurrent N requests
// at once (1), --cache-mib N for the server's prompt cache (its own default), --out DIR to keep what `onebit eval` finds, and go on from it.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Model } from '../../dist/index.js'
import { Checks } from './checks.mjs'
import { handedAround, hasQuestions, madeUp, TASKS, writeTasks } from './harness-tasks.mjs'
import { STORIES } from './models.mjs'
import { serveModels, temporaryFolder } from './served.mjs'

const option = { type: 'string' }
const { values } = parseArgs({
  options: { limit: option, model: option, tasks: option, concurrent: option, 'cache-mib': option, out: option },
})
const limit = Number(values.limit ?? 20)
const modelFile = values.model ?? STORIES
const asked = values.tasks?.split(',') ?? Object.keys(TASKS)
/** An interpreter that has lm-eval[api]. */
const PYTHON = process.env.ONEBIT_LM_EVAL_PYTHON ?? 'python3'
const NODE = process.env.ONEBIT_NODE ?? process.execPath
const PROGRAM = fileURLToPath(new URL('../../dist/cli/onebit.js', import.meta.url))
const DATA = join(process.env.ONEBIT_DATA ?? fileURLToPath(new URL('../../../shared/data', import.meta.url)), 'tasks')
const MOST_DIFFERENCE = 1e-3

function run(command, argv, env = {}) {
  const started = performance.now()
  const ended = spawnSync(command, argv, { encoding: 'utf8', maxBuffer: 1 << 28, env: { ...process.env, ...env } })
  if (ended.error) throw ended.error
  if (ended.status !== 0) throw new Error(`${command} ${argv.join(' ')}:\n${ended.stderr.slice(-4000)}`)
  return { stdout: ended.stdout, seconds: (performance.now() - started) / 1000 }
}

const checks = new Checks('lm_eval')
const folder = temporaryFolder()
const ownFolder = values.out ?? folder.file('own')
const found = run(PYTHON, [
  '-c',
  'import importlib.util as u; print(u.find_spec("lm_eval").submodule_search_locations[0])',
])
const definitions = join(found.stdout.trim(), 'tasks')
const isReal = hasQuestions(DATA)
console.log(isReal ? `questions: ${DATA}` : `made-up questions, as there are none below ${DATA}`)
mkdirSync(folder.file('tasks'))
const questions = isReal ? handedAround(DATA, limit) : madeUp(limit)
const names = writeTasks(folder.file('tasks'), definitions, questions, asked)

// ---- both
const model = await Model.load(modelFile)
const { context } = model
await model.dispose()
const server = await serveModels([`model=${modelFile}`], {
  args: values['cache-mib'] === undefined ? [] : ['--cache-mib', values['cache-mib']],
})
let harness
try {
  const args = {
    model: 'model',
    base_url: `${server.baseURL}/completions`,
    auth_token: server.key,
    num_concurrent: Number(values.concurrent ?? 1),
    max_length: context,
  }
  harness = run(
    PYTHON,
    [
      '-m',
      'lm_eval',
      'run',
      ...['--model', 'local-completions'],
      ...['--model_args', ...Object.entries(args).map(([name, value]) => `${name}=${value}`)],
      ...['--include_path', folder.file('tasks'), '--tasks', ...Object.values(names)],
      ...['--output_path', folder.file('harness'), '--log_samples'],
    ],
    {
      OPENAI_API_KEY: server.key,
      HF_HOME: folder.file('hub'),
      HF_HUB_OFFLINE: '1',
      HF_DATASETS_OFFLINE: '1',
      TRANSFORMERS_OFFLINE: '1',
      HF_HUB_DISABLE_TELEMETRY: '1',
    },
  )
} finally {
  await server.stop()
}
// Our own reader reads the files as they are handed around, the harness what was made of them.
const data = isReal ? DATA : folder.file('tasks')
const own = run(NODE, [
  ...[PROGRAM, 'eval', modelFile, '--data', data, '--tasks', asked.join()],
  ...['--limit', String(limit), '--out', ownFolder, '--json'],
])
const [{ tasks: ownFigures }] = JSON.parse(own.stdout)
const ratio = harness.seconds / own.seconds
console.log(
  `${harness.seconds.toFixed(1)} s over HTTP with the harness, ${own.seconds.toFixed(1)} s by onebit eval: ${ratio.toFixed(2)} x`,
)

// ---- compared
const results = folder.file('harness')
const files = readdirSync(results, { recursive: true, encoding: 'utf8' })
const resultFile = files.find((name) => /results_.*\.json$/.test(name))
assert.ok(resultFile && existsSync(join(results, resultFile)))
const { results: figures } = JSON.parse(readFileSync(join(results, resultFile), 'utf8'))

function linesOf(path) {
  return readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
}

function choiceOf(scores) {
  return scores.indexOf(Math.max(...scores))
}

for (const [task, name] of Object.entries(names)) {
  await checks.check(`${task}: the same answers, log-likelihoods and figures`, async () => {
    const sampleFile = files.find((file) => file.includes(`samples_${name}_`))
    const samples = linesOf(join(results, sampleFile)).sort((a, b) => a.doc_id - b.doc_id)
    const scored = linesOf(join(ownFolder, `${task}.eval.jsonl`)).slice(1)
    const count = questions[task].length
    assert.equal(samples.length, count)
    assert.equal(scored.length, count)
    let most = 0
    for (const [i, { logprobs, greedy }] of scored.entries()) {
      const theirs = samples[i].filtered_resps.map(([score]) => Number(score))
      const likeliest = samples[i].filtered_resps.map(([, is]) => String(is) === 'True' || is === true)
      assert.equal(theirs.length, logprobs.length)
      assert.equal(choiceOf(logprobs), choiceOf(theirs), `question ${i}: ${logprobs} against ${theirs}`)
      assert.deepEqual(greedy, likeliest, `question ${i}`)
      for (const [n, score] of theirs.entries()) most = Math.max(most, Math.abs(score - logprobs[n]))
    }
    assert.ok(most <= MOST_DIFFERENCE, `log-likelihoods differ by ${most}`)
    for (const metric of ['acc', 'acc_norm']) {
      const theirs = figures[name][`${metric},none`]
      const ours = ownFigures[task][metric]
      if (ours !== undefined) assert.ok(Math.abs(ours.value - theirs) < 1e-9, `${metric}: ${ours.value}, ${theirs}`)
    }
    console.log(`${task}: ${count} questions, log-likelihoods differ by ${most.toExponential(1)} at most`)
  })
}

folder.remove()
checks.finish()
