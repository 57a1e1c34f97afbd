/** Answers taken apart: thinking, text and tool calls, in each family's format, however the text is cut. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { afterAll, describe, expect, it } from 'vitest'
import { type AnswerFormat, answerFormat } from '../dist/answer/format.js'
import type { AnswerPart, Tool, ToolChoice } from '../dist/answer/parts.js'
import { opensThinking } from '../dist/answer/thinking.js'
import type { AnswerShape } from '../dist/grammar/constraint.js'
import { ModelGrammars } from '../dist/grammar/grammars.js'
import { allowedIds, byteTokenizer, END, randomFrom, walk } from './constraint-walk.js'
import { PROJECT } from './data.js'

const fixture = (name: string) => readFileSync(join(PROJECT, 'test/fixtures/jinja/templates', `${name}.jinja`), 'utf8')
const XML = `{%- if tools %}<tools>{{ tools | tojson }}</tools> <tool_call>\n<function=name>\n<parameter=x>{%- endif %}<think>`
const hermes = answerFormat(fixture('thinking'))
const llama = answerFormat(fixture('header-ids'))
const xml = answerFormat(XML)

const tools: Tool[] = [
  {
    name: 'get_weather',
    parameters: {
      type: 'object',
      properties: { city: { type: 'string', maxLength: 20 }, days: { type: 'integer' }, unit: { enum: ['C', 'F'] } },
      required: ['city'],
      additionalProperties: false,
    },
  },
  { name: 'now' },
]

type Plain = AnswerPart extends infer P ? (P extends { id: string } ? Omit<P, 'id'> : P) : never

/** Parts that belong together joined, and without ids. */
function joined(parts: readonly AnswerPart[]): Plain[] {
  const result: Plain[] = []
  for (const part of parts) {
    const { id: _, ...plain } = { id: '', ...part }
    const last = result.at(-1)
    const goesOn = last?.type === plain.type && 'text' in last && 'text' in plain
    if (goesOn) last.text += plain.text
    else result.push(plain as Plain)
  }
  return result
}

function parse(format: AnswerFormat, pieces: readonly string[], opened = false): Plain[] {
  const parser = format.parser(tools, { opened })
  return joined([...pieces.flatMap((piece) => parser.push(piece)), ...parser.flush()])
}

const call = (index: number, name: string, args: string): Plain[] => [
  { type: 'call-start', index, name },
  { type: 'call-arguments', index, text: args },
  { type: 'call-end', index, name, arguments: args },
]
const text = (value: string): Plain => ({ type: 'text', text: value })
const reasoning = (value: string): Plain => ({ type: 'reasoning', text: value })

