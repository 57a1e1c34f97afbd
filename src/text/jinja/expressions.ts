/** Expressions, with the grammar and the precedences of Jinja2 (jinja2/parser.py), which are not Python's everywhere. */
import { stringValue, syntaxError } from './lexer.js'
import type { BinaryOperator, CallSyntax, Comparison, Expression, FilterSyntax } from './syntax.js'
import { EMPTY, Text } from './text.js'
import type { TokenStream } from './token-stream.js'
import type { Value } from './values.js'

const CONSTANTS: Record<string, Value> = { true: true, True: true, false: false, False: false, none: null, None: null }
const COMPARISONS = ['==', '!=', '<', '<=', '>', '>=']

/** Deeper nests would end in an overflow of the stack somewhere; real templates have less than twenty levels. */
const MAX_DEPTH = 200

export class ExpressionParser {
  readonly tokens: TokenStream
  #depth = 0

  constructor(tokens: TokenStream) {
    this.tokens = tokens
  }

  /** `withIf` false: an `if` after it belongs to somebody else, as in a for loop. */
  parse(withIf = true): Expression {
    if (++this.#depth > MAX_DEPTH) throw syntaxError('expressions are nested too deep', this.tokens.line)
    const expression = withIf ? this.#choice() : this.#or()
    this.#depth--
    return expression
  }

  /** Expressions with commas between them are a tuple. */
  parseTuple(withIf = true): Expression {
    const { line } = this.tokens
    const items = [this.parse(withIf)]
    if (!this.tokens.isOperator(',')) return items[0]!
    while (this.tokens.skipIf('operator', ',')) {
      if (this.#endsTuple()) break
      items.push(this.parse(withIf))
    }
    return { kind: 'tuple', items, line }
  }

  /** `(a, b=c, *d, **e)` */
  parseCall(): CallSyntax {
    const { tokens } = this
    const call: CallSyntax = { positional: [], named: [] }
    tokens.expect('operator', '(')
    while (!tokens.skipIf('operator', ')')) {
      this.#argument(call)
      if (!tokens.isOperator(')')) tokens.expect('operator', ',')
    }
    return call
  }

  /** `name | name(…)`, after the first `|` */
  parseFilters(): FilterSyntax[] {
    const filters = [this.#filter()]
    while (this.tokens.skipIf('operator', '|')) filters.push(this.#filter())
    return filters
  }

  #endsTuple(): boolean {
    return this.tokens.is('end') || this.tokens.isOperator(')') || this.tokens.isName('in', 'recursive')
  }

  #argument(call: CallSyntax): void {
    const { tokens } = this
    const { line } = tokens
    const late = call.spread !== undefined || call.namedSpread !== undefined
    if (tokens.skipIf('operator', '*')) {
      if (late) throw syntaxError('only one * is possible in a call, before **', line)
      call.spread = this.parse()
    } else if (tokens.skipIf('operator', '**')) {
      if (call.namedSpread) throw syntaxError('only one ** is possible in a call', line)
      call.namedSpread = this.parse()
    } else if (tokens.is('name') && tokens.isFollowedBy('operator', '=')) {
      if (call.namedSpread) throw syntaxError('an argument after **', line)
      const name = tokens.next().value
      tokens.next()
      call.named.push([name, this.parse()])
    } else {
      if (late || call.named.length > 0) throw syntaxError('an argument without a name after others', line)
      call.positional.push(this.parse())
    }
  }

  #choice(): Expression {
    const { line } = this.tokens
    let expression = this.#or()
    while (this.tokens.skipIf('name', 'if')) {
      const condition = this.#or()
      const whenFalse = this.tokens.skipIf('name', 'else') ? { whenFalse: this.parse() } : {}
      expression = { kind: 'choose', condition, whenTrue: expression, ...whenFalse, line }
    }
    return expression
  }

  #or(): Expression {
    const { line } = this.tokens
    let left = this.#and()
    while (this.tokens.skipIf('name', 'or')) left = { kind: 'or', left, right: this.#and(), line }
    return left
  }

  #and(): Expression {
    const { line } = this.tokens
    let left = this.#not()
    while (this.tokens.skipIf('name', 'and')) left = { kind: 'and', left, right: this.#not(), line }
    return left
  }

  #not(): Expression {
    const { line } = this.tokens
    let count = 0
    while (this.tokens.skipIf('name', 'not')) count++
    let expression = this.#compare()
    for (; count > 0; count--) expression = { kind: 'not', of: expression, line }
    return expression
  }

