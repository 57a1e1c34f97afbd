/** Objects of JSON Schema as EBNF: properties in the order of the schema, then additional ones. */
import { characterClass, complement } from './code-points.js'
import { literal, oneOf, type Rules } from './ebnf.js'
import { space } from './json-rules.js'

export interface ObjectForm {
  properties: readonly { name: string; value: string; required: boolean }[]
  /** name (with its quotes) and value of any other property; undefined: there are no others */
  additional: { name: string; value: string } | undefined
  min: number
  max: number | undefined
}

/**
 * Undefined when no object is like this. What may follow depends on which property is next, on whether there is one
 * already, and on how many there are where their number is limited.
 */
export function objectExpression(form: ObjectForm, rules: Rules): string | undefined {
  return new ObjectWriter(form, rules).whole()
}

class ObjectWriter {
  readonly #form: ObjectForm
  readonly #rules: Rules
  readonly #space: string
  readonly #known = new Map<string, string | undefined>()
  readonly #isCounted: boolean

  constructor(form: ObjectForm, rules: Rules) {
    this.#form = form
    this.#rules = rules
    this.#space = space(rules)
    const required = form.properties.filter((property) => property.required).length
    const most = form.additional ? Number.POSITIVE_INFINITY : form.properties.length
    this.#isCounted = form.min > required || (form.max ?? Number.POSITIVE_INFINITY) < most
  }

  whole(): string | undefined {
    const rest = this.#rest(0, 0)
    return rest === undefined ? undefined : `"{" ${this.#space} ${rest}`
  }

  /** What follows when property `next` is to be decided on and `count` are there (1 for any number where nobody counts). */
  #rest(next: number, count: number): string | undefined {
    const key = `${next} ${count}`
    if (this.#known.has(key)) return this.#known.get(key)
    const name = this.#rules.name('rest')
    const { additional, properties } = this.#form
    // Additional properties follow one another without end.
    if (next === properties.length && additional) this.#known.set(key, name)
    const alternatives = this.#alternatives(next, count)
    const result = alternatives.length === 0 ? undefined : name
    if (result !== undefined) this.#rules.define(name, alternatives.join(' | '))
    this.#known.set(key, result)
    return result
  }

  #alternatives(next: number, count: number): string[] {
    const { properties, additional, min, max } = this.#form
    const property = properties[next]
    const parts: string[] = []
    const hasRoom = max === undefined || count < max || !this.#isCounted
    const member = property
      ? `${literal(`${JSON.stringify(property.name)}:`)} " "? ${property.value}`
      : additional && `${additional.name} ":" " "? ${additional.value}`
    if (member && hasRoom) {
      const after = this.#rest(
        Math.min(next + 1, properties.length),
        this.#isCounted ? Math.min(count + 1, this.#mostCount()) : 1,
      )
      if (after !== undefined) parts.push(`${count > 0 ? `"," ${this.#space} ` : ''}${member} ${after}`)
    }
    if (property && !property.required)
      parts.push(...((this.#rest(next + 1, count) ?? []).length ? [this.#rest(next + 1, count)!] : []))
    if (!property && (count >= min || !this.#isCounted)) parts.push(count > 0 ? `${this.#space} "}"` : '"}"')
    return parts
  }

  /** More than this many need not be told apart. */
  #mostCount(): number {
    return this.#form.max ?? this.#form.min
  }
}

/**
 * A name in quotes that is none of `names`. Without backslashes: a name could be written in two ways otherwise, and be one
 * of them after all.
 */
export function otherName(names: readonly string[], rules: Rules): string {
  const rest = rules.add('otherText', `"\\"" | ${characterClass(rawSet([]))} otherTextRest`)
  rules.shared('otherTextRest', () => `"\\"" | ${characterClass(rawSet([]))} otherTextRest`)
  return `"\\"" ${namesFrom(names, rules, rest)}`
}

function rawSet(without: readonly string[]) {
  const points = [...without, '"', '\\'].map((character): [number, number] => [
    character.codePointAt(0)!,
    character.codePointAt(0)!,
  ])
  const sorted = [[0, 0x1f] as [number, number], ...points].sort((a, b) => a[0] - b[0])
  return complement(sorted)
}

/** The rest of a name when these are the rests of those that are taken. */
function namesFrom(taken: readonly string[], rules: Rules, free: string): string {
  const byFirst = new Map<string, string[]>()
  for (const name of taken) {
    const [first] = name
    if (first !== undefined) byFirst.set(first, [...(byFirst.get(first) ?? []), name.slice(first.length)])
  }
  if (byFirst.size === 0 && !taken.includes('')) return free
  const parts = taken.includes('') ? [] : ['"\\""']
  parts.push(`${characterClass(rawSet([...byFirst.keys()]))} ${free}`)
  for (const [first, rests] of byFirst) {
    // Names that need a backslash cannot be written here anyway.
    if (JSON.stringify(first) === `"${first}"`) parts.push(`${literal(first)} ${namesFrom(rests, rules, free)}`)
  }
  return rules.add('other', oneOf(parts))
}
