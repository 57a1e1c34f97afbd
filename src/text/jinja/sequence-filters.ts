/** Jinja2's filters of lists, dicts and whatever can be looped over. */
import type { BoundArguments } from './arguments.js'
import { getPath } from './attributes.js'
import { type Engine, type Filter, filter } from './filter.js'
import { binary, equals, order } from './operators.js'
import { toText } from './printing.js'
import { EMPTY, Text } from './text.js'
import {
  type Arguments,
  Dict,
  DictView,
  Generator,
  given,
  isTrue,
  iterate,
  List,
  TemplateError,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js'

export const SEQUENCE_FILTERS: Record<string, Filter> = {
  batch: filter('batch', ['linecount', 'fill_with'], batch),
  dictsort: filter('dictsort', ['case_sensitive', 'by', 'reverse'], dictSort),
  first: filter('first', [], (value) => firstOf(value)),
  groupby: filter('groupby', ['attribute', 'default', 'case_sensitive'], groupBy),
  items: filter('items', [], (value) => {
    if (value instanceof Undefined) return new Generator('generator', [])
    if (!(value instanceof Dict)) throw new TemplateError(`items of a value of type ${typeName(value)}`)
    return new Generator('generator', new DictView(value, 'items').items)
  }),
  join: filter('join', ['d', 'attribute'], (value, args) => {
    const path = args.value('attribute')
    const items = iterate(value).map((item) => toText(path === null ? item : getPath(item, path)))
    return Text.join(items, toText(args.value('d', EMPTY)))
  }),
  last: filter('last', [], (value) => lastOf(value)),
  list: filter('list', [], (value) => new List(iterate(value))),
  map: (value, args, engine) => new Generator('generator', mapped(value, args, engine)),
  max: filter('max', ['case_sensitive', 'attribute'], (value, args) => extreme(value, args, 1)),
  min: filter('min', ['case_sensitive', 'attribute'], (value, args) => extreme(value, args, -1)),
  reject: (value, args, engine) => selected(value, args, engine, false, false),
  rejectattr: (value, args, engine) => selected(value, args, engine, true, false),
  reverse: filter('reverse', [], reverse),
  select: (value, args, engine) => selected(value, args, engine, false, true),
  selectattr: (value, args, engine) => selected(value, args, engine, true, true),
  slice: filter('slice', ['slices', 'fill_with'], slices),
  sort: filter('sort', ['reverse', 'case_sensitive', 'attribute'], sort),
  sum: filter('sum', ['attribute', 'start'], (value, args) => {
    const path = args.value('attribute')
    const items = iterate(value).map((item) => (path === null ? item : getPath(item, path)))
    const start = args.value('start', 0n)
    if (start instanceof Text) throw new TemplateError('sum of texts')
    return items.reduce((total, item) => binary('+', total, item), start)
  }),
  unique: filter('unique', ['case_sensitive', 'attribute'], unique),
}

function firstOf(value: Value): Value {
  // A generator gives one item up and keeps the rest.
  const items = value instanceof Generator ? value.rest() : iterate(value)
  for (const item of items) return item
  return new Undefined('No first item, sequence was empty.')
}

function reversible(value: Value, what: string): Value[] {
  if (value instanceof Generator) throw new TemplateError(`${what} of a ${typeName(value)} (put \`| list\` before it)`)
  return iterate(value)
}

function lastOf(value: Value): Value {
  return given(reversible(value, 'last').at(-1), new Undefined('No last item, sequence was empty.'))
}

function reverse(value: Value): Value {
  if (value instanceof Text) return Text.join(value.characters().reverse())
  const type = value instanceof List ? 'list_reverseiterator' : 'reversed'
  return value instanceof Generator ? new List(iterate(value).reverse()) : new Generator(type, iterate(value).reverse())
}

function ignoreCase(value: Value): Value {
  return value instanceof Text ? value.map((text) => text.toLowerCase()) : value
}

/** What values are compared by: an attribute perhaps, without regard to case unless that is asked for. */
function keyBy(args: BoundArguments): (value: Value) => Value {
  const path = args.value('attribute')
  const exact = args.flag('case_sensitive')
  return (value) => {
    const found = path === null ? value : getPath(value, path)
    return exact ? found : ignoreCase(found)
  }
}

/** Equal ones stay in their order, in either direction. */
function sorted<T>(items: readonly T[], key: (item: T) => Value, reversed: boolean): T[] {
  const keyed = items.map((item) => ({ item, key: key(item) }))
  keyed.sort((a, b) => (reversed ? order(b.key, a.key) : order(a.key, b.key)) || 0)
  return keyed.map(({ item }) => item)
}

/** Several attributes with commas between them are compared one after the other. */
function sort(value: Value, args: BoundArguments): Value {
  const attribute = args.value('attribute')
  const paths = attribute instanceof Text ? attribute.text.split(',').map((path) => new Text(path)) : [attribute]
  const exact = args.flag('case_sensitive')
  const key = (item: Value) => {
    const found = paths.map((path) => (path === null ? item : getPath(item, path)))
    return new List(exact ? found : found.map(ignoreCase))
  }
  return new List(sorted(iterate(value), key, args.flag('reverse')))
}

function dictSort(value: Value, args: BoundArguments): Value {
  if (!(value instanceof Dict)) throw new TemplateError(`dictsort of a value of type ${typeName(value)}`)
  const by = args.has('by') ? args.text('by').text : 'key'
  if (by !== 'key' && by !== 'value') throw new TemplateError('dictsort: by must be key or value')
  const exact = args.flag('case_sensitive')
  const key = (entry: [Value, Value]) => (exact ? entry[by === 'key' ? 0 : 1] : ignoreCase(entry[by === 'key' ? 0 : 1]))
  const entries = sorted(value.entries(), key, args.flag('reverse'))
  return new List(entries.map((entry) => new Tuple(entry)))
}

function unique(value: Value, args: BoundArguments): Value {
  const key = keyBy(args)
  const seen = new Dict()
  const kept = iterate(value).filter((item) => {
    const found = key(item)
    const isNew = !seen.has(found)
    if (isNew) seen.set(found, null)
    return isNew
  })
  return new Generator('generator', kept)
}

function extreme(value: Value, args: BoundArguments, sign: 1 | -1): Value {
  const key = keyBy(args)
  let best: { item: Value; key: Value } | undefined
  for (const item of iterate(value)) {
    const found = key(item)
    if (!best || order(found, best.key) * sign > 0) best = { item, key: found }
  }
  return given(best?.item, new Undefined('No aggregated item, sequence was empty.'))
}

function groupBy(value: Value, args: BoundArguments): Value {
  const path = args.required('attribute')
  const fallback = args.value('default')
  const exact = args.flag('case_sensitive')
  const plain = (item: Value) => getPath(item, path, fallback)
  const key = (item: Value) => (exact ? plain(item) : ignoreCase(plain(item)))
  const groups: { key: Value; items: Value[] }[] = []
  for (const item of sorted(iterate(value), key, false)) {
    const found = key(item)
    const last = groups.at(-1)
    if (last && equals(last.key, found)) last.items.push(item)
    else groups.push({ key: found, items: [item] })
  }
  return new List(groups.map(({ items }) => new Tuple([plain(items[0]!), new List(items)], ['grouper', 'list'])))
}

function batch(value: Value, args: BoundArguments): Value {
  const count = args.integer('linecount', 0)
  const fill = args.value('fill_with')
  const rows: Value[][] = []
  for (const item of iterate(value)) {
    if (rows.length === 0 || rows.at(-1)!.length === count) rows.push([])
    rows.at(-1)!.push(item)
  }
  const last = rows.at(-1)
  if (last && fill !== null) while (last.length < count) last.push(fill)
  return new Generator(
    'generator',
    rows.map((row) => new List(row)),
  )
}

function slices(value: Value, args: BoundArguments): Value {
  const count = args.integer('slices', 0)
  if (count < 1) throw new TemplateError('slice wants a number of slices above 0')
  const fill = args.value('fill_with')
  const items = iterate(value)
  const [size, longer] = [Math.floor(items.length / count), items.length % count]
  const columns = Array.from({ length: count }, (_, column) => {
    const start = column * size + Math.min(column, longer)
    const own = items.slice(start, start + size + (column < longer ? 1 : 0))
    if (fill !== null && column >= longer && longer > 0) own.push(fill)
    return new List(own)
  })
  return new Generator('generator', columns)
}

function* mapped(value: Value, { positional, named }: Arguments, engine: Engine): globalThis.Generator<Value> {
  const [name, ...others] = positional
  if (name === undefined) {
    const path = named.get('attribute')
    if (path === undefined) throw new TemplateError('map wants the name of a filter or an attribute')
    const unknown = [...named.keys()].find((key) => key !== 'attribute' && key !== 'default')
    if (unknown) throw new TemplateError(`map() has no argument ${unknown}`)
    for (const item of each(value)) yield getPath(item, path, given(named.get('default'), null))
    return
  }
  if (!(name instanceof Text)) throw new TemplateError('map wants the name of a filter')
  for (const item of each(value)) yield engine.filter(name.text, item, { positional: others, named })
}

/** Nothing is taken out of a generator before it is asked for; what is not true is taken for empty. */
function each(value: Value): Iterable<Value> {
  if (!isTrue(value)) return []
  return value instanceof Generator ? value.rest() : iterate(value)
}

function selected(
  value: Value,
  { positional, named }: Arguments,
  engine: Engine,
  byAttribute: boolean,
  keep: boolean,
): Value {
  const [path, name, ...others] = byAttribute ? positional : [null, ...positional]
  if (path === undefined) throw new TemplateError('selectattr and rejectattr want an attribute')
  if (name !== undefined && !(name instanceof Text))
    throw new TemplateError('select and reject want the name of a test')
  const passes = (item: Value) => {
    const tested = path === null ? item : getPath(item, path)
    if (name === undefined) return isTrue(tested)
    return engine.test((name as Text).text, tested, { positional: others, named })
  }
  function* chosen(): globalThis.Generator<Value> {
    for (const item of each(value)) if (passes(item) === keep) yield item
  }
  return new Generator('generator', chosen())
}
