/** Every promise that README.md and SECURITY.md print names tests that are there and run (docs/promises.md). */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { PROJECT } from './data.js'
import { parseTable, problemsOfPromises, TABLE, testsIn } from './promise-table.js'

function readFile(name: string): string | undefined {
  const path = join(PROJECT, name)
  return existsSync(path) && statSync(path).isFile() ? readFileSync(path, 'utf8') : undefined
}

describe('what is promised here', () => {
  it('is printed, and held by tests that are there and run', () => {
    expect(problemsOfPromises(readFile)).toEqual([])
  })

  it('is not little', () => {
    const { promises } = parseTable(readFile(TABLE)!)
    const of = (document: string) => promises.filter(({ printedIn }) => printedIn === document)
    expect(of('README.md').length).toBeGreaterThan(30)
    expect(new Set(of('SECURITY.md').map(({ number }) => number)).size).toBeGreaterThanOrEqual(8)
  })
})

/** A small project in which everything is as it should be. */
const GOOD: Record<string, string> = {
  'README.md': 'It is **quick and\nsmall**.',
  'SECURITY.md':
    '# Security\n\n### P1: Whole\n\nIt stays\nwhole (`test/1-a.test.ts`, `test/native/`).\n\n### P2: Dry\n\nIt stays dry.\n',
  'docs/promises.md': [
    '# Promises\n\nWords.\n\n## SECURITY.md\n\n### first\n',
    '- P1: "It stays whole"',
    '  - `test/1-a.test.ts`: "works with %s"',
    '  - `test/native/a_test.cpp`: "holds"',
    '- P2: "It stays dry"',
    '  - `distill/tests/test_a.py`: "test_dry"',
    '  - `scripts/try.mjs`',
    '\n## README.md\n',
    '- "quick and small"',
    '  - `test/1-a.test.ts`',
    '',
  ].join('\n'),
  'test/1-a.test.ts':
    "describe('all', () => {\n  it.each<[string]>([['(a'], ['b']])('works with %s', async () => {})\n})\n",
  'test/native/a_test.cpp': 'void holds(int n) {\n}\nint main() {\n    holds(1);\n}\n',
  'distill/tests/test_a.py': '@pytest.mark.skipif(False, reason="")\ndef test_dry(tmp_path):\n    pass\n',
  'scripts/try.mjs': '',
  '.ci/run': 'node scripts/try.mjs',
}

describe('what is wrong with a list', () => {
  /** After one text in a file was replaced by another; undefined takes the file away. */
  function problems(file: string, from: string, to: string | undefined): string[] {
    const changed = to === undefined ? undefined : GOOD[file]!.replace(from, () => to)
    expect(changed, `${file} has no ${from}`).not.toBe(GOOD[file])
    const files: Record<string, string | undefined> = { ...GOOD, [file]: changed }
    return problemsOfPromises((path) => files[path])
  }

  it('is nothing as long as it is right', () => {
    expect(problemsOfPromises((path) => GOOD[path])).toEqual([])
  })

  it.each<[string, string, string | undefined, string]>([
    ['README.md', 'quick', 'fast', 'README.md does not say "quick and small" any more'],
    [
      'docs/promises.md',
      '- "quick and small',
      '- P9: "quick and smart',
      'README.md does not say "quick and smart" any more',
    ],
    ['README.md', '', undefined, 'there is no README.md'],
    ['SECURITY.md', 'stays\nwhole', 'is whole', 'P1 does not say "It stays whole" any more'],
    ['SECURITY.md', '### P2', '### P3', 'P3 is not in docs/promises.md'],
    ['SECURITY.md', '### P2', '### P3', '"It stays dry" has no number that SECURITY.md has'],
    ['SECURITY.md', '`test/native/`', '`test/2-b.test.ts`', 'P1 names test/2-b.test.ts, docs/promises.md does not'],
    ['docs/promises.md', 'P2: ', '', '"It stays dry" has no number that SECURITY.md has'],
    ['docs/promises.md', '## README.md', '## README', 'cannot be read: ## README'],
    ['docs/promises.md', '- "quick', '* "quick', 'cannot be read: * "quick and small"'],
    ['docs/promises.md', '  - `test/1-a.test.ts`\n', '', '"quick and small" has no test'],
    ['docs/promises.md', '', undefined, 'docs/promises.md has no promise of README.md'],
    ['test/1-a.test.ts', '', undefined, 'test/1-a.test.ts: "works with %s", which does not exist'],
    ['test/1-a.test.ts', 'works', 'runs', 'test/1-a.test.ts: "works with %s", which has no test of this title'],
    ['test/1-a.test.ts', 'it.each', '// it.each', 'which has no test of this title'],
    ['test/1-a.test.ts', 'it.each', 'it.skip.each', 'which is skipped'],
    ['test/1-a.test.ts', 'describe(', 'describe.skip(', 'which is skipped'],
    ['test/1-a.test.ts', 'describe(', 'describe.skipIf(true)(', 'which is skipped'],
    ['test/1-a.test.ts', 'it.each', 'it.todo.each', 'which is skipped'],
    ['test/native/a_test.cpp', 'void holds', 'void stands', 'which has no function of this name'],
    ['test/native/a_test.cpp', '    holds(1);\n', '', 'which is not called'],
    ['distill/tests/test_a.py', 'def test_dry', 'def test_wet', 'which has no function of this name'],
    ['distill/tests/test_a.py', 'skipif(False, reason="")', 'skip', 'which is skipped'],
    ['.ci/run', 'try', 'other', 'scripts/try.mjs, which is run by none of .ci/run, scripts/test.mjs'],
    ['docs/promises.md', '`scripts/try.mjs`', '`README.md`', 'README.md, which is no test'],
  ])('is told: %s, %j as %j', (file, from, to, expected) => {
    expect(problems(file, from, to)).toContainEqual(expect.stringContaining(expected))
  })
})

describe('the tests of a file', () => {
  const titles = (source: string) => testsIn(source).map(({ title, skipped }) => (skipped ? `skipped ${title}` : title))

  it('are found however they are made, and nothing else is', () => {
    const source = `
      describe.skipIf(absent('x)(')).each(ROWS)('group %s', () => {
        for (const n of [1, 2]) it(\`number \${n}\`, { timeout: 5 }, () => { call('no test'); log.it('no test') })
        test.concurrent("isn't one", async () => {})
        test.runIf(posix)('sometimes', () => {})
      })
      it.skipIf(process.platform === 'win32').each\`a\`
      // it('a comment', () => {})
      const text = "it('a text', () => {})"
      it(NAME, () => {})`
    expect(titles(source)).toEqual(['group %s', `number \${n}`, "isn't one", 'sometimes'])
  })

  it('are skipped with their group', () => {
    const source = `
      describe.skip('group', () => { it('one', () => {}) })
      it('two', () => {})
      it.todo('three')
      test.fails('four', () => {})
      test.runIf(false)('five', () => {})`
    const skipped = ['group', 'one', 'three', 'four', 'five'].map((title) => `skipped ${title}`)
    expect(titles(source).sort()).toEqual([...skipped, 'two'].sort())
  })
})
