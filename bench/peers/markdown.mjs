// The report of bench/peers/run.mjs as Markdown that can go into the README as it is.
import { FIGURES, HOPELESS, tableRows } from './comparison.mjs'

const ISA_NAMES = {
  scalar: 'scalar',
  avx2: 'AVX2',
  avxvnni: 'AVX-VNNI',
  avx512: 'AVX-512',
  avx512vnni: 'AVX-512 VNNI',
  amx: 'AMX',
  neon: 'NEON',
  neondot: 'NEON with dot products',
}

/** Three digits are more than a machine repeats. */
function speed(tokensPerSecond) {
  if (tokensPerSecond >= 100) return Math.round(tokensPerSecond).toLocaleString('en-US')
  return tokensPerSecond.toPrecision(3)
}

const ratio = (value) => `${value.toFixed(1)} ×`
const bits = (value) => `${Number(value.toFixed(2))} bits`
const plural = (count, thing) => `${count} ${thing}${count === 1 ? '' : 's'}`

/** `fastest: Q4_0 (4.5 bits) for prefill, IQ4_NL (4.5 bits) for decode` */
function typesOf({ what, ...figures }) {
  const name = ({ type, ...cell }) => `${type} (${bits(cell.bits)})`
  const names = FIGURES.map((figure) => name(figures[figure]))
  if (names[0] === names[1]) return `${what}: ${names[0]}`
  return `${what}: ${FIGURES.map((figure, i) => `${names[i]} for ${figure}`).join(', ')}`
}

const percent = (share) => `${Math.round(100 * share)} %`

/** `; 42 %`: decode's share of what the memory can be read at, where it was measured. */
const shareOf = ({ decode }, before) => (decode.share === undefined ? '' : `${before}${percent(decode.share)}`)

function line(shape, row, isas) {
  const speeds = (figures) => FIGURES.map((figure) => speed(figures[figure].speed)).join(', ')
  const peer = row.decode.share === undefined ? speeds(row) : `${speeds(row)} (${shareOf(row, '')})`
  const ours = isas.map((isa) => {
    const figures = Object.fromEntries(FIGURES.map((figure) => [figure, row[figure].ours[isa]]))
    const ratios = FIGURES.map((figure) => ratio(figures[figure].ratio)).join(', ')
    return `${speeds(figures)} (${ratios}${shareOf(figures, '; ')})`
  })
  return `| ${[shape, typesOf(row), peer, ...ours].join(' | ')} |`
}

/** What was measured once only, or not at all, and why. */
function leftOut({ shape, configurations, misfits }) {
  const name = ({ engine, type, threads }) => `${engine}'s ${type} on ${plural(threads, 'thread')}`
  const notes = configurations
    .filter(({ refused }) => refused)
    .map((one) => `${name(one)} could not be run: ${one.refused}`)
  const dropped = configurations.filter((one) => one.dropped)
  if (dropped.length > 0) {
    const each = dropped.map(
      (one) => `${name(one)} (${FIGURES.map((figure) => one.dropped[figure].toFixed(2)).join(', ')})`,
    )
    notes.push(`below ${HOPELESS} of the fastest in both figures of the first round: ${each.join('; ')}`)
  }
  if (misfits.length > 0) notes.push(`the columns do not fit ${misfits.join(', ')}`)
  return notes.map((note) => `- ${shape}: ${note}`)
}

/** Lines of at most 120 characters, as the README's are; `indent` before all but the first. */
function wrapped(text, indent = '') {
  const lines = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > 120) {
      lines.push(line)
      line = `${indent}${word}`
    } else {
      line += line === '' ? word : ` ${word}`
    }
  }
  return [...lines, line].join('\n')
}

const list = (values, word = 'or') => [...new Set(values)].join(` ${word} `)

/** What both tables begin with. */
function circumstances({ date, machine }, shapes) {
  return (
    `${date}, ${plural(machine.logical_cpus, 'core')} of ${machine.cpu}, random weights of the same shapes on both sides, ` +
    `a prompt of ${list(shapes.map(({ work }) => work.prompt))} tokens, then ` +
    `${list(shapes.map(({ work }) => work.tokens))} tokens one by one (\`npm run bench:peers\`).`
  )
}

