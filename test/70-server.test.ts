/** The server's endpoints: the shapes that clients of OpenAI, vLLM and llama.cpp know. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { events, type Json, serveTiny, type TestServer } from './serving.js'

let server: TestServer
beforeAll(async () => {
  server = await serveTiny()
})
afterAll(() => server.stop())

const GREEDY = { temperature: 0, ignore_eos: true }

describe('/v1/models', () => {
  it('lists the models and says what each can do', async () => {
    const { data, object } = (await (await fetch(`${server.url}/v1/models`)).json()) as Json
    expect(object).toBe('list')
    expect(data).toHaveLength(1)
    expect(data[0]).toMatchObject({ id: 'tiny', object: 'model', owned_by: 'onebit-run', has_chat_template: true })
    const one = await (await fetch(`${server.url}/v1/models/tiny`)).json()
    expect(one).toEqual(data[0])
    expect((await fetch(`${server.url}/v1/models/other`)).status).toBe(404)
  })
})

describe('/v1/completions', () => {
  it('gives the same text as a session', async () => {
    const expected = await server.model
      .createSession()
      .complete('Once', { temperature: 0, maxTokens: 12, ignoreEos: true })
    const { body } = await server.json('/v1/completions', { model: 'tiny', prompt: 'Once', max_tokens: 12, ...GREEDY })
    expect(body).toMatchObject({ object: 'text_completion', model: 'tiny' })
    expect(body.choices).toEqual([{ index: 0, text: expected.text, logprobs: null, finish_reason: 'length' }])
    expect(body.usage).toMatchObject({ prompt_tokens: 5, completion_tokens: 12, total_tokens: 17 })
  })

  it('takes token ids, and several prompts, in their order', async () => {
    const prompts = [
      [256, 72, 105],
      [256, 72],
      [256, 105, 105, 105],
    ]
    const { body } = await server.json('/v1/completions', { prompt: prompts, max_tokens: 6, ...GREEDY })
    expect(body.choices.map((choice: Json) => choice.index)).toEqual([0, 1, 2])
    for (const [i, prompt] of prompts.entries()) {
      const expected = await server.model
        .createSession()
        .complete(prompt, { temperature: 0, maxTokens: 6, ignoreEos: true })
      expect(body.choices[i].text).toBe(expected.text)
    }
    const { body: texts } = await server.json('/v1/completions', { prompt: ['Hi', 'H'], max_tokens: 6, ...GREEDY })
    expect(texts.choices.map((choice: Json) => choice.text)).toEqual(
      body.choices.slice(0, 2).map((choice: Json) => choice.text),
    )
  })

  it('scores a prompt as lm-evaluation-harness asks for it', async () => {
    const ids = [...'The quick brown fox'].map((letter) => letter.charCodeAt(0))
    const request = { model: 'tiny', prompt: [ids], temperature: 0, max_tokens: 1, logprobs: 1, seed: 1234, echo: true }
    const session = server.model.createSession()
    const { logprobs, top } = await session.score(ids, { top: 1 })
    for (let again = 0; again < 2; again++) {
      const { body } = await server.json('/v1/completions', request)
      const told = body.choices[0].logprobs
      expect(told.token_logprobs).toHaveLength(ids.length + 1)
      expect(told.token_logprobs[0]).toBeNull()
      expect(told.top_logprobs[0]).toBeNull()
      expect(told.token_logprobs.slice(1, -1)).toEqual(Array.from(logprobs.subarray(1)))
      for (let i = 1; i < ids.length; i++) {
        const likeliest = Math.max(...Object.values<number>(told.top_logprobs[i]))
        expect(likeliest).toBe(top[i]![0]!.logprob)
        // What the client looks at to tell whether a token is the likeliest.
        expect(told.token_logprobs[i] === likeliest).toBe(top[i]![0]!.id === ids[i] || logprobs[i] === likeliest)
      }
      expect(told.token_logprobs.at(-1)).toBe(Math.max(...Object.values<number>(told.top_logprobs.at(-1))))
    }
  })

  it('keeps to a form and to stop texts with echo too', async () => {
    const request = { prompt: 'Hi', temperature: 0, max_tokens: 1, logprobs: 1, echo: true }
    const { body } = await server.json('/v1/completions', { ...request, structured_outputs: { regex: 'q+' } })
    expect(body.choices[0].text).toBe('Hiq')
    expect(await server.json('/v1/completions', { ...request, structured_outputs: { regex: '[0-9' } })).toMatchObject({
      status: 400,
      body: { error: { code: 'invalid_regex' } },
    })
    const next = (await server.json('/v1/completions', request)).body.choices[0].text.slice(2)
    const stopped = await server.json('/v1/completions', { ...request, stop: next })
    expect(stopped.body.choices[0]).toMatchObject({ text: 'Hi', finish_reason: 'stop' })
  })

  it('computes nothing more of a list with a prompt that is refused', async () => {
    const tooLong = 'x'.repeat(server.model.context + 10)
    const many = [tooLong, ...Array<string>(100).fill('y')]
    for (const request of [
      { prompt: many, ignore_eos: true },
      { prompt: many, ignore_eos: true, stream: true },
    ]) {
      expect((await server.json('/v1/completions', request)).status).toBe(400)
      expect(await server.busy()).toEqual({ running: 0, waiting: 0 })
    }
    const { status } = await server.json('/v1/embeddings', { input: many })
    expect(status).toBe(400)
    expect(await server.busy()).toEqual({ running: 0, waiting: 0 })
  })

  it('has an entry for the token after the prompt when that is the end of the text', async () => {
    const bias = { 258: 1000 }
    const request = { prompt: [[72, 105]], temperature: 0, max_tokens: 1, logprobs: 1, echo: true }
    const { body } = await server.json('/v1/completions', request)
    expect(body.choices[0].logprobs.token_logprobs).toHaveLength(3)
    const { body: ended } = await server.json('/v1/completions', { ...request, echo: false, logit_bias: bias })
    expect(ended.choices[0]).toMatchObject({ text: '', finish_reason: 'stop' })
  })

  it('tells offsets in code points', async () => {
    const prompt = 'a😀é'
    const { body } = await server.json('/v1/completions', { prompt, max_tokens: 0, echo: true, logprobs: 2 })
    const { text, logprobs } = body.choices[0]
    expect(text).toBe(prompt)
    // BOS, a, four bytes of one character, two of another
    expect(logprobs.text_offset).toEqual([0, 0, 1, 1, 1, 1, 2, 2])
    expect(Object.keys(logprobs.top_logprobs[1]).length).toBeGreaterThan(0)
  })

  it('echoes and goes on', async () => {
    const request = { prompt: 'Hello', max_tokens: 4, ...GREEDY }
    const { body: plain } = await server.json('/v1/completions', request)
    const { body: echoed } = await server.json('/v1/completions', { ...request, echo: true, logprobs: 1 })
    expect(echoed.choices[0].text).toBe(`Hello${plain.choices[0].text}`)
    expect(echoed.choices[0].logprobs.tokens).toHaveLength(6 + 4)
  })

  it('streams what it would have answered at once', async () => {
    const request = { prompt: 'Once', max_tokens: 20, ...GREEDY, logprobs: 1 }
    const { body } = await server.json('/v1/completions', request)
    const streamed = await server.post('/v1/completions', {
      ...request,
      stream: true,
      stream_options: { include_usage: true },
    })
    expect(streamed.headers.get('content-type')).toMatch(/^text\/event-stream/)
    const told = events(await streamed.text())
    expect(told.at(-1)).toBe('[DONE]')
    expect(told.at(-2)).toMatchObject({ choices: [], usage: { completion_tokens: 20 } })
    const choices = told.slice(0, -2).map((chunk) => chunk.choices[0])
    expect(choices.map((choice) => choice.text).join('')).toBe(body.choices[0].text)
    expect(choices.flatMap((choice) => choice.logprobs?.token_logprobs ?? [])).toEqual(
      body.choices[0].logprobs.token_logprobs,
    )
    expect(choices.at(-1).finish_reason).toBe('length')
    expect(choices.slice(0, -1).every((choice) => choice.finish_reason === null)).toBe(true)
  })

  it('stops before a stop text', async () => {
    const { body } = await server.json('/v1/completions', { prompt: 'Once', max_tokens: 20, ...GREEDY })
    const whole: string = body.choices[0].text
    const stop = whole.slice(4, 6)
    const { body: cut } = await server.json('/v1/completions', {
      prompt: 'Once',
      max_tokens: 20,
      ...GREEDY,
      stop: [stop, ''],
    })
    expect(cut.choices[0]).toMatchObject({ text: whole.slice(0, whole.indexOf(stop)), finish_reason: 'stop' })
  })

  it('says that a prompt is too long, and how long it is', async () => {
    const { status, body } = await server.json('/v1/completions', { prompt: 'x'.repeat(300) })
    expect(status).toBe(400)
    expect(body.error).toMatchObject({ type: 'invalid_request_error', code: 'context_length_exceeded' })
    expect(body.error.message).toMatch(/301.*256/)
  })
})

describe('/v1/chat/completions', () => {
  const messages = [{ role: 'user', content: 'Hello' }]

  it('gives the same text as a session', async () => {
    const expected = await server.model
      .createSession()
      .complete(messages, { temperature: 0, maxTokens: 12, ignoreEos: true })
    const { body } = await server.json('/v1/chat/completions', { messages, max_completion_tokens: 12, ...GREEDY })
    expect(body).toMatchObject({ object: 'chat.completion', model: 'tiny' })
    expect(body.choices[0]).toMatchObject({
      index: 0,
      message: { role: 'assistant', content: expected.text },
      finish_reason: 'length',
      logprobs: null,
    })
    expect(body.usage.completion_tokens_details).toEqual({ reasoning_tokens: 0 })
    expect(body.timings.predicted_n).toBe(12)
  })

  it('takes contents in parts, and the developer role', async () => {
    const parts = [
      {
        role: 'user',
        content: [
          { type: 'text', text: 'Hel' },
          { type: 'text', text: 'lo' },
        ],
      },
    ]
    const request = { max_tokens: 8, ...GREEDY }
    const { body: plain } = await server.json('/v1/chat/completions', { messages, ...request })
    const { body: split } = await server.json('/v1/chat/completions', { messages: parts, ...request })
    expect(split.choices[0].message).toEqual(plain.choices[0].message)
    const system = { role: 'system', content: 'Be short.' }
    const { body: first } = await server.json('/v1/chat/completions', { messages: [system, ...messages], ...request })
    const developer = { ...system, role: 'developer' }
    const { body: second } = await server.json('/v1/chat/completions', {
      messages: [developer, ...messages],
      ...request,
    })
    expect(second.choices[0].message).toEqual(first.choices[0].message)
  })

  it('streams what it would have answered at once', async () => {
    const request = { messages, max_tokens: 16, ...GREEDY, logprobs: true, top_logprobs: 2 }
    const { body } = await server.json('/v1/chat/completions', request)
    const response = await server.post('/v1/chat/completions', {
      ...request,
      stream: true,
      stream_options: { include_usage: true },
    })
    const told = events(await response.text())
    expect(told[0].choices[0].delta).toMatchObject({ role: 'assistant' })
    expect(told.at(-1)).toBe('[DONE]')
    expect(told.at(-2).usage.total_tokens).toBe(body.usage.total_tokens)
    const choices = told.slice(0, -2).map((chunk) => chunk.choices[0])
    expect(choices.map((choice) => choice.delta.content ?? '').join('')).toBe(body.choices[0].message.content)
    expect(choices.flatMap((choice) => choice.logprobs?.content ?? [])).toEqual(body.choices[0].logprobs.content)
    expect(body.choices[0].logprobs.content).toHaveLength(16)
    expect(body.choices[0].logprobs.content[0].top_logprobs).toHaveLength(2)
  })

  it('computes nothing again of a history that is sent again', async () => {
    const history: { role: string; content: string }[] = []
    let before = 0
    for (let turn = 0; turn < 3; turn++) {
      history.push({ role: 'user', content: `turn ${turn}` })
      const { body } = await server.json('/v1/chat/completions', { messages: history, max_tokens: 4, ...GREEDY })
      const { prompt_tokens: prompt, prompt_tokens_details: details } = body.usage
      if (turn > 0) expect(details.cached_tokens).toBeGreaterThanOrEqual(before)
      before = prompt - 1
      history.push({ role: 'assistant', content: 'plain' })
    }
  })

  it('refuses several answers, and tools where the template has none', async () => {
    const many = await server.json('/v1/chat/completions', { messages, n: 2 })
    expect(many).toMatchObject({ status: 400, body: { error: { param: 'n' } } })
    const tools = [{ type: 'function', function: { name: 'f', parameters: { type: 'object', properties: {} } } }]
    const refused = await server.json('/v1/chat/completions', { messages, tools })
    expect(refused).toMatchObject({ status: 400, body: { error: { param: 'tools', code: 'no_tools' } } })
  })

  it('gives JSON that is valid by a schema', async () => {
    const schema = {
      type: 'object',
      properties: { n: { enum: [1, 2, 3] } },
      required: ['n'],
      additionalProperties: false,
    }
    const response_format = { type: 'json_schema', json_schema: { name: 'n', schema } }
    for (let seed = 0; seed < 5; seed++) {
      const { body } = await server.json('/v1/chat/completions', { messages, response_format, seed, max_tokens: 100 })
      expect(body.choices[0].finish_reason).toBe('stop')
      expect([1, 2, 3]).toContain(JSON.parse(body.choices[0].message.content).n)
    }
    const bad = await server.json('/v1/chat/completions', {
      messages,
      response_format: { type: 'json_schema', json_schema: { schema: { type: 'strange' } } },
    })
    expect(bad).toMatchObject({ status: 400, body: { error: { code: 'invalid_schema' } } })
  })
})

describe('/v1/responses', () => {
  it('answers and streams as the chat does', async () => {
    const request = { max_output_tokens: 12, ...GREEDY, instructions: 'Be short.', input: 'Hello' }
    const { body } = await server.json('/v1/responses', request)
    const messages = [
      { role: 'system', content: 'Be short.' },
      { role: 'user', content: 'Hello' },
    ]
    const { body: chat } = await server.json('/v1/chat/completions', { messages, max_tokens: 12, ...GREEDY })
    expect(body).toMatchObject({
      object: 'response',
      status: 'incomplete',
      incomplete_details: { reason: 'max_output_tokens' },
    })
    expect(body.output[0].content[0].text).toBe(chat.choices[0].message.content)
    const told = events(await (await server.post('/v1/responses', { ...request, stream: true })).text())
    expect(told.map(({ sequence_number: n }) => n)).toEqual(told.map((_, i) => i))
    expect(told[0].type).toBe('response.created')
    const deltas = told.filter(({ type }) => type === 'response.output_text.delta')
    expect(deltas.map(({ delta }) => delta).join('')).toBe(chat.choices[0].message.content)
    expect(told.at(-1)).toMatchObject({ type: 'response.incomplete' })
  })
})

describe('/v1/embeddings', () => {
  it('gives vectors of length 1, as floats and as bytes', async () => {
    const { body } = await server.json('/v1/embeddings', { input: ['Hello', 'Other'] })
    const expected = await server.model.createSession().embed('Hello')
    expect(body.data.map((one: Json) => one.index)).toEqual([0, 1])
    expect(body.data[0].embedding).toEqual(Array.from(expected))
    expect(body.usage.prompt_tokens).toBe(12)
    const { body: packed } = await server.json('/v1/embeddings', { input: 'Hello', encoding_format: 'base64' })
    const bytes = Buffer.from(packed.data[0].embedding, 'base64')
    expect(Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i))).toEqual(Array.from(expected))
    const wrong = await server.json('/v1/embeddings', { input: 'Hello', dimensions: 5 })
    expect(wrong).toMatchObject({ status: 400, body: { error: { param: 'dimensions' } } })
  })
})

describe('/tokenize and /detokenize', () => {
  it('speak vLLM and llama.cpp', async () => {
    const { body: vllm } = await server.json('/tokenize', { prompt: 'test', add_special_tokens: false })
    expect(vllm.tokens).toEqual([116, 101, 115, 116])
    expect((await server.json('/tokenize', { prompt: 'test' })).body.tokens[0]).toBe(256)
    expect((await server.json('/tokenize', { content: 'test' })).body.tokens).toEqual(vllm.tokens)
    expect((await server.json('/tokenize', { prompt: '<|im_end|>', add_special_tokens: false })).body.tokens).toEqual([
      258,
    ])
    const plain = await server.json('/tokenize', {
      prompt: '<|im_end|>',
      add_special_tokens: false,
      parse_special: false,
    })
    expect(plain.body.tokens).toHaveLength(10)
    const { body: back } = await server.json('/detokenize', { tokens: vllm.tokens })
    expect(back).toEqual({ prompt: 'test', content: 'test' })
    const info = (await (await fetch(`${server.url}/tokenizer_info`)).json()) as Json
    expect(info).toMatchObject({ bos_token: '<|bos|>', eos_token: '<|im_end|>' })
    expect(info.chat_template).toContain('im_start')
  })
})

describe('what the server says of itself', () => {
  it('counts', async () => {
    expect(await (await fetch(`${server.url}/health`)).json()).toEqual({ status: 'ok' })
    const text = await (await fetch(`${server.url}/metrics`)).text()
    expect(text).toMatch(/^# TYPE onebit_requests_total counter$/m)
    expect(text).toMatch(/^onebit_requests_running\{model="tiny"\} 0$/m)
    expect(text).toMatch(/^onebit_http_responses_total\{status="200"\} [1-9]\d*$/m)
  })
})

describe('the page', () => {
  it('is served with all that it loads, and may load nothing else', async () => {
    const index = await fetch(server.url)
    expect(index.headers.get('content-security-policy')).toMatch(/^default-src 'self';/)
    const html = await index.text()
    const found = [...html.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, path]) => path!)
    for (const path of new Set([...found, '/page/view.js', '/page/vendor/marked.js', '/page/vendor/dompurify.js'])) {
      const file = await fetch(server.url + path)
      expect([path, file.status]).toEqual([path, 200])
      const text = await file.text()
      const imports = [...text.matchAll(/(?:from|import) '([./][^']+)'/g)].map(
        ([, name]) => new URL(name!, server.url + path),
      )
      for (const { href } of imports) expect([href, (await fetch(href)).status]).toEqual([href, 200])
    }
  })
})
