/** Grammars: what a schema, a regular expression or a grammar lets through, and what of a client's can do no harm. */
import { Ajv2020 } from 'ajv/dist/2020.js'
import { afterAll, describe, expect, it } from 'vitest'
import type { AnswerShape } from '../dist/grammar/constraint.js'
import { ModelGrammars } from '../dist/grammar/grammars.js'
import { canBeUtf8 } from '../dist/grammar/vocabulary-text.js'
import { allowedIds, byteTokenizer, END, matches, randomFrom, walk } from './constraint-walk.js'
import { codeOf, failure } from './expect-code.js'
import { standStill } from './stand-still.js'

const tokenizer = byteTokenizer()
const grammars = new ModelGrammars(tokenizer, 300, { threads: 2 })
afterAll(() => grammars.dispose())
const ajv = new Ajv2020({ strict: false, logger: false })

/** Random answers, all of them valid JSON by the schema; how many there were. */
async function validAnswers(schema: Record<string, unknown> | boolean, count = 12): Promise<unknown[]> {
  const validate = ajv.compile(schema)
  const random = randomFrom(JSON.stringify(schema).length)
  const values: unknown[] = []
  for (let i = 0; i < count; i++) {
    const constraint = await grammars.constrain({ schema })
    const text = (await walk(constraint, random))?.toString('utf8')
    constraint.dispose()
    if (text === undefined) continue
    const value: unknown = JSON.parse(text)
    expect(validate(value), `${JSON.stringify(schema)}: ${text} ${ajv.errorsText(validate.errors)}`).toBe(true)
    values.push(value)
  }
  return values
}

const accepts = (schema: unknown, text: string) => matches(grammars, { schema } as AnswerShape, text)

