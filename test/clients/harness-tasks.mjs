// The paper's six tasks for lm-evaluation-harness without its hub: the harness's own definitions, and questions from local
// files in the form that the hub's files have.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Where the harness keeps its definition of each, and the split that is asked. */
export const TASKS = {
  piqa: { yaml: 'piqa/piqa.yaml', split: 'validation' },
  hellaswag: { yaml: 'hellaswag/hellaswag.yaml', split: 'validation' },
  winogrande: { yaml: 'winogrande/default.yaml', split: 'validation' },
  arc_easy: { yaml: 'arc/arc_easy.yaml', split: 'test' },
  arc_challenge: { yaml: 'arc/arc_challenge.yaml', split: 'test' },
  boolq: { yaml: 'super_glue/boolq/default.yaml', split: 'validation' },
}

const FILES = [
  'piqa-valid.jsonl',
  'piqa-valid-labels.lst',
  'hellaswag_val_full.txt.bz2',
  'winogrande-dev.jsonl',
  'arc-easy-test.jsonl',
  'arc-challenge-test.jsonl',
  'boolq-validation.jsonl',
]

export function hasQuestions(folder) {
  return FILES.every((name) => existsSync(join(folder, name)))
}

/**
 * Writes the files of the tasks, and definitions that are the harness's own but for where the questions come from.
 * @param definitions lm_eval/tasks
 * @param questions records in the hub's form, by task
 * @param asked which tasks
 * @returns the harness's names of the tasks by ours
 */
export function writeTasks(folder, definitions, questions, asked) {
  const names = {}
  for (const task of asked) {
    const { yaml, split } = TASKS[task]
    const data = join(folder, `${task}-${split}.jsonl`)
    writeFileSync(data, questions[task].map((record) => `${JSON.stringify(record)}\n`).join(''))
    names[task] = `local_${task}`
    const splits = ['training', 'validation', 'test'].map(
      (name) => `${name}_split: ${name === split ? `"${split}"` : 'null'}`,
    )
    const lines = [
      `include: ${JSON.stringify(join(definitions, yaml))}`,
      `task: ${names[task]}`,
      'tag: null',
      'dataset_path: json',
      'dataset_name: null',
      `dataset_kwargs: {data_files: {${split}: ${JSON.stringify(data)}}}`,
      ...splits,
    ]
    writeFileSync(join(folder, `${names[task]}.yaml`), `${lines.join('\n')}\n`)
  }
  return names
}

/** The first questions of the files that folders of tasks hand around, in the hub's form. */
export function handedAround(folder, limit) {
  const lines = (name) => readFileSync(join(folder, name), 'utf8').trimEnd().split('\n').slice(0, limit)
  const records = (name) => lines(name).map((line) => JSON.parse(line))
  const labels = lines('piqa-valid-labels.lst')
  return {
    piqa: records('piqa-valid.jsonl').map((record, i) => ({ ...record, label: Number(labels[i]) })),
    hellaswag: sixLines(unpacked(join(folder, 'hellaswag_val_full.txt.bz2')), limit),
    winogrande: records('winogrande-dev.jsonl').map(({ centerpiece, options, correct_options_idx: [right] }) => ({
      sentence: centerpiece,
      option1: options[0],
      option2: options[1],
      answer: String(right + 1),
    })),
    arc_easy: records('arc-easy-test.jsonl').map(arc),
    arc_challenge: records('arc-challenge-test.jsonl').map(arc),
    boolq: records('boolq-validation.jsonl').map(({ prompt, subject, target_new: target }) => ({
      passage: prompt.slice('passage: '.length, -'\nquestion: {}'.length),
      question: subject,
      label: target.str === 'True' ? 1 : 0,
    })),
  }
}

function arc({ centerpiece, options, correct_options_idx: [right] }) {
  const label = options.map((_, i) => 'ABCDE'[i])
  return { question: centerpiece, choices: { text: options, label }, answerKey: label[right] }
}

function unpacked(path) {
  const { status, stdout } = spawnSync('python3', ['-c', UNPACK, path], { encoding: 'utf8', maxBuffer: 1 << 26 })
  if (status !== 0) throw new Error(`${path} could not be unpacked`)
  return stdout
}

const UNPACK = 'import bz2, sys; sys.stdout.buffer.write(bz2.open(sys.argv[1]).read())'

/** llama.cpp's text: the context with its label in front, the right one, four endings. */
function sixLines(text, limit) {
  const lines = text.split('\n')
  return Array.from({ length: Math.min(limit, Math.floor(lines.length / 6)) }, (_, i) => {
    const [context, label, ...endings] = lines.slice(6 * i, 6 * i + 6)
    const colon = context.indexOf(': ')
    return {
      activity_label: context.slice(0, colon),
      ctx_a: context.slice(colon + 2),
      ctx_b: '',
      endings,
      label,
    }
  })
}

/** Made-up questions, for where there are no files. */
export function madeUp(limit) {
  const THINGS = ['dog', 'ball', 'tree', 'cake', 'boat', 'cat', 'hat', 'bird']
  const thing = (i) => THINGS[i % THINGS.length]
  const each = (make) => Array.from({ length: limit }, (_, i) => make(i, thing(i), thing(3 * i + 1)))
  return {
    piqa: each((i, a, b) => ({
      goal: `find the ${a} number ${i}`,
      sol1: `Look under the ${b}. `,
      sol2: `Eat the ${b} "at once".`,
      label: i % 2,
    })),
    hellaswag: each((i, a, b) => ({
      activity_label: `Playing with a ${a}`,
      ctx_a: `Lily has a ${a}.  [header] She sees ${i} things [title] Then`,
      ctx_b: `she TAKES the ${b}. it`,
      endings: [`was very happy.`, `[step] ran  away with the ${a}`, 'is 7.', `said "hello" to the ${b}.`],
      label: String(i % 4),
    })),
    winogrande: each((i, a, b) => ({
      sentence: `The ${a} did not like the ${b} because _ was too big, ${i} times.`,
      option1: `the ${a}`,
      option2: `the ${b}`,
      answer: String((i % 2) + 1),
    })),
    arc_easy: each((i, a, b) => ({
      question: `What can a ${a} do with ${i} legs?\nThink.`,
      choices: { text: ['run', `sing to the ${b} `, 'be a stone', '"fly"'], label: ['A', 'B', 'C', 'D'] },
      answerKey: 'ABCD'[i % 4],
    })),
    arc_challenge: each((i, a, b) => ({
      question: `Which is a ${a}?`,
      choices: { text: [`a ${b}`, `ein ${a} in Übergröße`, `${i}`], label: ['1', '2', '3'] },
      answerKey: String((i % 3) + 1),
    })),
    boolq: each((i, a, b) => ({
      // Longer than the context of the stories: the beginning is cut off.
      passage: `${'Once upon a time there was a little girl named Lily. '.repeat(i % 3 === 0 ? 60 : 2)}She had a ${a} and a ${b}.`,
      question: `does lily have a ${a}`,
      label: i % 2,
    })),
  }
}
