/** Statements: the tags of Jinja2 that a chat template has use for, of its loopcontrols, and transformers' own. */
import { ExpressionParser } from './expressions.js'
import { syntaxError } from './lexer.js'
import type { CallSyntax, Expression, Parameters, Statement, Target } from './syntax.js'
import { TokenStream } from './token-stream.js'

/** Jinja2 knows them; a template that comes alone, as chat templates do, has no use for them. */
const UNSUPPORTED = ['extends', 'block', 'include', 'import', 'from', 'autoescape']
const MAX_DEPTH = 100

/** @throws TemplateError with a line, for what is no template or uses what is not supported */
export function parseTemplate(source: string): Statement[] {
  return new Parser(source).parse()
}

class Parser {
  readonly #tokens: TokenStream
  readonly #expressions: ExpressionParser
  #depth = 0
  /** loops around this place, not counting those outside a macro */
  #loops = 0

  constructor(source: string) {
    this.#tokens = new TokenStream(source)
    this.#expressions = new ExpressionParser(this.#tokens)
  }

  parse(): Statement[] {
    const statements = this.#statements([])
    if (!this.#tokens.is('eof')) throw this.#tokens.unexpected()
    return statements
  }

  /** Up to one of the tags in `ends`, whose name is the next token then. */
  #statements(ends: string[]): Statement[] {
    const begun = this.#tokens.line
    if (++this.#depth > MAX_DEPTH) throw syntaxError('tags are nested too deep', begun)
    const statements: Statement[] = []
    while (!this.#tokens.is('eof')) {
      const { type, value, line } = this.#tokens.next()
      if (type === 'data') statements.push({ kind: 'data', text: value, line })
      else if (value === 'print') statements.push(this.#print(line, 'print'))
      else if (this.#tokens.isName(...ends)) {
        this.#depth--
        return statements
      } else statements.push(this.#statement(line))
    }
    if (ends.length > 0) throw syntaxError(`{% ${ends.at(-1)} %} is missing`, begun)
    this.#depth--
    return statements
  }

  /** `{{ a, b }}`, which is one tuple, or `{% print a, b %}`, which is two values */
  #print(line: number, end: 'print' | 'block'): Statement {
    const values = end === 'print' ? [this.#expressions.parseTuple()] : [this.#expressions.parse()]
    while (!this.#tokens.is('end')) {
      this.#tokens.expect('operator', ',')
      values.push(this.#expressions.parse())
    }
    this.#tokens.expect('end', end)
    return { kind: 'print', values, line }
  }

  #statement(line: number): Statement {
    const name = this.#tokens.expect('name').value
    switch (name) {
      case 'for':
        return this.#for(line)
      case 'if':
        return this.#if(line)
      case 'set':
        return this.#set(line)
      case 'with':
        return this.#with(line)
      case 'macro':
        return this.#macro(line)
      case 'call':
        return this.#call(line)
      case 'filter': {
        const filters = this.#expressions.parseFilters()
        return { kind: 'filter', filters, body: this.#body('endfilter'), line }
      }
      case 'generation':
        return { kind: 'generation', body: this.#function(() => this.#body('endgeneration')), line }
      case 'print':
        return this.#print(line, 'block')
      case 'break':
      case 'continue':
        if (this.#loops === 0) throw syntaxError(`{% ${name} %} outside a loop`, line)
        this.#end()
        return { kind: name, line }
    }
    const problem = UNSUPPORTED.includes(name)
      ? 'is not supported'
      : name.startsWith('end') || name.startsWith('el')
        ? 'has no beginning'
        : 'is no tag of chat templates'
    throw syntaxError(`{% ${name} %} ${problem}`, line)
  }

  #end(): void {
    this.#tokens.expect('end', 'block')
  }

  /** From behind the opening tag to behind the closing one. */
  #body(end: string): Statement[] {
    this.#end()
    const body = this.#statements([end])
    this.#tokens.next()
    this.#end()
    return body
  }

  /** `parse` reads what becomes a function: loops outside it cannot be left from inside. */
  #function<T>(parse: () => T): T {
    const loops = this.#loops
    this.#loops = 0
    const result = parse()
    this.#loops = loops
    return result
  }

  #for(line: number): Statement {
    const target = this.#target()
    this.#tokens.expect('name', 'in')
    const source = this.#expressions.parseTuple(false)
    const test = this.#tokens.skipIf('name', 'if') ? { test: this.#expressions.parse() } : {}
    const recursive = this.#tokens.skipIf('name', 'recursive')
    this.#end()
    this.#loops++
    const body = this.#statements(['else', 'endfor'])
    this.#loops--
    const loop = { kind: 'for', target, source, ...test, recursive, body, line } as const
    if (this.#tokens.next().value === 'else') return { ...loop, otherwise: this.#body('endfor') }
    this.#end()
    return { ...loop, otherwise: [] }
  }

  #if(line: number): Statement {
    const branches: { test: Expression; body: Statement[] }[] = []
    for (;;) {
      const test = this.#expressions.parseTuple(false)
      this.#end()
      const body = this.#statements(['elif', 'else', 'endif'])
      branches.push({ test, body })
      const tag = this.#tokens.next().value
      if (tag === 'elif') continue
      if (tag === 'else') return { kind: 'if', branches, otherwise: this.#body('endif'), line }
      this.#end()
      return { kind: 'if', branches, otherwise: [], line }
    }
  }

  #set(line: number): Statement {
    const target = this.#target(true)
    if (this.#tokens.skipIf('operator', '=')) {
      const value = this.#expressions.parseTuple()
      this.#end()
      return { kind: 'set', target, value, line }
    }
    const filters = this.#tokens.skipIf('operator', '|') ? this.#expressions.parseFilters() : []
    return { kind: 'capture', target, filters, body: this.#body('endset'), line }
  }

  #with(line: number): Statement {
    const bindings: { target: Target; value: Expression }[] = []
    while (!this.#tokens.is('end')) {
      if (bindings.length > 0) this.#tokens.expect('operator', ',')
      const target = this.#target()
      this.#tokens.expect('operator', '=')
      bindings.push({ target, value: this.#expressions.parse() })
    }
    return { kind: 'with', bindings, body: this.#body('endwith'), line }
  }

  #macro(line: number): Statement {
    const name = this.#tokens.expect('name').value
    const parameters = this.#parameters()
    return { kind: 'macro', name, parameters, body: this.#function(() => this.#body('endmacro')), line }
  }

  #call(line: number): Statement {
    const parameters = this.#tokens.isOperator('(') ? this.#parameters() : { names: [], defaults: [] }
    const called = this.#expressions.parse()
    if (called.kind !== 'call') throw syntaxError('{% call %} wants a call', line)
    const { callee, call }: { callee: Expression; call: CallSyntax } = called
    return { kind: 'call', callee, call, parameters, body: this.#function(() => this.#body('endcall')), line }
  }

  #parameters(): Parameters {
    const parameters: Parameters = { names: [], defaults: [] }
    this.#tokens.expect('operator', '(')
    while (!this.#tokens.skipIf('operator', ')')) {
      const { value: name, line } = this.#tokens.expect('name')
      parameters.names.push(name)
      if (this.#tokens.skipIf('operator', '=')) parameters.defaults.push(this.#expressions.parse())
      else if (parameters.defaults.length > 0) throw syntaxError(`${name} has no default, names before it have`, line)
      if (!this.#tokens.isOperator(')')) this.#tokens.expect('operator', ',')
    }
    return parameters
  }

  /** A name, `namespace.name` where that is possible, or several with commas between them. */
  #target(withNamespace = false): Target {
    const items = [this.#oneTarget(withNamespace)]
    if (!this.#tokens.isOperator(',')) return items[0]!
    while (this.#tokens.skipIf('operator', ',')) {
      if (this.#tokens.is('end') || this.#tokens.isOperator('=', ')') || this.#tokens.isName('in')) break
      items.push(this.#oneTarget(withNamespace))
    }
    return { kind: 'tuple', items }
  }

  #oneTarget(withNamespace: boolean): Target {
    if (this.#tokens.skipIf('operator', '(')) {
      const target = this.#target(withNamespace)
      this.#tokens.expect('operator', ')')
      return target
    }
    const { value: name, line } = this.#tokens.expect('name')
    if (/^(?:true|false|none)$/i.test(name)) throw syntaxError(`${name} cannot be set`, line)
    if (!withNamespace || !this.#tokens.skipIf('operator', '.')) return { kind: 'name', name }
    return { kind: 'attribute', namespace: name, name: this.#tokens.expect('name').value }
  }
}
