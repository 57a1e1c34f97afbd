/**
 * Measures of a model: `import { evaluate, perplexity, compare } from 'onebit-run/eval'`. Tasks as lm-evaluation-harness asks them
 * ({@link evaluate}), perplexity as the papers count it ({@link perplexity}), and what one model loses against another
 * ({@link compare}).
 * @module onebit-run/eval
 */
export { type CompareOptions, type CompareResult, compare } from './compare.js'
export {
  type AnswerScore,
  type EvaluateOptions,
  type EvaluateResult,
  evaluate,
  type Figure,
  type Figures,
  type Metric,
  TASK_NAMES,
  type TaskName,
  type TaskResult,
} from './evaluate.js'
export { type PerplexityOptions, type PerplexityResult, perplexity, perplexityOfTexts } from './perplexity.js'
