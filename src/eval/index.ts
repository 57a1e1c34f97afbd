/** What `import … from 'onebit-run/eval'` gives: measures of a model. */
export { type CompareOptions, type CompareResult, compare } from './compare.js'
export {
  type AnswerScore,
  type EvaluateOptions,
  type EvaluateResult,
  evaluate,
  type Figure,
  type Figures,
  TASK_NAMES,
  type TaskName,
  type TaskResult,
} from './evaluate.js'
export { type PerplexityOptions, type PerplexityResult, perplexity, perplexityOfTexts } from './perplexity.js'
