/** Tool calls and thinking over HTTP, with a model whose markers are special tokens. */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { PROJECT } from './data.js'
import { events, type Json, serveTiny, type TestServer } from './serving.js'

const template = readFileSync(`${PROJECT}/test/fixtures/jinja/templates/thinking.jinja`, 'utf8')
let server: TestServer
beforeAll(async () => {
  server = await serveTiny(
    {},
    { template, special: ['<think>', '</think>', '<tool_call>', '</tool_call>'], context: 1024 },
  )
})
afterAll(() => server.stop())

const tools = [
  {
    type: 'function',
    function: {
      name: 'get_weather',
      description: 'Weather of a city',
      parameters: {
        type: 'object',
        properties: { city: { enum: ['Paris', 'Rome'] }, days: { type: 'integer', minimum: 1, maximum: 9 } },
        required: ['city', 'days'],
        additionalProperties: false,
      },
    },
  },
  { type: 'function', function: { name: 'now' } },
]
const messages = [{ role: 'user', content: 'Weather?' }]
const named = { tools, tool_choice: { type: 'function', function: { name: 'get_weather' } }, max_tokens: 300 }

/** The model begins with a call where it may. Thinking has no form, and a random model would not end it. */
const NO_THINKING = { logit_bias: { 261: 1000 } }

describe('tools', () => {
  it('that are required are called with arguments by their schema', async () => {
    for (let seed = 0; seed < 6; seed++) {
      const { status, body } = await server.json('/v1/chat/completions', { messages, ...named, ...NO_THINKING, seed })
      expect(status).toBe(200)
      const [choice] = body.choices
      expect(choice.finish_reason).toBe('tool_calls')
      const [call] = choice.message.tool_calls
      expect(call).toMatchObject({ type: 'function', function: { name: 'get_weather' } })
      expect(call.id.length).toBeGreaterThan(5)
      const { city, days } = JSON.parse(call.function.arguments)
      expect(['Paris', 'Rome']).toContain(city)
      expect(days).toBeGreaterThanOrEqual(1)
      expect(days).toBeLessThanOrEqual(9)
      expect(choice.message.content).toBeNull()
    }
  })

  it('are streamed in parts that make up the same call', async () => {
    const request = { messages, ...named, ...NO_THINKING, seed: 4 }
    const { body } = await server.json('/v1/chat/completions', request)
    const told = events(await (await server.post('/v1/chat/completions', { ...request, stream: true })).text())
    const deltas = told.flatMap((chunk: Json) => chunk.choices?.[0]?.delta?.tool_calls ?? [])
    expect(deltas[0]).toMatchObject({ index: 0, type: 'function', function: { name: 'get_weather', arguments: '' } })
    const text = deltas.map((delta: Json) => delta.function.arguments).join('')
    expect(JSON.parse(text)).toEqual(JSON.parse(body.choices[0].message.tool_calls[0].function.arguments))
    expect(told.at(-2).choices[0].finish_reason).toBe('tool_calls')
  })

  it('and their results go back into the conversation', async () => {
    const { body } = await server.json('/v1/chat/completions', { messages, ...named, ...NO_THINKING, seed: 1 })
    const { message } = body.choices[0]
    const result = { role: 'tool', tool_call_id: message.tool_calls[0].id, content: '{"sunny": true}' }
    const history = [...messages, message, result]
    const answer = await server.json('/v1/chat/completions', {
      messages: history,
      tools,
      max_tokens: 5,
      tool_choice: 'none',
    })
    expect(answer.status).toBe(200)
    const { body: shown } = await server.json('/tokenize', { messages: history, tools })
    const { body: text } = await server.json('/detokenize', { tokens: shown.tokens })
    expect(text.content).toContain('"name": "get_weather"')
    expect(text.content).toContain('{"sunny": true}')
  })

  it('and a format: the answer is a call, or has the format', async () => {
    const schema = { type: 'object', properties: { ok: { type: 'boolean' } }, required: ['ok'] }
    const format = {
      type: 'json_schema',
      json_schema: { name: 'x', schema: { ...schema, additionalProperties: false } },
    }
    const both = { messages, tools, response_format: format, max_tokens: 300, seed: 3 }
    const called = await server.json('/v1/chat/completions', { ...both, ...NO_THINKING })
    expect(called.body.choices[0]).toMatchObject({ finish_reason: 'tool_calls', message: { content: null } })
    const brace = { ['{'.charCodeAt(0)]: 1000 }
    const said = await server.json('/v1/chat/completions', { ...both, logit_bias: brace })
    expect(typeof JSON.parse(said.body.choices[0].message.content).ok).toBe('boolean')
    expect(said.body.choices[0].message.tool_calls).toBeUndefined()
  })

  it('that are chosen must be there, with schemas that can be followed', async () => {
    const other = { messages, tools, tool_choice: { type: 'function', function: { name: 'other' } } }
    expect(await server.json('/v1/chat/completions', other)).toMatchObject({
      status: 400,
      body: { error: { param: 'tool_choice' } },
    })
    const bad = {
      messages,
      tools: [
        { type: 'function', function: { name: 'f', parameters: { type: 'object', properties: { x: { not: {} } } } } },
      ],
    }
    expect(await server.json('/v1/chat/completions', bad)).toMatchObject({
      status: 400,
      body: { error: { code: 'invalid_schema' } },
    })
  })

  it('of the newer shape are calls there too', async () => {
    const flat = tools.map(({ function: { name, ...rest } }) => ({ type: 'function', name, ...rest }))
    const request = {
      input: 'Weather?',
      tools: flat,
      tool_choice: { type: 'function', name: 'get_weather' },
      ...NO_THINKING,
      seed: 2,
    }
    const { body } = await server.json('/v1/responses', request)
    expect(body.output.at(-1)).toMatchObject({ type: 'function_call', name: 'get_weather', status: 'completed' })
    const told = events(await (await server.post('/v1/responses', { ...request, stream: true })).text())
    const done = told.find(({ type }: Json) => type === 'response.function_call_arguments.done')
    expect(JSON.parse(done.arguments)).toEqual(JSON.parse(body.output.at(-1).arguments))
    expect(
      told.some(({ type, item }: Json) => type === 'response.output_item.added' && item.name === 'get_weather'),
    ).toBe(true)
    const back = [
      { role: 'user', content: 'Weather?' },
      body.output.at(-1),
      { type: 'function_call_output', call_id: body.output.at(-1).call_id, output: 'sun' },
    ]
    expect((await server.json('/v1/responses', { input: back, max_output_tokens: 3 })).status).toBe(200)
  })
})

