/**
 * Folders whose linears are ternary by `quantization_config` with the method bitnet: packed two bits a weight with one
 * scale a matrix (BitNet b1.58, Falcon3-1.58bit, Falcon-E, Llama3-8B-1.58), or masters in floats whose every matrix is
 * rounded to -1, 0, 1 when it is used. What transformers makes of them is what they mean.
 */
import { OnebitError } from '../errors.js'
import { addon } from '../native/addon.js'
import { shown } from '../shown-value.js'
import { floatRows, oneScale } from './float-rows.js'
import { HfFields, isObject } from './hf-fields.js'
import { located } from './located.js'
import type { ReadLinear, Taker } from './map-tensors.js'
import { packedRows, type RawTensor } from './raw-tensors.js'
import { rowRanges } from './row-ranges.js'
import { badSource, missingTensor, type SourceTensor, unsupportedArchitecture } from './source.js'

export interface BitnetQuantization {
  /**
   * multiplied: W = t * weight_scale; divided: W = t / weight_scale; rounded: the weights are floats, s = 1 / mean |W| over
   * the matrix, and t = round(W s) within -1..1 is used as t / s
   */
  scale: 'multiplied' | 'divided' | 'rounded'
  /** there is an RMSNorm in front of every linear */
  hasNorms: boolean
  /** linears that are left as they are, by a part of their names */
  untouched: readonly string[]
}

/** Below this the mean of a matrix counts as this. */
const LEAST_MEAN = 1e-5

function unsupported(config: HfFields, key: string): OnebitError {
  return unsupportedArchitecture(`quantised by bitnet with ${key} ${shown(config.get(key))}`)
}

/**
 * @param config of the whole model
 * @throws OnebitError ERR_UNSUPPORTED_TENSOR_TYPE of other methods, ERR_UNSUPPORTED_ARCHITECTURE, ERR_BAD_SOURCE
 */
export function readBitnetQuantization(config: HfFields): BitnetQuantization | undefined {
  const given = config.get('quantization_config')
  // The first folders of this kind, of remote code: masters in floats.
  if (given === undefined && config.get('weight_bits') === 1)
    return { scale: 'rounded', hasNorms: false, untouched: [] }
  if (given === undefined) return undefined
  const fields = new HfFields(isObject(given) ? given : {})
  if (fields.get('quant_method') !== 'bitnet') {
    const message = `config.json: the weights are quantised (quantization_config) by ${shown(fields.get('quant_method'))}`
    throw new OnebitError('ERR_UNSUPPORTED_TENSOR_TYPE', message, {
      hint: 'Only the method bitnet can be read; convert the original model instead.',
    })
  }
  const linear = fields.get('linear_class') ?? 'bitlinear'
  const mode = fields.get('quantization_mode') ?? 'offline'
  if (linear !== 'bitlinear' && linear !== 'autobitlinear') throw unsupported(fields, 'linear_class')
  if (mode !== 'offline' && (mode !== 'online' || linear !== 'autobitlinear'))
    throw unsupported(fields, 'quantization_mode')
  const hasNorms = fields.flag('use_rms_norm')
  const eps = config.number('rms_norm_eps', 1e-6)
  if (hasNorms && fields.number('rms_norm_eps', 1e-6) !== eps) throw unsupported(fields, 'rms_norm_eps')
  const untouched = fields.get('modules_to_not_convert') ?? []
  if (!Array.isArray(untouched) || untouched.some((name) => typeof name !== 'string')) {
    throw badSource(`config.json: modules_to_not_convert must be a list of names, found ${shown(untouched)}`)
  }
  return {
    scale: mode === 'online' ? 'rounded' : linear === 'autobitlinear' ? 'multiplied' : 'divided',
    hasNorms,
    untouched,
  }
}

/** The number that multiplies a matrix, made when it is first asked for. */
function scaleTensor(name: string, make: () => Promise<number>): SourceTensor {
  const read = async () => new Uint8Array(Float32Array.of(await make()).buffer)
  return { name: `${name} (its scale)`, type: 'f32', rows: 1, cols: 1, read }
}

