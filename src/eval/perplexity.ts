/**
 * Perplexity as the papers count it (the GPTQ convention, see docs of OneBit's evaluation): the text is tokenised once,
 * cut into consecutive blocks of `ctx` tokens, each block starts from nothing, and the result is exp of the mean over
 * blocks of the mean negative log-likelihood of a block's ctx - 1 predictable tokens. A last partial block is left out.
 */
import { OnebitError } from '../errors.js'
import type { Model } from '../run/model.js'
import { integerOption, optionFields, signalOption } from '../run/options.js'

export interface PerplexityOptions {
  /** tokens a block; default 2048 or the model's context when that is shorter */
  ctx?: number
  /** at most this many blocks */
  chunks?: number
  signal?: AbortSignal
  onBlock?: (done: number, total: number, perplexitySoFar: number) => void
}

export interface PerplexityResult {
  perplexity: number
  /** mean negative log-likelihood per predicted token, in nats */
  nll: number
  ctx: number
  chunks: number
  /** tokens of the whole text, used or not */
  tokens: number
}

/** `most`: the positions of the model; `usual`: those of its sessions. @throws OnebitError ERR_BAD_OPTION */
export function checkPerplexityOptions(options: PerplexityOptions, most: number, usual: number = most) {
  const fields = optionFields('options', options, ['ctx', 'chunks', 'signal', 'onBlock'])
  return {
    ctx: integerOption({ ctx: fields.ctx ?? Math.min(2048, usual) }, 'ctx', 2, most)!,
    chunks: integerOption(fields, 'chunks', 1, Number.MAX_SAFE_INTEGER) ?? Number.MAX_SAFE_INTEGER,
    signal: signalOption(fields),
  }
}

export async function perplexity(
  model: Model,
  ids: Int32Array,
  options: PerplexityOptions = {},
): Promise<PerplexityResult> {
  const { ctx, chunks, signal } = checkPerplexityOptions(options, model.config.context_length, model.context)
  const total = Math.min(Math.floor(ids.length / ctx), chunks)
  if (total === 0) {
    throw new OnebitError('ERR_TEXT_TOO_SHORT', `The text has ${ids.length} tokens, less than one block of ${ctx}.`, {
      hint: 'Give a longer text or smaller blocks (`ctx` in code, -c on the command line).',
    })
  }
  const session = model.createSession({ context: ctx })
  try {
    let sum = 0
    for (let block = 0; block < total; block++) {
      signal?.throwIfAborted()
      session.rewind(0)
      const { logprobs } = await session.score(ids.subarray(block * ctx, (block + 1) * ctx), {
        ...(signal ? { signal } : {}),
      })
      let blockSum = 0
      for (let i = 1; i < ctx; i++) blockSum -= logprobs[i]!
      sum += blockSum / (ctx - 1)
      options.onBlock?.(block + 1, total, Math.exp(sum / (block + 1)))
    }
    const nll = sum / total
    return { perplexity: Math.exp(nll), nll, ctx, chunks: total, tokens: ids.length }
  } finally {
    session.dispose()
  }
}