describe('answers by a JSON Schema', () => {
  const schemas: Record<string, Record<string, unknown>> = {
    'any value': {},
    strings: { type: 'string' },
    'strings of some length': { type: 'string', minLength: 2, maxLength: 5 },
    'strings by a pattern': { type: 'string', pattern: '^[A-Z][a-z]{1,4}-\\d+$' },
    'a pattern in the middle': { type: 'string', pattern: '\\d' },
    'a pattern that needs backslashes': { type: 'string', pattern: '^["\\\\\\n/]{2}$' },
    'a pattern beyond ASCII': { type: 'string', pattern: '^[é-ü一-龥😀]{1,3}$' },
    integers: { type: 'integer' },
    numbers: { type: 'number' },
    'integers in a range': { type: 'integer', minimum: -15, maximum: 120 },
    'an open range of integers': { type: 'integer', exclusiveMinimum: 2.5, exclusiveMaximum: 5 },
    'numbers in a range': { type: 'number', minimum: 3, maximum: 17 },
    'numbers in a narrow range': { type: 'number', minimum: 0.1, maximum: 0.35 },
    'an open range of numbers': { type: 'number', exclusiveMinimum: -0.5, exclusiveMaximum: 0.25 },
    'numbers above': { type: 'number', exclusiveMinimum: 0 },
    'numbers below': { type: 'number', maximum: -1.5 },
    'a bound with 17 digits': { type: 'number', minimum: 0.30000000000000004, maximum: 0.31 },
    'a tiny bound': { type: 'number', minimum: -1, exclusiveMaximum: -1e-20 },
    multiples: { type: 'integer', multipleOf: 7, minimum: -20, maximum: 100 },
    'constants of any kind': { enum: [1, 'a', null, [1, 'é\n'], { x: 'a"b' }] },
    'constants of a type': { type: 'string', enum: ['a', 1, 'b'] },
    'a number of items': { type: 'array', items: { type: 'integer' }, minItems: 2, maxItems: 3 },
    'many items at least': { type: 'array', items: { type: 'boolean' }, minItems: 5 },
    tuples: { type: 'array', prefixItems: [{ type: 'integer' }, { type: 'string' }], items: { type: 'null' } },
    objects: { type: 'object', properties: { a: { type: 'integer' }, b: { type: 'null' } }, required: ['a'] },
    'any objects': { type: 'object' },
    'objects of integers': { type: 'object', additionalProperties: { type: 'integer' } },
    'properties and others': {
      type: 'object',
      properties: { ab: { type: 'integer' }, ac: { type: 'integer' }, b: { type: 'null' }, '"é': { type: 'null' } },
      additionalProperties: { type: 'boolean' },
    },
    'a number of properties': {
      type: 'object',
      properties: { a: { type: 'null' }, b: { type: 'null' }, c: { type: 'null' } },
      required: ['b'],
      minProperties: 2,
      maxProperties: 2,
    },
    'names from a list': {
      type: 'object',
      propertyNames: { enum: ['p', 'q'] },
      additionalProperties: { type: 'null' },
    },
    'a required name without a schema': { type: 'object', properties: { a: { type: 'null' } }, required: ['a', 'z'] },
    'a property that cannot be': { type: 'object', properties: { a: false, b: { type: 'null' } } },
    'several types': { type: ['integer', 'null'], minimum: 3, maximum: 4 },
    'one of several': { anyOf: [{ type: 'integer' }, { type: 'string', maxLength: 2 }, false] },
    'alternatives with a tag': {
      oneOf: [
        { type: 'object', properties: { k: { const: 'a' }, x: { type: 'integer' } }, required: ['k', 'x'] },
        { type: 'object', properties: { k: { const: 'b' } }, required: ['k'] },
      ],
    },
    'all of several': {
      allOf: [
        { type: 'object', properties: { a: { type: 'integer' } }, required: ['a'] },
        { type: 'object', properties: { b: { type: 'null' }, a: { minimum: 3, maximum: 9 } }, required: ['b'] },
      ],
    },
    'alternatives of what is required': {
      type: 'object',
      properties: { a: { type: 'null' }, b: { type: 'null' } },
      anyOf: [{ required: ['a'] }, { required: ['b'] }],
    },
    'a list that refers to itself': {
      $defs: {
        n: { type: 'object', properties: { v: { type: 'integer' }, next: { $ref: '#/$defs/n' } }, required: ['v'] },
      },
      $ref: '#/$defs/n',
    },
    'a tree': { type: 'object', properties: { children: { type: 'array', items: { $ref: '#' } } } },
    'references with escapes': {
      $defs: { 'a/b': { type: 'integer' }, 'c~d%': { type: 'null' } },
      anyOf: [{ $ref: '#/$defs/a~1b' }, { $ref: '#/$defs/c~0d%25' }],
    },
    'a reference and more': { $defs: { n: { type: 'integer' } }, $ref: '#/$defs/n', minimum: 3, maximum: 5 },
    'names that JavaScript knows': {
      type: 'object',
      properties: JSON.parse('{"__proto__": {"type": "null"}, "constructor": {"type": "null"}}'),
      required: ['__proto__', 'constructor'],
    },
  }
  for (const [name, schema] of Object.entries(schemas)) {
    it(`are valid: ${name}`, async () => {
      expect((await validAnswers(schema)).length).toBeGreaterThan(0)
    })
  }

  it('have only numbers that are exact and finite', async () => {
    for (const value of await validAnswers(
      { type: 'array', items: { type: 'number' }, minItems: 8, maxItems: 8 },
      20,
    )) {
      for (const number of value as number[]) expect(Number.isFinite(number)).toBe(true)
    }
    expect(await accepts({ type: 'number' }, '1e400')).toBe(false)
    expect(await accepts({ type: 'number' }, '-12.5E+3')).toBe(true)
    expect(await accepts({ type: 'integer' }, '007')).toBe(false)
    expect(await accepts({ type: 'integer' }, '12345678901234567890')).toBe(false)
  })

  it('reach every number of a range and none beside it', async () => {
    const schema = { type: 'integer', minimum: -12, maximum: 105 }
    for (let n = -30; n <= 130; n++) {
      expect([n, await accepts(schema, String(n))]).toEqual([n, n >= -12 && n <= 105])
    }
    const numbers = { type: 'number', minimum: -0.25, exclusiveMaximum: 1.5 }
    for (let n = -100; n <= 250; n++) {
      const text = (n / 100).toFixed(2)
      if (text === '-0.00') continue
      expect([text, await accepts(numbers, text)]).toEqual([text, n >= -25 && n < 150])
    }
  })

  it('may have the usual layouts and no endless white space', async () => {
    const schema = { type: 'object', properties: { a: { type: 'array', items: { type: 'integer' } } }, required: ['a'] }
    const value = { a: [1, 2] }
    for (const layout of [undefined, 2, 4])
      expect(await accepts(schema, JSON.stringify(value, null, layout))).toBe(true)
    expect(await accepts(schema, '{"a": [1, 2]}')).toBe(true)
    expect(await accepts(schema, `{"a":${' '.repeat(3)}[1]}`)).toBe(false)
    expect(await accepts(schema, `{\n${' '.repeat(30)}"a":[1]}`)).toBe(false)
  })

  it('hold strings with escapes, but no halves of characters', async () => {
    for (const text of ['"a\\n\\u00e9\\\\ \\""', '"é 你 😀"'])
      expect(await accepts({ type: 'string' }, text)).toBe(true)
    for (const text of ['"\\ud800"', '"a\nb"', '"\u0001"', '"a"b"'])
      expect(await accepts({ type: 'string' }, text)).toBe(false)
    const bytes = (...middle: number[]) => Uint8Array.of(0x22, ...middle, 0x22)
    expect(await matches(grammars, { schema: { type: 'string' } }, bytes(0xed, 0x9f, 0xbf))).toBe(true)
    // A surrogate, something longer than needed, beyond Unicode: each looks like a character and is none.
    for (const wrong of [
      [0xed, 0xa0, 0x80],
      [0xe0, 0x80, 0x80],
      [0xf4, 0x90, 0x80, 0x80],
      [0xc0, 0x80],
      [0xf5, 0x80, 0x80, 0x80],
    ]) {
      expect(await matches(grammars, { schema: { type: 'string' } }, bytes(...wrong))).toBe(false)
    }
  })

  it('tell apart a named property and others, however the name is written', async () => {
    const schema = { type: 'object', properties: { ab: { type: 'integer' } }, additionalProperties: { type: 'string' } }
    expect(await accepts(schema, '{"ab": 1, "a": "x", "abc": "y"}')).toBe(true)
    expect(await accepts(schema, '{"ab": 1, "ab": "x"}')).toBe(false)
    expect(await accepts(schema, '{"ab": 1, "\\u0061b": "x"}')).toBe(false)
  })

  const refused: Record<string, [Record<string, unknown> | boolean, RegExp]> = {
    'an unknown keyword': [{ type: 'string', minLenght: 3 }, /"minLenght" is not supported/],
    not: [{ not: { type: 'string' } }, /"not" is not supported/],
    'if and then': [{ if: {}, else: {} }, /"if" is not supported/],
    patternProperties: [{ patternProperties: { '^x': {} } }, /"patternProperties" is not supported/],
    dependentRequired: [{ dependentRequired: { a: ['b'] } }, /"dependentRequired" is not supported/],
    contains: [{ contains: {} }, /"contains" is not supported/],
    uniqueItems: [{ type: 'array', items: {}, uniqueItems: true }, /"uniqueItems" is not supported/],
    'multiples without bounds': [{ type: 'integer', multipleOf: 3 }, /multipleOf/],
    'multiples of a fraction': [{ type: 'number', multipleOf: 0.1, minimum: 0, maximum: 1 }, /multipleOf/],
    'alternatives that overlap': [{ oneOf: [{ type: 'integer' }, { type: 'number' }] }, /oneOf .*not supported/],
    'a pattern with a length': [{ type: 'string', pattern: 'a', maxLength: 3 }, /beside pattern/],
    'a reference elsewhere': [{ $ref: 'https://example.org/x' }, /\$ref .*not supported/],
    'a reference to nothing': [{ $ref: '#/$defs/x' }, /leads to nothing/],
    'a circle of references': [
      { $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } }, $ref: '#/$defs/a' },
      /refers to itself/,
    ],
    'an unknown type': [{ type: 'float' }, /no type/],
    'no value at all': [false, /no value/],
    'bounds in the wrong order': [{ type: 'integer', minimum: 5, maximum: 4 }, /no value/],
    'a constant of another type': [{ type: 'integer', const: 'x' }, /no value/],
    'a length that is none': [{ type: 'string', maxLength: -1 }, /whole number/],
  }
  for (const [name, [schema, problem]] of Object.entries(refused)) {
    it(`are not promised for ${name}`, async () => {
      const error = await failure(() => grammars.constrain({ schema }))
      expect([error.code, error.message]).toEqual(['ERR_SCHEMA', expect.stringMatching(problem)])
    })
  }

  it('ignore annotations, format among them', async () => {
    expect(
      await accepts({ title: 'T', description: 'D', default: 1, format: 'email', 'x-order': 2, const: 'a' }, '"a"'),
    ).toBe(true)
  })

  it('are objects of any kind for json', async () => {
    expect(await matches(grammars, { json: true }, '{"a": [1, {"b": null}], "c": "d"}')).toBe(true)
    expect(await matches(grammars, { json: true }, '[1]')).toBe(false)
  })
})

