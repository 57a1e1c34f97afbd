/** What the AI SDK's provider gives, part by part; test/clients tries it with the AI SDK itself, which needs Node 22. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type {
  LanguageModelV4CallOptions,
  LanguageModelV4Prompt,
  LanguageModelV4StreamPart,
  LanguageModelV4ToolResultOutput,
} from '@ai-sdk/provider'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createOnebit, type OnebitProvider } from '../dist/ai-sdk/index.js'
import { Model } from '../dist/index.js'
import { PROJECT } from './data.js'
import { codeOf } from './expect-code.js'
import { until } from './serving.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const template = readFileSync(`${PROJECT}/test/fixtures/jinja/templates/thinking.jinja`, 'utf8')
const special = ['<think>', '</think>', '<tool_call>', '</tool_call>']
/** ids of <|im_end|> and <tool_call> */
const END = 258
const CALL = 261
let model: Model
let onebit: OnebitProvider
beforeAll(async () => {
  await writeTinyModel(folder.path('thinker.obt'), { template, special, context: 1024 })
  await writeTinyModel(folder.path('plain.obt'), { chat: false })
  model = await Model.load(folder.path('thinker.obt'), { threads: 2 })
  onebit = createOnebit({ models: { thinker: model, plain: folder.path('plain.obt') }, load: { threads: 1 } })
})
afterAll(async () => {
  await onebit.close({ graceMs: 0 })
  await model.dispose()
  folder.remove()
})

const prompt: LanguageModelV4Prompt = [{ role: 'user', content: [{ type: 'text', text: 'Hello' }] }]
const tools: NonNullable<LanguageModelV4CallOptions['tools']> = [
  {
    type: 'function',
    name: 'get_weather',
    inputSchema: {
      type: 'object',
      properties: { city: { enum: ['Paris', 'Rome'] } },
      required: ['city'],
      additionalProperties: false,
    },
  },
]

async function parts(name: string, options: Partial<LanguageModelV4CallOptions>): Promise<LanguageModelV4StreamPart[]> {
  const { stream } = await onebit(name).doStream({ prompt, seed: 1, maxOutputTokens: 200, ...options })
  const all: LanguageModelV4StreamPart[] = []
  for await (const part of stream as unknown as AsyncIterable<LanguageModelV4StreamPart>) all.push(part)
  return all
}

/** The kinds of parts in their order, a run of the same kind once. */
function order(all: readonly LanguageModelV4StreamPart[]): string[] {
  return all.map(({ type }) => type).filter((type, i, types) => type !== types[i - 1])
}

async function expectCode(call: PromiseLike<unknown>, code: string): Promise<void> {
  expect(await codeOf(() => call)).toBe(code)
}

function isIdle(): boolean {
  const { running, waiting } = onebit.state('thinker')!
  return running + waiting === 0
}

function own(options: object) {
  return { providerOptions: { onebit: options as never } }
}

