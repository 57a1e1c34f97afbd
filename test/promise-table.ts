/**
 * The promises that are printed, and whether the tests that are said to hold them are there. docs/promises.md lists them: under a
 * heading for each document, `- "PHRASE"` or `- P1: "PHRASE"`, and below each `  - \`FILE\`: "TITLE"` or only `  - \`FILE\``.
 */
import { parseAst } from 'vitest/node'

export interface Evidence {
  file: string
  /** of a test or a group, or the name of a function in C++ and Python; without it the whole file is meant */
  title?: string
}

export interface Promised {
  /** the document that prints it */
  printedIn: string
  /** such as P1, where the document numbers its promises */
  number?: string
  phrase: string
  heldBy: Evidence[]
}

/** The text of a file of this project; undefined where there is none. */
export type ReadFile = (path: string) => string | undefined

export const TABLE = 'docs/promises.md'
const DOCUMENTS = ['README.md', 'SECURITY.md']
/** What runs programs on every change. */
const RUNNERS = ['.ci/run', 'scripts/test.mjs']

const oneLine = (text: string) => text.replace(/\s+/g, ' ').trim()

/** @returns the promises, and lines in their place that are none */
export function parseTable(text: string): { promises: Promised[]; unreadable: string[] } {
  const promises: Promised[] = []
  const unreadable: string[] = []
  let printedIn: string | undefined
  for (const line of text.split('\n')) {
    const [, document] = /^## (.*)$/.exec(line) ?? []
    if (document !== undefined) printedIn = document
    if (DOCUMENTS.includes(document!) || /^#{3,} |^\s*$/.test(line) || printedIn === undefined) continue
    const [, number, phrase] = /^- (?:(P\d+): )?"(.+)"$/.exec(line) ?? []
    const [, file, title] = /^ {2}- `([^`]+)`(?:: "(.+)")?$/.exec(line) ?? []
    if (phrase !== undefined) promises.push({ printedIn, ...(number && { number }), phrase, heldBy: [] })
    else if (file !== undefined && promises.at(-1)?.printedIn === printedIn)
      promises.at(-1)!.heldBy.push({ file, ...(title && { title }) })
    else unreadable.push(line)
  }
  return { promises, unreadable }
}

interface Found {
  title: string
  skipped: boolean
}

interface Node {
  type: string
  start: number
  end: number
  [key: string]: unknown
}

const MAKERS = ['each', 'for', 'skipIf', 'runIf']
const NEVER_HOLD = ['skip', 'todo', 'fails']

const isNode = (value: unknown): value is Node => typeof (value as Node | null)?.type === 'string'

/** That `it`, `test.each(rows)`, `describe.skipIf(condition)` and the like are called; undefined for anything else. */
function calledTest(callee: Node): { skipped: boolean } | undefined {
  let skipped = false
  let at = callee
  // it.each(rows) and it.skipIf(condition) alone are no tests yet: they make what is called next.
  if (at.type === 'MemberExpression' && MAKERS.includes((at.property as Node).name as string)) return undefined
  for (;;) {
    if (at.type === 'Identifier') {
      return ['it', 'test', 'describe'].includes(at.name as string) ? { skipped } : undefined
    }
    if (at.type === 'CallExpression') {
      const [given] = at.arguments as Node[]
      const name = ((at.callee as Node).property as Node | undefined)?.name
      if (name === 'skipIf' && given?.value === true) skipped = true
      if (name === 'runIf' && given?.value === false) skipped = true
      at = at.callee as Node
    } else if (at.type === 'MemberExpression') {
      if (NEVER_HOLD.includes((at.property as Node).name as string)) skipped = true
      at = at.object as Node
    } else return undefined
  }
}

/** Every test and group of tests in a file for vitest, by the title as it is written there. */
export function testsIn(source: string): Found[] {
  const found: Found[] = []
  const visit = (node: Node, isSkipped: boolean): void => {
    let inside = isSkipped
    if (node.type === 'CallExpression') {
      const called = calledTest(node.callee as Node)
      const [first] = node.arguments as Node[]
      if (called && first) {
        inside ||= called.skipped
        const title = textOf(first, source)
        if (title !== undefined) found.push({ title, skipped: inside })
      }
    }
    for (const value of Object.values(node))
      for (const child of Array.isArray(value) ? value : [value]) if (isNode(child)) visit(child, inside)
  }
  visit(parseAst(source, { lang: 'ts' }) as unknown as Node, false)
  return found
}

/** Of a literal, with `${…}` as it stands there. */
function textOf(node: Node, source: string): string | undefined {
  if (node.type === 'Literal' && typeof node.value === 'string') return node.value
  return node.type === 'TemplateLiteral' ? source.slice(node.start + 1, node.end - 1) : undefined
}

/** What is wrong with a test that is named; undefined when it is there and runs. */
function problemOf({ file, title }: Evidence, read: ReadFile): string | undefined {
  const source = read(file)
  if (source === undefined) return 'does not exist'
  if (/^test\/.*\.test\.ts$/.test(file)) {
    const named = testsIn(source).filter((one) => title === undefined || one.title === title)
    if (named.length === 0) return title === undefined ? 'has no tests' : 'has no test of this title'
    return named.every(({ skipped }) => skipped) ? 'is skipped' : undefined
  }
  if (/^test\/native\/\w+_test\.cpp$/.test(file)) {
    if (title === undefined) return undefined
    const isDefined = new RegExp(`^[\\w:<>*& ]*\\b${title}\\(.*\\) \\{$`, 'm').test(source)
    if (!isDefined) return 'has no function of this name'
    return source.split(new RegExp(`\\b${title}\\(`)).length > 2 ? undefined : 'is not called'
  }
  if (/^distill\/tests\/test_\w+\.py$/.test(file)) {
    if (title === undefined) return undefined
    const [definition] = new RegExp(`(?:^@.*\\n)*^def ${title}\\(`, 'm').exec(source) ?? []
    if (definition === undefined) return 'has no function of this name'
    return /^@pytest\.mark\.(skip|xfail)\b/m.test(definition) ? 'is skipped' : undefined
  }
  if (/^scripts\/[\w-]+\.mjs$/.test(file)) {
    const name = file.slice('scripts/'.length)
    const runs = RUNNERS.some((runner) => read(runner)?.includes(name))
    return runs ? undefined : `is run by none of ${RUNNERS.join(', ')}`
  }
  return 'is no test'
}

/** SECURITY.md by its numbered promises: what each section says. */
function numberedSections(text: string): Map<string, string> {
  const sections = text.split(/^#+ /m).map((section) => [/^P\d+/.exec(section)?.[0], section] as const)
  return new Map(sections.filter((entry): entry is [string, string] => entry[0] !== undefined))
}

/** Files of tests that a text names. */
function filesNamedIn(text: string): string[] {
  return [...text.matchAll(/`((?:test|scripts|distill)\/[^`\s]+)`/g)].map(([, file]) => file!)
}

/** What SECURITY.md numbers or names and the table does not, or the other way round. */
function problemsOfNumbers(promises: Promised[], security: string): string[] {
  const sections = numberedSections(security)
  const problems: string[] = []
  for (const [number, section] of sections) {
    const listed = promises.filter((one) => one.printedIn === 'SECURITY.md' && one.number === number)
    if (listed.length === 0) problems.push(`SECURITY.md: ${number} is not in ${TABLE}`)
    const files = listed.flatMap(({ heldBy }) => heldBy.map(({ file }) => file))
    for (const file of filesNamedIn(section)) {
      const isListed = files.some((one) => one === file || (file.endsWith('/') && one.startsWith(file)))
      if (listed.length > 0 && !isListed) problems.push(`SECURITY.md: ${number} names ${file}, ${TABLE} does not`)
    }
    for (const { phrase } of listed)
      if (!oneLine(section).includes(oneLine(phrase)))
        problems.push(`SECURITY.md: ${number} does not say "${phrase}" any more`)
  }
  for (const { printedIn, number, phrase } of promises)
    if (printedIn === 'SECURITY.md' && (number === undefined || !sections.has(number)))
      problems.push(`${TABLE}: "${phrase}" has no number that SECURITY.md has`)
  return problems
}

const isBySection = (document: string, number: string | undefined) => document === 'SECURITY.md' && number !== undefined

/** Everything that is wrong with what is promised, a line each. */
export function problemsOfPromises(read: ReadFile): string[] {
  const { promises, unreadable } = parseTable(read(TABLE) ?? '')
  const problems = unreadable.map((line) => `${TABLE}: cannot be read: ${line}`)
  for (const document of DOCUMENTS) {
    const text = read(document)
    const listed = promises.filter(({ printedIn }) => printedIn === document)
    if (text === undefined) problems.push(`there is no ${document}`)
    else if (listed.length === 0) problems.push(`${TABLE} has no promise of ${document}`)
    for (const { phrase, number } of listed)
      if (!isBySection(document, number) && text !== undefined && !oneLine(text).includes(oneLine(phrase)))
        problems.push(`${document} does not say "${phrase}" any more`)
  }
  problems.push(...problemsOfNumbers(promises, read('SECURITY.md') ?? ''))
  for (const { phrase, heldBy } of promises) {
    if (heldBy.length === 0) problems.push(`${TABLE}: "${phrase}" has no test`)
    for (const evidence of heldBy) {
      const problem = problemOf(evidence, read)
      const name = evidence.title === undefined ? evidence.file : `${evidence.file}: "${evidence.title}"`
      if (problem) problems.push(`"${phrase}" is held by ${name}, which ${problem}`)
    }
  }
  return problems
}