describe('answers by a regular expression', () => {
  const patterns = [
    'yes|no',
    '^(?:a|bc)+$',
    '[A-Za-z]\\w{2,5}\\.',
    '(\\d{1,3}\\.){3}\\d{1,3}',
    'a?b*c+',
    '[^\\d\\s]{3}',
    'x{2,}|é+',
  ]
  for (const pattern of [
    ...patterns,
    '[à-ÿ]{2}',
    '\\u00e9\\x41\\u{1F600}',
    '[\\]\\-^]',
    'a{,3}|\\$\\(',
    '[一-龥]|[^\\x00-\\x7f]',
  ]) {
    it(`match it: ${pattern}`, async () => {
      const whole = new RegExp(`^(?:${pattern})$`, 'u'.repeat(pattern.includes('{,') ? 0 : 1))
      const random = randomFrom(pattern.length)
      for (let i = 0; i < 8; i++) {
        const constraint = await grammars.constrain({ regex: pattern })
        const text = (await walk(constraint, random))?.toString('utf8')
        constraint.dispose()
        if (text !== undefined) expect(text).toMatch(whole)
      }
    })
  }

  it('can be every text that matches', async () => {
    for (const [regex, text] of [
      ['(a|ab)(c|bcd)', 'abcd'],
      ['.*', 'é 😀'],
      ['\\s*\\S', '\u3000x'],
    ] as const) {
      expect(await matches(grammars, { regex }, text)).toBe(true)
    }
    expect(await matches(grammars, { regex: 'a.c' }, 'a\nc')).toBe(false)
  })

  it('are not promised for what a grammar cannot say', async () => {
    for (const regex of [
      '(?=a)b',
      '(?<!a)b',
      '(a)\\1',
      '\\bword',
      'a^b',
      '\\p{L}',
      '(?i)a',
      '[',
      '(a',
      'a)',
      '*a',
      '[z-a]',
      'a{3,1}',
      '\\',
      'a**',
    ]) {
      expect([regex, await codeOf(() => grammars.constrain({ regex }))]).toEqual([regex, 'ERR_REGEX'])
    }
  })
})

