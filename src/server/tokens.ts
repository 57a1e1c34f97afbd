/**
 * POST /tokenize and /detokenize, GET /tokenizer_info: as vLLM (`prompt`) and llama.cpp's server (`content`) have them.
 * lm-evaluation-harness works with nothing but these.
 */
import { templateVariables } from '../batch-chat/prepare-chat.js'
import { booleanOption, choiceOption } from '../options.js'
import type { Fields } from './body.js'
import { badField } from './errors.js'
import type { Exchange } from './exchange.js'
import { idList } from './fields.js'
import { messagesOf, toolsOf, variablesOf } from './messages.js'

export async function tokenize({ fields, models, parseSpecial, signal, reply }: Exchange): Promise<void> {
  const { model } = models.of(fields)
  if (fields.messages !== undefined) {
    const ids = await model.encodeChat(messagesOf(fields), renderOptions(fields, signal))
    reply({ tokens: Array.from(ids), count: ids.length, max_model_len: model.context })
    return
  }
  const text = fields.prompt ?? fields.content
  if (typeof text !== 'string') throw badField(fields.prompt === undefined ? 'content' : 'prompt', 'must be a string')
  // vLLM adds them unless told otherwise, llama.cpp's server does not.
  const isVllm = fields.prompt !== undefined
  const adds = booleanOption(fields, isVllm ? 'add_special_tokens' : 'add_special') ?? isVllm
  const special = booleanOption(fields, 'parse_special') ?? parseSpecial
  const ids = await model.requireTokenizer().encodeLong(text, { special, bos: adds ? 'auto' : false, signal })
  reply({ tokens: Array.from(ids), count: ids.length, max_model_len: model.context })
}

export function detokenize({ fields, models, reply }: Exchange): void {
  const { model } = models.of(fields)
  if (!Array.isArray(fields.tokens)) throw badField('tokens', 'must be an array of token ids')
  const ids = idList('tokens', fields.tokens, model.config.vocab_size)
  const text = model.requireTokenizer().decode(ids)
  reply({ prompt: text, content: text })
}

export function tokenizerInfo({ models, reply }: Exchange): void {
  const { model } = models.named(undefined)
  const tokenizer = model.requireTokenizer()
  const { config } = tokenizer
  const name = (token: unknown) =>
    typeof token === 'object' && token !== null ? (token as { content?: string }).content : token
  reply({
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: name(config.bos_token) ?? null,
    eos_token: name(config.eos_token) ?? tokenizer.idToToken(tokenizer.eosIds[0] ?? -1) ?? null,
    pad_token: name((config as { pad_token?: unknown }).pad_token) ?? null,
    add_bos_token: tokenizer.addsBos,
    model_max_length: model.context,
    ...(model.chatTemplate ? { chat_template: model.chatTemplate.source } : {}),
  })
}

/** POST /apply-template: the prompt that messages become, to look at. */
export async function applyTemplate({ fields, models, signal, reply }: Exchange): Promise<void> {
  const { model } = models.of(fields)
  const messages = messagesOf(fields)
  const format = choiceOption(fields, 'format', ['text']) ?? 'text'
  const options = renderOptions(fields, signal)
  if (!model.chatTemplate) await model.encodeChat(messages) // says that there is none
  reply({ prompt: await model.chatTemplate!.render(messages, options), format })
}

/** As /v1/chat/completions renders the same body; `add_generation_prompt` is for these endpoints alone. */
function renderOptions(fields: Fields, signal: AbortSignal) {
  const addGenerationPrompt = booleanOption(fields, 'add_generation_prompt') ?? true
  const { given: templateTools, choice } = toolsOf(fields)
  const variables = templateVariables({ variables: variablesOf(fields), templateTools, choice })
  return { variables, addGenerationPrompt, signal }
}