const PARIS = '{"city": "Paris", "days": 3}'
interface Case {
  format: AnswerFormat
  answer: string
  parts: Plain[]
  opened?: boolean
}
const cases: Record<string, Case> = {
  'plain text': { format: hermes, answer: ' Hello <b>you</b>, 1 < 2.\n', parts: [text(' Hello <b>you</b>, 1 < 2.\n')] },
  'an empty answer': { format: hermes, answer: '', parts: [] },
  'thinking, then text': {
    format: hermes,
    answer: '<think>\nLet me see.\n\nYes.\n</think>\n\nIt is so.',
    parts: [reasoning('Let me see.\n\nYes.'), text('It is so.')],
  },
  'thinking that the prompt has begun': {
    format: hermes,
    opened: true,
    answer: '\nLet me see.\n</think>\n\nIt is so.',
    parts: [reasoning('Let me see.'), text('It is so.')],
  },
  'thinking that does not end': { format: hermes, answer: '<think>\nWell, <', parts: [reasoning('Well, <')] },
  'empty thinking': { format: hermes, answer: '<think>\n\n</think>\n\nHello', parts: [text('Hello')] },
  'the word later in the answer': { format: hermes, answer: 'Use <think> tags.', parts: [text('Use <think> tags.')] },
  'one call': {
    format: hermes,
    answer: `<tool_call>\n{"name": "get_weather", "arguments": ${PARIS}}\n</tool_call>`,
    parts: call(0, 'get_weather', PARIS),
  },
  'thinking, text and two calls': {
    format: hermes,
    answer: `<think>\nHm.\n</think>\n\nI look.\n<tool_call>\n{"name": "get_weather", "arguments": ${PARIS}}\n</tool_call>\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>`,
    parts: [reasoning('Hm.'), text('I look.'), ...call(0, 'get_weather', PARIS), ...call(1, 'now', '{}')],
  },
  'markers in the arguments': {
    format: hermes,
    answer: '<tool_call>{"name":"get_weather","arguments":{"city":"</tool_call> \\" {"}}</tool_call> done',
    parts: [...call(0, 'get_weather', '{"city":"</tool_call> \\" {"}'), text('done')],
  },
  'arguments first': {
    format: hermes,
    answer: `<tool_call>\n{"arguments": {"city": "Oslo"}, "name": "get_weather"}\n</tool_call>`,
    parts: call(0, 'get_weather', '{"city":"Oslo"}'),
  },
  'arguments as a text': {
    format: hermes,
    answer: '<tool_call>\n{"name": "get_weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}\n</tool_call>',
    parts: call(0, 'get_weather', '{"city":"Oslo"}'),
  },
  'no arguments': { format: hermes, answer: '<tool_call>{"name": "now"}</tool_call>', parts: call(0, 'now', '{}') },
  'a call without its end': {
    format: hermes,
    answer: `<tool_call>\n{"name": "get_weather", "arguments": ${PARIS}}`,
    parts: call(0, 'get_weather', PARIS),
  },
  'an unknown tool': {
    format: hermes,
    answer: 'So:\n<tool_call>\n{"name": "rm", "arguments": {}}\n</tool_call>',
    parts: [text('So:\n<tool_call>\n{"name": "rm", "arguments": {}}\n</tool_call>')],
  },
  'no JSON in a call': {
    format: hermes,
    answer: 'The <tool_call> marker, and <tool_call>{"name": "now", "arguments": {}}</tool_call>',
    parts: [text('The <tool_call> marker, and'), ...call(0, 'now', '{}')],
  },
  'a call that breaks off': {
    format: hermes,
    answer: '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Par',
    parts: [
      { type: 'call-start', index: 0, name: 'get_weather' },
      { type: 'call-arguments', index: 0, text: '{"city": "Par' },
      text('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Par'),
    ],
  },
  'arguments that are no JSON': {
    format: hermes,
    answer: '<tool_call>{"name": "get_weather", "arguments": {"city": Paris}}</tool_call>',
    parts: [
      { type: 'call-start', index: 0, name: 'get_weather' },
      { type: 'call-arguments', index: 0, text: '{"city": Paris}' },
      text('<tool_call>{"name": "get_weather", "arguments": {"city": Paris}}</tool_call>'),
    ],
  },
  'Llama 3': {
    format: llama,
    answer: `{"name": "get_weather", "parameters": ${PARIS}}`,
    parts: call(0, 'get_weather', PARIS),
  },
  'Llama 3 with its tag': {
    format: llama,
    answer: `<|python_tag|>{"type": "function", "name": "get_weather", "parameters": ${PARIS}}`,
    parts: call(0, 'get_weather', PARIS),
  },
  'several calls of Llama 3': {
    format: llama,
    answer: `{"name": "now", "parameters": {}}; {"name": "get_weather", "parameters": ${PARIS}}`,
    parts: [...call(0, 'now', '{}'), ...call(1, 'get_weather', PARIS)],
  },
  'JSON that is no call': { format: llama, answer: '{"answer": 42}', parts: [text('{"answer": 42}')] },
  'text of Llama 3': { format: llama, answer: 'No {"name": "now"} here.', parts: [text('No {"name": "now"} here.')] },
  'Qwen3.5': {
    format: xml,
    opened: true,
    answer:
      'I need it.\n</think>\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n12 "Rue"\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>',
    parts: [reasoning('I need it.'), ...call(0, 'get_weather', '{"city": "Paris\\n12 \\"Rue\\"", "days": 3}')],
  },
  'Qwen3.5: a call that is none, and another': {
    format: xml,
    answer: '<function=now>\n<x>\n<tool_call>\n<function=now>\n</function>\n</tool_call>',
    parts: [{ type: 'call-start', index: 0, name: 'now' }, text('<function=now>\n<x>'), ...call(1, 'now', '{}')],
  },
  'Qwen3.5 without arguments, twice': {
    format: xml,
    answer:
      '<tool_call>\n<function=now>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>\n',
    parts: [...call(0, 'now', '{}'), ...call(1, 'now', '{}')],
  },
  'Qwen3.5 without the outer marker': {
    format: xml,
    answer: 'So: <function=now>\n</function>',
    parts: [text('So:'), ...call(0, 'now', '{}')],
  },
  'Qwen3.5 that breaks off': {
    format: xml,
    answer: '<tool_call>\n<function=get_weather>\n<parameter=city>\nPar',
    parts: [
      { type: 'call-start', index: 0, name: 'get_weather' },
      text('<tool_call>\n<function=get_weather>\n<parameter=city>\nPar'),
    ],
  },
  'Qwen3.5 with an unknown function': {
    format: xml,
    answer: '<tool_call>\n<function=rm>\n</function>\n</tool_call>',
    parts: [text('<tool_call>\n<function=rm>\n</function>\n</tool_call>')],
  },
}