  #compare(): Expression {
    const { line } = this.tokens
    const first = this.#sum()
    const rest: [Comparison, Expression][] = []
    for (let operator = this.#comparison(); operator; operator = this.#comparison()) rest.push([operator, this.#sum()])
    return rest.length === 0 ? first : { kind: 'compare', first, rest, line }
  }

  #comparison(): Comparison | undefined {
    const { tokens } = this
    if (tokens.isOperator(...COMPARISONS)) return tokens.next().value as Comparison
    if (tokens.skipIf('name', 'in')) return 'in'
    if (!tokens.isName('not') || !tokens.isFollowedBy('name', 'in')) return undefined
    tokens.next()
    tokens.next()
    return 'not in'
  }

  #binary(operand: () => Expression, ...operators: BinaryOperator[]): Expression {
    const { line } = this.tokens
    let left = operand()
    while (this.tokens.isOperator(...operators)) {
      const operator = this.tokens.next().value as BinaryOperator
      left = { kind: 'binary', operator, left, right: operand(), line }
    }
    return left
  }

  #sum(): Expression {
    return this.#binary(() => this.#concatenation(), '+', '-')
  }

  /** `~` binds more than + and less than *. */
  #concatenation(): Expression {
    const { line } = this.tokens
    const items = [this.#product()]
    while (this.tokens.skipIf('operator', '~')) items.push(this.#product())
    return items.length === 1 ? items[0]! : { kind: 'concatenate', items, line }
  }

  #product(): Expression {
    return this.#binary(() => this.#power(), '*', '/', '//', '%')
  }

  /** From left to right, and less than the sign in front of it: -2 ** 2 is 4. */
  #power(): Expression {
    return this.#binary(() => this.#unary(true), '**')
  }

  #unary(withFilters: boolean): Expression {
    const { tokens } = this
    const { line } = tokens
    let expression: Expression
    if (tokens.isOperator('-', '+')) {
      if (++this.#depth > MAX_DEPTH) throw syntaxError('expressions are nested too deep', line)
      expression = { kind: tokens.next().value === '-' ? 'negate' : 'plus', of: this.#unary(false), line }
      this.#depth--
    } else {
      expression = this.#primary()
    }
    expression = this.#postfix(expression)
    return withFilters ? this.#filtersAndTests(expression) : expression
  }

  #primary(): Expression {
    const { tokens } = this
    const token = tokens.next()
    const { line } = token
    const constant = (value: Value): Expression => ({ kind: 'constant', value, line })
    if (token.type === 'name') {
      const known = Object.hasOwn(CONSTANTS, token.value)
      return known ? constant(CONSTANTS[token.value]!) : { kind: 'name', name: token.value, line }
    }
    if (token.type === 'integer') return constant(BigInt(token.value.replaceAll('_', '')))
    if (token.type === 'float') return constant(Number(token.value.replaceAll('_', '')))
    if (token.type === 'string') {
      let text = stringValue(token)
      while (tokens.is('string')) text += stringValue(tokens.next())
      return constant(text === '' ? EMPTY : new Text(text))
    }
    if (token.value === '(') return this.#parenthesis(line)
    if (token.value === '[') return { kind: 'list', items: this.#items(), line }
    if (token.value === '{') return this.#dict(line)
    if (token.type === 'eof') throw tokens.unexpected()
    throw syntaxError(`unexpected ${token.type === 'end' ? 'end of the tag' : JSON.stringify(token.value)}`, line)
  }

  #parenthesis(line: number): Expression {
    if (this.tokens.skipIf('operator', ')')) return { kind: 'tuple', items: [], line }
    const expression = this.parseTuple()
    this.tokens.expect('operator', ')')
    return expression
  }

  #items(): Expression[] {
    const items: Expression[] = []
    while (!this.tokens.skipIf('operator', ']')) {
      items.push(this.parse())
      if (!this.tokens.isOperator(']')) this.tokens.expect('operator', ',')
    }
    return items
  }

  #dict(line: number): Expression {
    const entries: [Expression, Expression][] = []
    while (!this.tokens.skipIf('operator', '}')) {
      const key = this.parse()
      this.tokens.expect('operator', ':')
      entries.push([key, this.parse()])
      if (!this.tokens.isOperator('}')) this.tokens.expect('operator', ',')
    }
    return { kind: 'dict', entries, line }
  }

  #postfix(start: Expression): Expression {
    let of = start
    for (;;) {
      const { line } = this.tokens
      if (this.tokens.skipIf('operator', '.')) of = this.#member(of, line)
      else if (this.tokens.skipIf('operator', '[')) of = this.#subscript(of, line)
      else if (this.tokens.isOperator('(')) of = { kind: 'call', callee: of, call: this.parseCall(), line }
      else return of
    }
  }

  #member(of: Expression, line: number): Expression {
    if (!this.tokens.is('integer')) return { kind: 'attribute', of, name: this.tokens.expect('name').value, line }
    const value = BigInt(this.tokens.next().value.replaceAll('_', ''))
    return { kind: 'item', of, key: { kind: 'constant', value, line }, line }
  }

  #subscript(of: Expression, line: number): Expression {
    const { tokens } = this
    const ends: (Expression | undefined)[] = [undefined]
    while (!tokens.skipIf('operator', ']')) {
      if (tokens.skipIf('operator', ':')) ends.push(undefined)
      else if (ends.at(-1) === undefined) ends[ends.length - 1] = this.parse()
      else throw tokens.unexpected('a ]')
    }
    const [start, stop, step] = ends
    if (ends.length === 1 && start) return { kind: 'item', of, key: start, line }
    if (ends.length === 1 || ends.length > 3) throw syntaxError('brackets with no key or too many parts', line)
    return { kind: 'slice', of, ...(start && { start }), ...(stop && { stop }), ...(step && { step }), line }
  }

  #filtersAndTests(start: Expression): Expression {
    let of = start
    for (;;) {
      const { line } = this.tokens
      if (this.tokens.skipIf('operator', '|')) of = { kind: 'filter', of, ...this.#filter(), line }
      else if (this.tokens.skipIf('name', 'is')) of = this.#test(of, line)
      else if (this.tokens.isOperator('(')) of = { kind: 'call', callee: of, call: this.parseCall(), line }
      else return of
    }
  }

  #filter(): FilterSyntax {
    const name = this.#dottedName()
    const call = this.tokens.isOperator('(') ? this.parseCall() : { positional: [], named: [] }
    return { name, call }
  }

  #dottedName(): string {
    let name = this.tokens.expect('name').value
    while (this.tokens.skipIf('operator', '.')) name += `.${this.tokens.expect('name').value}`
    return name
  }

  /** `is not name`, with arguments in parentheses or one without them */
  #test(of: Expression, line: number): Expression {
    const { tokens } = this
    const negated = tokens.skipIf('name', 'not')
    const name = this.#dottedName()
    let call: CallSyntax = { positional: [], named: [] }
    if (tokens.isOperator('(')) call = this.parseCall()
    else if (this.#beginsArgument()) {
      if (tokens.isName('is')) throw syntaxError('tests cannot follow one another', line)
      call = { positional: [this.#postfix(this.#primary())], named: [] }
    }
    const test: Expression = { kind: 'test', of, name, call, line }
    return negated ? { kind: 'not', of: test, line } : test
  }

  #beginsArgument(): boolean {
    const { type } = this.tokens.current
    if (type === 'name') return !this.tokens.isName('else', 'or', 'and')
    return type === 'string' || type === 'integer' || type === 'float' || this.tokens.isOperator('[', '{')
  }
}
