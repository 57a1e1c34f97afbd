// The report of bench/peers/run.mjs as Markdown that can go into the README as it is.
import { FIGURES, HOPELESS, tableRows } from './comparison.mjs'

const ISA_NAMES = {
  scalar: 'scalar',
  avx2: 'AVX2',
  avxvnni: 'AVX-VNNI',
  avx512: 'AVX-512',
  avx512vnni: 'AVX-512 VNNI',
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

function line(shape, row, isas) {
  const peer = FIGURES.map((figure) => speed(row[figure].speed)).join(', ')
  const ours = isas.map((isa) => {
    const cells = FIGURES.map((figure) => row[figure].ours[isa])
    const [speeds, ratios] = [cells.map((cell) => speed(cell.speed)), cells.map((cell) => ratio(cell.ratio))]
    return `${speeds.join(', ')} (${ratios.join(', ')})`
  })
  return `| ${[shape, typesOf(row), peer, ...ours].join(' | ')} |`
}

/** What was measured once only, or not at all, and why. */
function leftOut({ shape, configurations, misfits }) {
  const name = ({ type, threads }) => `${type} on ${plural(threads, 'thread')}`
  const notes = configurations
    .filter(({ refused }) => refused)
    .map((one) => `llama.cpp could not run ${name(one)}: ${one.refused}`)
  const dropped = configurations.filter((one) => one.dropped)
  if (dropped.length > 0) {
    const each = dropped.map(
      (one) => `${name(one)} (${FIGURES.map((figure) => one.dropped[figure].toFixed(2)).join(', ')})`,
    )
    notes.push(`below ${HOPELESS} of llama.cpp's fastest in both figures of the first round: ${each.join('; ')}`)
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

function introduction({ date, machine, peer, onebit, rounds, shapes }) {
  const list = (values) => [...new Set(values)].join(' or ')
  return wrapped(
    `${date}, ${plural(machine.logical_cpus, 'core')} of ${machine.cpu}, random weights of the same shapes on both sides, ` +
      `through both TypeScript APIs: a prompt of ${list(shapes.map(({ work }) => work.prompt))} tokens, then ` +
      `${list(shapes.map(({ work }) => work.tokens))} tokens one by one (\`npm run bench:peers\`). The peer is ` +
      `${peer.version} with ${peer.uses.join(', ')}, at the better of ${peer.threads.join(' and ')} threads; onebit-run ` +
      `has ${onebit.threads}. Embedding and head are of 8 bits on both sides. Each × compares what the two reached one ` +
      `right after the other; figures are medians of ${plural(rounds, 'round')}.`,
  )
}

/** @param report what run.mjs writes as JSON */
export function markdown(report) {
  const { isas } = report.onebit
  const heads = isas.map((isa) => `onebit-run 1 bit, ${ISA_NAMES[isa] ?? isa}`)
  const columns = ['tokens/s: prefill, decode', 'type of llama.cpp', 'llama.cpp', ...heads]
  const rows = report.shapes.flatMap((one) => tableRows(one, isas).map((row) => line(one.shape, row, isas)))
  const notes = report.shapes.flatMap(leftOut)
  return [
    introduction(report),
    '',
    `| ${columns.join(' | ')} |`,
    `|---|---|${'---:|'.repeat(columns.length - 2)}`,
    ...rows,
    ...(notes.length > 0 ? ['', 'Not in the table:', ''] : []),
    ...notes.map((note) => wrapped(note, '  ')),
  ].join('\n')
}