describe('answers by a grammar', () => {
  it('follow its rules, with characters beyond ASCII too', async () => {
    const grammar = 'root ::= greeting " " [à-ÿ]+ # a comment with [brackets\ngreeting ::= "Hé" | "Grüß \\"Gott\\""'
    expect(await matches(grammars, { grammar }, 'Hé éü')).toBe(true)
    expect(await matches(grammars, { grammar }, 'Grüß "Gott" é')).toBe(true)
    expect(await matches(grammars, { grammar }, 'Hé a')).toBe(false)
    expect(await matches(grammars, { grammar: 'root ::= [^aé]' }, 'é')).toBe(false)
    expect(await matches(grammars, { grammar: 'root ::= [^aé]' }, 'è')).toBe(true)
  })

  it('are refused with a reason when it is none', async () => {
    for (const [grammar, reason] of [
      ['root ::= thing', /thing.*not defined/],
      ['start ::= "a"', /root/],
      ['root ::= "a', /./],
      ['root ::= [z-a]', /wrong order/],
    ] as const) {
      const error = await failure(() => grammars.constrain({ grammar }))
      expect([error.code, error.message]).toEqual(['ERR_GRAMMAR', expect.stringMatching(reason)])
    }
    expect(await codeOf(async () => (await grammars.constrain({ grammar: 'root ::= root' })).next())).toBe(
      'ERR_GRAMMAR',
    )
  })
})

