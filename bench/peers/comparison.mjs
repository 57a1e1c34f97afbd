// What the measured pairs amount to. A pair is one measurement of the peer and, next to it, one of this engine on each
// of its instruction sets; a ratio is always taken within a pair, so that a machine whose speed changes from minute to
// minute changes both. A configuration of the peer: { engine, type, bits, threads, pairs: [{ round, peer, ours: { isa } }] } with
// { prefill, decode } in tokens a second; pairs may have `shares` of the memory's read speed, { peer, ours: { isa } }.
import { median } from '../../dist/bench/statistics.js'

export const FIGURES = ['prefill', 'decode']

/**
 * Below this share of the fastest, in both figures of the first round, a configuration is not measured again. In that
 * round it has had two tries, of which the better counts: the peer's threads wait for each other in loops, and a single
 * disturbance can cost it far more than a third.
 */
export const HOPELESS = 0.7

const largest = (values) => Math.max(...values)

/** How fast a configuration is, in units of this engine's speed on `isa`: the median over its pairs. */
export function standing({ pairs }, figure, isa, summary = median) {
  return summary(pairs.map(({ peer, ours }) => peer[figure] / ours[isa][figure]))
}

/** The configuration that is fastest in one figure, by its standing. */
export function fastest(configurations, figure, isa) {
  return configurations.reduce((best, one) => (standing(one, figure, isa) > standing(best, figure, isa) ? one : best))
}

/** A configuration's best try as a share of the best of all: { prefill, decode }. */
export function sharesOfFastest(configuration, configurations, isa) {
  const share = (figure) => {
    const best = largest(configurations.map((one) => standing(one, figure, isa, largest)))
    return standing(configuration, figure, isa, largest) / best
  }
  return Object.fromEntries(FIGURES.map((figure) => [figure, share(figure)]))
}

export function isHopeless(configuration, configurations, isa) {
  const shares = sharesOfFastest(configuration, configurations, isa)
  return FIGURES.every((figure) => shares[figure] < HOPELESS)
}

/** The configurations whose type takes the fewest bits for a weight. */
export function withFewestBits(configurations) {
  const fewest = Math.min(...configurations.map(({ bits }) => bits))
  return configurations.filter(({ bits }) => bits === fewest)
}

/**
 * One row of the table: for each figure the peer's fastest of `configurations`, and this engine beside it.
 * @returns { prefill, decode }, each { type, bits, threads, speed, share, ours: { isa: { speed, ratio, share } } }: medians;
 *   `share` of the memory's read speed, of decode where it was measured
 */
export function tableRow(configurations, isas) {
  const best = isas.at(-1)
  const cell = (figure) => {
    const { type, bits, threads, pairs } = fastest(configurations, figure, best)
    const hasShares = figure === 'decode' && pairs.every(({ shares }) => shares)
    const share = (of) => (hasShares ? { share: median(pairs.map(({ shares }) => of(shares))) } : {})
    const speedsOf = (isa) => ({
      speed: median(pairs.map(({ ours }) => ours[isa][figure])),
      ratio: median(pairs.map(({ peer, ours }) => ours[isa][figure] / peer[figure])),
      ...share(({ ours }) => ours[isa]),
    })
    return {
      type,
      bits,
      threads,
      speed: median(pairs.map(({ peer }) => peer[figure])),
      ...share(({ peer }) => peer),
      ours: Object.fromEntries(isas.map((isa) => [isa, speedsOf(isa)])),
    }
  }
  return Object.fromEntries(FIGURES.map((figure) => [figure, cell(figure)]))
}

/**
 * The rows of one shape: the peer at its fastest, and the peer in the type that is nearest to 1 bit and fits the
 * columns; one row when they are the same. Where this engine is not in 1 bit, a row for each peer on each number of
 * threads: the types are of one size there.
 */
export function tableRows({ type = 'onebit', configurations }, isas) {
  const usable = configurations.filter(({ pairs, dropped }) => pairs.length > 0 && !dropped)
  if (type !== 'onebit') return rowsOfEngines(usable, isas)
  const [any, smallest] = [usable, withFewestBits(usable)].map((some) => tableRow(some, isas))
  const same = FIGURES.every((figure) => any[figure].type === smallest[figure].type)
  if (same) return [{ what: 'fastest, and nearest to 1 bit', ...any }]
  return [
    { what: 'fastest', ...any },
    { what: 'nearest to 1 bit', ...smallest },
  ]
}

function rowsOfEngines(configurations, isas) {
  const nameOf = ({ engine, threads }) => (threads === 1 ? `${engine} on 1 thread` : `${engine} on ${threads} threads`)
  return [...new Set(configurations.map(nameOf))].map((what) => ({
    what,
    ...tableRow(
      configurations.filter((one) => nameOf(one) === what),
      isas,
    ),
  }))
}