describe('a call that is cut', () => {
  const flat = tools.map(({ function: { name, ...rest } }) => ({ type: 'function', name, ...rest }))
  const request = { input: 'Weather?', tools: flat, ...NO_THINKING, seed: 2, max_output_tokens: 60 }
  const cut = { ...request, tool_choice: { type: 'function', name: 'get_weather' } }

  it('has its name and what there is of its arguments, and is no whole one', async () => {
    const { body } = await server.json('/v1/responses', cut)
    expect(body).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } })
    const item = body.output.find(({ type }: Json) => type === 'function_call')
    expect(item).toMatchObject({ name: 'get_weather', status: 'incomplete' })
    expect(item.call_id).toMatch(/^call_/)
    const told = events(await (await server.post('/v1/responses', { ...cut, stream: true })).text())
    const done = told.find(({ type, item }: Json) => type === 'response.output_item.done' && item.name !== undefined)
    expect(done.item).toMatchObject({ name: 'get_weather', status: 'incomplete', arguments: item.arguments })
    expect(done.item.call_id).toMatch(/^call_/)
    const whole = told.find(({ type }: Json) => type === 'response.incomplete').response
    expect(whole.output.map(({ type, status }: Json) => [type, status])).toEqual(
      body.output.map(({ type, status }: Json) => [type, status]),
    )
  })
})

describe('what a prompt looks like', () => {
  it('is told with the tools and variables that an answer would have', async () => {
    const { body: plain } = await server.json('/apply-template', { messages })
    const { body } = await server.json('/apply-template', { messages, tools })
    expect(plain.prompt).not.toContain('get_weather')
    expect(body.prompt).toContain('get_weather')
    expect((await server.json('/apply-template', { messages, tools, tool_choice: 'none' })).body).toEqual(plain)
    const open = (await server.json('/apply-template', { messages, add_generation_prompt: false })).body.prompt
    expect(plain.prompt.startsWith(open)).toBe(true)
    expect(plain.prompt.length).toBeGreaterThan(open.length)
    const request = { messages, tools, chat_template_kwargs: { enable_thinking: false } }
    const without = (await server.json('/apply-template', request)).body.prompt
    expect(without).not.toBe(body.prompt)
    const counted = (await server.json('/tokenize', request)).body.count
    const answered = await server.json('/v1/chat/completions', { ...request, max_tokens: 1 })
    expect(counted).toBe(answered.body.usage.prompt_tokens)
    expect((await server.json('/apply-template', { messages, chat_template_kwargs: 5 })).status).toBe(400)
  })
})

describe('thinking', () => {
  it('is told apart from the answer', async () => {
    // First of all the model thinks, because nothing else may come; what it thinks is up to it.
    const begin = { grammar: 'root ::= "<think>" [a-z ]{20} "</think>" "\\n\\n" [A-Z]{10}' }
    const format = { response_format: { type: 'grammar', ...begin } }
    const { body } = await server.json('/v1/chat/completions', { messages, ...format, seed: 3, max_tokens: 200 })
    const { content, reasoning_content: reasoning } = body.choices[0].message
    expect(content).toMatch(/^[A-Z]{10}$/)
    expect(reasoning.length).toBeGreaterThan(0)
    expect(body.usage.completion_tokens_details.reasoning_tokens).toBeGreaterThan(0)
    const told = events(
      await (
        await server.post('/v1/chat/completions', { messages, ...format, seed: 3, max_tokens: 200, stream: true })
      ).text(),
    )
    const join = (name: string) => told.map((chunk: Json) => chunk.choices?.[0]?.delta?.[name] ?? '').join('')
    expect([join('content'), join('reasoning_content')]).toEqual([content, reasoning])
  })
})
