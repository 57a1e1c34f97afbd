// What a comparison is meant to reach, with both sides of each bar: medians of ratios within pairs.

import { median } from '../../dist/bench/statistics.js'
import { fastest } from './comparison.mjs'

const usable = ({ configurations }) => configurations.filter(({ pairs, dropped }) => pairs.length > 0 && !dropped)

function ofMemory(state, bar, isas) {
  const isa = isas.at(-1)
  const pairs = usable(state).flatMap((one) => one.pairs)
  const ratio = median(pairs.map(({ shares }) => shares.ours[isa]))
  return [{ isa, ratio, ours: median(pairs.map(({ ours }) => ours[isa][bar.figure])) }]
}

function ofReference(state, bar, isas) {
  return isas
    .filter((isa) => bar.isas.test(isa))
    .map((isa) => {
      const pairs = usable(state).flatMap((one) => one.pairs)
      const of = (side) => median(pairs.map((pair) => pair[side][isa][bar.figure]))
      const ratio = median(pairs.map((pair) => pair.ours[isa][bar.figure] / pair.reference[isa][bar.figure]))
      return { isa, ratio, ours: of('ours'), other: of('reference'), against: `this engine's ${state.reference}` }
    })
}

/** One line for each engine, in the type and on the threads with which it is fastest in the figure. */
function ofPeers(state, bar, isas) {
  const isa = isas.at(-1)
  const engines = [...new Set(usable(state).map(({ engine }) => engine))]
  return engines.map((engine) => {
    const own = usable(state).filter((one) => one.engine === engine)
    const { type, pairs } = fastest(own, bar.figure, isa)
    const peerShare = pairs[0].shares && median(pairs.map(({ shares }) => shares.peer))
    return {
      isa,
      ratio: median(pairs.map(({ peer, ours }) => ours[isa][bar.figure] / peer[bar.figure])),
      ours: median(pairs.map(({ ours }) => ours[isa][bar.figure])),
      other: median(pairs.map(({ peer }) => peer[bar.figure])),
      against: `${engine} ${type}`,
      ...(bar.figure === 'decode' && { peerShare }),
    }
  })
}

const SIDES = { memory: ofMemory, 'one bit': ofReference, peer: ofPeers }

/**
 * @param state of a shape, as ShapeRounds has it
 * @param bars as in contests.mjs
 * @returns { figure, least, isa, ratio, ours, other, against, peerShare, counts, holds }: tokens a second; `counts`: false
 *   where the peer is nearer to the memory's speed than the bar assumes
 */
export function barsOf(state, bars, isas) {
  if (usable(state).length === 0) return []
  return bars.flatMap((bar) =>
    SIDES[bar.against](state, bar, isas).map((side) => {
      const counts = !bar.where || side.peerShare <= bar.where.peerShareAtMost
      const { figure, least } = bar
      return { figure, least, against: "the memory's read speed", ...side, counts, holds: side.ratio >= least }
    }),
  )
}
