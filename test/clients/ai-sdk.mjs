// The AI SDK with models in this process: onebit-run/ai-sdk.
import assert from 'node:assert/strict'
import { createProviderRegistry, generateText, streamText, tool } from 'ai'
import { createOnebit, onebit } from '../../dist/ai-sdk/index.js'
import { Model } from '../../dist/index.js'
import { tryAiSdk, Weather } from './ai-sdk-checks.mjs'
import { Checks, until } from './checks.mjs'
import { STORIES, THOUGHT, writeChatModel, writeThinkingModel } from './models.mjs'
import { temporaryFolder } from './served.mjs'

const folder = temporaryFolder()
await writeChatModel(folder.file('chat.obt'))
await writeThinkingModel(folder.file('thinker.obt'))
const chat = await Model.load(folder.file('chat.obt'), { threads: 2 })
const provider = createOnebit({
  models: { chat, stories: STORIES, thinker: folder.file('thinker.obt') },
  load: { threads: 2 },
})
const checks = new Checks('ai in process')

await tryAiSdk(checks, {
  chat: provider('chat'),
  stories: provider('stories'),
  embedding: provider.embeddingModel('stories'),
  biased: (logitBias) => ({ logitBias }),
  idle: () => until(() => provider.state('chat').running + provider.state('chat').waiting === 0),
  made: async () => provider.state('chat').newTokens,
})

await checks.check('thinking is told apart, whole and streamed', async () => {
  const asked = {
    model: provider('thinker'),
    prompt: 'Hello',
    seed: 3,
    maxOutputTokens: 200,
    maxRetries: 0,
    providerOptions: { onebit: { grammar: THOUGHT } },
  }
  const { text, reasoningText, usage } = await generateText(asked)
  assert.match(text, /^[A-Z]{10}$/)
  assert.ok(reasoningText.length > 0)
  assert.ok(usage.outputTokenDetails.reasoningTokens > 0)
  const streamed = streamText(asked)
  let thinking = ''
  for await (const part of streamed.stream) if (part.type === 'reasoning-delta') thinking += part.text
  assert.equal(thinking, reasoningText)
  assert.equal(await streamed.text, text)
})

await checks.check('reasoning: none tells the template not to think', async () => {
  const asked = { model: provider('thinker'), prompt: 'Hello', seed: 3, maxOutputTokens: 5, maxRetries: 0 }
  const free = await generateText(asked)
  const none = await generateText({ ...asked, reasoning: 'none' })
  assert.ok(none.usage.inputTokens > free.usage.inputTokens, 'the template puts an empty thought into the prompt')
  const high = await generateText({ ...asked, reasoning: 'high' })
  assert.equal(high.warnings[0].feature, 'reasoning')
})

await checks.check('what cannot be done is a warning, what is wrong is an error', async () => {
  const { warnings } = await generateText({
    model: provider('stories'),
    prompt: 'Once',
    tools: { get_weather: tool({ inputSchema: Weather }) },
    maxOutputTokens: 3,
    maxRetries: 0,
  })
  assert.deepEqual(
    warnings.map(({ type }) => type),
    ['unsupported', 'other'],
  )
  const image = { type: 'file', mediaType: 'image/png', data: new Uint8Array([1, 2, 3]) }
  const messages = [{ role: 'user', content: [{ type: 'text', text: 'What is it?' }, image] }]
  await assert.rejects(generateText({ model: provider('chat'), messages, maxRetries: 0 }), {
    code: 'ERR_UNSUPPORTED_PART',
  })
  await assert.rejects(generateText({ model: provider('chat'), prompt: 'x'.repeat(33_000), maxRetries: 0 }), {
    code: 'ERR_CONTEXT_FULL',
  })
  assert.throws(() => provider('nobody'), { code: 'ERR_NO_MODEL' })
})

await checks.check('a registry finds its models, and metadata says how it ran', async () => {
  const registry = createProviderRegistry({ local: provider })
  const { providerMetadata, response } = await generateText({
    model: registry.languageModel('local:chat'),
    prompt: 'Hello',
    maxOutputTokens: 8,
    maxRetries: 0,
  })
  assert.equal(providerMetadata.onebit.isa, chat.isa)
  assert.ok(providerMetadata.onebit.tokensPerSecond > 0)
  assert.equal(response.modelId, 'chat')
})

await checks.check('onebit() takes a loaded model, and a path', async () => {
  const asked = { prompt: 'Hello', seed: 7, maxOutputTokens: 5, maxRetries: 0 }
  const loaded = await generateText({ ...asked, model: onebit(chat) })
  const read = await generateText({ ...asked, model: onebit(folder.file('chat.obt')) })
  assert.equal(read.text, loaded.text)
  await onebit.close()
})

await checks.check('after close nothing is answered, and models that were given live on', async () => {
  await provider.close()
  await assert.rejects(generateText({ model: provider('chat'), prompt: 'Hello', maxRetries: 0 }), {
    code: 'ERR_DISPOSED',
  })
  assert.equal(chat.disposed, false)
  await chat.dispose()
})

folder.remove()
checks.finish()