describe('a constraint', () => {
  it('ends with the end of an answer, and lets no special token be spelled', async () => {
    const special = new ModelGrammars(byteTokenizer([{ content: '<tool>', special: true }, { content: '<mark>' }]), 300)
    const constraint = await special.constrain({ regex: '<tool>|<mark>' })
    // 257 is special, 258 a token that was added; 259 and above are none of the tokenizer's.
    expect(allowedIds(await constraint.next(), 300)).toEqual(['<'.charCodeAt(0), 258])
    constraint.accept(258)
    expect(allowedIds(await constraint.next(), 300)).toEqual([END])
    constraint.accept(END)
    expect(allowedIds(await constraint.next(), 300)).toEqual([END])
    constraint.dispose()
    constraint.dispose()
    expect(await codeOf(() => constraint.next())).toBe('ERR_DISPOSED')
    special.dispose()
  })

  it('says when it is given a token that may not come', async () => {
    const constraint = await grammars.constrain({ regex: 'ab' })
    constraint.accept('b'.charCodeAt(0))
    expect(await codeOf(() => constraint.next())).toBe('ERR_GRAMMAR')
    constraint.dispose()
    expect(await matches(grammars, { regex: 'ab' }, 'ab')).toBe(true)
  })

  it('waits for a thread, and gives up when its signal says so', async () => {
    const held = [await grammars.constrain({ regex: 'a' }), await grammars.constrain({ regex: 'b' })]
    const stop = new AbortController()
    const reason = new Error('no longer')
    const given = expect(grammars.constrain({ regex: 'c' }, { signal: stop.signal })).rejects.toBe(reason)
    const third = grammars.constrain({ regex: 'd' })
    stop.abort(reason)
    await given
    held[0]!.dispose()
    expect(allowedIds(await (await third).next(), 300)).toEqual(['d'.charCodeAt(0)])
    held[1]!.dispose()
    ;(await third).dispose()
  })

  it('is refused by a model that could not end it, and after dispose', async () => {
    const endless = new ModelGrammars({ ...tokenizerWithoutEnd(), eosIds: [] } as never, 300)
    expect(await codeOf(() => endless.constrain({ json: true }))).toBe('ERR_GRAMMAR')
    const gone = new ModelGrammars(tokenizer, 300)
    gone.dispose()
    expect(await codeOf(() => gone.constrain({ json: true }))).toBe('ERR_DISPOSED')
  })

  function tokenizerWithoutEnd() {
    return { vocabSize: 256, isSpecial: () => false, tokenBytes: (id: number) => Uint8Array.of(id) }
  }
})

