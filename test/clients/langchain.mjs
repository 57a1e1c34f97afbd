// LangChain.js against `onebit serve`, with nothing but a base URL and a key.
import assert from 'node:assert/strict'
import { HumanMessage, SystemMessage, ToolMessage } from '@langchain/core/messages'
import { StringOutputParser } from '@langchain/core/output_parsers'
import { ChatPromptTemplate } from '@langchain/core/prompts'
import { tool } from '@langchain/core/tools'
import { ChatOpenAI, OpenAI, OpenAIEmbeddings } from '@langchain/openai'
import { z } from 'zod'
import { Checks } from './checks.mjs'
import { STORIES, writeChatModel } from './models.mjs'
import { serveModels, temporaryFolder } from './served.mjs'

const folder = temporaryFolder()
await writeChatModel(folder.file('chat.obt'))
const server = await serveModels([`chat=${folder.file('chat.obt')}`, `stories=${STORIES}`])
const reached = { apiKey: server.key, maxRetries: 0, configuration: { baseURL: server.baseURL } }
const checks = new Checks('langchain')
const chat = (more = {}) =>
  new ChatOpenAI({ ...reached, model: 'chat', maxTokens: 30, modelKwargs: { seed: 7 }, ...more })
const Weather = z.object({ city: z.enum(['Paris', 'Rome']), days: z.number().int().min(1).max(9) })
const asked = [new SystemMessage('Short.'), new HumanMessage('Hello')]

await checks.check('invoke and stream give the same text, with usage', async () => {
  const whole = await chat().invoke(asked)
  assert.equal(whole.usage_metadata.output_tokens, 30)
  assert.equal(whole.response_metadata.finish_reason, 'length')
  let text = ''
  let together
  for await (const chunk of await chat().stream(asked)) {
    text += chunk.content
    together = together ? together.concat(chunk) : chunk
  }
  assert.equal(text, whole.content)
  assert.equal(together.usage_metadata.output_tokens, 30)
  assert.equal(together.usage_metadata.input_tokens, whole.usage_metadata.input_tokens)
})

await checks.check('a chain, and several inputs at once', async () => {
  const chain = ChatPromptTemplate.fromTemplate('Say {what}.').pipe(chat()).pipe(new StringOutputParser())
  const inputs = ['a', 'b', 'c', 'd', 'e', 'f'].map((what) => ({ what }))
  const together = await chain.batch(inputs)
  for (const [i, input] of inputs.entries()) assert.equal(await chain.invoke(input), together[i])
})

await checks.check('tools: a call, its streamed parts, and its result', async () => {
  const weather = tool(async () => 'sunny', { name: 'get_weather', description: 'Weather', schema: Weather })
  const bound = chat({ maxTokens: 300 }).bindTools([weather], { tool_choice: 'get_weather' })
  const answer = await bound.invoke(asked)
  const [call] = answer.tool_calls
  assert.equal(call.name, 'get_weather')
  Weather.parse(call.args)
  let together
  for await (const chunk of await bound.stream(asked)) together = together ? together.concat(chunk) : chunk
  assert.deepEqual(together.tool_calls[0].args, call.args)
  const result = await weather.invoke(call)
  assert.ok(result instanceof ToolMessage)
  const after = await chat()
    .bindTools([weather])
    .invoke([...asked, answer, result])
  assert.ok(after.usage_metadata.input_tokens > answer.usage_metadata.input_tokens)
})

await checks.check('withStructuredOutput, by a schema and by a tool', async () => {
  for (const method of ['jsonSchema', 'functionCalling']) {
    const structured = chat({ maxTokens: 400 }).withStructuredOutput(Weather, { name: 'weather', method })
    Weather.parse(await structured.invoke(asked))
  }
  const anything = await chat({ maxTokens: 2000 }).invoke(asked, { response_format: { type: 'json_object' } })
  if (anything.response_metadata.finish_reason === 'stop') assert.equal(typeof JSON.parse(anything.content), 'object')
})

await checks.check('completions of the stories', async () => {
  const stories = new OpenAI({ ...reached, model: 'stories', maxTokens: 40, temperature: 0 })
  const whole = await stories.invoke('Once upon a time')
  let text = ''
  for await (const part of await stories.stream('Once upon a time')) text += part
  assert.equal(text, whole)
  assert.match(whole, /[a-z]+ [a-z]+/)
})

await checks.check('embeddings of documents and of a query', async () => {
  const embeddings = new OpenAIEmbeddings({ ...reached, model: 'stories' })
  const documents = await embeddings.embedDocuments(['A dog runs.', 'A cat sleeps.'])
  assert.equal(documents.length, 2)
  assert.deepEqual(await embeddings.embedQuery('A dog runs.'), documents[0])
  assert.equal(documents[0].length, 256)
  assert.ok(Math.abs(Math.hypot(...documents[0]) - 1) < 1e-5)
})

await checks.check('a signal ends a stream and frees its place', async () => {
  const before = await server.metric('generation_tokens_total')
  const stop = new AbortController()
  const long = chat({ maxTokens: 30_000, modelKwargs: { seed: 7, ignore_eos: true } })
  let chunks = 0
  await assert.rejects(async () => {
    for await (const _ of await long.stream(asked, { signal: stop.signal })) if (++chunks === 5) stop.abort()
  }, /abort/i)
  await server.idle()
  const made = (await server.metric('generation_tokens_total')) - before
  assert.ok(chunks >= 5 && made < 30_000, `${chunks} chunks came, ${made} tokens were made`)
})

await checks.check('errors say what is wrong', async () => {
  await assert.rejects(chat({ model: 'nobody' }).invoke(asked), (error) => error.status === 404)
  await assert.rejects(chat({ temperature: -1 }).invoke(asked), /temperature/)
})

await server.stop()
folder.remove()
checks.finish()
