// The OpenAI SDK against `onebit serve`, with nothing but a base URL and a key.
import assert from 'node:assert/strict'
import OpenAI from 'openai'
import { zodFunction, zodResponseFormat } from 'openai/helpers/zod'
import { z } from 'zod'
import { Checks } from './checks.mjs'
import { STORIES, THOUGHT, writeChatModel, writeThinkingModel } from './models.mjs'
import { serveModels, temporaryFolder } from './served.mjs'

const folder = temporaryFolder()
await writeChatModel(folder.file('chat.obt'))
await writeThinkingModel(folder.file('thinker.obt'))
const server = await serveModels([
  `chat=${folder.file('chat.obt')}`,
  `stories=${STORIES}`,
  `thinker=${folder.file('thinker.obt')}`,
])
const client = new OpenAI({ baseURL: server.baseURL, apiKey: server.key, maxRetries: 0 })
const checks = new Checks('openai')
const messages = [{ role: 'user', content: 'Hello' }]
const chat = { model: 'chat', messages, seed: 7, max_tokens: 30 }
const Weather = z.object({ city: z.enum(['Paris', 'Rome']), days: z.number().int().min(1).max(9) })
const weather = { name: 'get_weather', description: 'Weather of a city', parameters: Weather }
const choice = { type: 'function', function: { name: 'get_weather' } }

await checks.check('models.list names the models', async () => {
  const names = []
  for await (const { id } of client.models.list()) names.push(id)
  assert.deepEqual(names, ['chat', 'stories', 'thinker'])
  assert.equal((await client.models.retrieve('stories')).id, 'stories')
})

await checks.check('chat: whole and streamed are the same text, with usage', async () => {
  const { data: whole, response } = await client.chat.completions.create(chat).withResponse()
  assert.equal(response.status, 200)
  assert.equal(whole.object, 'chat.completion')
  assert.equal(whole.choices[0].finish_reason, 'length')
  assert.equal(whole.usage.completion_tokens, 30)
  assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + 30)
  let [text, usage, finish] = ['']
  const stream = await client.chat.completions.create({
    ...chat,
    stream: true,
    stream_options: { include_usage: true },
  })
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? ''
    finish = chunk.choices[0]?.finish_reason ?? finish
    usage = chunk.usage ?? usage
  }
  assert.equal(text, whole.choices[0].message.content)
  assert.equal(finish, 'length')
  assert.equal(usage.completion_tokens, 30)
  assert.ok(usage.prompt_tokens_details.cached_tokens > 0, 'the same prompt is in the cache')
  const other = await client.chat.completions.create({ ...chat, seed: 8 })
  assert.notEqual(other.choices[0].message.content, text)
})

await checks.check('chat: the stream helper puts the same together', async () => {
  const runner = client.chat.completions.stream(chat)
  let text = ''
  runner.on('content', (delta) => {
    text += delta
  })
  const final = await runner.finalChatCompletion()
  assert.equal(final.choices[0].message.content, text)
  const whole = await client.chat.completions.create(chat)
  assert.equal(text, whole.choices[0].message.content)
})

await checks.check('chat: logprobs, stop and penalties are taken', async () => {
  const { choices } = await client.chat.completions.create({ ...chat, logprobs: true, top_logprobs: 2, temperature: 0 })
  assert.equal(choices[0].logprobs.content.length, 30)
  for (const { logprob, top_logprobs: top } of choices[0].logprobs.content) {
    assert.equal(top.length, 2)
    assert.equal(logprob, top[0].logprob)
  }
  const story = { model: 'stories', prompt: 'Once upon a time', max_tokens: 60, temperature: 0 }
  const free = (await client.completions.create(story)).choices[0].text
  const stopped = (await client.completions.create({ ...story, stop: ['.'] })).choices[0]
  assert.ok(free.includes('.'))
  assert.equal(stopped.text, free.slice(0, free.indexOf('.')))
  assert.equal(stopped.finish_reason, 'stop')
  const penal = (await client.completions.create({ ...story, frequency_penalty: 2, presence_penalty: 2 })).choices[0]
  assert.notEqual(penal.text, free)
})

await checks.check('chat: thinking stands apart from the answer', async () => {
  const grammar = { type: 'grammar', grammar: THOUGHT }
  const { choices, usage } = await client.chat.completions.create({
    model: 'thinker',
    messages,
    seed: 3,
    max_tokens: 200,
    response_format: grammar,
  })
  assert.match(choices[0].message.content, /^[A-Z]{10}$/)
  assert.ok(choices[0].message.reasoning_content.length > 0)
  assert.ok(usage.completion_tokens_details.reasoning_tokens > 0)
})

await checks.check('tools: a call, its streamed parts, and its result', async () => {
  const tools = [{ type: 'function', function: { ...weather, parameters: z.toJSONSchema(Weather) } }]
  const asked = { ...chat, tools, tool_choice: choice, max_tokens: 300 }
  const { choices } = await client.chat.completions.create(asked)
  assert.equal(choices[0].finish_reason, 'tool_calls')
  const [call] = choices[0].message.tool_calls
  Weather.parse(JSON.parse(call.function.arguments))
  const final = await client.chat.completions.stream(asked).finalChatCompletion()
  assert.equal(final.choices[0].message.tool_calls[0].function.arguments, call.function.arguments)
  const history = [...messages, choices[0].message, { role: 'tool', tool_call_id: call.id, content: 'sunny' }]
  const after = await client.chat.completions.create({ ...chat, messages: history, tools, tool_choice: 'none' })
  assert.equal(after.choices[0].finish_reason, 'length')
  assert.ok(after.usage.prompt_tokens > 100)
})

