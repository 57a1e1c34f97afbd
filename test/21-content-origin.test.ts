/**
 * Who wrote a marker: special tokens come from templates and never from what they are given, whatever a template does with
 * it; and what is encoded is what is rendered.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { type ChatMessage, ChatTemplate } from '../dist/text/chat-template.js'
import { Tokenizer } from '../dist/text/tokenizer.js'
import type { TokenizerJson } from '../dist/text/tokenizer-json.js'
import { type Added, byteLevelJson } from './byte-level.js'
import { PROJECT } from './data.js'
import { SeededRandom } from './gguf-writer.js'

/** One token a byte, and these. */
function tokenizerWith(added: Added[], normalizer: { type: string } | null = null): Tokenizer {
  return Tokenizer.fromBlob({ config: {}, tokenizer: byteLevelJson(added, { normalizer }) as unknown as TokenizerJson })
}

const opened: ChatTemplate[] = []
function template(source: string): ChatTemplate {
  const made = new ChatTemplate({ template: source, bos_token: '<s>', eos_token: '</s>' })
  opened.push(made)
  return made
}
afterAll(() => {
  for (const made of opened) made.dispose()
})

const special = (...contents: string[]) => tokenizerWith(contents.map((content) => ({ content, special: true })))
const say = (content: string, role = 'user'): ChatMessage[] => [{ role, content }]

async function encoded(chat: ChatTemplate, tokenizer: Tokenizer, messages: ChatMessage[], variables = {}) {
  const ids = Array.from(await chat.encodeChat(messages, tokenizer, { variables }))
  const text = await chat.render(messages, { variables })
  expect(tokenizer.decode(ids), JSON.stringify(messages)).toBe(text)
  return { text, added: ids.filter((id) => id >= 256).map((id) => tokenizer.idToToken(id)) }
}

describe('what a template looks at is unchanged', () => {
  const parts =
    "{% for m in messages %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}"
  const all = '{% for m in messages %}{{ m.role }}: {{ m.content }};{% endfor %}'
  it.each<[string, string, string, ChatMessage[], Record<string, unknown>, string]>([
    [
      'keys of parts',
      '<|endoftext|>',
      parts,
      [{ role: 'user', content: [{ type: 'text', text: 'two?' }] }],
      {},
      'two?',
    ],
    [
      'tool names',
      '<repo_name>',
      '{% for t in tools %}{{ t.name }};{% endfor %}',
      say('x'),
      { tools: [{ name: 'clock' }] },
      'clock;',
    ],
    ['roles', '<|start_of_role|>', all, say('hi'), {}, 'user: hi;'],
    ['contents', '<|content|>', all, say('hi'), {}, 'user: hi;'],
    [
      'splits',
      '</think>',
      "{{ messages[0].content.split('</think>')[-1] }}",
      say('secret</think>answer'),
      {},
      'answer',
    ],
    ['lengths', '<|x|>', '{{ messages[0].content | length }}', say('a<|x|>b'), {}, '7'],
    ['slices', '<|x|>', '{{ messages[0].content[1:4] }}', say('a<|x|>b'), {}, '<|x'],
    ['comparisons', '<|x|>', "{{ messages[0].content == 'a<|x|>b' }}", say('a<|x|>b'), {}, 'True'],
    ['beginnings', '<|x|>', "{{ messages[0].content.startswith('<|x|>') }}", say('<|x|>b'), {}, 'True'],
    ['searches', '<|x|>', "{{ 'x|' in messages[0].content }}", say('<|x|>b'), {}, 'True'],
    ['upper case', '<|X|>', '{{ messages[0].content | upper }}', say('<|x|>'), {}, '<|X|>'],
    ['json', '<|x|>', '{{ messages[0] | tojson }}', say('<|x|>'), {}, '{"role": "user", "content": "<|x|>"}'],
  ])('%s', async (_, token, source, messages, variables, expected) => {
    const { text, added } = await encoded(template(source), special(token), messages, variables)
    expect({ text, added }).toEqual({ text: expected, added: [] })
  })
})

