/**
 * Options that make no sense: found before anything is loaded, told under the name that was typed, with the status of a
 * wrong command line. And values that begin with a dash.
 */
import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { onebit } from './command.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const MODEL = folder.path('tiny.obt')
const BARE = folder.path('bare.obt')
const TEXT = folder.path('text.txt')
beforeAll(async () => {
  await writeTinyModel(MODEL)
  await writeTinyModel(BARE, { tokenizer: false, chat: false })
  writeFileSync(TEXT, 'the quick brown fox '.repeat(40))
})
afterAll(() => folder.remove())

/** A model that is not there: an error about it would show that the options had been left for later. */
const NOWHERE = folder.path('nowhere.obt')

describe('an option that makes no sense', () => {
  const prompt = ['run', NOWHERE, '-p', 'a']
  const wrong: [name: string, value: string, ...command: string[]][] = [
    ['--temp', '200', ...prompt],
    ['--temp', '-1', ...prompt],
    ['--temp', 'warm', ...prompt],
    ['--temp', '', ...prompt],
    ['--temp', 'NaN', ...prompt],
    ['--top-k', '1.5', ...prompt],
    ['--top-k', '-1', ...prompt],
    ['--top-p', '1.5', ...prompt],
    ['--min-p', '-0.1', ...prompt],
    ['--repeat-penalty', '0', ...prompt],
    ['--repeat-penalty', '101', ...prompt],
    ['--repeat-last-n', '-1', ...prompt],
    ['--presence-penalty', '-101', ...prompt],
    ['--frequency-penalty', '1e9', ...prompt],
    ['--seed', '-1', ...prompt],
    ['--seed', '18446744073709551616', ...prompt],
    ['--stop', '', ...prompt],
    ['--stop', 'x'.repeat(2000), ...prompt],
    ['-n', '-1', ...prompt],
    ['--n', '-1', ...prompt],
    ['-t', '0', ...prompt],
    ['--threads', '257', ...prompt],
    ['-c', '0', ...prompt],
    ['--ctx', '99999999999', ...prompt],
    ['--kv', 'f8', ...prompt],
    ['--activations', 'int2', ...prompt],
    ['--top', '101', 'score', NOWHERE, '--text', 'a'],
    ['--top', '-1', 'score', NOWHERE, '--text', 'a'],
    ['-c', '1', 'perplexity', NOWHERE, TEXT],
    ['--ctx', '-5', 'perplexity', NOWHERE, TEXT],
    ['--chunks', '0', 'perplexity', NOWHERE, TEXT],
    ['--type', 'f64', 'convert', NOWHERE, '-o', folder.path('x.obt')],
    ['--split', '2', 'convert', NOWHERE, '-o', folder.path('x.obt'), '--type', 'onebit'],
    ['--method', 'nmf', 'convert', NOWHERE, '-o', folder.path('x.obt')],
    ['-p', '-1', 'bench', NOWHERE],
    ['-pg', '1', 'bench', NOWHERE],
    ['-np', '0', 'bench', NOWHERE],
    ['--parallel', '0', 'bench', NOWHERE],
    ['-ctk', 'f8', 'bench', NOWHERE],
    ['-r', '0', 'bench', NOWHERE],
  ]
  it.each(wrong)('%s %j', (name, value, ...command) => {
    for (const words of value === '' || name.length === 2 ? [[name, value]] : [[name, value], [`${name}=${value}`]]) {
      // llama-bench's names are no real options, so they know no =.
      if (/^-[a-z]+=/.test(words[0]!)) continue
      const { status, stdout, stderr } = onebit(...command, ...words)
      expect(stderr).toMatch(new RegExp(`^onebit: ${name}: .+\n`))
      expect(stderr).not.toMatch(/\[ERR_|\n\s+at /)
      expect(stdout).toBe('')
      expect(status).toBe(2)
    }
  })

  it('says what would make sense', () => {
    expect(onebit(...prompt, '--temp', '200').stderr).toBe(
      'onebit: --temp: must be a number from 0 to 100, not 200\n        See `onebit run --help`.\n',
    )
    expect(onebit(...prompt, '--seed', '-1').stderr).toMatch(
      /^onebit: --seed: must be an integer from 0 to .*, not -1\n/,
    )
  })

  it('counts as a whole where it may be given several times', () => {
    const stops = Array.from({ length: 65 }, (_, i) => ['--stop', `stop ${i}`]).flat()
    const { status, stderr } = onebit(...prompt, ...stops)
    expect(stderr).toMatch(/^onebit: --stop: has 65 entries/)
    expect(status).toBe(2)
  })

  // Only the model's file says what is possible: bad input, not a wrong command line, but before its weights are read.
  it.each([
    ['-c', ['run', MODEL, '-p', 'a', '-c', '512']],
    ['--ctx', ['run', MODEL, '-p', 'a', '--ctx', '512']],
    ['-c', ['perplexity', MODEL, TEXT, '-c', '512']],
  ])('for this model: %s in %j', (name, args) => {
    const { status, stderr } = onebit(...args)
    expect(stderr).toMatch(new RegExp(`^onebit: ${name}: 512 is more than the 256 positions.* \\[ERR_BAD_OPTION\\]\n`))
    expect(status).toBe(1)
  })

  it('that makes sense goes on to the model', () => {
    for (const words of [
      ['--temp', '100'],
      ['--stop', '---'],
      ['--seed', '18446744073709551615'],
      ['-t', '256'],
    ]) {
      expect(onebit(...prompt, ...words).stderr).toContain('ERR_FILE_NOT_FOUND')
    }
  })
})

describe('a value that begins with a dash', () => {
  const say = (...words: string[]) => onebit('run', MODEL, '-n', '8', '--temp', '0', '-q', ...words)

  it('is taken after a space where it is no option', () => {
    for (const [name, value] of [
      ['--presence-penalty', '-0.5'],
      ['--frequency-penalty', '-.5'],
      ['--stop', '---'],
      ['--stop', '- '],
      ['--prompt', '- a list'],
      ['-p', '-5 degrees'],
      ['-p', '-'],
      ['-p', '--- \n--quiet'],
    ] as const) {
      const prompt = /p(rompt)?$/.test(name) ? [] : ['-p', 'abc']
      const { status, stdout, stderr } = say(...prompt, name, value)
      expect([name, value, stderr, status]).toEqual([name, value, '', 0])
      const long = name === '-p' ? '--prompt' : name
      expect(stdout).toBe(say(...prompt, `${long}=${value}`).stdout)
    }
  })

  it('is an option where it looks like one: a value was forgotten', () => {
    for (const words of [
      ['-p', '-q'],
      ['-p', '--quiet'],
      ['--stop', '-p', 'a'],
      ['-p', '--temp=0'],
      ['-p', '--'],
    ]) {
      const { status, stderr } = onebit('run', NOWHERE, ...words)
      expect(stderr).toMatch(new RegExp(`^onebit: ${words[0]}: a value must follow`))
      expect(stderr).toContain(`=${words[1]}`)
      expect(status).toBe(2)
    }
    const { status, stderr } = onebit('run', NOWHERE, '-p')
    expect(stderr).toMatch(/^onebit: -p: a value must follow/)
    expect(status).toBe(2)
  })

  it('with the same long options in one word', () => {
    expect(say('--prompt=-q').stdout).not.toBe('')
    expect(say('-pabc').stdout).toBe(say('-p', 'abc').stdout)
  })
})

describe('a model without tokenizer', () => {
  it('scores ids with the default of --top, whatever the size of its vocabulary', () => {
    expect(onebit('score', BARE, '--ids', '1,2').status).toBe(0)
  })
})