await checks.check('tools: runTools calls the function and goes on', async () => {
  const asked = []
  const run = zodFunction({
    ...weather,
    function: (args) => {
      asked.push(args)
      return 'sunny'
    },
  })
  const runner = client.chat.completions.runTools(
    { model: 'chat', messages: [...messages], seed: 7, max_tokens: 300, tools: [run], tool_choice: choice },
    { maxChatCompletions: 1 },
  )
  await runner.done()
  assert.equal(asked.length, 1)
  Weather.parse(asked[0])
  assert.equal(runner.messages.at(-1).content, 'sunny')
})

await checks.check('json_schema: parse gives what zod asks for', async () => {
  const format = zodResponseFormat(
    z.object({ name: z.string().max(12), tags: z.array(z.enum(['a', 'b'])).max(3), where: Weather.nullable() }),
    'thing',
  )
  for (let seed = 0; seed < 4; seed++) {
    const { choices } = await client.chat.completions.parse({ ...chat, seed, max_tokens: 400, response_format: format })
    assert.equal(typeof choices[0].message.parsed.name, 'string')
  }
})

await checks.check('responses: whole and streamed', async () => {
  const asked = { model: 'chat', input: 'Hello', max_output_tokens: 16, seed: 5 }
  const whole = await client.responses.create(asked)
  assert.equal(whole.status, 'incomplete')
  let text = ''
  for await (const event of await client.responses.create({ ...asked, stream: true })) {
    if (event.type === 'response.output_text.delta') text += event.delta
  }
  assert.equal(text, whole.output_text)
})

await checks.check('completions: echo with log-probabilities, as evaluations ask', async () => {
  const { choices } = await client.completions.create({
    model: 'stories',
    prompt: 'Once upon a time there was a little girl.',
    echo: true,
    logprobs: 3,
    max_tokens: 0,
  })
  const { tokens, token_logprobs: scores, top_logprobs: top, text_offset: at } = choices[0].logprobs
  assert.equal(choices[0].text, 'Once upon a time there was a little girl.')
  assert.equal(scores[0], null)
  assert.ok(scores.slice(1).every((score) => score <= 0))
  assert.ok(top.slice(1).every((row) => Object.keys(row).length >= 2))
  assert.deepEqual([scores.length, top.length, at.length], [tokens.length, tokens.length, tokens.length])
})

await checks.check('embeddings: base64 (the default) and floats are the same numbers', async () => {
  const input = ['A dog runs.', 'A cat sleeps.']
  const packed = await client.embeddings.create({ model: 'stories', input })
  const plain = await client.embeddings.create({ model: 'stories', input, encoding_format: 'float' })
  assert.equal(packed.data.length, 2)
  for (const [i, { embedding }] of packed.data.entries()) {
    assert.equal(embedding.length, 256)
    assert.deepEqual([...embedding], plain.data[i].embedding.map(Math.fround))
    const length = Math.hypot(...embedding)
    assert.ok(Math.abs(length - 1) < 1e-5)
  }
  assert.notDeepEqual(packed.data[0].embedding, packed.data[1].embedding)
})

await checks.check('abort: breaking out of a stream, and a signal, free the place', async () => {
  const long = { ...chat, max_tokens: 30_000, stream: true, logit_bias: { 258: -1000 } }
  const before = await server.metric('generation_tokens_total')
  const stream = await client.chat.completions.create(long)
  let seen = 0
  for await (const _ of stream) if (++seen === 5) break
  await server.idle()
  const stop = new AbortController()
  const aborted = await client.chat.completions.create(long, { signal: stop.signal })
  let chunks = 0
  try {
    for await (const _ of aborted) if (++chunks === 5) stop.abort()
  } catch (error) {
    assert.ok(error instanceof OpenAI.APIUserAbortError)
  }
  assert.ok(chunks >= 5)
  await server.idle()
  const made = (await server.metric('generation_tokens_total')) - before
  assert.ok(made < 30_000, `${made} tokens were made for readers that had left`)
})

await checks.check('errors have the classes of their kinds', async () => {
  await assert.rejects(client.chat.completions.create({ ...chat, model: 'nobody' }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError)
    assert.equal(error.code, 'model_not_found')
    return true
  })
  await assert.rejects(client.chat.completions.create({ ...chat, n: 2 }), OpenAI.BadRequestError)
  await assert.rejects(client.chat.completions.create({ ...chat, temperature: -1 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError)
    assert.equal(error.param, 'temperature')
    return true
  })
  const stranger = new OpenAI({ baseURL: server.baseURL, apiKey: 'sk-wrong', maxRetries: 0 })
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError)
})

await server.stop()
folder.remove()
checks.finish()
