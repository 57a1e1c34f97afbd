// Small models for these tests: random weights, which say anything, but in the form that they are asked for.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { writeTinyModel } from '../tiny-model.ts'

export const STORIES = fileURLToPath(new URL('../../models/stories-5M.obt', import.meta.url))

/** Qwen's form of tools and results, without thinking. */
const TEMPLATE = `{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}Call by <tool_call>{"name": NAME, "arguments": ARGUMENTS}</tool_call><|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for call in m.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`

const CALLS = ['<tool_call>', '</tool_call>']

/** It answers chats and calls tools. Its context is long, so that an answer goes on until somebody ends it. */
export async function writeChatModel(path) {
  await writeTinyModel(path, { template: TEMPLATE, special: CALLS, context: 32_768 })
}

/** It may think before it answers. */
export async function writeThinkingModel(path) {
  const template = readFileSync(new URL('../fixtures/jinja/templates/thinking.jinja', import.meta.url), 'utf8')
  await writeTinyModel(path, { template, special: ['<think>', '</think>', ...CALLS], context: 2048 })
}

/** What makes a random model think and then answer. */
export const THOUGHT = 'root ::= "<think>" [a-z ]{20} "</think>" "\\n\\n" [A-Z]{10}'
