/** What a template's source says: expressions and statements, each with the line where it begins. */
import type { Value } from './values.js'

export interface CallSyntax {
  positional: Expression[]
  named: [string, Expression][]
  /** `*expression` and `**expression` */
  spread?: Expression
  namedSpread?: Expression
}

export type BinaryOperator = '+' | '-' | '*' | '/' | '//' | '%' | '**'
export type Comparison = '==' | '!=' | '<' | '<=' | '>' | '>=' | 'in' | 'not in'

export type Expression = { line: number } & (
  | { kind: 'constant'; value: Value }
  | { kind: 'name'; name: string }
  | { kind: 'list' | 'tuple'; items: Expression[] }
  | { kind: 'dict'; entries: [Expression, Expression][] }
  | { kind: 'attribute'; of: Expression; name: string }
  | { kind: 'item'; of: Expression; key: Expression }
  | { kind: 'slice'; of: Expression; start?: Expression; stop?: Expression; step?: Expression }
  | { kind: 'call'; callee: Expression; call: CallSyntax }
  | { kind: 'filter'; of: Expression; name: string; call: CallSyntax }
  | { kind: 'test'; of: Expression; name: string; call: CallSyntax }
  | { kind: 'negate' | 'plus' | 'not'; of: Expression }
  | { kind: 'binary'; operator: BinaryOperator; left: Expression; right: Expression }
  | { kind: 'and' | 'or'; left: Expression; right: Expression }
  | { kind: 'compare'; first: Expression; rest: [Comparison, Expression][] }
  | { kind: 'concatenate'; items: Expression[] }
  | { kind: 'choose'; condition: Expression; whenTrue: Expression; whenFalse?: Expression }
)

/** What `set` and `for` write to. */
export type Target =
  | { kind: 'name'; name: string }
  | { kind: 'attribute'; namespace: string; name: string }
  | { kind: 'tuple'; items: Target[] }

export interface Parameters {
  names: string[]
  /** of the last names, as many as there are */
  defaults: Expression[]
}

export interface FilterSyntax {
  name: string
  call: CallSyntax
}

export type Statement = { line: number } & (
  | { kind: 'data'; text: string }
  | { kind: 'print'; values: Expression[] }
  | {
      kind: 'for'
      target: Target
      source: Expression
      test?: Expression
      recursive: boolean
      body: Statement[]
      otherwise: Statement[]
    }
  | { kind: 'if'; branches: { test: Expression; body: Statement[] }[]; otherwise: Statement[] }
  | { kind: 'set'; target: Target; value: Expression }
  | { kind: 'capture'; target: Target; filters: FilterSyntax[]; body: Statement[] }
  | { kind: 'with'; bindings: { target: Target; value: Expression }[]; body: Statement[] }
  | { kind: 'macro'; name: string; parameters: Parameters; body: Statement[] }
  | { kind: 'call'; callee: Expression; call: CallSyntax; parameters: Parameters; body: Statement[] }
  | { kind: 'filter'; filters: FilterSyntax[]; body: Statement[] }
  /** transformers' {% generation %}: its body in a scope of its own */
  | { kind: 'generation'; body: Statement[] }
  | { kind: 'break' | 'continue' }
)
