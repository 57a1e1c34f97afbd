/**
 * The tasks as lm-evaluation-harness 0.4.12 defines them: what is asked, what the answers are, how they are judged
 * (lm_eval/tasks/{piqa,hellaswag,winogrande,arc,super_glue/boolq,lambada}). Besides the fields of the hub's files, those
 * of the collections in which the same questions are handed around.
 */
import {
  indexField,
  oneContext,
  oneContinuation,
  type Question,
  type Task,
  type TaskRecord,
  textField,
  textsField,
} from './task.js'

const VALIDATION = /val|dev/
const TEST = /test/

/** Collections (nutcracker-db) that have every task in one form. */
function centerpiece(record: TaskRecord): { text: string; options: string[]; gold: number } | undefined {
  if (record.centerpiece === undefined) return undefined
  const options = textsField(record, 'options')
  const correct = record.correct_options_idx
  if (!Array.isArray(correct)) throw new TypeError('correct_options_idx must be a list')
  return {
    text: textField(record, 'centerpiece'),
    options,
    gold: indexField({ correct_options_idx: correct[0] }, 'correct_options_idx', options.length),
  }
}

const piqa: Task = {
  name: 'piqa',
  metrics: ['acc', 'acc_norm'],
  paper: 'acc',
  source: {
    dataset: 'baber/piqa',
    files: ['validation split, or valid.jsonl with valid-labels.lst of ybisk/ybisk.github.io'],
  },
  holds: (path) => path.includes('piqa'),
  split: VALIDATION,
  question: (record) =>
    oneContext(
      `Question: ${textField(record, 'goal')}\nAnswer:`,
      [textField(record, 'sol1'), textField(record, 'sol2')],
      indexField(record, 'label', 2),
    ),
}

const hellaswag: Task = {
  name: 'hellaswag',
  metrics: ['acc', 'acc_norm'],
  paper: 'acc_norm',
  source: { dataset: 'Rowan/hellaswag', files: ['validation split'] },
  holds: (path) => path.includes('hellaswag'),
  split: VALIDATION,
  question(record) {
    const context =
      record.query === undefined
        ? withoutBrackets(
            `${textField(record, 'activity_label')}: ${textField(record, 'ctx_a')} ${capitalized(textField(record, 'ctx_b'))}`,
          )
        : textField(record, 'query')
    const endings =
      record.query === undefined ? textsField(record, 'endings').map(withoutBrackets) : textsField(record, 'choices')
    return oneContext(
      context,
      endings,
      indexField(record, record.gold === undefined ? 'label' : 'gold', endings.length),
    )
  },
}

/** What its WikiHow part has in brackets is no text. */
function withoutBrackets(text: string): string {
  return text
    .replace(/^\p{White_Space}+|\p{White_Space}+$/gu, '')
    .replaceAll(' [title]', '. ')
    .replace(/\[.*?\]/g, '')
    .replaceAll('  ', ' ')
}

/** As Python's str.capitalize: the first letter large, all others small. */
function capitalized(text: string): string {
  const [first = '', ...rest] = text
  return first.toUpperCase() + rest.join('').toLowerCase()
}

const winogrande: Task = {
  name: 'winogrande',
  metrics: ['acc'],
  paper: 'acc',
  source: { dataset: 'allenai/winogrande', files: ['winogrande_xl, validation split (dev.jsonl)'] },
  holds: (path) => path.includes('winogrande') || /(^|\/)dev\.jsonl$/.test(path),
  split: VALIDATION,
  question(record) {
    const given = centerpiece(record)
    const sentence = given?.text ?? textField(record, 'sentence')
    const options = given?.options ?? [textField(record, 'option1'), textField(record, 'option2')]
    const gold = given?.gold ?? indexField(record, 'answer', 2, 1)
    const blank = sentence.indexOf('_')
    if (blank < 0) throw new TypeError('the sentence must have a blank: _')
    // What follows the blank is scored after either name.
    const contexts = options.map((option) => sentence.slice(0, blank) + option)
    return oneContinuation(contexts, sentence.slice(blank + 1).trim(), gold)
  },
}

function arc(name: 'arc_easy' | 'arc_challenge', config: string, holds: (path: string) => boolean): Task {
  return {
    name,
    metrics: ['acc', 'acc_norm'],
    paper: 'acc_norm',
    source: { dataset: 'allenai/ai2_arc', files: [`${config}, test split`] },
    holds,
    split: TEST,
    question(record) {
      const given = centerpiece(record)
      if (given) return arcQuestion(given.text, given.options, given.gold)
      const { choices } = record
      if (typeof choices !== 'object' || choices === null) throw new TypeError('choices must have text and label')
      const texts = textsField(choices as TaskRecord, 'text')
      const labels = textsField(choices as TaskRecord, 'label')
      const gold = labels.indexOf(textField(record, 'answerKey'))
      if (gold < 0 || gold >= texts.length) throw new TypeError('answerKey must be one of the labels')
      return arcQuestion(textField(record, 'question'), texts, gold)
    },
  }
}

function arcQuestion(question: string, answers: readonly string[], gold: number): Question {
  return oneContext(`Question: ${question}\nAnswer:`, answers, gold)
}

const boolq: Task = {
  name: 'boolq',
  metrics: ['acc'],
  paper: 'acc',
  source: { dataset: 'aps/super_glue', files: ['boolq, validation split'] },
  holds: (path) => path.includes('boolq'),
  split: VALIDATION,
  question(record) {
    const { passage, question, gold } = record.prompt === undefined ? hubBoolq(record) : editingBoolq(record)
    return oneContext(`${passage}\nQuestion: ${question}?\nAnswer:`, ['no', 'yes'], gold)
  },
}

function hubBoolq(record: TaskRecord) {
  // google/boolq calls it answer, a truth value.
  const label = typeof record.answer === 'boolean' ? { label: Number(record.answer) } : record
  return {
    passage: textField(record, 'passage'),
    question: textField(record, 'question'),
    gold: indexField(label, 'label', 2),
  }
}

/** The copy in heddayam/kb-model-editing: a prompt with the passage in it, and the answer as a word. */
function editingBoolq(record: TaskRecord) {
  const passage = /^passage: ([\s\S]*)\nquestion: \{\}$/.exec(textField(record, 'prompt'))?.[1]
  const target = (record.target_new as TaskRecord | undefined)?.str
  if (passage === undefined) throw new TypeError('prompt must be "passage: … question: {}"')
  if (target !== 'True' && target !== 'False') throw new TypeError('target_new.str must be True or False')
  return { passage, question: textField(record, 'subject'), gold: target === 'True' ? 1 : 0 }
}

const lambada: Task = {
  name: 'lambada',
  metrics: ['acc', 'perplexity'],
  paper: undefined,
  source: { dataset: 'EleutherAI/lambada_openai', files: ['default, test split (lambada_test_en.jsonl)'] },
  holds: (path) => path.includes('lambada'),
  split: TEST,
  question(record) {
    const words = textField(record, 'text').split(' ')
    if (words.length < 2) throw new TypeError('text must have at least two words')
    const last = words.pop()!
    return oneContext(words.join(' '), [last], 0)
  },
}

/** In the order in which they are named. */
export const TASKS: readonly Task[] = [
  piqa,
  hellaswag,
  winogrande,
  arc('arc_easy', 'ARC-Easy', (path) => /arc[-_]?easy/.test(path)),
  arc('arc_challenge', 'ARC-Challenge', (path) => /arc[-_]?challenge/.test(path)),
  boolq,
  lambada,
]