/** Bits 2i of packed row r are row i * rows / 4 + r. */
function unpacked(raw: RawTensor, rows: number, cols: number, scale: SourceTensor): SourceTensor {
  const quarter = rows / 4
  const packed = packedRows(raw, quarter, cols)
  return {
    name: raw.name,
    type: 'codes',
    rows,
    cols,
    scale,
    async read(first, count) {
      const parts: Uint8Array[] = []
      for (let row = first; row < first + count; ) {
        const within = row % quarter
        const run = Math.min(quarter - within, first + count - row)
        const shift = 2 * Math.floor(row / quarter)
        const bytes = await packed(within, run)
        parts.push(located(raw.name, row, () => addon().gatherCodes(bytes, shift, run, cols)))
        row += run
      }
      return Buffer.concat(parts)
    },
  }
}

async function meanOf(tensor: SourceTensor): Promise<number> {
  let sum = 0
  for (const { first, count } of rowRanges(tensor)) {
    const values = await floatRows(tensor, first, count)
    for (const value of values) sum += Math.abs(value)
  }
  return Math.max(sum / (tensor.rows * tensor.cols), LEAST_MEAN)
}

/** Asked for once, when it is needed first: it may take reading a whole matrix. */
function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined
  return () => {
    made ??= make()
    return made
  }
}

/** Half a step is no step: as torch rounds, to the even one. */
const codeOf = (steps: number) => (steps > 0.5 ? 2 : steps < -0.5 ? 0 : 1)

function rounded(master: SourceTensor): SourceTensor {
  const scale = once(async () => Math.fround(1 / (await meanOf(master))))
  return {
    ...master,
    type: 'codes',
    scale: scaleTensor(master.name, async () => Math.fround(1 / (await scale()))),
    async read(first, count) {
      const factor = await scale()
      const values = await floatRows(master, first, count)
      const codes = new Uint8Array(values.length / 4)
      values.forEach((value, i) => {
        codes[i >> 2]! |= codeOf(Math.fround(value * factor)) << (2 * (i & 3))
      })
      return codes
    },
  }
}

function isUntouched({ untouched }: BitnetQuantization, name: string): boolean {
  return untouched.some((part) => `.${name}.`.includes(`.${part}.`))
}

/** The tensors of a linear, ternary ones among them. */
export function readBitnet(take: Taker<RawTensor>, quantization: BitnetQuantization): ReadLinear {
  const { scale, hasNorms } = quantization
  function weightOf(theirs: string, rows: number, cols: number): SourceTensor {
    const name = `${theirs}.weight`
    if (isUntouched(quantization, theirs)) return take.required(name, rows, cols)
    if (cols % 4 !== 0) throw badSource(`Tensor ${name} has ${cols} columns, not a multiple of 4`)
    if (scale === 'rounded') return rounded(take.required(name, rows, cols))
    const raw = take.raw(name)
    if (raw === undefined) throw missingTensor(name)
    if (raw.type !== 'U8') throw badSource(`Tensor ${raw.name} has type ${raw.type}; packed ternary weights are U8`)
    if (rows % 4 !== 0) throw badSource(`Tensor ${raw.name} has ${rows} rows, which four to a byte do not make`)
    const written = take.required(`${theirs}.weight_scale`, 1)
    const factor = once(() => oneScale(written))
    const multiplies = scale === 'multiplied'
    const made = scaleTensor(raw.name, async () => (multiplies ? await factor() : Math.fround(1 / (await factor()))))
    return unpacked(raw, rows, cols, made)
  }
  return function* (theirs, rows, cols) {
    yield ['weight', weightOf(theirs, rows, cols)]
    if (hasNorms && !isUntouched(quantization, theirs))
      yield ['norm_in', take.required(`${theirs}.rms_norm.weight`, cols)]
  }
}
