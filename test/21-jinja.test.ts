/**
 * Templates against transformers' own Jinja2: every expression, statement and chat of test/fixtures/jinja, with the
 * answers that scripts/make-jinja-fixture.py got there.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { strftime } from '../dist/text/jinja/strftime.js'
import { Template } from '../dist/text/jinja/template.js'
import { fromData, TemplateError, type Value } from '../dist/text/jinja/values.js'
import { PROJECT } from './data.js'

type Answer = { text: string } | { error: string }
const fixture = (name: string) => join(PROJECT, 'test', 'fixtures', 'jinja', name)
const json = (name: string) => JSON.parse(readFileSync(fixture(name), 'utf8'))
const answers: Record<'expressions' | 'statements' | 'chats', Record<string, Answer>> & {
  dates: { moment: number[]; format: string; text: string }[]
} = json('answers.json')

function rendered(source: string, variables: Record<string, unknown>): Answer {
  try {
    const values = Object.entries(variables).map(([name, data]): [string, Value] => [name, fromData(data)])
    return { text: new Template(source).render(values).text }
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error
    return { error: `line ${error.line}: ${error.message}` }
  }
}

/** What Python prints with an address in it, and what is not supported: an error here, with its reason. */
const REFUSED: Record<string, RegExp> = {
  "['a']|map('upper')": /generator is printed/,
  '[1, 2]|reverse': /list_reverseiterator is printed/,
  "'a'.upper": /function is printed/,
  'd.items': /function is printed/,
  'd.keys': /function is printed/,
  namespace: /function is printed/,
}

function expectSame(name: string, found: Answer, expected: Answer): void {
  const refused = REFUSED[name]
  if (refused) expect(found, name).toEqual({ error: expect.stringMatching(refused) })
  else if ('text' in expected) expect(found, name).toEqual(expected)
  else expect(found, `${name}: ${expected.error}`).toHaveProperty('error')
}

describe('expressions', () => {
  const variables = json('variables.json')
  it.each(Object.entries(answers.expressions))('%s', (expression, expected) => {
    expectSame(expression, rendered(`[{{ ${expression} }}]`, variables), expected)
  })
})

describe('statements', () => {
  const variables = json('variables.json')
  const parts = readFileSync(fixture('statements.txt'), 'utf8').split('\n=====\n')
  it.each(parts.map((part) => [part.slice(0, part.indexOf('\n')), part.slice(part.indexOf('\n') + 1)]))(
    '%s',
    (name, source) => {
      expectSame(name!, rendered(source!, variables), answers.statements[name!]!)
    },
  )
})

describe('chats', () => {
  const chats: Record<string, Record<string, unknown>> = json('chats.json')
  const names = readdirSync(fixture('templates')).sort()
  it.each(names)('%s', (file) => {
    const source = readFileSync(fixture(join('templates', file)), 'utf8')
    for (const [chat, given] of Object.entries(chats)) {
      for (const open of [true, false]) {
        const name = `${file.replace('.jinja', '')} / ${chat} / ${open ? 'open' : 'closed'}`
        const variables = { tools: null, documents: null, ...given, add_generation_prompt: open }
        expectSame(name, rendered(source, variables), answers.chats[name]!)
      }
    }
  })
})

describe('strftime', () => {
  it.each(answers.dates)('$moment $format', ({ moment, format, text }) => {
    const [year, month, day, hour, minute, second] = moment as [number, number, number, number, number, number]
    expect(strftime(new Date(year, month - 1, day, hour, minute, second), format)).toBe(text)
  })
})