describe('a stream', () => {
  it('has blocks of thinking and text, each with its end', async () => {
    const grammar = 'root ::= "<think>" [a-z ]{20} "</think>" "\\n\\n" [A-Z]{10}'
    const all = await parts('thinker', own({ grammar }))
    expect(order(all)).toEqual([
      'stream-start',
      'response-metadata',
      'reasoning-start',
      'reasoning-delta',
      'reasoning-end',
      'text-start',
      'text-delta',
      'text-end',
      'finish',
    ])
    const whole = await onebit('thinker').doGenerate({ prompt, seed: 1, maxOutputTokens: 200, ...own({ grammar }) })
    expect(whole.content.map(({ type }) => type)).toEqual(['reasoning', 'text'])
    const text = (type: string) =>
      all.flatMap((part) => (part.type === type && 'delta' in part ? [part.delta] : [])).join('')
    expect(whole.content).toMatchObject([{ text: text('reasoning-delta') }, { text: text('text-delta') }])
    const finish = all.at(-1)
    expect(finish).toMatchObject({ finishReason: whole.finishReason, providerMetadata: { onebit: { threads: 2 } } })
    const { inputTokens, outputTokens } = whole.usage
    expect(inputTokens.noCache! + inputTokens.cacheRead!).toBe(inputTokens.total)
    expect(outputTokens.text! + outputTokens.reasoning!).toBe(outputTokens.total)
    expect(outputTokens.reasoning).toBeGreaterThan(0)
  })

  it('has the input of a call while it comes, and then the call', async () => {
    const all = await parts('thinker', {
      tools,
      toolChoice: { type: 'required' },
      ...own({ logitBias: { [CALL]: 1000 } }),
    })
    expect(order(all).slice(2, 6)).toEqual(['tool-input-start', 'tool-input-delta', 'tool-input-end', 'tool-call'])
    const call = all.find((part) => part.type === 'tool-call')
    const input = all.flatMap((part) => (part.type === 'tool-input-delta' ? [part.delta] : [])).join('')
    expect(call).toMatchObject({ toolName: 'get_weather', input: input.slice(0, call!.input.length) })
    expect(['Paris', 'Rome']).toContain(JSON.parse(call!.input).city)
    expect(all.at(-1)).toMatchObject({ type: 'finish', finishReason: { unified: 'tool-calls' } })
  })

  it('tells the raw pieces where they are asked for', async () => {
    const all = await parts('plain', { includeRawChunks: true, maxOutputTokens: 5, ...own({ ignoreEos: true }) })
    expect(all.filter(({ type }) => type === 'raw')).toHaveLength(5)
    expect((await parts('plain', { maxOutputTokens: 5 })).some(({ type }) => type === 'raw')).toBe(false)
  })

  it('frees its place when it is cancelled, begun or not', async () => {
    const options = { prompt, seed: 1, ...own({ ignoreEos: true, logitBias: { [END]: -1000 } }) }
    const { stream } = await onebit('thinker').doStream(options)
    const reader = stream.getReader()
    for (let i = 0; i < 5; i++) await reader.read()
    expect(onebit.state('thinker')!.running).toBe(1)
    await reader.cancel()
    await until(isIdle)
    const unread = await onebit('thinker').doStream({ ...options, responseFormat: { type: 'json' } })
    await unread.stream.cancel()
    await until(isIdle)
  })

  it("ends with the signal's reason", async () => {
    const stop = new AbortController()
    const options = { prompt, abortSignal: stop.signal, ...own({ ignoreEos: true }) }
    const { stream } = await onebit('thinker').doStream(options)
    const reader = stream.getReader()
    await reader.read()
    const reason = new Error('enough')
    stop.abort(reason)
    await expect(
      (async () => {
        while (!(await reader.read()).done);
      })(),
    ).rejects.toBe(reason)
    await until(isIdle)
    await expect(onebit('thinker').doGenerate(options)).rejects.toBe(reason)
  })

  it('tells an error of the batch as a part', async () => {
    const long: LanguageModelV4Prompt = [{ role: 'user', content: [{ type: 'text', text: 'x'.repeat(2000) }] }]
    const all = await parts('thinker', { prompt: long })
    expect(all.at(-2)).toMatchObject({ type: 'error', error: { code: 'ERR_CONTEXT_FULL' } })
    expect(all.at(-1)).toMatchObject({ type: 'finish', finishReason: { unified: 'error', raw: 'ERR_CONTEXT_FULL' } })
  })
})

describe('a prompt', () => {
  it('has its calls and results where the template puts them', async () => {
    const render = async (more: LanguageModelV4Prompt) => {
      const { usage } = await onebit('thinker').doGenerate({ prompt: [...prompt, ...more], maxOutputTokens: 1 })
      return usage.inputTokens.total!
    }
    const call = { type: 'tool-call', toolCallId: 'a', toolName: 'get_weather', input: { city: 'Rome' } } as const
    const result = { type: 'tool-result', toolCallId: 'a', toolName: 'get_weather' } as const
    const said = (output: LanguageModelV4ToolResultOutput) =>
      render([
        { role: 'assistant', content: [{ type: 'reasoning', text: 'Hm.' }, { type: 'text', text: 'Wait' }, call] },
        { role: 'tool', content: [{ ...result, output }] },
      ])
    const outputs: LanguageModelV4ToolResultOutput[] = [
      { type: 'text', value: '{"x":1}' },
      { type: 'json', value: { x: 1 } },
      { type: 'error-text', value: '{"x":1}' },
      { type: 'error-json', value: { x: 1 } },
      { type: 'execution-denied', reason: '{"x":1}' },
      {
        type: 'content',
        value: [
          { type: 'text' as const, text: '{"x"' },
          { type: 'text' as const, text: ':1}' },
        ],
      },
    ]
    const counts = []
    for (const output of outputs) counts.push(await said(output))
    // One token a byte: the same text has the same length.
    expect(new Set(counts).size).toBe(1)
    const bare = await model.encodeChat([{ role: 'user', content: 'Hello' }])
    expect(counts[0]).toBeGreaterThan(bare.length + '{"x":1}'.length + '{"city": "Rome"}'.length)
  })

  it('may have documents of plain text, and no pictures', async () => {
    const asked = (part: object) =>
      onebit('thinker').doGenerate({
        prompt: [{ role: 'user', content: [{ type: 'file', ...part } as never] }],
        maxOutputTokens: 1,
      })
    const text = { mediaType: 'text/plain', data: { type: 'text', text: 'Hello' } }
    const bytes = { mediaType: 'text/plain', data: { type: 'data', data: new TextEncoder().encode('Hello') } }
    const base64 = { mediaType: 'text/plain', data: { type: 'data', data: btoa('Hello') } }
    const total = (await onebit('thinker').doGenerate({ prompt, maxOutputTokens: 1 })).usage.inputTokens.total
    for (const part of [text, bytes, base64]) expect((await asked(part)).usage.inputTokens.total).toBe(total)
    const picture = { mediaType: 'image/png', data: { type: 'data', data: new Uint8Array(4) } }
    await expectCode(asked(picture), 'ERR_UNSUPPORTED_PART')
  })

  it('is gone on with as a text by a model without a chat template', async () => {
    const { warnings, usage } = await onebit('plain').doGenerate({ prompt, maxOutputTokens: 3, tools })
    expect(warnings.map(({ type }) => type)).toEqual(['unsupported', 'other'])
    expect(usage.inputTokens.total).toBe('Hello'.length + 1)
    const conversation: LanguageModelV4Prompt = [{ role: 'system', content: 'Short.' }, ...prompt]
    await expectCode(onebit('plain').doGenerate({ prompt: conversation }), 'ERR_NO_CHAT_TEMPLATE')
    await expectCode(onebit('plain').doGenerate({ prompt, tools, toolChoice: { type: 'required' } }), 'ERR_NO_TOOLS')
  })
})

