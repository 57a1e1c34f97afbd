/**
 * The order of value heads in GGUF files of models with a delta rule. The converter puts them tiled: value head h belongs to
 * key head h mod n_k. Where the matrix behind them (w_out) is stored rotated, its columns cannot follow: they stay grouped
 * as in Hugging Face's folders, h belonging to key head h div rep. One order is needed for all, so the rows of everything
 * else are read in the grouped one then.
 */
import type { ModelStructure } from '../config/config.js'
import { deltaWidths } from '../config/tensors.js'
import { type SourceTensor, unsupportedArchitecture } from './source.js'

/** Which row of the tensor is read as a row. */
type Place = (row: number) => number

/** Rows that lie one after another are read together. */
async function readRows(tensor: SourceTensor, first: number, count: number, place: Place): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  for (let row = first; row < first + count; ) {
    let run = 1
    while (row + run < first + count && place(row + run) === place(row) + run) run++
    parts.push(await tensor.read(place(row), run))
    row += run
  }
  return Buffer.concat(parts)
}

function withRows(tensor: SourceTensor, place: Place): SourceTensor {
  return { ...tensor, read: (first, count) => readRows(tensor, first, count, place) }
}

/** The same of a vector, whose elements are what the rows of a matrix are. */
function withElements(tensor: SourceTensor, place: Place): SourceTensor {
  return {
    ...tensor,
    async read() {
      const all = await tensor.read(0, 1)
      const size = all.length / tensor.cols
      const out = new Uint8Array(all.length)
      for (let i = 0; i < tensor.cols; i++) out.set(all.subarray(place(i) * size, (place(i) + 1) * size), i * size)
      return out
    },
  }
}

/** Rows of grouped heads of `size`, behind `before` rows that stay, among tiled ones. */
function tiledPlace(structure: ModelStructure, size: number, before = 0): Place {
  const { delta_k_heads: keys, delta_v_heads: values } = structure
  const rep = values / keys
  return (row) => {
    if (row < before) return row
    const [head, within] = [Math.floor((row - before) / size), (row - before) % size]
    return before + ((head % rep) * keys + Math.floor(head / rep)) * size + within
  }
}

/** What of a layer has value heads as rows, with its rows. */
function placesOf(structure: ModelStructure): [string, Place][] {
  const { channels, inner } = deltaWidths(structure)
  const mixed = tiledPlace(structure, structure.delta_v_dim, channels - inner)
  const head = tiledPlace(structure, 1)
  return [
    ['w_qkv.weight', mixed],
    ['conv', mixed],
    ['w_z.weight', tiledPlace(structure, structure.delta_v_dim)],
    ['w_beta.weight', head],
    ['w_alpha.weight', head],
    ['decay', head],
    ['time_bias', head],
  ]
}

/**
 * Reads what a GGUF file has tiled in the grouped order, if its w_out are rotated in that.
 * @param tensors by our names, some of which are put in others' place
 * @param isGrouped whether the columns of a rotated w_out are grouped
 * @throws OnebitError ERR_UNSUPPORTED_ARCHITECTURE where some are rotated and others are not
 */
export function groupValueHeads(
  tensors: Map<string, SourceTensor>,
  structure: ModelStructure,
  rotations: ReadonlyMap<string, unknown>,
  isGrouped: boolean,
): ModelStructure {
  const layers = structure.delta_layers
  const rotated = layers.filter((layer) => rotations.has(`layers.${layer}.w_out`))
  if (!isGrouped || rotated.length === 0) return structure
  if (rotated.length < layers.length) {
    const other = layers.find((layer) => !rotated.includes(layer))
    throw unsupportedArchitecture(
      `rotated with prism.hadamard.gdn_v_grouped, ssm_out of layer ${rotated[0]} rotated and that of layer ${other} not`,
    )
  }
  for (const layer of layers) {
    for (const [name, place] of placesOf(structure)) {
      const full = `layers.${layer}.${name}`
      const tensor = tensors.get(full)!
      const isVector = name === 'decay' || name === 'time_bias'
      tensors.set(full, isVector ? withElements(tensor, place) : withRows(tensor, place))
    }
  }
  return { ...structure, delta_head_order: 'grouped' }
}
