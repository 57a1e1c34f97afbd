// What is tried of the AI SDK, over HTTP and in this process alike.
import assert from 'node:assert/strict'
import {
  embed,
  embedMany,
  generateObject,
  generateText,
  isStepCount,
  jsonSchema,
  Output,
  streamObject,
  streamText,
  tool,
} from 'ai'
import { z } from 'zod'

globalThis.AI_SDK_LOG_WARNINGS = false

export const Weather = z.object({ city: z.enum(['Paris', 'Rome']), days: z.number().int().min(1).max(9) })
const Thing = z.object({
  name: z.string().max(12),
  tags: z.array(z.enum(['a', 'b'])).max(3),
  where: Weather.nullable(),
})

/**
 * @param models.chat a model that calls tools; its context has 32,768 positions
 * @param models.stories the stories, as a model of completions
 * @param models.embedding the same for embeddings
 * @param models.biased what providerOptions say of a bias of logits
 * @param models.idle resolves when nothing is computed any more
 * @param models.made how many tokens were generated so far
 */
export async function tryAiSdk(checks, models) {
  await tryTexts(checks, models)
  await tryTools(checks, models)
  await tryForms(checks, models)
  await tryBoth(checks, models)
  await tryAborts(checks, models)
  await tryEmbeddings(checks, models)
}

function askedOf(model) {
  return { model, prompt: 'Hello', seed: 7, maxOutputTokens: 30, maxRetries: 0 }
}

async function tryTexts(checks, { chat, stories }) {
  const asked = askedOf(chat)

  await checks.check('generateText and streamText give the same text, with usage', async () => {
    const whole = await generateText(asked)
    assert.equal(whole.finishReason, 'length')
    assert.equal(whole.usage.outputTokens, 30)
    const streamed = streamText(asked)
    let text = ''
    for await (const delta of streamed.textStream) text += delta
    assert.equal(text, whole.text)
    assert.equal(await streamed.finishReason, 'length')
    const usage = await streamed.usage
    assert.equal(usage.inputTokens, whole.usage.inputTokens)
    assert.ok(usage.inputTokenDetails.cacheReadTokens > 0, 'the same prompt is in the cache')
    assert.notEqual((await generateText({ ...asked, seed: 8 })).text, text)
  })

  await checks.check('a conversation is computed only where it is new', async () => {
    const messages = [{ role: 'user', content: 'x'.repeat(300) }]
    const first = await generateText({ ...asked, prompt: undefined, instructions: 'Short.', messages })
    messages.push({ role: 'assistant', content: 'y' }, { role: 'user', content: 'More' })
    const second = await generateText({ ...asked, prompt: undefined, instructions: 'Short.', messages })
    assert.ok(second.usage.inputTokens > first.usage.inputTokens)
    assert.ok(second.usage.inputTokenDetails.cacheReadTokens >= 300)
  })

  await checks.check('several streams at once give what each gives alone', async () => {
    const prompts = ['a', 'bb', 'ccc', 'dddd', 'eeeee', 'ffffff']
    const one = (prompt) => streamText({ ...asked, prompt }).text
    const together = await Promise.all(prompts.map(one))
    for (const [i, prompt] of prompts.entries()) assert.equal(await one(prompt), together[i])
    assert.ok(new Set(together).size > 1)
  })

  await checks.check('stop sequences and temperature 0 are taken', async () => {
    const story = { model: stories, prompt: 'Once upon a time', maxOutputTokens: 60, temperature: 0, maxRetries: 0 }
    const free = (await generateText(story)).text
    assert.equal((await generateText({ ...story, seed: 5 })).text, free)
    const stopped = await generateText({ ...story, stopSequences: ['.'] })
    assert.equal(stopped.text, free.slice(0, free.indexOf('.')))
    assert.equal(stopped.finishReason, 'stop')
    assert.notEqual((await generateText({ ...story, frequencyPenalty: 2, presencePenalty: 2 })).text, free)
  })
}

function weatherTool(calls) {
  return tool({
    description: 'Weather of a city',
    inputSchema: Weather,
    execute: async (input) => {
      calls.push(input)
      return { sunny: true }
    },
  })
}

