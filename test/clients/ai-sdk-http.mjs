// The AI SDK with @ai-sdk/openai-compatible against `onebit serve`, with nothing but a base URL and a key.
import assert from 'node:assert/strict'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { APICallError, generateText } from 'ai'
import { tryAiSdk } from './ai-sdk-checks.mjs'
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
const provider = createOpenAICompatible({
  name: 'onebit',
  baseURL: server.baseURL,
  apiKey: server.key,
  includeUsage: true,
  supportsStructuredOutputs: true,
})
const checks = new Checks('ai over HTTP')

await tryAiSdk(checks, {
  chat: provider('chat'),
  stories: provider.completionModel('stories'),
  embedding: provider.embeddingModel('stories'),
  biased: (logit_bias) => ({ logit_bias }),
  idle: server.idle,
  made: () => server.metric('generation_tokens_total'),
})

await checks.check('thinking is told apart', async () => {
  const { text, reasoningText } = await generateText({
    model: provider('thinker'),
    prompt: 'Hello',
    seed: 3,
    maxRetries: 0,
    providerOptions: { onebit: { structured_outputs: { grammar: THOUGHT } } },
  })
  assert.match(text, /^[A-Z]{10}$/)
  assert.ok(reasoningText.length > 0)
})

await checks.check('an error is an APICallError with the status', async () => {
  await assert.rejects(generateText({ model: provider('nobody'), prompt: 'Hello', maxRetries: 0 }), (error) => {
    assert.ok(APICallError.isInstance(error))
    assert.equal(error.statusCode, 404)
    return /no model of this name/.test(error.message)
  })
})

await server.stop()
folder.remove()
checks.finish()
