/**
 * Chat templates as transformers renders them: Jinja2 with trim_blocks, lstrip_blocks and loop controls, in its immutable
 * sandbox, with tojson, raise_exception, strftime_now and {% generation %} (transformers, utils/chat_template_utils.py).
 */
import { UNSUPPORTED_METHODS } from './attributes.js'
import { UNSUPPORTED_FILTERS } from './filters.js'
import { globalFunctions } from './globals.js'
import { Interpreter, UNSUPPORTED_NAMES } from './interpreter.js'
import { parseTemplate } from './parser.js'
import { Scope } from './scope.js'
import type { Statement } from './syntax.js'
import { Text } from './text.js'
import { TemplateError, type Value } from './values.js'

export class Template {
  readonly #statements: Statement[]

  /** @throws TemplateError with the line of what is no template, or uses what is not supported */
  constructor(source: string) {
    this.#statements = parseTemplate(source)
  }

  /** @throws TemplateError with the line of what failed */
  render(variables: Iterable<readonly [string, Value]>, now = new Date()): Text {
    const globals = new Scope()
    for (const [name, value] of globalFunctions(now)) globals.set(name, value)
    const scope = new Scope(globals)
    for (const [name, value] of variables) scope.set(name, value)
    const interpreter = new Interpreter()
    const output: Text[] = []
    try {
      interpreter.run(this.#statements, scope, output)
    } catch (error) {
      if (error instanceof TemplateError) error.line ??= interpreter.line
      throw error
    }
    return Text.join(output)
  }

  /** What it uses that Jinja2 has and this has not, one sentence each; such a template may fail in the middle of a chat. */
  unsupported(): string[] {
    const problems = new Set<string>()
    visit(this.#statements, problems)
    return [...problems]
  }
}

/** What went wrong, with its line where that is known. */
export function templateProblem(error: unknown): string {
  if (!(error instanceof TemplateError)) return error instanceof Error ? error.message : String(error)
  return error.line === undefined ? error.message : `line ${error.line}: ${error.message}`
}

function visit(node: unknown, problems: Set<string>): void {
  if (Array.isArray(node)) {
    for (const item of node) visit(item, problems)
  } else if (typeof node === 'object' && node !== null && Object.getPrototypeOf(node) === Object.prototype) {
    const problem = problemOf(node as SyntaxNode)
    if (problem) problems.add(problem)
    for (const item of Object.values(node)) visit(item, problems)
  }
}

interface SyntaxNode {
  kind?: string
  line?: number
  name?: string
  callee?: { kind?: string; name?: string }
  filters?: { name: string }[]
}

function problemOf({ kind, line, name, callee, filters }: SyntaxNode): string | undefined {
  const used = kind === 'filter' && name !== undefined ? [name] : (filters ?? []).map((filter) => filter.name)
  if (kind === 'name' && UNSUPPORTED_NAMES.includes(name!)) return `line ${line}: ${name} is not supported`
  const filter = used.find((one) => UNSUPPORTED_FILTERS.includes(one))
  if (filter) return `line ${line}: the filter ${filter} is not supported`
  if (kind !== 'call' || callee?.kind !== 'attribute' || !UNSUPPORTED_METHODS.has(callee.name!)) return undefined
  return `line ${line}: the method ${callee.name} is not supported`
}