describe('options', () => {
  it('that cannot be followed are warnings', async () => {
    const foreign = { type: 'provider', id: 'other.search', name: 'search', args: {} } as const
    const { warnings } = await onebit('thinker').doGenerate({
      prompt,
      maxOutputTokens: 3,
      tools: [foreign],
      reasoning: 'high',
    })
    expect(warnings).toMatchObject([
      { type: 'unsupported', feature: 'the tool other.search' },
      { type: 'compatibility', feature: 'reasoning' },
    ])
  })

  it.each([
    ['an unknown one of ours', own({ minp: 1 })],
    ['two forms of an answer', { responseFormat: { type: 'json' as const }, ...own({ regex: 'a' }) }],
    ['a choice that is no tool', { tools, toolChoice: { type: 'tool' as const, toolName: 'other' } }],
    ['a choice without tools', { toolChoice: { type: 'required' as const } }],
    ['a tool with markup for a name', { tools: [{ ...tools[0]!, name: '<x>' } as never] }],
    ['a temperature below 0', { temperature: -1 }],
  ])('that are wrong are errors: %s', async (_, options) => {
    await expectCode(onebit('thinker').doGenerate({ prompt, maxOutputTokens: 1, ...options }), 'ERR_BAD_OPTION')
  })

  it('with tools and a form: the answer is a call, or has the form', async () => {
    const either = (bias: Record<number, number>, more: object = {}) =>
      onebit('thinker').doGenerate({
        prompt,
        tools,
        seed: 2,
        maxOutputTokens: 200,
        responseFormat: { type: 'json', schema: { type: 'object', properties: {}, additionalProperties: false } },
        ...own({ logitBias: bias }),
        ...more,
      })
    expect((await either({ [CALL]: 1000 })).content).toMatchObject([{ type: 'tool-call', toolName: 'get_weather' }])
    const [text] = (await either({ ['{'.charCodeAt(0)]: 1000 })).content
    expect(text?.type === 'text' && JSON.parse(text.text)).toEqual({})
    const none = await either({ [CALL]: 1000 }, { toolChoice: { type: 'none' } })
    expect(none.content.some(({ type }) => type === 'tool-call')).toBe(false)
  })
})

describe('models', () => {
  it('are found by name, and by path where no names are given', async () => {
    expect(() => onebit('nobody')).toThrow(expect.objectContaining({ code: 'ERR_NO_MODEL' }))
    expect(() => onebit.embeddingModel('constructor')).toThrow(expect.objectContaining({ code: 'ERR_NO_MODEL' }))
    await using paths = createOnebit({ load: { threads: 1 } })
    const missing = paths(folder.path('none.obt'))
    await expectCode(missing.doGenerate({ prompt }), 'ERR_FILE_NOT_FOUND')
    await writeTinyModel(folder.path('none.obt'))
    expect((await missing.doGenerate({ prompt, maxOutputTokens: 2 })).usage.outputTokens.total).toBeGreaterThan(0)
    expect(() => createOnebit({ models: { a: 5 as never } })).toThrow(
      expect.objectContaining({ code: 'ERR_BAD_OPTION' }),
    )
    expect(() => createOnebit({ model: 'a' } as never)).toThrow(expect.objectContaining({ code: 'ERR_BAD_OPTION' }))
  })

  it('make embeddings, the same as a batch makes', async () => {
    const embedding = onebit.embeddingModel('thinker')
    const { embeddings, usage, warnings } = await embedding.doEmbed({ values: ['abc', 'd'], dimensions: 5 })
    expect(embeddings.map((one) => one.length)).toEqual([128, 128])
    expect(usage).toEqual({ tokens: 'abc'.length + 'd'.length + 2 })
    expect(warnings).toMatchObject([{ type: 'unsupported', feature: 'dimensions' }])
    const last = await embedding.doEmbed({ values: ['abc'], ...own({ pooling: 'last' }) })
    expect(last.embeddings[0]).not.toEqual(embeddings[0])
    await expectCode(embedding.doEmbed({ values: ['abc'], ...own({ pooling: 'most' }) }), 'ERR_BAD_OPTION')
  })
})

it('only types of the provider are imported', () => {
  const path = join(PROJECT, 'dist', 'ai-sdk')
  const files = readdirSync(path).filter((name) => name.endsWith('.js'))
  expect(files.length).toBeGreaterThan(5)
  for (const name of files) expect(readFileSync(join(path, name), 'utf8')).not.toContain('@ai-sdk/')
})