describe('an answer', () => {
  for (const [name, { format, answer, parts, opened }] of Object.entries(cases)) {
    it(`has the same parts however it is cut: ${name}`, () => {
      expect(parse(format, [answer], opened)).toEqual(parts)
      expect(parse(format, [...answer], opened)).toEqual(parts)
      const random = randomFrom(answer.length)
      for (let i = 0; i < 200; i++) {
        const pieces: string[] = []
        for (let at = 0; at < answer.length; ) {
          const end = at + Math.floor(random() * 12)
          pieces.push(answer.slice(at, end))
          at = end
        }
        expect(parse(format, pieces, opened)).toEqual(parts)
      }
    })
  }

  it('is told while it comes', () => {
    const parser = hermes.parser(tools)
    expect(parser.push('<think>Now')).toEqual([reasoning('Now')])
    expect(parser.push(' then</think>')).toEqual([reasoning(' then')])
    expect(parser.push('A word')).toEqual([text('A word')])
    expect(parser.push(' <tool')).toEqual([])
    expect(parser.push('bar>')).toEqual([text(' <toolbar>')])
    const [start] = parser.push('<tool_call>{"name": "get_weather", "arguments": ')
    expect(start).toBeUndefined()
    expect(parser.push('{"city')).toEqual([
      { type: 'call-start', index: 0, id: expect.stringMatching(/^call_\w{32}$/), name: 'get_weather' },
      { type: 'call-arguments', index: 0, text: '{"city' },
    ])
  })

  it('is text without tools, and has no thinking without a template that knows it', () => {
    const answer = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
    expect(joined([...hermes.parser().push(answer), ...hermes.parser().flush()])).toEqual([text(answer)])
    const plain = answerFormat('{{ messages }}').parser(tools)
    expect(joined([...plain.push('<think>x</think>'), ...plain.flush()])).toEqual([text('<think>x</think>')])
  })

  it('loses nothing of random text with markers in it', () => {
    const scraps = [
      '<think>',
      '</think>',
      '<tool_call>',
      '</tool_call>',
      '{"name": "now"',
      ', "arguments": {',
      '}',
      '}',
      'x',
      ' ',
      '\n',
      '<',
      '<function=now>',
      '</function>',
      '<parameter=a>',
      '</parameter>',
      '"',
      '\\',
    ]
    const random = randomFrom(7)
    for (let i = 0; i < 3000; i++) {
      const answer = Array.from(
        { length: 1 + Math.floor(random() * 12) },
        () => scraps[Math.floor(random() * scraps.length)],
      ).join('')
      for (const format of [hermes, llama, xml]) {
        const whole = parse(format, [answer])
        expect([answer, parse(format, [...answer])]).toEqual([answer, whole])
        // What is no call comes as it was written, but for the layout around markers.
        if (whole.every((part) => part.type === 'text') && !answer.trim().startsWith('<think>')) {
          expect(
            whole
              .map((part) => (part as { text: string }).text)
              .join('')
              .trim(),
          ).toBe(answer.trim())
        }
      }
    }
  })
})

