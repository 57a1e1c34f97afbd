/** Options that say how an answer is made: of `onebit run`, and of /set in its chat. */
import type { GenerateOptions } from '../run/generate-options.js'
import { apiOptions, type OptionSpec, type OptionValues } from './arguments.js'

export const ANSWER_OPTIONS: Record<string, OptionSpec> = {
  n: { type: 'integer', short: 'n', api: 'maxTokens', help: 'at most N new tokens (default: until the model ends)' },
  temp: {
    type: 'number',
    api: 'temperature',
    help: 'temperature; 0 always takes the likeliest token (default 0.8)',
  },
  'top-k': { type: 'integer', api: 'topK', help: 'sample from the k likeliest tokens; 0: from all (default 40)' },
  'top-p': {
    type: 'number',
    api: 'topP',
    help: 'sample from the likeliest tokens that sum to p, 0 to 1 (default 0.95)',
  },
  'min-p': {
    type: 'number',
    api: 'minP',
    help: 'leave out tokens below p times the likeliest one, 0 to 1 (default 0.05)',
  },
  'repeat-penalty': {
    type: 'number',
    api: 'repeatPenalty',
    help: 'divide the logits of recent tokens by this (default 1: off)',
  },
  'repeat-last-n': { type: 'integer', api: 'repeatLastN', help: 'how many tokens count as recent (default 64)' },
  'presence-penalty': { type: 'number', api: 'presencePenalty', help: 'subtract this from tokens that occurred' },
  'frequency-penalty': { type: 'number', api: 'frequencyPenalty', help: 'subtract this per occurrence' },
  seed: { type: 'integer', help: 'same seed, same text (default: random)' },
  speculate: {
    type: 'string',
    value: 'auto|off|N',
    help: 'compute what was said before ahead, N tokens at a time: the same text, sooner (default auto)',
  },
  stop: { type: 'string', value: 'TEXT', multiple: true, help: 'stop before this text; may be given several times' },
}

export function generateOptions(values: OptionValues): GenerateOptions {
  const options: GenerateOptions = apiOptions(ANSWER_OPTIONS, values)
  const { speculate } = options as { speculate?: unknown }
  if (typeof speculate === 'string' && /^\d+$/.test(speculate)) options.speculate = Number(speculate)
  return options
}