/** `3 rounds`, or `2 to 3 rounds` where the time was over before. */
function countRounds(shapes) {
  const counts = shapes.map(({ configurations }) =>
    Math.max(...configurations.map(({ pairs }) => pairs.at(-1)?.round ?? 0)),
  )
  const [fewest, most] = [Math.min(...counts), Math.max(...counts)]
  return fewest === most ? plural(most, 'round') : `${fewest} to ${plural(most, 'round')}`
}

const ways = (shapes) =>
  `Each × compares what the two reached one right after the other; figures are medians of ${countRounds(shapes)}.`

function describePeers(shapes) {
  const peers = Object.assign({}, ...shapes.map((shape) => shape.peers))
  return Object.values(peers).map(({ version, uses }) => `${version} with ${uses.join(', ')}`)
}

const peerThreads = (shapes) =>
  shapes.flatMap((shape) => shape.configurations.map(({ threads }) => threads)).sort((a, b) => a - b)

function oneBitIntroduction(report, shapes) {
  return (
    `${circumstances(report, shapes)} Through both TypeScript APIs. The peer is ${describePeers(shapes).join('; ')}, at the ` +
    `better of ${list(peerThreads(shapes), 'and')} threads; onebit-run has ${report.onebit.threads}. Embedding and head are ` +
    `of 8 bits on both sides. ${ways(shapes)}`
  )
}

function ternaryIntroduction(report, shapes) {
  const memory = shapes.flatMap((shape) => shape.memory.map(({ gbps }) => gbps))
  return (
    `${circumstances(report, shapes)} Ternary weights. The peers are ${describePeers(shapes).join('; ')}; both sides have ` +
    `${list(peerThreads(shapes))} threads. Percentages: how much of the memory's read speed, measured in each round ` +
    `(${Math.min(...memory).toFixed(1)} to ${Math.max(...memory).toFixed(1)} GB/s), decoding reaches. ${ways(shapes)}`
  )
}

function barLine(shape, { figure, least, isa, ratio: reached, ours, other, against, peerShare, counts, holds }) {
  const asShare = least < 1
  const show = asShare ? percent : (value) => `${value.toFixed(2)} ×`
  const beside = other === undefined ? '' : `; ${speed(ours)} against ${speed(other)} tokens/s`
  const share = peerShare === undefined ? '' : `, which reaches ${percent(peerShare)} of the memory's read speed`
  const verdict = holds ? 'yes' : counts ? 'no' : 'no, but the bar is for a peer that reaches less of the memory'
  const what = `${figure} ${show(reached)} of ${against}${share} (at least ${show(least)}): ${verdict}`
  return wrapped(`- ${shape}, ${ISA_NAMES[isa] ?? isa}: ${what}${beside}`, '  ')
}

function table(shapes, isas, { introduction, ours, peer }) {
  const heads = isas.map((isa) => `onebit-run ${ours}, ${ISA_NAMES[isa] ?? isa}`)
  const columns = ['tokens/s: prefill, decode', `type of ${peer}`, peer, ...heads]
  const rows = shapes.flatMap((one) => tableRows(one, isas).map((row) => line(one.shape, row, isas)))
  const notes = shapes.flatMap(leftOut)
  const bars = shapes.flatMap(({ shape, bars = [] }) => bars.map((bar) => barLine(shape, bar)))
  return [
    wrapped(introduction),
    '',
    `| ${columns.join(' | ')} |`,
    `|---|---|${'---:|'.repeat(columns.length - 2)}`,
    ...rows,
    ...(notes.length > 0 ? ['', 'Not in the table:', ''] : []),
    ...notes.map((note) => wrapped(note, '  ')),
    ...(bars.length > 0 ? ['', 'To be reached:', '', ...bars] : []),
  ]
}

/** @param report what run.mjs writes as JSON */
export function markdown(report) {
  const { isas } = report.onebit
  const [oneBit, ternary] = [true, false].map((wanted) =>
    report.shapes.filter(({ type }) => (type === 'onebit') === wanted),
  )
  const tables = []
  if (oneBit.length > 0) {
    const introduction = oneBitIntroduction(report, oneBit)
    tables.push(table(oneBit, isas, { introduction, ours: '1 bit', peer: 'llama.cpp' }))
  }
  if (ternary.length > 0) {
    const introduction = ternaryIntroduction(report, ternary)
    tables.push(table(ternary, isas, { introduction, ours: 'ternary', peer: 'the peer' }))
  }
  return tables.map((lines) => lines.join('\n')).join('\n\n')
}
