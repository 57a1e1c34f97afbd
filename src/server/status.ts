/** What the server says about itself: models, health, metrics. */

import type { BatchState } from '../batch/requests.js'
import { packageVersion } from '../package-version.js'
import type { Exchange } from './exchange.js'
import type { Served } from './served.js'

export function listModels({ models, reply }: Exchange): void {
  reply({ object: 'list', data: models.all.map(describe) })
}

export function oneModel({ models, rest, reply }: Exchange): void {
  reply(describe(models.named(rest)))
}

function describe({ name, model, format, created }: Served) {
  return {
    id: name,
    object: 'model',
    created,
    owned_by: 'onebit-run',
    has_chat_template: model.hasChatTemplate,
    max_model_len: model.context,
    capabilities: { chat: model.hasChatTemplate, tools: format.toolFormat !== undefined, thinking: format.thinks },
  }
}

/** Says nothing but that it lives: whoever watches over it needs no key. */
export function health({ reply }: Exchange): void {
  reply({ status: 'ok' })
}

export function props({ models, reply }: Exchange): void {
  const { name, model } = models.named(undefined)
  reply({
    build_info: `onebit-run ${packageVersion()}`,
    model_alias: name,
    total_slots: models.parallel,
    chat_template: model.chatTemplate?.source ?? null,
    default_generation_settings: { n_ctx: model.context },
  })
}

const GAUGES: readonly [keyof BatchState, string, string][] = [
  ['running', 'requests_running', 'Requests that are being computed.'],
  ['waiting', 'requests_waiting', 'Requests that wait for a place.'],
  ['runningBytes', 'kv_running_bytes', 'Keys and values of requests under way.'],
  ['cacheBytes', 'kv_cache_bytes', 'Keys and values that are kept of requests that have ended.'],
]
const COUNTERS: readonly [keyof BatchState, string, string][] = [
  ['requests', 'requests_total', 'Requests that were computed.'],
  ['promptTokens', 'prompt_tokens_total', 'Tokens of prompts.'],
  ['cachedTokens', 'prompt_tokens_cached_total', 'Tokens of prompts that were in the cache.'],
  ['newTokens', 'generation_tokens_total', 'Tokens that were generated.'],
  ['steps', 'steps_total', 'Steps of the model.'],
]

/** Prometheus' text format. `responses`: how many there were of each status. */
export function metrics({ models, text }: Exchange, responses: ReadonlyMap<number, number>): void {
  const lines: string[] = []
  const family = (type: string, name: string, help: string, samples: [string, number][]) => {
    lines.push(`# HELP onebit_${name} ${help}`, `# TYPE onebit_${name} ${type}`)
    for (const [labels, value] of samples) lines.push(`onebit_${name}{${labels}} ${value}`)
  }
  const all = models.all.map(({ name, batch }) => ({ label: `model="${escaped(name)}"`, state: batch.state }))
  for (const [type, list] of [['gauge', GAUGES] as const, ['counter', COUNTERS] as const]) {
    for (const [key, name, help] of list) {
      family(
        type,
        name,
        help,
        all.map(({ label, state }) => [label, state[key]]),
      )
    }
  }
  const statuses = [...responses].map(([status, count]): [string, number] => [`status="${status}"`, count])
  family('counter', 'http_responses_total', 'Answers by their status.', statuses)
  text(`${lines.join('\n')}\n`, 'text/plain; version=0.0.4; charset=utf-8')
}

function escaped(label: string): string {
  return label.replace(/[\\"\n]/g, (sign) => (sign === '\n' ? '\\n' : `\\${sign}`))
}