describe('what a client could send', () => {
  const nested = (levels: number): unknown => (levels === 0 ? {} : { type: 'array', items: nested(levels - 1) })
  const refs = (make: (before: { $ref: string }) => unknown) => ({
    $defs: Object.fromEntries(
      Array.from({ length: 31 }, (_, i) => [
        `a${i}`,
        i === 0 ? { type: 'object' } : make({ $ref: `#/$defs/a${i - 1}` }),
      ]),
    ),
    $ref: '#/$defs/a30',
  })
  const shapes: Record<string, unknown> = {
    'a schema of a megabyte': { schema: { enum: ['x'.repeat(1 << 20)] } },
    'a schema that is nested deep': { schema: nested(200) },
    'a schema of 33 levels': { schema: nested(33) },
    'doubling by allOf': { schema: refs((before) => ({ allOf: [before, before] })) },
    'a long regular expression': { regex: 'a'.repeat(100_000) },
    'groups in groups': { regex: `${'('.repeat(1000)}a${')'.repeat(1000)}` },
    'a million repetitions': { regex: 'a{1,1000000}' },
    'repetitions of repetitions': { regex: '((a{1000}){1000}){1000}' },
    'the same in a grammar': { grammar: 'root ::= ((((a{1000}){1000}){1000}){1000})\na ::= [a-z] "x"' },
    'a million in a grammar': { grammar: 'root ::= "a"{1000000}' },
    'a large grammar': { grammar: `root ::= ${'"a" '.repeat(100_000)}` },
    'a value that is no JSON': { schema: { const: 1n } },
    'a circle': { schema: circle() },
  }
  function circle() {
    const value: Record<string, unknown> = {}
    value.properties = { value }
    return value
  }
  for (const [name, shape] of Object.entries(shapes)) {
    it(`is refused: ${name}`, async () => {
      const code = await codeOf(() => grammars.constrain(shape as AnswerShape))
      expect(['ERR_SCHEMA', 'ERR_REGEX', 'ERR_GRAMMAR', 'ERR_GRAMMAR_LIMIT', 'ERR_GRAMMAR_TIMEOUT']).toContain(code)
    })
  }

  it('may be large where that does no harm', async () => {
    const names = Array.from({ length: 3000 }, (_, i) => `value ${i * 7919}`)
    expect(await accepts({ enum: names }, JSON.stringify(names[2500]))).toBe(true)
    expect(await accepts({ type: 'array', items: { type: 'integer' }, maxItems: 1_000_000 }, '[1, 2]')).toBe(true)
    expect(
      await accepts(
        refs((before) => ({ anyOf: [before, { type: 'array', items: before }] })),
        '[[{}]]',
      ),
    ).toBe(true)
    for (const regex of ['(((a+)+)+)+b', '(a|a|aa)*b'])
      expect(await matches(grammars, { regex }, `${'a'.repeat(60)}b`)).toBe(true)
  })

  it('is stopped when it takes too long or too much, and the next is served', async () => {
    const strict = new ModelGrammars(tokenizer, 300, { threads: 1, times: { compile: 1 }, memoryMiB: 64 })
    const slow = { schema: { type: 'array', items: { type: 'string', pattern: '^([a-z]{1,90} ){1,40}$' } } }
    expect(await codeOf(() => strict.constrain(slow))).toBe('ERR_GRAMMAR_TIMEOUT')
    strict.dispose()
    const small = new ModelGrammars(tokenizer, 300, { threads: 1, memoryMiB: 32, times: { compile: 60_000 } })
    expect(await codeOf(() => small.constrain(shapes['the same in a grammar'] as AnswerShape))).toBe(
      'ERR_GRAMMAR_LIMIT',
    )
    expect(await matches(small, { regex: 'ab' }, 'ab')).toBe(true)
    small.dispose()
  })

  it('is not blamed for time in which this process stood still', async () => {
    const hurried = new ModelGrammars(tokenizer, 300, { threads: 1, times: { mask: 400 } })
    const constraint = await hurried.constrain({ regex: 'aab' })
    await constraint.next()
    constraint.accept('a'.charCodeAt(0))
    standStill(600)
    expect(await constraint.next()).toBeInstanceOf(Int32Array)
    constraint.dispose()
    hurried.dispose()
  })
})

describe('tokens', () => {
  it('whose bytes are part of no text are known', () => {
    const good = [
      [0x41],
      [0x80, 0x80],
      [0xe2, 0x82],
      [0x82, 0xac, 0x41],
      [0xf0, 0x9f, 0x98, 0x80],
      [0xed, 0x9f, 0xbf],
      [],
    ]
    const bad = [
      [0xc0],
      [0xff],
      [0xc3, 0x41],
      [0xed, 0xa0],
      [0xe0, 0x9f],
      [0x80, 0x80, 0x80, 0x80],
      [0xf4, 0x90],
      [0xf5],
    ]
    for (const bytes of good) expect([bytes, canBeUtf8(Uint8Array.from(bytes))]).toEqual([bytes, true])
    for (const bytes of bad) expect([bytes, canBeUtf8(Uint8Array.from(bytes))]).toEqual([bytes, false])
  })
})