describe('values of Qwen3.5', () => {
  const values: [unknown, string, string][] = [
    [{ type: 'string' }, '5', '"5"'],
    [{ type: 'integer' }, '5', '5'],
    [{ type: 'number' }, 'many', '"many"'],
    [{ type: 'boolean' }, 'True', 'true'],
    [{ type: ['string', 'null'] }, 'null', 'null'],
    [{ anyOf: [{ type: 'string' }, { type: 'null' }] }, 'None', 'null'],
    [{ type: 'array' }, '[1, "a"]', '[1, "a"]'],
    [{ $ref: '#/$defs/o' }, '{"a": 1}', '{"a": 1}'],
    [{ enum: ['1', '2'] }, '1', '"1"'],
    [{ enum: ['auto', 5] }, '5', '5'],
    [{ enum: ['5', 5] }, '5', '"5"'],
    [{ anyOf: [{ enum: ['auto', 'null'] }, { type: 'integer' }] }, '12', '12'],
    [{ anyOf: [{ enum: ['auto', 'null'] }, { type: 'integer' }] }, '1.5', '"1.5"'],
    [{ anyOf: [{ enum: ['auto', 'null'] }, { type: 'null' }] }, 'null', '"null"'],
    [{ type: ['string', 'integer'] }, '5', '"5"'],
    [{ type: ['string', 'object'] }, '{"a": 1}', '{"a": 1}'],
    [{ type: ['string', 'object'] }, '[1]', '"[1]"'],
    [{ type: ['string', 'array'] }, '[1]', '[1]'],
    [undefined, '7', '7'],
    [undefined, 'seven', '"seven"'],
    [{ type: 'string' }, '  two\n lines ', '"  two\\n lines "'],
  ]
  for (const [schema, written, json] of values) {
    it(`are typed by their schema: ${JSON.stringify(schema)} ${JSON.stringify(written)}`, () => {
      const parameters = { $defs: { o: { type: 'object' } }, properties: schema === undefined ? {} : { v: schema } }
      const parser = xml.parser([{ name: 'f', parameters }])
      const answer = `<tool_call>\n<function=f>\n<parameter=v>\n${written}\n</parameter>\n</function>\n</tool_call>`
      expect(joined(parser.push(answer)).at(-1)).toMatchObject({ arguments: `{"v": ${json}}` })
    })
  }
})

describe('a chat template', () => {
  it('shows its format', () => {
    expect([hermes.toolFormat, hermes.thinks]).toEqual(['hermes', true])
    expect([llama.toolFormat, llama.thinks]).toEqual(['llama3', false])
    expect([xml.toolFormat, xml.thinks]).toEqual(['xml', true])
    for (const name of ['chatml', 'inst-brackets', 'command', 'turns']) {
      expect([name, answerFormat(fixture(name)).toolFormat]).toEqual([name, undefined])
    }
    expect(answerFormat(undefined)).toMatchObject({ toolFormat: undefined, thinks: false, markers: [] })
  })

  it('leaves the model thinking or not', () => {
    expect(
      ['…<think>', '<think>\n', '<think>\n\n</think>\n\n', 'assistant\n'].map((end) => opensThinking(end)),
    ).toEqual([true, true, false, false])
  })
})