describe('special tokens', () => {
  it('come from literals, from texts of the template, and from what it builds of them', async () => {
    const chat = template(
      "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>' }}{{ ['<|', 'end', '|>'] | join }}{{ m.content }}</s>{% endfor %}",
    )
    const { added } = await encoded(chat, special('<s>', '</s>', '<|user|>', '<|end|>'), say('<|user|></s>'))
    expect(added).toEqual(['<s>', '<|user|>', '<|end|>', '</s>'])
  })

  it('do not come from pieces of both', async () => {
    const chat = template("<|{{ messages[0].content }}|>{{ '<' ~ messages[0].content }}{{ messages[0].role }}>")
    for (const content of ['user', '|user|', '|user|>', 'x|><|user']) {
      expect((await encoded(chat, special('<|user|>'), say(content))).added).toEqual([])
    }
  })

  it('do not come from made-up roles, names of fields, tools or other variables', async () => {
    const source =
      '{% for m in messages %}{% for k, v in m.items() %}{{ k }}{{ v }}{% endfor %}{% endfor %}{{ tools }}{{ x }}'
    const messages = [{ role: '<|x|>', content: '<|x|>', '<|x|>': ['<|x|>'] }]
    const variables = { tools: [{ '<|x|>': { name: '<|x|>' } }], x: '<|x|>' }
    const { text, added } = await encoded(template(source), special('<|x|>'), messages, variables)
    expect([text.split('<|x|>').length - 1, added]).toEqual([7, []])
  })

  it.each([
    '{{ dict(**messages[0]) }}',
    '{{ namespace(messages[0]) }}',
    '{% macro f() %}{{ kwargs }}{% endmacro %}{{ f(**messages[0]) }}',
    '{{ messages[0].items() | list }}{{ messages | map(attribute="content") | join("<|x") }}',
    "{{ '%s{}' % messages[0].content }}{{ '{}'.format(messages[0].content) }}{{ messages[0].content.title() }}",
    "{{ messages[0].content.replace('x', '|x').replace('||', '|') }}{{ messages[0].content[::-1][::-1] }}",
    "{{ messages[0].content | e | replace('&lt;', '<') | replace('&gt;', '>') }}{{ messages[0].content | urlencode }}",
    '{% set x %}{{ messages[0].content }}{% endset %}{{ x }}{% filter upper %}{{ x }}{% endfilter %}{{ x * 2 }}',
    '{{ messages[0].content | list | join }}{{ messages[0].content | indent }}{{ messages[0].content.center(40) }}',
    "{{ [messages[0].content] | groupby(0) }}{{ messages[0] | dictsort }}{{ messages | sum(attribute='role', start=0) if false }}",
  ])('do not come back on any way: %s', async (source) => {
    const messages = [{ role: 'user', content: '<|x|>', '<|x|>': '<|X|>' }]
    const { added, text } = await encoded(template(source), special('<|x|>', '<|X|>'), messages)
    expect([text.toLowerCase().includes('<|x|>'), added]).toEqual([true, []])
  })
})

describe('markers that are not special', () => {
  const markers = tokenizerWith([
    ...['<think>', '</think>', '<tool_response>', '<table>', '\n\n'].map((content) => ({ content })),
    { content: '<|e|>', special: true },
  ])
  const source =
    "{% for m in messages %}{% if m.role == 'tool' %}<tool_response>{{ m.content }}</tool_response>{% else %}{{ m.content }}{% endif %}<|e|>{% endfor %}<think>"

  it('come from the template, the model and the system, and not from users or tools', async () => {
    const chat = template(source)
    const all = '<think><tool_response><table>\n\n<|e|>'
    const from = async (role: string) => (await encoded(chat, markers, say(all, role))).added
    // What the template does not mention is an ordinary token of texts.
    expect(await from('user')).toEqual(['<table>', '\n\n', '<|e|>', '<think>'])
    expect(await from('tool')).toEqual(['<tool_response>', '<table>', '\n\n', '<|e|>', '<think>'])
    expect(await from('narrator')).toEqual(['<table>', '\n\n', '<|e|>', '<think>'])
    const trusted = ['<think>', '<tool_response>', '<table>', '\n\n', '<|e|>', '<think>']
    expect(await from('assistant')).toEqual(trusted)
    expect(await from('system')).toEqual(trusted)
  })

  it('that are matched after the normalizer neither, whatever becomes one of them', async () => {
    const tokenizer = tokenizerWith([{ content: '<think>', normalized: true }], { type: 'NFKC' })
    const chat = template('{% for m in messages %}{{ m.content }}{% endfor %}<think>')
    const added = async (content: string) => {
      const ids = Array.from(await chat.encodeChat(say(content), tokenizer))
      return ids.filter((id) => id >= 256).length
    }
    expect([await added('hi'), await added('<think>'), await added('\uff1cthink\uff1e')]).toEqual([1, 1, 1])
  })
})

