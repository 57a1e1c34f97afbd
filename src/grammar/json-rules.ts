/** The rules of JSON that every grammar shares. */
import { literal, type Rules } from './ebnf.js'
import { numberExpression } from './number-grammar.js'

/** As many spaces as an indented line of a deep value has; models that like spaces would write them without end. */
const MOST_INDENT = 16

/** White space between two parts: none, a space, or a new line with its indentation. */
export function space(rules: Rules): string {
  return rules.shared('space', () => `"" | " " | "\\n" [ ]{0,${MOST_INDENT}}`)
}

/** One character of a JSON string without a backslash; no surrogates, so that every text is well-formed. */
export const RAW_CHARACTER = '[^"\\\\\\x00-\\x1f]'

/**
 * A string with both quotes. The rule ends with a quote of its own, not with an empty alternative: a token that goes on
 * after it is then decided while compiling, not at every token of the answer.
 */
export function anyString(rules: Rules): string {
  rules.shared('hex', () => '[0-9a-fA-F]')
  rules.shared(
    'escape',
    () => '["\\\\/bfnrt] | "u" ([0-9a-cA-C] hex hex hex | [dD] [0-7] hex hex | [efEF] hex hex hex)',
  )
  rules.shared('characters', () => `"\\"" | ${RAW_CHARACTER} characters | "\\\\" escape characters`)
  return rules.shared('string', () => '"\\"" characters')
}

/** Any value, of any depth. */
export function anyValue(rules: Rules): string {
  return rules.shared('value', () =>
    [
      anyString(rules),
      numberExpression({}, false, rules)!,
      anyObject(rules),
      array(rules, () => 'value'),
      ...['true', 'false', 'null'].map(literal),
    ].join(' | '),
  )
}

export function anyObject(rules: Rules): string {
  return rules.shared('object', () => {
    const gap = space(rules)
    rules.shared('members', () => `"," ${gap} member members | ${gap} "}"`)
    rules.shared('member', () => `${anyString(rules)} ":" " "? ${anyValue(rules)}`)
    return `"{" ${gap} (member members | "}")`
  })
}

/** An array of any number of items. */
function array(rules: Rules, item: () => string): string {
  return rules.shared('array', () => {
    const gap = space(rules)
    rules.shared('items', () => `"," ${gap} ${item()} items | ${gap} "]"`)
    return `"[" ${gap} (${item()} items | "]")`
  })
}

/** Values written as JSON.stringify does. */
export function constants(values: readonly unknown[]): string[] {
  return [...new Set(values.map((value) => literal(JSON.stringify(value))))]
}
