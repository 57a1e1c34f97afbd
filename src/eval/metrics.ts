/** From the scores of answers to figures with standard errors, as the harness computes them. */
import type { AnswerScore } from './choices.js'
import type { Metric, Question, Task } from './tasks/task.js'

/** A metric of a task. */
export interface Figure {
  /** of accuracies 0 to 1 */
  value: number
  /** standard error; 0 for fewer than two questions */
  stderr: number
}

/** The metrics that a task has. */
export type Figures = Partial<Record<Metric, Figure>>

/** `scores`: for each question those of its answers. */
export function figuresOf(task: Task, questions: readonly Question[], scores: readonly AnswerScore[][]): Figures {
  const figures: Figures = {}
  for (const metric of task.metrics) figures[metric] = FIGURES[metric](questions, scores)
  return figures
}

type Compute = (questions: readonly Question[], scores: readonly AnswerScore[][]) => Figure

const FIGURES: Readonly<Record<Metric, Compute>> = {
  acc: (questions, scores) => mean(scores.map((one, i) => Number(isRight(questions[i]!, one)))),
  acc_norm: (questions, scores) =>
    mean(scores.map((one, i) => Number(likeliest(one, questions[i]!.lengths) === questions[i]!.gold))),
  perplexity: (_questions, scores) => {
    const { value, stderr } = mean(scores.map(([one]) => one!.logprob))
    const perplexity = Math.exp(-value)
    // Of the exponential of a mean, to first order. (The harness draws samples; it says about the same.)
    return { value: perplexity, stderr: perplexity * stderr }
  },
}

/** One answer is right when the model would say it; of several, the likeliest is the model's choice. */
function isRight({ gold }: Question, scores: readonly AnswerScore[]): boolean {
  return scores.length === 1 ? scores[0]!.greedy : likeliest(scores) === gold
}

/** The index of the likeliest answer, by characters where lengths are given; of equal ones the first. */
export function likeliest(scores: readonly AnswerScore[], lengths?: readonly number[]): number {
  const values = scores.map(({ logprob }, i) => (lengths ? logprob / lengths[i]! : logprob))
  return values.indexOf(Math.max(...values))
}

function mean(values: readonly number[]): Figure {
  const n = values.length
  const value = values.reduce((sum, x) => sum + x, 0) / n
  const squares = values.reduce((sum, x) => sum + (x - value) ** 2, 0)
  return { value, stderr: n < 2 ? 0 : Math.sqrt(squares / (n - 1) / n) }
}