describe('every template', () => {
  const folder = join(PROJECT, 'test', 'fixtures', 'jinja')
  const sources = readdirSync(join(folder, 'templates')).map((name) => [
    name,
    readFileSync(join(folder, 'templates', name), 'utf8'),
  ])
  const statements = readFileSync(join(folder, 'statements.txt'), 'utf8').split('\n=====\n')
  const tokens = [
    '<|im_start|>',
    '<|im_end|>',
    '<|user|>',
    '<|eot_id|>',
    '<|endoftext|>',
    '[INST]',
    '<start_of_turn>',
    '<|end|>',
    'role',
    '</s>',
    '<s>',
  ]
  const ordinary = ['<think>', '</think>', '<tool_call>', '<tool_response>', '```']
  const tokenizer = tokenizerWith([
    ...tokens.map((content) => ({ content, special: true })),
    ...ordinary.map((content) => ({ content })),
  ])
  const random = new SeededRandom(11)
  const pick = <T>(items: readonly T[]): T => items[random.integer(items.length)]!
  const scraps = [
    ...tokens,
    ...ordinary,
    ...tokens.map((token) => token.slice(0, 3)),
    ...tokens.map((token) => token.slice(2)),
  ]
  const text = () =>
    Array.from({ length: random.integer(6) }, () => pick([...scraps, ' ', '\n', 'x', 'é😀', '"'])).join('')
  const roles = ['user', 'assistant', 'system', 'tool', 'user', '<|im_end|>']
  const message = (): ChatMessage => {
    const role = pick(roles)
    const content = random.integer(5) === 0 ? [{ type: 'text', text: text() }] : text()
    const calls = [{ type: 'function', function: { name: text(), arguments: { [text()]: text() } } }]
    return random.integer(6) === 0 ? { role, content, tool_calls: calls } : { role, content }
  }

  it.each(sources)('%s: ids are those of the rendered text, specials the template’s own', async (name, source) => {
    const chat = template(source!)
    let rendered = 0
    const rounds = process.env.ONEBIT_LONG ? 300 : 25
    for (let round = 0; round < rounds; round++) {
      const messages = Array.from({ length: 1 + random.integer(4) }, message)
      const variables = pick([{}, { tools: [{ type: 'function', function: { name: text(), description: text() } }] }])
      const outcome = await chat.render(messages, { variables }).catch((error: { code: string }) => {
        expect(error.code).toBe('ERR_TEMPLATE')
      })
      if (outcome === undefined) continue
      rendered++
      const { added } = await encoded(chat, tokenizer, messages, variables)
      // Contents without any letter of a token show how many the template writes itself.
      const plain = JSON.parse(JSON.stringify(messages), (key, value) => harmless(key, value)) as ChatMessage[]
      const own = await chat
        .encodeChat(plain, tokenizer, { variables: JSON.parse(JSON.stringify(variables), harmless) })
        .catch(() => undefined)
      const isSpecial = (token: string | undefined) => tokens.includes(token!)
      if (own && sameShape(name!)) {
        const expected = Array.from(own, (id) => tokenizer.idToToken(id)).filter(isSpecial)
        expect(added.filter(isSpecial), JSON.stringify(messages)).toEqual(expected)
      }
    }
    expect(rendered).toBeGreaterThan(0)
  })

  /** The same conversation with texts that hold no marker; roles and the names of parts stay. */
  function harmless(key: string, value: unknown): unknown {
    if (typeof value !== 'string' || key === 'type') return value
    if (key === 'role') return value.startsWith('<') ? 'x' : value
    return value === '' ? '' : 'ww'
  }

  /** Whether the template writes the same markers whatever the contents say. */
  function sameShape(name: string): boolean {
    return !['thinking.jinja', 'metadata.jinja', 'fullwidth.jinja', 'command.jinja'].includes(name)
  }

  it('of statements gives the same text either way', async () => {
    let agreed = 0
    // A process for each: a third of them is enough to see that nothing differs.
    for (const part of statements.filter((_, i) => i % 3 === 0)) {
      const chat = template(part.slice(part.indexOf('\n') + 1))
      const messages = [...say('<|im_end|> role', 'system'), ...say('<|user|>x</s>')]
      const variables = { d: { a: '<s>', b: { c: '[INST]' } }, s: ' role ' }
      const outcome = await chat.render(messages, { variables }).catch(() => undefined)
      if (outcome !== undefined) {
        await encoded(chat, tokenizer, messages, variables)
        agreed++
      }
      chat.dispose()
    }
    expect(agreed).toBeGreaterThan(20)
  })
})
