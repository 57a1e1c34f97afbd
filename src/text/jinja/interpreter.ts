/** Runs a template: statements write to an output, expressions give values. */
import { getAttribute, getItem, getSlice } from './attributes.js'
import type { Engine } from './filter.js'
import { findFilter, UNSUPPORTED_FILTERS } from './filters.js'
import { nameText, setAttribute } from './globals.js'
import { Loop } from './loop.js'
import { binary, compare, concatenate, negate, plus } from './operators.js'
import { toText } from './printing.js'
import { Scope } from './scope.js'
import type { CallSyntax, Expression, FilterSyntax, Parameters, Statement, Target } from './syntax.js'
import { findTest } from './tests.js'
import { Text } from './text.js'
import {
  type Arguments,
  Callable,
  Dict,
  given,
  isHostObject,
  isTrue,
  iterate,
  List,
  Namespace,
  TemplateError,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js'

/** How a run of statements ended: at its end, or at a `break` or `continue` for the loop around it. */
type Ending = 'end' | 'break' | 'continue'

type Output = Text[]
type Of<Kind> = Extract<Statement, { kind: Kind }>

/** Jinja2 has them: a text that is never the same, and the blocks of templates that extend others. */
export const UNSUPPORTED_NAMES = ['lipsum', 'self', 'super']

/** Macros that call themselves end here, before the stack does. */
const MAX_CALLS = 200

export class Interpreter implements Engine {
  /** of the statement or expression under way, for messages */
  line = 1
  #calls = 0

  run(statements: readonly Statement[], scope: Scope, output: Output): Ending {
    for (const statement of statements) {
      const ending = this.#statement(statement, scope, output)
      if (ending !== 'end') return ending
    }
    return 'end'
  }

  filter(name: string, value: Value, args: Arguments): Value {
    const filter = findFilter(name)
    if (filter) return filter(value, args, this)
    const problem = UNSUPPORTED_FILTERS.includes(name) ? 'is not supported' : 'does not exist'
    throw new TemplateError(`the filter ${name} ${problem}`)
  }

  test(name: string, value: Value, args: Arguments): boolean {
    if (name === 'filter') return value instanceof Text && findFilter(value.text) !== undefined
    if (name === 'test') return value instanceof Text && findTest(value.text) !== undefined
    const test = findTest(name)
    if (!test) throw new TemplateError(`the test ${name} does not exist`)
    return test(value, args)
  }

  #statement(statement: Statement, scope: Scope, output: Output): Ending {
    this.line = statement.line
    switch (statement.kind) {
      case 'data':
        output.push(new Text(statement.text))
        return 'end'
      case 'print':
        for (const value of statement.values) output.push(toText(this.#evaluate(value, scope)))
        return 'end'
      case 'if':
        return this.#if(statement, scope, output)
      case 'for':
        return this.#for(statement, this.#evaluate(statement.source, scope), scope, output, 0)
      case 'set':
        this.#assign(statement.target, this.#evaluate(statement.value, scope), scope)
        return 'end'
      case 'capture':
        return this.#captured(statement, scope, (text) => this.#assign(statement.target, text, scope))
      case 'filter':
        return this.#captured(statement, scope, (text) => output.push(toText(text)))
      case 'with': {
        const inner = new Scope(scope)
        for (const { target, value } of statement.bindings) this.#assign(target, this.#evaluate(value, scope), inner)
        return this.run(statement.body, inner, output)
      }
      case 'macro':
        scope.set(statement.name, this.#macro(statement.name, statement.parameters, statement.body, scope))
        return 'end'
      case 'call':
        output.push(toText(this.#callBlock(statement, scope)))
        return 'end'
      case 'generation':
        this.run(statement.body, new Scope(scope), output)
        return 'end'
      case 'break':
      case 'continue':
        return statement.kind
    }
  }

  #if({ branches, otherwise }: Of<'if'>, scope: Scope, output: Output): Ending {
    for (const { test, body } of branches) {
      if (isTrue(this.#evaluate(test, scope))) return this.run(body, scope, output)
    }
    return this.run(otherwise, scope, output)
  }

  #for(loop: Of<'for'>, source: Value, scope: Scope, output: Output, depth: number): Ending {
    const items = iterate(source).filter((item) => {
      if (!loop.test) return true
      const inner = new Scope(scope)
      this.#assign(loop.target, item, inner)
      return isTrue(this.#evaluate(loop.test, inner))
    })
    if (items.length === 0) return this.run(loop.otherwise, new Scope(scope), output)
    const state = new Loop(
      items,
      depth,
      loop.recursive ? (inner, level) => this.#recurse(loop, inner, scope, level) : undefined,
    )
    for (const [index, item] of items.entries()) {
      state.index = index
      const inner = new Scope(scope)
      inner.set('loop', state)
      this.#assign(loop.target, item, inner)
      if (this.run(loop.body, inner, output) === 'break') break
    }
    return 'end'
  }

  #recurse(loop: Of<'for'>, source: Value, scope: Scope, depth: number): Value {
    return this.#nested(() => {
      const output: Output = []
      this.#for(loop, source, scope, output, depth)
      return Text.join(output)
    })
  }

  /** The text of a body, through filters; what stands before a `break` is lost, as it is in Jinja2. */
  #captured(
    { filters, body }: { filters: FilterSyntax[]; body: Statement[] },
    scope: Scope,
    use: (text: Value) => void,
  ): Ending {
    const output: Output = []
    const inner = new Scope(scope)
    const ending = this.run(body, inner, output)
    if (ending !== 'end') return ending
    let value: Value = Text.join(output)
    for (const { name, call } of filters) value = this.filter(name, value, this.#arguments(call, inner))
    use(value)
    return 'end'
  }

  #assign(target: Target, value: Value, scope: Scope): void {
    if (target.kind === 'name') scope.set(target.name, value)
    else if (target.kind === 'attribute') {
      const namespace = scope.get(target.namespace)
      if (!(namespace instanceof Namespace))
        throw new TemplateError(`${target.namespace}.${target.name} is set, but ${target.namespace} is no namespace`)
      setAttribute(namespace, target.name, value)
    } else {
      const values = iterate(value)
      if (values.length !== target.items.length) {
        throw new TemplateError(`${values.length} values for ${target.items.length} names`)
      }
      for (const [index, item] of target.items.entries()) this.#assign(item, values[index]!, scope)
    }
  }

  #macro(name: string, parameters: Parameters, body: Statement[], scope: Scope): Callable {
    const uses = specialNames(body, parameters)
    return new Callable(name, (args) =>
      this.#nested(() => {
        const inner = new Scope(scope)
        this.#bindParameters(name, parameters, uses, args, inner)
        const output: Output = []
        this.run(body, inner, output)
        return Text.join(output)
      }),
    )
  }

  #bindParameters(
    name: string,
    { names, defaults }: Parameters,
    uses: Set<string>,
    args: Arguments,
    scope: Scope,
  ): void {
    const named = new Map(args.named)
    const absent: number[] = []
    for (const [index, parameter] of names.entries()) {
      const value = index < args.positional.length ? args.positional[index] : take(named, parameter)
      if (value === undefined) absent.push(index)
      else scope.set(parameter, value)
    }
    for (const index of absent) {
      const expression = defaults[index - (names.length - defaults.length)]
      const value = expression
        ? this.#evaluate(expression, scope)
        : new Undefined(`parameter ${names[index]} was not given`)
      scope.set(names[index]!, value)
    }
    if (uses.has('caller') && !names.includes('caller')) {
      scope.set('caller', given(take(named, 'caller'), new Undefined('there is no caller')))
    }
    if (uses.has('kwargs')) scope.set('kwargs', new Dict([...named].map(([key, value]) => [nameText(key), value])))
    else if (named.size > 0) throw new TemplateError(`macro ${name} takes no argument ${[...named.keys()][0]}`)
    if (uses.has('varargs')) scope.set('varargs', new Tuple(args.positional.slice(names.length)))
    else if (args.positional.length > names.length)
      throw new TemplateError(`macro ${name} takes not more than ${names.length} arguments`)
  }

  #callBlock({ callee, call, parameters, body }: Of<'call'>, scope: Scope): Value {
    const args = this.#arguments(call, scope)
    args.named.set('caller', this.#macro('caller', parameters, body, scope))
    return this.#call(this.#evaluate(callee, scope), args)
  }

  #evaluate(expression: Expression, scope: Scope): Value {
    const value = this.#value(expression, scope)
    // What comes next was written here, not where an inner part ended.
    this.line = expression.line
    return value
  }

  #value(expression: Expression, scope: Scope): Value {
    const of = (inner: Expression) => this.#evaluate(inner, scope)
    switch (expression.kind) {
      case 'constant':
        return expression.value
      case 'name':
        return this.#name(expression.name, scope)
      case 'list':
        return new List(expression.items.map(of))
      case 'tuple':
        return new Tuple(expression.items.map(of))
      case 'dict':
        return new Dict(expression.entries.map(([key, value]) => [of(key), of(value)]))
      case 'attribute':
        return getAttribute(of(expression.of), expression.name)
      case 'item':
        return getItem(of(expression.of), of(expression.key))
      case 'slice': {
        const end = (inner: Expression | undefined) => (inner ? of(inner) : null)
        return getSlice(of(expression.of), end(expression.start), end(expression.stop), end(expression.step))
      }
      case 'call':
        return this.#call(of(expression.callee), this.#arguments(expression.call, scope))
      case 'filter':
        return this.filter(expression.name, of(expression.of), this.#arguments(expression.call, scope))
      case 'test':
        return this.test(expression.name, of(expression.of), this.#arguments(expression.call, scope))
      case 'negate':
        return negate(of(expression.of))
      case 'plus':
        return plus(of(expression.of))
      case 'not':
        return !isTrue(of(expression.of))
      case 'binary':
        return binary(expression.operator, of(expression.left), of(expression.right))
      case 'and': {
        const left = of(expression.left)
        return isTrue(left) ? of(expression.right) : left
      }
      case 'or': {
        const left = of(expression.left)
        return isTrue(left) ? left : of(expression.right)
      }
      case 'compare':
        return this.#compare(expression, scope)
      case 'concatenate':
        return concatenate(expression.items.map(of))
      case 'choose':
        if (isTrue(of(expression.condition))) return of(expression.whenTrue)
        return expression.whenFalse ? of(expression.whenFalse) : new Undefined('an `if` without `else` gave nothing')
    }
  }

  #name(name: string, scope: Scope): Value {
    const value = scope.get(name)
    if (value === undefined && UNSUPPORTED_NAMES.includes(name)) throw new TemplateError(`${name} is not supported`)
    return given(value, new Undefined(`${name} is undefined`))
  }

  #compare({ first, rest }: Extract<Expression, { kind: 'compare' }>, scope: Scope): boolean {
    let left = this.#evaluate(first, scope)
    for (const [operator, expression] of rest) {
      const right = this.#evaluate(expression, scope)
      if (!compare(operator, left, right)) return false
      left = right
    }
    return true
  }

  #arguments({ positional, named, spread, namedSpread }: CallSyntax, scope: Scope): Arguments {
    const args: Arguments = { positional: positional.map((item) => this.#evaluate(item, scope)), named: new Map() }
    if (spread) args.positional.push(...iterate(this.#evaluate(spread, scope)))
    const add = (name: string, value: Value) => {
      if (args.named.has(name)) throw new TemplateError(`the argument ${name} is given twice`)
      args.named.set(name, value)
    }
    for (const [name, expression] of named) add(name, this.#evaluate(expression, scope))
    if (!namedSpread) return args
    const more = this.#evaluate(namedSpread, scope)
    if (!(more instanceof Dict)) throw new TemplateError(`** of a value of type ${typeName(more)}`)
    for (const [key, value] of more.entries()) add(toText(key).text, value)
    return args
  }

  #call(callee: Value, args: Arguments): Value {
    if (callee instanceof Callable) return callee.call(args)
    if (callee instanceof Undefined) callee.fail()
    if (isHostObject(callee) && callee.call) return callee.call(args)
    throw new TemplateError(`a value of type ${typeName(callee)} is called, which is no function`)
  }

  #nested(call: () => Value): Value {
    if (++this.#calls > MAX_CALLS) throw new TemplateError('macros call one another without end')
    const result = call()
    this.#calls--
    return result
  }
}

function take(values: Map<string, Value>, name: string): Value | undefined {
  const value = values.get(name)
  values.delete(name)
  return value
}

/** Which of `caller`, `kwargs` and `varargs` a macro's body mentions: only then it takes them. */
function specialNames(body: Statement[], { names }: Parameters): Set<string> {
  const found = new Set<string>()
  const visit = (node: unknown): void => {
    if (Array.isArray(node)) node.forEach(visit)
    else if (typeof node === 'object' && node !== null && Object.getPrototypeOf(node) === Object.prototype) {
      const { kind, name } = node as { kind?: unknown; name?: unknown }
      if (kind === 'name' && typeof name === 'string' && !names.includes(name)) found.add(name)
      Object.values(node).forEach(visit)
    }
  }
  visit(body)
  return found
}