describe('calls by a grammar', () => {
  const MARKS = [
    { content: '<tool_call>', special: true },
    { content: '</tool_call>', special: true },
  ]
  const tokenizer = byteTokenizer(MARKS)
  const grammars = new ModelGrammars(tokenizer, 260, { markers: new Set([257, 258]), threads: 1 })
  afterAll(() => grammars.dispose())
  const ajv = new Ajv2020({ strict: false })
  const validate = ajv.compile(tools[0]!.parameters!)

  async function answers(format: AnswerFormat, choice: ToolChoice, parallel = true, count = 10): Promise<Plain[][]> {
    const shape = format.shape(tools, choice, parallel)!
    const random = randomFrom(3)
    const results: Plain[][] = []
    for (let i = 0; i < count; i++) {
      const constraint = await grammars.constrain(shape)
      const bytes = await walk(constraint, random, 600, 257)
      constraint.dispose()
      if (bytes) results.push(parse(format, [bytes.toString('utf8')]))
    }
    return results
  }

  for (const [name, format] of [
    ['hermes', hermes],
    ['llama3', llama],
    ['xml', xml],
  ] as const) {
    it(`have the arguments their tool asks for: ${name}`, async () => {
      const all = await answers(format, { name: 'get_weather' })
      expect(all.length).toBeGreaterThan(0)
      for (const parts of all) {
        const ends = parts.filter((part) => part.type === 'call-end')
        expect(ends).toHaveLength(1)
        expect(ends[0]!.name).toBe('get_weather')
        expect(
          validate(JSON.parse(ends[0]!.arguments)),
          `${ends[0]!.arguments} ${ajv.errorsText(validate.errors)}`,
        ).toBe(true)
      }
    })

    it(`are there when they are required, and one at most unless several may be: ${name}`, async () => {
      for (const parts of await answers(format, 'required', false)) {
        expect(parts.filter((part) => part.type === 'call-end')).toHaveLength(1)
      }
    })
  }

  const says = async (shape: AnswerShape, answer: string) => {
    const constraint = await grammars.constrain(shape)
    try {
      for (const id of tokenizer.encode(answer, { special: true })) {
        if (!allowedIds(await constraint.next(), 260).includes(id)) return false
        constraint.accept(id)
      }
      return allowedIds(await constraint.next(), 260).includes(END)
    } finally {
      constraint.dispose()
    }
  }

  describe('of Qwen3.5', () => {
    const plain = answerFormat(XML.replace('<think>', ''))
    const shapeOf = (v: unknown, name = 'f') =>
      plain.shape([{ name, parameters: { type: 'object', properties: { v }, required: ['v'] } }], { name })!
    const written = (value: string) =>
      `<tool_call>\n<function=f>\n<parameter=v>\n${value}\n</parameter>\n</function>\n</tool_call>`
    // What may be written, and what may not.
    const forms: [unknown, string[], string[]][] = [
      [{ type: 'string' }, ['Paris', '', '"Paris"', '<b>', 'a\n\nb', '{"a": 1}'], ['x</parameter>']],
      [{ anyOf: [{ type: 'string' }, { type: 'null' }] }, ['Paris', '', 'null', '5', '{'], []],
      [{ type: ['string', 'null'], maxLength: 3 }, ['abc', 'null', ''], ['abcd']],
      [{ enum: ['C', 'F'] }, ['C'], ['"C"', 'K']],
      [{ enum: ['auto', 5, null, true] }, ['auto', '5', 'null', 'true'], ['"auto"', '6', 'false']],
      [{ const: 'one' }, ['one'], ['"one"']],
      [{ $ref: '#/properties/v/$defs/u', $defs: { u: { enum: ['C', 'F'] } } }, ['F'], ['"F"']],
      [{ type: ['string', 'integer'] }, ['5', 'five'], []],
      [
        { anyOf: [{ type: 'string', pattern: '[a-c]+' }, { type: 'integer' }, { type: 'null' }] },
        ['abc', 'null'],
        ['5'],
      ],
      [{ anyOf: [{ enum: ['auto'] }, { type: 'integer', minimum: 3 }] }, ['auto', '12'], ['2', 'other']],
      [
        { anyOf: [{ type: 'string' }, { type: 'object', properties: { a: { type: 'integer' } }, required: ['a'] }] },
        ['text', '', '{"a": 1}', '<i>{}</i>'],
        ['{}', ' {}', '\n[1]', '{"a": "b"}'],
      ],
      [
        {
          anyOf: [
            { type: 'string', minLength: 2, maxLength: 9 },
            { type: 'array', items: { type: 'integer' } },
          ],
        },
        ['text', '[1, 2]', '[]'],
        ['a', '[x]', '{}', '["a"]'],
      ],
      [{}, ['Paris', '5', '{"a": [null]}', '"quoted"'], []],
      [{ type: 'integer' }, ['5'], ['five', '"5"']],
      [{ oneOf: [{ type: 'boolean' }, { type: 'string', maxLength: 0 }] }, [''], ['true', 'x']],
    ]
    for (const [v, right, wrong] of forms) {
      it(`values are written as they are read: ${JSON.stringify(v)}`, async () => {
        const shape = shapeOf(v)
        for (const value of right) expect([value, await says(shape, written(value))]).toEqual([value, true])
        for (const value of wrong) expect([value, await says(shape, written(value))]).toEqual([value, false])
        const isValid = ajv.compile({ properties: { v } })
        const parsed = (answer: string) => {
          const parser = plain.parser([{ name: 'f', parameters: { properties: { v } } }])
          const end = [...parser.push(answer), ...parser.flush()].find((part) => part.type === 'call-end')
          return JSON.parse(end!.arguments) as unknown
        }
        for (const value of right) expect([value, isValid(parsed(written(value)))]).toEqual([value, true])
        const random = randomFrom(5)
        let ended = 0
        for (let i = 0; i < 12; i++) {
          const constraint = await grammars.constrain(shape)
          const bytes = await walk(constraint, random, 400, 257, '\n</parameter>\n</function>\n</tool_call>')
          constraint.dispose()
          if (!bytes) continue
          const answer = bytes.toString('utf8')
          expect([answer, isValid(parsed(answer))]).toEqual([answer, true])
          ended++
        }
        expect(ended).toBeGreaterThan(0)
      })
    }
  })

  it('may come or not by themselves, by marker tokens too', async () => {
    const shape = hermes.shape(tools)!
    expect(await says(shape, 'Just text, 1 < 2.')).toBe(true)
    expect(
      await says(shape, `<think>Hm</think>Now.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>`),
    ).toBe(true)
    expect(await says(shape, `<tool_call>\n{"name": "get_weather", "arguments": ${PARIS}}\n</tool_call>`)).toBe(true)
    expect(await says(shape, '<tool_call>\n{"name": "rm", "arguments": {}}\n</tool_call>')).toBe(false)
    expect(await says(shape, '<tool_call>\n{"name": "get_weather", "arguments": {"days": 1}}\n</tool_call>')).toBe(
      false,
    )
    expect(await says(llama.shape(tools)!, 'Text.')).toBe(true)
    expect(
      await says(
        llama.shape(tools)!,
        `{"name": "get_weather", "parameters": ${PARIS}}; {"name": "now", "parameters": {}}`,
      ),
    ).toBe(true)
    expect(await says(llama.shape(tools)!, '{"name": "rm", "parameters": {}}')).toBe(false)
  })

  it('come after thinking where it is open, or may be opened', async () => {
    const one = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    expect(await says(hermes.shape(tools, 'required', true, { opened: true })!, `Well.\n</think>\n\n${one}`)).toBe(true)
    expect(await says(hermes.shape(tools, 'required', true, { opened: true })!, 'Well.\n</think>\n\nNo.')).toBe(false)
    expect(await says(hermes.shape(tools, 'required')!, `<think>Well.</think>\n\n${one}`)).toBe(true)
    expect(await says(hermes.shape(tools, 'required')!, one)).toBe(true)
    expect(await says(hermes.shape(tools, 'required')!, 'No.')).toBe(false)
  })

  it('are not asked for without tools, and with none', () => {
    expect(hermes.shape([])).toBeUndefined()
    expect(hermes.shape(tools, 'none')).toBeUndefined()
    expect(answerFormat('').shape(tools)).toBeUndefined()
  })
})
