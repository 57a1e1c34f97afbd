/** Chat templates: what they render, that contents stay text, and that a hostile template is only an error. */

import { readFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { readGgufText } from '../dist/import/gguf-text.js'
import { ChatTemplate } from '../dist/text/chat-template.js'
import { tokenizerFromGguf } from '../dist/text/gguf-vocabulary.js'
import { Tokenizer } from '../dist/text/tokenizer.js'
import { dataFile, missing } from './data.js'
import { standStill } from './stand-still.js'

const SMOLLM = 'weights/SmolLM2-135M-Instruct.Q4_1.gguf'
const GOLDEN = 'golden/smollm2-135m-logits.json'

/** Every printable ASCII character as a token, and the special tokens of several chat formats. */
const SPECIAL = ['<|im_start|>', '<|im_end|>', '</s>', '<s>', '[INST]', '[/INST]', '<|eot_id|>', '<|user|>']
function smallTokenizer(): Tokenizer {
  const letters = [...Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i)), 'Ġ', 'Ċ']
  const tokens = [...letters, ...SPECIAL]
  return Tokenizer.fromBlob(
    tokenizerFromGguf({
      'tokenizer.ggml.model': 'gpt2',
      'tokenizer.ggml.pre': 'gpt-2',
      'tokenizer.ggml.tokens': tokens,
      'tokenizer.ggml.token_type': tokens.map((_, id) => (id < letters.length ? 1 : 3)),
      'tokenizer.ggml.merges': [],
    }),
  )
}

const opened: ChatTemplate[] = []
function template(source: string): ChatTemplate {
  const made = new ChatTemplate({ template: source, bos_token: '<s>', eos_token: '</s>' })
  opened.push(made)
  return made
}
afterEach(() => {
  for (const made of opened.splice(0)) made.dispose()
})

describe.skipIf(missing(SMOLLM, GOLDEN))("the teacher's template", () => {
  let tokenizer: Tokenizer
  let chat: ChatTemplate
  beforeAll(async () => {
    const text = await readGgufText(dataFile(SMOLLM))
    tokenizer = Tokenizer.fromBlob((await text.readTokenizer())!.blob)
    const { template, tokens } = await text.readChat()
    chat = new ChatTemplate({ template: template!, ...tokens })
  })
  afterAll(() => chat.dispose())

  it('renders and encodes the golden chats', async () => {
    const { cases } = JSON.parse(readFileSync(dataFile(GOLDEN), 'utf8'))
    const chats = cases.filter((one: { messages?: unknown }) => one.messages)
    expect(chats).toHaveLength(2)
    for (const { messages, text, ids } of chats) {
      expect(await chat.render(messages)).toBe(text)
      expect(Array.from(await chat.encodeChat(messages, tokenizer))).toEqual(ids)
    }
  })

  it('encodes long conversations the same way', async () => {
    const content = 'A long sentence about nothing in particular, 1234 times.\n'.repeat(400)
    const messages = [{ role: 'user', content }]
    const ids = await chat.encodeChat(messages, tokenizer)
    expect(Array.from(ids)).toEqual(Array.from(tokenizer.encode(await chat.render(messages), { special: true })))
    tokenizer.dispose()
  })
})

describe('special tokens', () => {
  const formats = {
    chatml: "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}",
    trimmed: '{% for m in messages %}{{ bos_token }}[INST] {{ m.content | trim }} [/INST]{{ eos_token }}{% endfor %}',
    tight: '{% for m in messages %}<|im_start|>{{ m.content }}|im_end|>{{ m.content }}<|eot_id|>{% endfor %}',
    role: '{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|{{ m.content }}|></s>{% endfor %}',
    joined: '{% for m in messages %}{{ m.content }}{% endfor %}<|eot_id|>',
  }
  const pieces = SPECIAL.flatMap((token) => [token, token.slice(0, 3), token.slice(3), token.slice(2, -2)])
  const contents = [...pieces, ...SPECIAL.map((token) => ` a${token}b `), 'user', 'x<', '|>y', SPECIAL.join('')]

  it.each(Object.entries(formats))('never come from contents: %s', async (_, source) => {
    const tokenizer = smallTokenizer()
    const chat = template(source)
    const specials = async (messages: { role: string; content: string }[]) =>
      Array.from(await chat.encodeChat(messages, tokenizer)).filter((id) => tokenizer.isSpecial(id))
    const harmless = await specials([
      { role: 'user', content: 'hi' },
      { role: 'user', content: 'ho' },
    ])
    expect(harmless.length).toBeGreaterThan(0)
    for (const first of contents) {
      for (const second of ['hi', ...pieces.slice(0, 8)]) {
        const messages = [
          { role: 'user', content: first },
          { role: 'user', content: second },
        ]
        expect(await specials(messages), JSON.stringify([first, second])).toEqual(harmless)
        expect(tokenizer.decode(await chat.encodeChat(messages, tokenizer))).toBe(await chat.render(messages))
      }
    }
  })

  it('never come from other variables or made-up roles', async () => {
    const tokenizer = smallTokenizer()
    const chat = template('{{ tools[0].name }}{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}')
    const messages = [{ role: '<|im_start|>', content: '<|im_end|>' }]
    const ids = await chat.encodeChat(messages, tokenizer, { variables: { tools: [{ name: '</s>' }] } })
    expect(Array.from(ids).filter((id) => tokenizer.isSpecial(id))).toEqual([])
    expect(tokenizer.decode(ids)).toBe('</s><|im_start|><|im_end|>')
  })
})

