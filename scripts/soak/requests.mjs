// What the clients of a soak ask for. A request is known by its kind and number: the same two always give the same body, so
// that what it was answered among others can be asked for again alone.

/** xorshift32 over a name: the same numbers every time. */
export function numbers(name) {
  let state = [...name].reduce((sum, letter) => (Math.imul(sum, 31) + letter.charCodeAt(0)) | 0, 17) || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
}

const WORDS = 'the sun was warm and a small dog ran to its friend who had found one red ball by big old tree'.split(' ')

function words(random, count) {
  return Array.from({ length: count }, () => WORDS[Math.floor(random() * WORDS.length)]).join(' ')
}

const from = (random, least, most) => least + Math.floor(random() * (most - least + 1))

const SCHEMAS = [
  {
    type: 'object',
    properties: { name: { enum: ['Ada', 'Ben', 'Cleo'] }, age: { type: 'integer', minimum: 0, maximum: 120 } },
    required: ['name', 'age'],
    additionalProperties: false,
  },
  { type: 'array', items: { enum: [1, 2, 3] }, minItems: 1, maxItems: 4 },
  { enum: ['yes', 'no', 'perhaps'] },
  {
    type: 'object',
    properties: {
      tags: { type: 'array', items: { enum: ['red', 'old', 'big'] }, maxItems: 3 },
      ok: { type: 'boolean' },
    },
    required: ['tags', 'ok'],
    additionalProperties: false,
  },
]

function sampling(random) {
  return { seed: from(random, 0, 1e6), temperature: random() < 0.3 ? 0 : 1 }
}

/**
 * A conversation with its history as it is at some turn. Who asks for turn 2 usually asked for turn 1 before, so the server's
 * cache is used as chats use it.
 */
function messages(number) {
  const random = numbers(`conversation ${number >> 2}`)
  const told = random() < 0.5 ? [{ role: 'system', content: `Be ${words(random, 12)}.` }] : []
  for (let turn = 0; turn <= (number & 3); turn++) {
    if (turn > 0) told.push({ role: 'assistant', content: words(random, from(random, 3, 20)) })
    told.push({ role: 'user', content: words(random, from(random, 2, 30)) })
  }
  return told
}

/** Each gives { path, body }; `tiny` has a chat template and a context of 4,096 positions, `stories` tells stories. */
const KINDS = {
  'chat stream': (random, number) => ({
    path: '/v1/chat/completions',
    body: {
      model: 'tiny',
      messages: messages(number),
      max_tokens: from(random, 8, 80),
      ...sampling(random),
      ...(random() < 0.3 ? { logprobs: true, top_logprobs: 3 } : {}),
      stream: true,
      stream_options: { include_usage: true },
    },
  }),
  chat: (random, number) => ({
    path: '/v1/chat/completions',
    body: { model: 'tiny', messages: messages(number), max_tokens: from(random, 4, 40), ...sampling(random) },
  }),
  story: (random) => ({
    path: '/v1/completions',
    body: {
      model: 'stories',
      prompt: `Once upon a time ${words(random, from(random, 1, 40))}`,
      max_tokens: from(random, 8, 100),
      ...sampling(random),
      stream: random() < 0.7,
      ...(random() < 0.3 ? { stop: ['.', '!'] } : {}),
    },
  }),
  echo: (random) => {
    const ids = (count) => Array.from({ length: count }, () => from(random, 3, 1900))
    const question = ids(from(random, 4, 60))
    return {
      path: '/v1/completions',
      body: {
        model: 'stories',
        prompt: Array.from({ length: from(random, 1, 3) }, () => [...question, ...ids(from(random, 1, 20))]),
        max_tokens: 1,
        temperature: 0,
        logprobs: 1,
        echo: true,
      },
    }
  },
  embedding: (random) => ({
    path: '/v1/embeddings',
    body: {
      model: random() < 0.5 ? 'tiny' : 'stories',
      input: Array.from({ length: from(random, 1, 3) }, () => words(random, from(random, 1, 40))),
      ...(random() < 0.5 ? { encoding_format: 'base64' } : {}),
    },
  }),
  structured: (random, number) => ({
    path: '/v1/chat/completions',
    body: {
      model: 'tiny',
      messages: messages(number),
      response_format: { type: 'json_schema', json_schema: { name: 'it', schema: SCHEMAS[number % SCHEMAS.length] } },
      max_tokens: 120,
      ...sampling(random),
      stream: random() < 0.5,
    },
  }),
  long: (random) => ({
    path: '/v1/completions',
    body: {
      model: 'tiny',
      prompt: words(random, from(random, 300, 700)),
      max_tokens: from(random, 1, 20),
      ...sampling(random),
      stream: random() < 0.5,
    },
  }),
  response: (random) => ({
    path: '/v1/responses',
    body: {
      model: 'tiny',
      input: words(random, from(random, 2, 30)),
      max_output_tokens: from(random, 4, 40),
      ...sampling(random),
      stream: random() < 0.5,
    },
  }),
}

export const KIND_NAMES = Object.keys(KINDS)

/** @returns {{ path: string, body: object }} */
export function requestOf(kind, number) {
  return KINDS[kind](numbers(`${kind} ${number}`), number)
}

const nested = (depth) => `{"model":"tiny","messages":${'['.repeat(depth)}${']'.repeat(depth)}}`

/** Bodies that are wrong, as text, with the statuses that may answer them. */
export const MALFORMED = [
  ['/v1/chat/completions', '{"messages": [{"role": "user", "content": "x"}', [400]],
  ['/v1/chat/completions', '', [400]],
  ['/v1/chat/completions', '[]', [400]],
  ['/v1/chat/completions', '{"model":"tiny","messages":"hello"}', [400]],
  ['/v1/chat/completions', '{"model":"tiny","messages":[{"role":"user","content":7}]}', [400]],
  ['/v1/chat/completions', '{"model":"../tiny","messages":[{"role":"user","content":"x"}]}', [404]],
  ['/v1/chat/completions', nested(70), [400]],
  ['/v1/chat/completions', '{"model":"tiny","messages":[{"role":"user","content":"x"}],"temperature":-1}', [400]],
  ['/v1/chat/completions', '{"model":"tiny","messages":[{"role":"user","content":"x"}],"max_tokens":1e300}', [400]],
  [
    '/v1/chat/completions',
    '{"model":"tiny","messages":[{"role":"user","content":"x"}],"response_format":{"type":"regex","pattern":"("}}',
    [400],
  ],
  ['/v1/completions', '{"model":"tiny","prompt":[[-1]]}', [400]],
  ['/v1/completions', '{"model":"tiny","prompt":[[99999999]]}', [400]],
  ['/v1/completions', JSON.stringify({ model: 'tiny', prompt: 'x'.repeat(5000) }), [400]],
  ['/v1/completions', JSON.stringify({ model: 'tiny', prompt: 'x', stop: Array(10_000).fill('stop') }), [400]],
  ['/v1/completions', `{"model":"tiny","prompt":"${'x'.repeat(2 << 20)}"}`, [413]],
  ['/v1/completions', '{"model":"tiny","prompt":"x","seed":NaN}', [400]],
  ['/v1/embeddings', '{"model":"tiny","input":{}}', [400]],
  ['/v1/nothing', '{}', [404]],
  ['/tokenize', '\u0000\u0001', [400]],
]