async function tryTools(checks, { chat }) {
  const asked = askedOf(chat)

  await checks.check('tools: a required call is run, and the next step has its result', async () => {
    const calls = []
    const result = await generateText({
      ...asked,
      maxOutputTokens: 300,
      tools: { get_weather: weatherTool(calls) },
      prepareStep: ({ stepNumber }) => ({
        toolChoice: stepNumber > 0 ? 'auto' : { type: 'tool', toolName: 'get_weather' },
      }),
      stopWhen: isStepCount(2),
    })
    assert.equal(calls.length, 1)
    Weather.parse(calls[0])
    assert.equal(result.steps.length, 2)
    assert.equal(result.steps[0].finishReason, 'tool-calls')
    assert.deepEqual(result.steps[0].toolResults[0].output, { sunny: true })
    assert.ok(result.steps[1].usage.inputTokens > result.steps[0].usage.inputTokens)
  })

  await checks.check('tools: a streamed call comes in parts that make up its input', async () => {
    const parts = { start: 0, text: '' }
    let call
    const { stream } = streamText({
      ...asked,
      maxOutputTokens: 300,
      tools: { get_weather: tool({ inputSchema: Weather }) },
      toolChoice: 'required',
    })
    for await (const part of stream) {
      if (part.type === 'error') throw part.error
      if (part.type === 'tool-input-start') parts.start++
      if (part.type === 'tool-input-delta') parts.text += part.delta
      if (part.type === 'tool-call') call = part
    }
    assert.equal(parts.start, 1)
    assert.deepEqual(JSON.parse(parts.text), call.input)
    Weather.parse(call.input)
  })
}

async function tryForms(checks, { chat }) {
  const asked = askedOf(chat)

  await checks.check('generateObject, streamObject and Output give what the schema asks for', async () => {
    const more = { ...asked, maxOutputTokens: 400 }
    for (let seed = 0; seed < 3; seed++) {
      const { object } = await generateObject({ ...more, seed, schema: Thing })
      Thing.parse(object)
    }
    const streamed = streamObject({ ...more, schema: Thing })
    let partials = 0
    for await (const _ of streamed.partialObjectStream) partials++
    assert.ok(partials > 0)
    assert.deepEqual(await streamed.object, (await generateObject({ ...more, schema: Thing })).object)
    const { output } = await generateText({ ...more, output: Output.object({ schema: Weather }) })
    Weather.parse(output)
    const choice = await generateText({ ...more, output: Output.choice({ options: ['yes', 'no'] }) })
    assert.ok(['yes', 'no'].includes(choice.output))
    const own = jsonSchema({ type: 'object', properties: { x: { const: 5 } }, required: ['x'] })
    assert.equal((await generateObject({ ...more, schema: own })).object.x, 5)
  })
}

async function tryBoth(checks, { chat, biased }) {
  await checks.check('tools and a form of the text go together', async () => {
    const either = (bias) =>
      generateText({
        ...askedOf(chat),
        maxOutputTokens: 300,
        tools: { get_weather: tool({ inputSchema: Weather }) },
        output: Output.object({ schema: z.object({ ok: z.boolean() }) }),
        // The token <tool_call> comes first, or never.
        providerOptions: { onebit: biased({ 259: bias }) },
      })
    const called = await either(1000)
    Weather.parse(called.toolCalls[0].input)
    assert.equal(called.text, '')
    const said = await either(-1000)
    assert.equal(said.toolCalls.length, 0)
    assert.equal(typeof said.output.ok, 'boolean')
  })
}

async function tryAborts(checks, { chat, idle, made }) {
  const asked = askedOf(chat)

  await checks.check('abort ends a stream and frees its place', async () => {
    const before = await made()
    const stop = new AbortController()
    let deltas = 0
    const types = []
    const { stream } = streamText({ ...endless(asked), abortSignal: stop.signal, onError: () => {} })
    for await (const part of stream) {
      types.push(part.type)
      if (part.type === 'text-delta' && ++deltas === 5) stop.abort()
    }
    assert.ok(types.includes('abort'), types.slice(-5).join())
    await idle()
    await assert.rejects(generateText({ ...endless(asked), abortSignal: AbortSignal.timeout(100) }), (error) =>
      /abort|timeout/i.test(`${error.name} ${error.message}`),
    )
    await idle()
    const count = (await made()) - before
    assert.ok(count > 0 && count < 20_000, `${count} tokens were made`)
  })
}

async function tryEmbeddings(checks, { embedding }) {
  await checks.check('embed and embedMany', async () => {
    const texts = Array.from({ length: 9 }, (_, i) => `Text ${i} about a dog.`)
    const { embeddings, usage } = await embedMany({ model: embedding, values: texts, maxRetries: 0 })
    assert.equal(embeddings.length, 9)
    assert.ok(usage.tokens > 40)
    const { embedding: one } = await embed({ model: embedding, value: texts[4], maxRetries: 0 })
    assert.deepEqual(one, embeddings[4])
    assert.ok(Math.abs(Math.hypot(...one) - 1) < 1e-5)
    assert.notDeepEqual(embeddings[0], embeddings[1])
  })
}

/** An answer that goes on for longer than anybody waits. */
function endless(asked) {
  return { ...asked, maxOutputTokens: 30_000, providerOptions: { onebit: { ignoreEos: true } } }
}