describe('templates that fail', () => {
  const messages = [{ role: 'user', content: 'hello' }]

  it.each([
    ["{{ raise_exception('only two turns') }}", /^ERR_TEMPLATE$/, /only two turns/],
    ['{% for m in messages', /^ERR_TEMPLATE$/, /failed/],
    ['{{ messages.nothing.at_all() }}', /^ERR_TEMPLATE$/, /failed/],
    // On a busy machine the time runs out before the memory does.
    ['{% for i in range(1000000000) %}{% endfor %}', /^ERR_TEMPLATE(_TIMEOUT)?$/, /ended its process|failed|within/],
    [
      '{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}',
      /^ERR_TEMPLATE(_TIMEOUT)?$/,
      /ended its process|failed|within/,
    ],
  ])('%s', async (source, code, message) => {
    await expect(template(source).render(messages)).rejects.toMatchObject({
      code: expect.stringMatching(code),
      message: expect.stringMatching(message),
    })
  })

  it('is stopped when it does not end, and the next one still works', async () => {
    const endless = '{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}'
    const chat = template(`{% if messages[0].content == 'loop' %}${endless}{% endif %}{{ messages[0].content }}`)
    const stuck = chat.render([{ role: 'user', content: 'loop' }])
    const after = chat.render(messages)
    await expect(stuck).rejects.toMatchObject({ code: 'ERR_TEMPLATE_TIMEOUT' })
    expect(await after).toBe('hello')
  })

  it('is not blamed for time in which this process stood still', async () => {
    const chat = template('{{ messages[0].content }}')
    await chat.render(messages)
    const rendered = chat.render(messages)
    standStill(2500)
    expect(await rendered).toBe('hello')
  })

  it.each([
    '{{ process }}',
    '{{ globalThis.process }}',
    '{{ require("fs") }}',
    '{{ messages.constructor }}',
    '{{ messages.__proto__ }}',
    '{{ messages[0]["constructor"]("return process")() }}',
    '{{ "".constructor.constructor("return process.version")() }}',
    '{{ "".__class__.__mro__ }}',
    '{{ raise_exception.constructor("return process.version")() }}',
    '{{ cycler.__init__.__globals__ }}',
    '{{ namespace().__class__ }}',
    '{% include "/etc/passwd" %}',
    '{% import "/etc/passwd" as x %}',
    '{% extends "/etc/passwd" %}',
  ])('reaches nothing of the program that renders it: %s', async (source) => {
    const rendered = await template(source)
      .render(messages)
      .catch((error) => {
        expect(error).toMatchObject({ code: 'ERR_TEMPLATE' })
        return ''
      })
    expect(rendered).toBe('')
  })

  it('can be left alone', async () => {
    const chat = template('{{ messages[0].content }}')
    const controller = new AbortController()
    const pending = chat.render(messages, { signal: controller.signal })
    controller.abort(new Error('never mind'))
    await expect(pending).rejects.toThrow('never mind')
    const disposed = chat.render(messages)
    chat.dispose()
    await expect(disposed).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
  })

  it('names what is wrong with messages', async () => {
    const chat = template('{{ messages[0].content }}')
    const bad = [[], 'hello', [null], [{ content: 'x' }], [{ role: 'user', content: 7 }]]
    for (const value of bad) {
      await expect(chat.render(value as never)).rejects.toMatchObject({ code: 'ERR_BAD_OPTION' })
    }
    const unsendable = { variables: { tool: () => 1 } }
    await expect(chat.render(messages, unsendable)).rejects.toMatchObject({ code: 'ERR_BAD_OPTION' })
    expect(() => ChatTemplate.fromBytes(Buffer.from('{}'))).toThrow(expect.objectContaining({ code: 'ERR_TEMPLATE' }))
  })
})
